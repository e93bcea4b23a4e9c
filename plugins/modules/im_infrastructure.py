#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.im_infrastructure."""

from __future__ import annotations

DOCUMENTATION = r"""
module: im_infrastructure
short_description: Manage an infrastructure of the Infrastructure Manager
version_added: 0.1.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - Creates an infrastructure from a RADL or a TOSCA document, adds and removes VMs, and starts, stops, reconfigures and destroys it.
  - The infrastructure is identified by O(infrastructure_id), or by O(name), which is the name in the C(description) of its RADL.
  - When the outcome of a call is unknown, the module checks whether it was carried out. While the server is unavailable it does so for
    O(unavailable_timeout).
  - When several controllers create infrastructures of the same name at once, the oldest is kept. The others are destroyed, and all controllers
    continue with the one that is kept.
  - VMs whose creation was interrupted by the end of the Infrastructure Manager are replaced. An infrastructure without other VMs is destroyed and
    created again, with a warning, since its cloud may have a VM that the Infrastructure Manager does not know.
extends_documentation_fragment:
  - deeptrain.cluster._attributes
  - deeptrain.cluster._im
  - deeptrain.cluster._im.wait
options:
  state:
    description:
      - V(present) creates the infrastructure if it does not exist, adds or removes VMs until their number in each system is that of the RADL, and
        reconfigures an infrastructure whose contextualization has failed. It fails when a VM was terminated in its cloud, and when VMs would have to
        be removed without O(allow_removal).
      - V(absent) destroys the infrastructure. It also waits for one of the name that is being deleted already.
      - V(started) and V(stopped) start and stop all of its VMs.
      - V(reconfigured) runs its contextualization again, with the O(radl) if one is given.
    type: str
    choices: [present, absent, started, stopped, reconfigured]
    default: present
  infrastructure_id:
    description: Id of the infrastructure. Required unless O(name) is set or the document contains a name.
    type: str
  name:
    description:
      - Name of the infrastructure. The default is the name in the document.
      - It is added to a O(radl) without C(description).
    type: str
  radl:
    description: Text of the RADL, for example from the lookup P(ansible.builtin.template#lookup). Excludes O(radl_file) and O(tosca).
    type: str
  radl_file:
    description: File with the RADL, on the host that runs the module. Excludes O(radl) and O(tosca).
    type: path
  tosca:
    description:
      - Text of a TOSCA document. Its C(infra_name) in C(metadata) is the name of the infrastructure, and is required unless O(infrastructure_id)
        is set. Excludes O(radl) and O(radl_file).
      - An existing infrastructure is not changed.
    type: str
  allow_removal:
    description:
      - Whether to remove VMs when a system has more of them than the document. With V(false) the task then fails, and changes nothing.
      - The disks of a removed VM are lost, with the HDFS blocks on them. A training on it is interrupted.
    type: bool
    default: false
  remove:
    description: Ids or host names of the VMs to remove first when there are too many. After these, and by default, the newest are removed.
    type: list
    elements: str
    default: []
  wait_timeout:
    default: 3600
  progress_file:
    description:
      - File to which the module appends a line at each change of the state during the wait.
      - By default the lines are shown on stderr if the module runs on the controller, and not in the background.
    type: path
  on_timeout:
    description:
      - Whether to keep or destroy a new infrastructure that is not configured within O(wait_timeout). The task fails in both cases, and its error
        contains the infrastructure's id.
      - An infrastructure that fails earlier is kept, so that the cause can be found.
    type: str
    choices: [keep, destroy]
    default: keep
  force:
    description: Whether O(state=absent) deletes the infrastructure from the Infrastructure Manager even if some of its VMs cannot be removed.
    type: bool
    default: false
  destroy_all:
    description: >-
      Whether O(state=absent) destroys all infrastructures of the O(name). With V(false) the task fails when there are several.
      Excludes O(infrastructure_id).
    type: bool
    default: false
  secrets:
    description: Whether to return the passwords and private keys of the VMs.
    type: bool
    default: false
attributes:
  check_mode:
    details: The Infrastructure Manager validates a document by its dry run.
  diff_mode:
    details: Shows the number of VMs of each system.
seealso:
  - module: deeptrain.cluster.im_infrastructure_info
  - module: deeptrain.cluster.im_vm
"""

EXAMPLES = r"""
- name: Create a cluster and wait until it is configured
  deeptrain.cluster.im_infrastructure:
    url: https://im.example.org:8800
    auth_file: ~/.im/auth.dat
    radl: "{{ lookup('ansible.builtin.template', 'cluster.radl.j2') }}"
  register: cluster

- name: Destroy the cluster
  deeptrain.cluster.im_infrastructure:
    url: https://im.example.org:8800
    auth_file: ~/.im/auth.dat
    name: deeptrain
    state: absent
"""

RETURN = r"""
infrastructure_id:
  description: Id of the infrastructure.
  type: str
  returned: when the infrastructure exists, also on failure
  sample: 78b872ac-e716-11f1-8ca8-02fc00000001
infrastructure_ids:
  description: Ids of the destroyed infrastructures.
  type: list
  elements: str
  returned: with O(state=absent)
  sample: [78b872ac-e716-11f1-8ca8-02fc00000001]
name:
  description: Name of the infrastructure.
  type: str
  returned: success
  sample: deeptrain
state:
  description: State of the infrastructure in the Infrastructure Manager, or C(absent).
  type: str
  returned: success
  sample: configured
contmsg:
  description: Log of the contextualization.
  type: str
  returned: when the infrastructure exists
  sample: ""
outputs:
  description: Outputs of a TOSCA document.
  type: dict
  returned: when the infrastructure exists
  sample: {}
removed:
  description: Ids of the VMs that were removed because a system had too many, or would be removed in check mode.
  type: list
  elements: str
  returned: with O(state=present)
  sample: ["3"]
estimate:
  description: Resources that the infrastructure would need, by cloud.
  type: dict
  returned: in check mode, when it would be created
  sample: {dummy: {compute: [{cpuCores: 1, memoryInMegabytes: 512}]}}
vms:
  description: VMs of the infrastructure, oldest first.
  type: list
  elements: dict
  returned: when the infrastructure exists
  contains:
    id:
      description: Id of the VM.
      type: str
      sample: "0"
    system:
      description: Name of its RADL system.
      type: str
      sample: worker
    state:
      description: State of the VM.
      type: str
      sample: configured
    hostname:
      description: Host name of the VM.
      type: str
      sample: worker-1
    private_ip:
      description: Address in the private network.
      type: str
      sample: 10.0.0.4
    public_ip:
      description: Public address. On EC2 all VMs have one, and SSH is reachable if the RADL gives the VM a public network.
      type: str
      sample: 203.0.113.4
    ssh_port:
      description: Port of SSH.
      type: int
      sample: 22
    user:
      description: User for SSH.
      type: str
      sample: ubuntu
    password:
      description: Password of that user.
      type: str
      returned: with O(secrets)
      sample: null
    private_key:
      description: Private key of that user.
      type: str
      returned: with O(secrets)
      sample: null
"""

import contextlib
import time
from collections import Counter

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.yaml import HAS_YAML, yaml_load
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import (
    RADL,
    TOSCA,
    ImError,
    NotFound,
    radl_counts,
    radl_deploying,
    radl_name,
    radl_positions,
    radl_secrets,
)
from ansible_collections.deeptrain.cluster.plugins.module_utils._im_module import (
    CONNECTION,
    OUTCOME_SECONDS,
    Interrupted,
    TimedOut,
    VmCreation,
    choose,
    connect,
    describe,
    polls,
    retry_while_unavailable,
    wait_for,
    wait_options,
)

try:
    from radl.radl_parse import parse_radl
except ImportError:
    parse_radl = None

# Maximum number of attempts.
TRIES = 3
# Seconds for which an infrastructure to be destroyed is in another state than `deleting` when its deletion has failed.
FAILED_SECONDS = 5
# Seconds for which a destroyed infrastructure must be missing from the server's list.
ABSENCE_SECONDS = 2


class Infrastructure:
    """The infrastructure of the task."""

    def __init__(self, module, im):
        self.module = module
        self.params = module.params
        self.im = im
        self.text, self.media_type = self.document()
        self.name = self.wanted_name()
        # The id of an infrastructure that this task has created, and no other controller.
        self.created = None
        self.removed = []
        self.id, self.all = None, []
        if self.params["destroy_all"]:
            if self.params["state"] != "absent":
                raise ImError("destroy_all is set with another state than absent: leave it out")
            self.all = im.find(self.name)
        else:
            self.id = choose(im, self.params["infrastructure_id"], self.name)
            self.all = [self.id] if self.id else []
        # Those whose deletion was requested earlier. It may be interrupted, and may fail.
        self.deleting = []
        if self.params["state"] == "absent":
            if not self.params["infrastructure_id"]:
                self.all += im.find(self.name, deleting=True)
            self.deleting = [infrastructure for infrastructure in self.all if self.is_deleting(infrastructure)]

    def is_deleting(self, infrastructure):
        """Return whether an infrastructure is being deleted, or does not exist."""
        try:
            return self.im.state(infrastructure)["state"] == "deleting"
        except NotFound:
            return True

    def document(self):
        """Return the document and its media type."""
        text = self.params["tosca"] or self.params["radl"]
        if self.params["radl_file"]:
            try:
                with open(self.params["radl_file"], encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError) as error:
                raise ImError(f"cannot read radl_file: {error}") from None
        # The server's messages can repeat them.
        self.im.hide(radl_secrets(text or ""))
        if self.params["tosca"]:
            return text, TOSCA
        if text is not None:
            error = radl_error(text)
            if error:
                raise ImError(self.im.scrub(f"the RADL has an error: {error}"))
            if radl_name(text) is None and self.params["name"]:
                # In the first line, so that the server's messages have the right line numbers.
                text = f"description {self.params['name']} () {text}"
        return text, RADL

    def wanted_name(self):
        """Return the name. The document must have the same one, or the infrastructure could not be found by it."""
        name = self.params["name"]
        if self.media_type == TOSCA:
            own = tosca_name(self.text)
            if not own and not self.params["infrastructure_id"]:
                raise ImError(f"the TOSCA document has no name: give its metadata an 'infra_name: {name or 'NAME'}'")
        else:
            own = radl_name(self.text) if self.text else None
        if name and own and name != own:
            raise ImError(f"name is {name}, and the document is named {own}: give both the same name, or leave name out")
        if not (name or own or self.params["infrastructure_id"]):
            raise ImError("the infrastructure has no name: set name, give the RADL a 'description NAME ()', or set infrastructure_id")
        return name or own

    def present(self):
        """Create the infrastructure, or change it to the document; return whether anything changed, and the numbers of VMs before and after."""
        orphaned = []
        if self.id and self.text is not None and not self.module.check_mode:
            orphaned = self.wait_for_vms()
        if self.id is None:
            return self.create()
        if orphaned is None:
            return False, {}, {}
        changed, before, after = (False, {}, {}) if self.media_type == TOSCA or self.text is None else self.scale(orphaned)
        if not changed and self.im.state(self.id)["state"] == "unconfigured":
            return self.reconfigure()
        return changed, before, after

    def wait_for_vms(self):
        """Wait until the server creates no VMs, since they could not be counted before; return the orphaned ones.

        An infrastructure without other VMs is destroyed. Returns None when VMs are being created and the task does not wait.
        """
        creation = VmCreation(self.im, self.id)
        for more in self.wait_polls():
            try:
                created = creation.poll()
            except ImError as error:
                if not more or not error.transient:
                    raise
                continue
            if created is None:
                continue
            vms, orphaned = created
            if len(orphaned) < len(vms) or vms and self.params["infrastructure_id"]:
                return orphaned
            if self.params["infrastructure_id"]:
                raise ImError(f"infrastructure {self.id} has no VMs, and the server creates none: destroy it, and create it by its name")
            if self.destroy_interrupted():
                return None
            creation = VmCreation(self.im, self.id)
        if not self.params["wait"]:
            return None
        raise self.vms_timed_out()

    def vms_timed_out(self):
        return TimedOut(f"VMs of infrastructure {self.id} are still being created after {self.params['wait_timeout']} s: run this again later")

    def destroy_interrupted(self):
        """Destroy an infrastructure all of whose VMs are orphaned; return False when the server refuses."""
        try:
            self.request_deletion(self.id)
        except ImError as error:
            # The server is creating VMs.
            if error.code == 409:
                return False
            raise
        self.wait_until_destroyed([self.id])
        self.module.warn(f"the creation of infrastructure {self.id} was interrupted, and it is created again: check its cloud for VMs of the first one")
        self.id = None
        return True

    def wait_polls(self):
        """Return the polls of a wait; one if the task does not wait."""
        return polls(self.params["wait_timeout"] if self.params["wait"] else 0, self.params["poll"])

    def timeout_polls(self):
        """Return the polls of a wait that the task needs in any case."""
        return polls(self.params["wait_timeout"], self.params["poll"])

    def create(self):
        """Create the infrastructure; return whether anything changed, and the numbers of VMs before and after."""
        if self.params["infrastructure_id"]:
            raise ImError(f"there is no infrastructure {self.params['infrastructure_id']}: leave infrastructure_id out to create one")
        if self.text is None:
            raise ImError("there is no infrastructure of this name: give radl, radl_file or tosca to create it")
        counts = self.wanted_counts() if self.media_type == RADL else {}
        if self.module.check_mode:
            self.estimate = self.im.estimate(self.text, self.media_type)
            return True, {}, counts
        self.deleting = self.im.find(self.name, deleting=True)
        before = self.im.infrastructures()
        for unfinished in self.im.unfinished(before):
            self.module.warn(f"infrastructure {unfinished} has neither name nor VMs: its creation was interrupted. Destroy it by infrastructure_id")
        try:
            self.id = self.created = self.im.create(self.text, self.media_type)
        except ImError as error:
            if not error.outcome_unknown:
                raise
            self.find_created(error, before)
        if self.keep_oldest() != self.created:
            return self.present()
        return True, {}, counts

    def wanted_counts(self):
        """Return the number of VMs of each system that the RADL deploys; raise ImError if there are none."""
        counts = {system: count for system, count in radl_counts(self.text).items() if count}
        if not counts:
            raise ImError("the RADL deploys nothing: add a line such as 'deploy worker 2', or the infrastructure would be empty")
        return counts

    def find_created(self, error, before):
        """Find the infrastructure that a call with an unknown outcome has created, or raise the error.

        The server may be unavailable. From its first answer on it has some seconds to list the infrastructure.
        """
        what, unnamed = str(error).rstrip("."), None
        for _poll in self.outcome_polls():
            try:
                found = self.im.find(self.name)
                # The server ended after it had listed the infrastructure, and before it had its name.
                new = set(self.im.unfinished(set(self.im.infrastructures()) - set(before)))
            except ImError as again:
                outcome = f"Its outcome is unknown ({again}): run this again, which searches for the name first"
                continue
            if found:
                new = set(found) - set(before)
                self.created = self.id = found[0] if new == {found[0]} else None
                return
            outcome = f"There is no infrastructure {self.name} now: run this again"
            # One of another controller has its name soon.
            unnamed = new if unnamed is None else unnamed & new
        for infrastructure in unnamed or () if error.code is None else ():
            self.request_deletion(infrastructure)
        raise ImError(f"{what}. {outcome}", error.code, outcome_unknown=True)

    def outcome_polls(self):
        """Return the polls of OUTCOME_SECONDS from the server's first answer on, and one if it does not answer."""
        with contextlib.suppress(ImError):
            self.im.infrastructures()
            return polls(OUTCOME_SECONDS, OUTCOME_SECONDS / 10, slowing=1)
        return polls(0, 0)

    def keep_oldest(self):
        """Keep the oldest of the infrastructures that several controllers have created at once; return its id.

        It was listed before the others were created, so that their controllers find it here, and each destroys its own infrastructure.
        Those of controllers that have ended meanwhile are destroyed by the remaining ones.
        """
        own, end = self.id, time.monotonic() + self.im.agree_seconds
        while True:
            # One whose earlier deletion has failed is not another controller's.
            found = [infrastructure for infrastructure in self.im.find(self.name, complete=True) if infrastructure not in self.deleting]
            duplicates = [infrastructure for infrastructure in found[1:] if infrastructure != own]
            if own and found and own != found[0] and own in self.im.infrastructures():
                self.log(f"infrastructure {found[0]} was created at the same time as {own}, which is destroyed")
                self.destroy_duplicate(own)
            elif not duplicates:
                self.id = found[0] if found else own
                return self.id
            elif time.monotonic() >= end:
                for duplicate in duplicates:
                    self.destroy_duplicate(duplicate)
                self.module.warn(f"infrastructures {', '.join(duplicates)} were created at the same time as {found[0]}, and are destroyed")
            else:
                time.sleep(self.im.agree_seconds / 10)

    def destroy_duplicate(self, infrastructure):
        """Destroy an infrastructure once it has VMs: if its deletion came first, the server would create them, and then forget them."""
        creation = VmCreation(self.im, infrastructure)
        for _poll in self.timeout_polls():
            try:
                if creation.poll():
                    break
            except NotFound:
                return
            except ImError as error:
                if not error.transient:
                    raise
        self.destroy(infrastructure, retries=self.timeout_polls())
        self.wait_until_destroyed([infrastructure])

    def scale(self, orphaned):
        """Remove the orphaned VMs, then add and remove VMs until their numbers are those of the RADL.

        Returns whether anything changed, and the numbers before and after.
        """
        after = self.wanted_counts()
        existing = self.existing_vms(orphaned)
        before = {system: len(vms) for system, vms in existing.items()}
        missing = missing_vms(existing, after)
        surplus = [vm for system, vms in existing.items() for vm in self.surplus(vms, len(vms) - after.get(system, 0))]
        if surplus and not self.params["allow_removal"]:
            numbers = ", ".join(f"{count} {system} and not {after.get(system, 0)}" for system, count in before.items() if count > after.get(system, 0))
            what = f"infrastructure {self.id} has {numbers}: VMs {', '.join(surplus)} would be removed with all data on them"
            raise ImError(f"{what}. Set the number of existing VMs, or allow_removal (im_cluster_allow_removal in role im_cluster)")
        self.removed = surplus
        if not self.module.check_mode:
            if orphaned or surplus:
                # Adding VMs configures all of them.
                self.remove(orphaned + surplus, context=not missing)
            if missing:
                self.add(missing, after)
        return bool(missing or orphaned or surplus), before, after

    def remove(self, vms, context):
        """Remove VMs; in a retry those that still exist."""

        def remaining():
            existing = self.im.vms(self.id)
            return [vm for vm in vms if vm in existing]

        def call():
            if remaining():
                self.im.remove_vms(self.id, remaining(), context)

        retry_while_unavailable(self.im, call, lambda: not remaining(), OUTCOME_SECONDS)

    def existing_vms(self, without=()):
        """Return ids and host names of the VMs by system, oldest first."""
        existing = {}
        for vm in (vm for vm in self.im.all_vms(self.id) if vm["id"] not in without):
            existing.setdefault(vm["system"], []).append((vm["id"], vm["hostname"]))
        return existing

    def add(self, missing, after):
        """Add VMs. Without an answer, as from a slow cloud, wait until the server has created them, and add those that are still missing."""
        for _try in range(TRIES):
            try:
                added = self.im.add(self.id, radl_deploying(self.text, missing))
            except ImError as error:
                if not error.unavailable:
                    raise
                last = error
            else:
                self.remove_duplicates(added, after)
                return
            orphaned = self.wait_until_created(after)
            if orphaned:
                self.remove(orphaned, context=False)
            missing = missing_vms(self.existing_vms(), after)
            if not missing:
                return
        raise ImError(f"{last}. VMs are missing ({missing}): run this again, which counts them first", outcome_unknown=True)

    def wait_until_created(self, after):
        """Wait until the server creates no VMs; return the orphaned ones."""
        creation = VmCreation(self.im, self.id, lambda vms: len(vms) == sum(after.values()))
        for _poll in self.timeout_polls():
            try:
                created = creation.poll()
            except ImError as error:
                if not error.transient:
                    raise
                continue
            if created:
                return created[1]
        raise self.vms_timed_out()

    def remove_duplicates(self, added, after):
        """Remove the VMs just added that are too many because another controller has added VMs before them."""
        duplicates = [vm for system, vms in self.existing_vms().items() for vm, _name in vms[after.get(system, len(vms)) :] if vm in added]
        if duplicates:
            self.log(f"another controller has added VMs to infrastructure {self.id}: VMs {', '.join(duplicates)} are removed")
            self.remove(duplicates, context=True)

    def surplus(self, vms, count):
        """Return the ids of `count` VMs of a system to remove: first those that the user names, then the newest."""
        if count <= 0:
            return []
        named = [vm for vm, hostname in vms if {vm, hostname} & set(self.params["remove"])]
        newest = [vm for vm, hostname in reversed(vms) if vm not in named]
        return (named + newest)[:count]

    def absent(self):
        """Request the deletion of what is not being deleted yet; return whether anything changed, and the state before and after."""
        existing = [infrastructure for infrastructure in self.all if infrastructure not in self.deleting]
        if not existing:
            return False, {}, {}
        if not self.module.check_mode:
            for infrastructure in existing:
                self.destroy(infrastructure, self.params["force"])
        return True, {"state": "present"}, {"state": "absent"}

    def request_deletion(self, infrastructure, force=False):
        """Request the deletion of an infrastructure, and retry while the server is unavailable."""
        with contextlib.suppress(NotFound):
            retry_while_unavailable(self.im, lambda: self.im.destroy(infrastructure, force), lambda: infrastructure not in self.im.infrastructures())

    def destroy(self, infrastructure, force=False, retries=None):
        """Request the deletion of an infrastructure, and retry while VMs are being added, and after transient errors."""
        errors = 0
        for more in retries or self.wait_polls():
            try:
                self.request_deletion(infrastructure, force)
                return
            except ImError as error:
                errors += error.transient
                if not more or errors == TRIES or not error.transient and error.code != 409:
                    raise

    def operate(self, operation, end):
        """Start or stop all VMs; return whether anything changed, and their states before and after."""
        self.require_existing()
        wanted = {"stopped", "off"} if end == "stopped" else {"running", "configured", "unconfigured"}

        def states():
            return set(self.im.state(self.id)["vm_states"].values())

        before = states()
        if before <= wanted:
            return False, {}, {}
        if not self.module.check_mode:
            retry_while_unavailable(self.im, lambda: self.im.operate(self.id, operation), lambda: states() <= wanted, OUTCOME_SECONDS)
        return True, {"vms": sorted(before)}, {"vms": [end]}

    def reconfigure(self):
        """Run the contextualization again; return that this is a change, and the state before and after."""
        self.require_existing()
        before = {"state": self.im.state(self.id)["state"]}
        if not self.module.check_mode:
            text = self.text if self.media_type == RADL and self.text else ""
            retry_while_unavailable(self.im, lambda: self.im.reconfigure(self.id, text))
        return True, before, {"state": "configured"}

    def require_existing(self):
        if self.id is None:
            raise ImError(f"there is no infrastructure {self.params['infrastructure_id'] or self.name}: create it with state present")

    def wait(self, wanted):
        """Wait for one of the states."""
        wait_for(self.im, self.id, wanted, self.params["wait_timeout"], self.params["poll"], self.log)

    def log(self, line):
        """Append a line to the progress file; an error in writing it does not fail the task."""
        if self.params["progress_file"]:
            with contextlib.suppress(OSError), open(self.params["progress_file"], "a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def destroy_after_timeout(self, timed_out):
        """Destroy an infrastructure that is not configured in time; raise an ImError that says so."""
        try:
            self.destroy(self.id, force=True)
        except ImError as error:
            raise ImError(f"{timed_out}. It could not be destroyed: {error}") from None
        raise ImError(f"{timed_out.args[0].removesuffix(', and continues')}, and is destroyed")

    def wait_until_destroyed(self, infrastructures):
        """Wait until infrastructures are destroyed: until they are missing from the server's list, and still are after a pause.

        The server lists a destroyed infrastructure again when another of its threads saves an older copy after the deletion was saved.
        """
        states, requests, since = dict.fromkeys(infrastructures), Counter(infrastructures), {}
        for _poll in self.timeout_polls():
            try:
                states = self.existing_states(infrastructures)
                if not states:
                    time.sleep(ABSENCE_SECONDS)
                    states = self.existing_states(infrastructures)
                    since = dict.fromkeys(states, float("-inf"))
            except ImError as error:
                if not error.transient:
                    raise
                continue
            if not states:
                return
            now = time.monotonic()
            # At the end of a deletion an infrastructure is in another state for a moment.
            since = {infrastructure: since.get(infrastructure, now) for infrastructure, state in states.items() if state != "deleting"}
            for infrastructure in [infrastructure for infrastructure, first in since.items() if now - first >= FAILED_SECONDS]:
                # VMs could not be removed, the deletion was interrupted by the end of the server, or an older copy was saved.
                if requests[infrastructure] == TRIES:
                    what = f"infrastructure {infrastructure} could not be destroyed and is {states[infrastructure]}"
                    raise ImError(f"{what}: see the Infrastructure Manager's log, or set force")
                requests[infrastructure] += 1
                del since[infrastructure]
                self.destroy(infrastructure, self.params["force"])
        raise TimedOut(f"infrastructure {', '.join(states)} is not destroyed after {self.params['wait_timeout']} s: see its VMs, or set force")

    def existing_states(self, infrastructures):
        """Return the states of those infrastructures that the server lists."""
        states = {}
        for infrastructure in set(infrastructures) & set(self.im.infrastructures()):
            # A destroyed one is listed without a state for a moment.
            with contextlib.suppress(NotFound):
                states[infrastructure] = self.im.state(infrastructure)["state"]
        return states


def missing_vms(existing, after):
    """Return how many VMs of each system are missing."""
    missing = {system: count - len(existing.get(system, ())) for system, count in after.items()}
    return {system: count for system, count in missing.items() if count > 0}


def tosca_name(text):
    """Return the name in the metadata of a TOSCA document."""
    if not HAS_YAML:
        raise ImError("a TOSCA document requires the Python package PyYAML on the host that runs the module: install it")
    try:
        document = yaml_load(text)
    except Exception as error:
        raise ImError(f"the TOSCA document is no YAML: {error}") from None
    if not isinstance(document, dict) or "topology_template" not in document:
        raise ImError("the TOSCA document has no topology_template: give a complete document")
    return (document.get("metadata") or {}).get("infra_name")


def radl_error(text):
    """Return the error in a RADL, or None. Without the Python package RADL only the server finds it."""
    if parse_radl is None:
        return None
    try:
        parse_radl(text).check()
    except Exception as error:
        return radl_positions(text, str(error))
    return None


ACTIONS = {
    "present": lambda target: target.present(),
    "absent": lambda target: target.absent(),
    "started": lambda target: target.operate("start", "running"),
    "stopped": lambda target: target.operate("stop", "stopped"),
    "reconfigured": lambda target: target.reconfigure(),
}
WANTED_STATES = {
    "present": ("configured",),
    "started": ("configured", "running", "unconfigured"),
    "stopped": ("stopped", "off"),
    "reconfigured": ("configured",),
}


def wait_for_state(target):
    """Wait for the wanted state.

    A new infrastructure whose creation is interrupted before it has VMs is created again. One that another controller has destroyed as a duplicate
    of its own is replaced by that.
    """
    for attempt in range(1, TRIES + 1):
        try:
            target.wait(WANTED_STATES[target.params["state"]])
        except Interrupted:
            if not target.created or attempt == TRIES or not target.destroy_interrupted():
                raise
            target.create()
        except NotFound:
            if not target.created or attempt == TRIES or not target.im.find(target.name):
                raise
            target.keep_oldest()
        else:
            # Two that were listed at the same moment may not have found each other before.
            if not target.created or target.keep_oldest() == target.created:
                return
            target.present()


def finish(module, target, changed):
    """Wait if the task waits; return the infrastructure's description."""
    state = module.params["state"]
    if state == "absent":
        if module.params["wait"] and target.all and not module.check_mode:
            target.wait_until_destroyed(target.all)
        return {"state": "absent", "infrastructure_ids": target.all}
    if module.check_mode or target.id is None:
        return {}
    if module.params["wait"] and (changed or state == "present" and target.im.state(target.id)["state"] != "stopped"):
        try:
            wait_for_state(target)
        except TimedOut as error:
            if target.created and target.created == target.id and module.params["on_timeout"] == "destroy":
                target.destroy_after_timeout(error)
            raise
    return describe(target.im, target.id, module.params["secrets"])


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "state": {"type": "str", "choices": ["present", "absent", "started", "stopped", "reconfigured"], "default": "present"},
            "infrastructure_id": {"type": "str"},
            "name": {"type": "str"},
            # A document may contain credentials.
            "radl": {"type": "str", "no_log": True},
            "radl_file": {"type": "path"},
            "tosca": {"type": "str", "no_log": True},
            "allow_removal": {"type": "bool", "default": False},
            "remove": {"type": "list", "elements": "str", "default": []},
            **wait_options(3600),
            "progress_file": {"type": "path"},
            "on_timeout": {"type": "str", "choices": ["keep", "destroy"], "default": "keep"},
            "force": {"type": "bool", "default": False},
            "destroy_all": {"type": "bool", "default": False},
            "secrets": {"type": "bool", "default": False, "no_log": False},
        },
        mutually_exclusive=[("radl", "radl_file", "tosca"), ("infrastructure_id", "destroy_all")],
        supports_check_mode=True,
    )
    im = connect(module)
    target, result = None, {}
    try:
        target = Infrastructure(module, im)
        changed, before, after = ACTIONS[module.params["state"]](target)
        result = {"changed": changed, "diff": {"before": before, "after": after}, "name": target.name, "infrastructure_id": target.id}
        result.update({"removed": target.removed} if module.params["state"] == "present" else {})
        result.update({"estimate": target.estimate} if hasattr(target, "estimate") else {})
        result.update(finish(module, target, changed))
    except ImError as error:
        message = radl_positions(target.text, str(error)) if target and target.text else str(error)
        module.fail_json(msg=message, code=error.code, **{**result, "infrastructure_id": target.id if target else module.params["infrastructure_id"]})
    module.exit_json(**result)


if __name__ == "__main__":
    main()
