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
  - Creates an infrastructure from a RADL or a TOSCA document, adds and removes VMs of it, starts, stops, reconfigures and destroys it.
  - An infrastructure is known by O(infrastructure_id), or by O(name), which is the name that its RADL's C(description) gives it.
  - After an answer that was lost the module checks whether the call was carried out, for O(unavailable_timeout) where the server does not answer.
  - Of infrastructures that several controllers create at once with one name, the oldest is kept. The others are destroyed, and all controllers
    attach to the one that is kept.
  - VMs that the Infrastructure Manager was ended while it made, and does not go on with, are replaced. An infrastructure that has no others is
    destroyed and created again, with a warning, since the Infrastructure Manager may not know a VM that its cloud was just making.
extends_documentation_fragment:
  - deeptrain.cluster._attributes
  - deeptrain.cluster.im
  - deeptrain.cluster.im.wait
options:
  state:
    description:
      - V(present) creates it where there is none, brings the number of VMs of each system to that of the RADL, and configures again one
        whose contextualization has failed. It fails where a VM was ended in its cloud, and where VMs would have to be removed without
        O(allow_removal).
      - V(absent) destroys it, also waits for one of the name that is being deleted already, and V(started) and V(stopped) start and stop all of its VMs.
      - V(reconfigured) runs its contextualization again, with the O(radl) where one is given.
    type: str
    choices: [present, absent, started, stopped, reconfigured]
    default: present
  infrastructure_id:
    description: The infrastructure's id. One of this, O(name) and a named document is needed.
    type: str
  name:
    description:
      - The infrastructure's name. By default that of O(radl).
      - A O(radl) without C(description) is given one of this name.
    type: str
  radl:
    description: The RADL's text, such as the lookup P(ansible.builtin.template#lookup) gives.
    type: str
  radl_file:
    description: A file with the RADL, on the machine that the call is made from.
    type: path
  tosca:
    description:
      - A TOSCA document's text. Give it a C(metadata) C(infra_name), which is the infrastructure's name.
      - An infrastructure that exists is left as it is.
    type: str
  allow_removal:
    description:
      - Whether VMs are removed where there are more of a system than in the document. Otherwise the task fails and changes nothing.
      - With a VM its disks are lost, and the blocks of HDFS on them. A training on it is interrupted.
    type: bool
    default: false
  remove:
    description:
      - VMs to remove first where there are too many, by id or host name. The newest by default.
    type: list
    elements: str
    default: []
  wait_timeout:
    default: 3600
  progress_file:
    description:
      - A file to which a line is added at each change while the task waits.
      - Without it the lines are shown on stderr, where the module runs on the controller and not in the background.
    type: path
  on_timeout:
    description:
      - What becomes of an infrastructure that was just created and is not configured in time. Its id is in the error either way.
      - One that failed is kept, for a look at why.
    type: str
    choices: [keep, destroy]
    default: keep
  force:
    description: With O(state=absent), whether an infrastructure is forgotten some of whose VMs cannot be removed.
    type: bool
    default: false
  destroy_all:
    description:
      - With O(state=absent), whether all infrastructures of the O(name) are destroyed. Otherwise the task fails where there are several.
    type: bool
    default: false
  secrets:
    description: Whether passwords and private keys of VMs are returned.
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
- name: Create a cluster and wait until it can be used
  deeptrain.cluster.im_infrastructure:
    url: https://im.example.org:8800
    auth_file: ~/.im/auth.dat
    radl: "{{ lookup('ansible.builtin.template', 'cluster.radl.j2') }}"
  register: cluster

- name: Destroy it
  deeptrain.cluster.im_infrastructure:
    url: https://im.example.org:8800
    auth_file: ~/.im/auth.dat
    name: deeptrain
    state: absent
"""

RETURN = r"""
infrastructure_id:
  description: The id.
  type: str
  returned: when there is an infrastructure, also on failure
  sample: 78b872ac-e716-11f1-8ca8-02fc00000001
infrastructure_ids:
  description: The ids of all infrastructures that were destroyed.
  type: list
  elements: str
  returned: with O(state=absent)
  sample: [78b872ac-e716-11f1-8ca8-02fc00000001]
name:
  description: The name.
  type: str
  returned: success
  sample: deeptrain
state:
  description: The state as the Infrastructure Manager calls it, or C(absent).
  type: str
  returned: success
  sample: configured
contmsg:
  description: What the contextualization said.
  type: str
  returned: when there is an infrastructure
  sample: ""
outputs:
  description: The outputs of a TOSCA document.
  type: dict
  returned: when there is an infrastructure
  sample: {}
removed:
  description: Ids of the VMs that were removed since there were too many of a system, or in check mode would be.
  type: list
  elements: str
  returned: with O(state=present)
  sample: ["3"]
estimate:
  description: What the infrastructure would take, by cloud.
  type: dict
  returned: in check mode, when it would be created
  sample: {dummy: {compute: [{cpuCores: 1, memoryInMegabytes: 512}]}}
vms:
  description: The VMs, the oldest first.
  type: list
  elements: dict
  returned: when there is an infrastructure
  contains:
    id:
      description: The VM's id.
      type: str
      sample: "0"
    system:
      description: Name of its RADL system.
      type: str
      sample: worker
    state:
      description: Its state.
      type: str
      sample: configured
    hostname:
      description: Its host name.
      type: str
      sample: worker-1
    private_ip:
      description: Its address in the private network.
      type: str
      sample: 10.0.0.4
    public_ip:
      description: Its address outside. On EC2 all have one, and SSH answers where the RADL gives the VM a public network.
      type: str
      sample: 203.0.113.4
    ssh_port:
      description: The port of its SSH.
      type: int
      sample: 22
    user:
      description: The user of its SSH.
      type: str
      sample: ubuntu
    password:
      description: That user's password.
      type: str
      returned: with O(secrets)
      sample: null
    private_key:
      description: That user's private key.
      type: str
      returned: with O(secrets)
      sample: null
"""

import contextlib
import time
from collections import Counter

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.yaml import HAS_YAML, yaml_load
from ansible_collections.deeptrain.cluster.plugins.module_utils.im import (
    RADL,
    TOSCA,
    ImError,
    NotFound,
    radl_counts,
    radl_deploying,
    radl_name,
    radl_places,
    radl_secrets,
)
from ansible_collections.deeptrain.cluster.plugins.module_utils.im_module import (
    CONNECTION,
    LOST_SECONDS,
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

# How often a call is made that can be made twice.
TRIES = 3
# How long an infrastructure that was destroyed is in another state before that has failed.
LEFT_SECONDS = 5
# For this long a destroyed infrastructure must be missing from the server's list.
ABSENCE_SECONDS = 2


class Infrastructure:
    """The infrastructure that the task is about."""

    def __init__(self, module, im):
        self.module = module
        self.params = module.params
        self.im = im
        self.text, self.media_type = self.document()
        self.name = self.wanted_name()
        # The id of the infrastructure that this task has created, and no other controller.
        self.created, self.leaving = None, []
        self.removed = []
        self.id, self.all = None, []
        if self.params["destroy_all"]:
            if self.params["state"] != "absent":
                raise ImError("destroy_all is set with another state than absent: leave it out")
            self.all = im.find(self.name)
        else:
            self.id = choose(im, self.params["infrastructure_id"], self.name)
            self.all = [self.id] if self.id else []
        self.deleting = []
        if self.params["state"] == "absent":
            # A deletion that was interrupted is under way still, and may fail.
            if not self.params["infrastructure_id"]:
                self.all += im.find(self.name, deleting=True)
            self.deleting = [infrastructure for infrastructure in self.all if self.is_being_destroyed(infrastructure)]

    def is_being_destroyed(self, infrastructure):
        """Return whether an infrastructure is being deleted, or is gone."""
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
        # They might come back in a message.
        self.im.hide(radl_secrets(text or ""))
        if self.params["tosca"]:
            return text, TOSCA
        if text is not None:
            problem = radl_problem(text)
            if problem:
                raise ImError(self.im.scrub(f"the RADL has an error: {problem}"))
            if radl_name(text) is None and self.params["name"]:
                # In its first line, so that the server's words of other lines stay right.
                text = f"description {self.params['name']} () {text}"
        return text, RADL

    def wanted_name(self):
        """Return the name, which the document must agree with, or it would not be found again."""
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
        left = []
        if self.id and self.text is not None and not self.module.check_mode:
            left = self.settled()
        if self.id is None:
            return self.create()
        if left is None:
            return False, {}, {}
        changed, before, after = (False, {}, {}) if self.media_type == TOSCA or self.text is None else self.resize(left)
        if not changed and self.im.state(self.id)["state"] == "unconfigured":
            return self.reconfigure()
        return changed, before, after

    def settled(self):
        """Wait until no VMs are being made, which could not be counted; return those that nobody goes on making.

        An infrastructure that has no others is destroyed. None means that they are being made, and not to be waited for.
        """
        creation = VmCreation(self.im, self.id)
        for more in self.polls():
            try:
                made = creation.poll()
            except ImError as error:
                if not more or not error.transient:
                    raise
                continue
            if made is None:
                continue
            vms, left = made
            if len(left) < len(vms) or vms and self.params["infrastructure_id"]:
                return left
            if self.params["infrastructure_id"]:
                raise ImError(f"infrastructure {self.id} has no VMs, and nobody makes any: destroy it, and create it by its name")
            if self.cleared():
                return None
            creation = VmCreation(self.im, self.id)
        if not self.params["wait"]:
            return None
        raise TimedOut(f"infrastructure {self.id} is still getting VMs after {self.params['wait_timeout']} s: run this again later")

    def cleared(self):
        """Destroy an infrastructure all of whose VMs nobody goes on making; return whether that could be done."""
        try:
            self.send_destroy(self.id)
        except ImError as error:
            # The server refuses while it makes VMs.
            if error.code == 409:
                return False
            raise
        self.wait_until_destroyed([self.id])
        self.module.warn(f"infrastructure {self.id} was broken off, and is made again: see that its cloud has no VM of the first one")
        self.id = None
        return True

    def polls(self):
        """Return the looks of a wait; one where the user does not want to wait."""
        return polls(self.params["wait_timeout"] if self.params["wait"] else 0, self.params["poll"])

    def create(self):
        """Create it; return whether anything changed, and the numbers of VMs before and after."""
        if self.params["infrastructure_id"]:
            raise ImError(f"there is no infrastructure {self.params['infrastructure_id']}: leave infrastructure_id out to create one")
        if self.text is None:
            raise ImError("there is no infrastructure of this name: give radl, radl_file or tosca to create it")
        counts = self.counts() if self.media_type == RADL else {}
        if self.module.check_mode:
            self.estimate = self.im.estimate(self.text, self.media_type)
            return True, {}, counts
        self.leaving = self.im.find(self.name, deleting=True)
        before = self.im.infrastructures()
        for unfinished in self.im.unfinished(before):
            self.module.warn(f"infrastructure {unfinished} has neither name nor VMs: its creation was broken off, destroy it by infrastructure_id")
        try:
            self.id = self.created = self.im.create(self.text, self.media_type)
        except ImError as error:
            if not error.outcome_unknown:
                raise
            self.find_lost(error, before)
        if self.agree() != self.created:
            return self.present()
        return True, {}, counts

    def counts(self):
        """Return how many VMs of each system the RADL deploys, which may not be none."""
        counts = {system: count for system, count in radl_counts(self.text).items() if count}
        if not counts:
            raise ImError("the RADL deploys nothing: add a line such as 'deploy worker 2', or the infrastructure would be empty")
        return counts

    def find_lost(self, error, before):
        """Find what a call that was not answered has created all the same, or raise the error.

        The server may be unavailable; once it answers, it has some seconds to show the infrastructure.
        """
        what, nameless = str(error).rstrip("."), None
        for _poll in self.polls_when_available():
            try:
                found = self.im.find(self.name)
                # What a server left that ended after it had listed the infrastructure, before it knew its name.
                new = set(self.im.unfinished(set(self.im.infrastructures()) - set(before)))
            except ImError as again:
                seen = f"Whether it was carried out could not be seen ({again}): run this again, which searches for the name first"
                continue
            if found:
                new = set(found) - set(before)
                self.created = self.id = found[0] if new == {found[0]} else None
                return
            seen = f"There is no infrastructure {self.name} now: run this again"
            # Another controller's has its name soon.
            nameless = new if nameless is None else nameless & new
        for rest in nameless or () if error.code is None else ():
            self.send_destroy(rest)
        raise ImError(f"{what}. {seen}", error.code, outcome_unknown=True)

    def polls_when_available(self):
        """Return the polls of some seconds from the server's first answer, and one where it does not answer."""
        with contextlib.suppress(ImError):
            self.im.infrastructures()
            return polls(LOST_SECONDS, LOST_SECONDS / 10, slowing=1)
        return polls(0, 0)

    def agree(self):
        """Return the id of the infrastructure that is kept of those that several controllers created at once.

        It is the oldest, which the controllers of all younger ones find here, since it was listed before they were. So each destroys
        its own but the oldest. What a controller leaves that ended meanwhile is destroyed by those that are left.
        """
        own, end = self.id, time.monotonic() + self.im.agree_seconds
        while True:
            # One that could not be destroyed before is no other controller's.
            found = [one for one in self.im.find(self.name, complete=True) if one not in self.leaving]
            others = [one for one in found[1:] if one != own]
            if own and found and own != found[0] and own in self.im.infrastructures():
                self.say(f"infrastructure {found[0]} was created at the same time as {own}, which is destroyed")
                self.withdraw(own)
            elif not others:
                self.id = found[0] if found else own
                return self.id
            elif time.monotonic() >= end:
                for other in others:
                    self.withdraw(other)
                self.module.warn(f"infrastructures {', '.join(others)} were created at the same time as {found[0]}, and are destroyed")
            else:
                time.sleep(self.im.agree_seconds / 10)

    def withdraw(self, infrastructure):
        """Destroy an infrastructure whose VMs may be about to be made: before that, the server would make them all the same, and not know them."""
        creation = VmCreation(self.im, infrastructure)
        for _poll in polls(self.params["wait_timeout"], self.params["poll"]):
            try:
                if creation.poll():
                    break
            except NotFound:
                return
            except ImError as error:
                if not error.transient:
                    raise
        self.destroy(infrastructure, seconds=self.params["wait_timeout"])
        self.wait_until_destroyed([infrastructure])

    def resize(self, left):
        """Bring the number of VMs to the RADL's, without those left; return whether anything changed, and the numbers before and after."""
        after = self.counts()
        there = self.there(left)
        before = {system: len(vms) for system, vms in there.items()}
        missing = missing_vms(there, after)
        surplus = [vm for system, vms in there.items() for vm in self.surplus(vms, len(vms) - after.get(system, 0))]
        if surplus and not self.params["allow_removal"]:
            numbers = ", ".join(f"{count} {system} and not {after.get(system, 0)}" for system, count in before.items() if count > after.get(system, 0))
            what = f"infrastructure {self.id} has {numbers}: VMs {', '.join(surplus)} would be removed with all data on them"
            raise ImError(f"{what}. Set the number that exists, or allow_removal (im_cluster_allow_removal in role im_cluster)")
        self.removed = surplus
        if not self.module.check_mode:
            if left or surplus:
                # With new ones to come, all are configured once, then.
                self.remove(left + surplus, context=not missing)
            if missing:
                self.add(missing, after)
        return bool(missing or left or surplus), before, after

    def remove(self, vms, context):
        """Remove VMs, those that are left after an answer that was lost."""

        def rest():
            there = self.im.vms(self.id)
            return [vm for vm in vms if vm in there]

        def call():
            if rest():
                self.im.remove_vms(self.id, rest(), context)

        retry_while_unavailable(self.im, call, lambda: not rest(), LOST_SECONDS)

    def there(self, without=()):
        """Return ids and host names of the VMs by system, the oldest first."""
        there = {}
        for vm in (vm for vm in self.im.all_vms(self.id) if vm["id"] not in without):
            there.setdefault(vm["system"], []).append((vm["id"], vm["hostname"]))
        return there

    def add(self, missing, after):
        """Add VMs; where no answer comes, which is so where a cloud is slow, wait until the server has made them, and add the rest."""
        for _try in range(TRIES):
            try:
                added = self.im.add(self.id, radl_deploying(self.text, missing))
            except ImError as error:
                if not error.unavailable:
                    raise
                lost = error
            else:
                self.remove_doubled(added, after)
                return
            left = self.wait_until_made(after)
            if left:
                self.remove(left, context=False)
            missing = missing_vms(self.there(), after)
            if not missing:
                return
        raise ImError(f"{lost}. VMs are missing ({missing}): run this again, which counts them first", outcome_unknown=True)

    def wait_until_made(self, after):
        """Wait until no VMs are being made; return those that nobody goes on making."""
        creation = VmCreation(self.im, self.id, lambda vms: len(vms) == sum(after.values()))
        for _poll in polls(self.params["wait_timeout"], self.params["poll"]):
            try:
                made = creation.poll()
            except ImError as error:
                if not error.transient:
                    raise
                continue
            if made:
                return made[1]
        raise TimedOut(f"infrastructure {self.id} is still getting VMs after {self.params['wait_timeout']} s: run this again later")

    def remove_doubled(self, added, after):
        """Remove those of the VMs just added that are too many, since another controller has added as many before them."""
        doubled = [vm for system, vms in self.there().items() for vm, _name in vms[after.get(system, len(vms)) :] if vm in added]
        if doubled:
            self.say(f"infrastructure {self.id} has got VMs by another controller: VMs {', '.join(doubled)} are removed")
            self.remove(doubled, context=True)

    def surplus(self, vms, count):
        """Return the ids of so many of a system's VMs: first those that the user names, then the newest."""
        if count <= 0:
            return []
        named = [vm for vm, hostname in vms if {vm, hostname} & set(self.params["remove"])]
        newest = [vm for vm, hostname in reversed(vms) if vm not in named]
        return (named + newest)[:count]

    def absent(self):
        """Start to destroy what is not being deleted yet."""
        existing = [infrastructure for infrastructure in self.all if infrastructure not in self.deleting]
        if not existing:
            return False, {}, {}
        if not self.module.check_mode:
            for infrastructure in existing:
                self.destroy(infrastructure, self.params["force"])
        return True, {"state": "present"}, {"state": "absent"}

    def send_destroy(self, infrastructure, force=False):
        """Start to destroy an infrastructure, again after an answer that was lost."""
        with contextlib.suppress(NotFound):
            retry_while_unavailable(self.im, lambda: self.im.destroy(infrastructure, force), lambda: infrastructure not in self.im.infrastructures())

    def destroy(self, infrastructure, force=False, seconds=None):
        """Start to destroy an infrastructure: later when VMs are just being added, and again when it failed in the server."""
        lost = 0
        for more in self.polls() if seconds is None else polls(seconds, self.params["poll"]):
            try:
                self.send_destroy(infrastructure, force)
                return
            except ImError as error:
                lost += error.transient
                if not more or lost == TRIES or not error.transient and error.code != 409:
                    raise

    def operate(self, operation, end):
        """Start or stop all VMs."""
        self.require()
        here = {"stopped", "off"} if end == "stopped" else {"running", "configured", "unconfigured"}

        def states():
            return set(self.im.state(self.id)["vm_states"].values())

        def done():
            return states() <= here

        before = states()
        if before <= here:
            return False, {}, {}
        if not self.module.check_mode:
            retry_while_unavailable(self.im, lambda: self.im.operate(self.id, operation), done, LOST_SECONDS)
        return True, {"vms": sorted(before)}, {"vms": [end]}

    def reconfigure(self):
        self.require()
        before = {"state": self.im.state(self.id)["state"]}
        if not self.module.check_mode:
            text = self.text if self.media_type == RADL and self.text else ""
            retry_while_unavailable(self.im, lambda: self.im.reconfigure(self.id, text))
        return True, before, {"state": "configured"}

    def require(self):
        if self.id is None:
            raise ImError(f"there is no infrastructure {self.params['infrastructure_id'] or self.name}: create it with state present")

    def wait(self, wanted):
        """Wait for one of the states."""
        wait_for(self.im, self.id, wanted, self.params["wait_timeout"], self.params["poll"], self.say)

    def say(self, line):
        """Add a line to the progress; that it cannot be shown is no reason to fail."""
        if self.params["progress_file"]:
            with contextlib.suppress(OSError), open(self.params["progress_file"], "a", encoding="utf-8") as file:
                file.write(f"{line}\n")

    def give_up(self, late):
        """Destroy what is not ready in time; raise ImError that says so."""
        try:
            self.destroy(self.id, force=True)
        except ImError as error:
            raise ImError(f"{late}. It could not be destroyed: {error}") from None
        raise ImError(f"{late.args[0].removesuffix(', and goes on')}, and is destroyed")

    def wait_until_destroyed(self, infrastructures):
        """Wait until infrastructures are destroyed: until they are missing from the server's list, and still are after a pause.

        The server lists a destroyed infrastructure again when another of its threads saves an older copy after the deletion was saved.
        """
        states, requests, since = dict.fromkeys(infrastructures), Counter(infrastructures), {}
        for _poll in polls(self.params["wait_timeout"], self.params["poll"]):
            try:
                states = self.states_of_existing(infrastructures)
                if not states:
                    time.sleep(ABSENCE_SECONDS)
                    states = self.states_of_existing(infrastructures)
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
            for infrastructure in [infrastructure for infrastructure, first in since.items() if now - first >= LEFT_SECONDS]:
                # VMs could not be removed, the deletion was interrupted by a restart of the server, or an older copy was saved.
                if requests[infrastructure] == TRIES:
                    what = f"infrastructure {infrastructure} could not be destroyed and is {states[infrastructure]}"
                    raise ImError(f"{what}: see the Infrastructure Manager's log, or set force")
                requests[infrastructure] += 1
                del since[infrastructure]
                self.destroy(infrastructure, self.params["force"])
        raise TimedOut(f"infrastructure {', '.join(states)} is not destroyed after {self.params['wait_timeout']} s: see its VMs, or set force")

    def states_of_existing(self, infrastructures):
        """Return the states of those infrastructures that the server lists."""
        states = {}
        for infrastructure in set(infrastructures) & set(self.im.infrastructures()):
            # For a moment a destroyed one is listed, and has no state.
            with contextlib.suppress(NotFound):
                states[infrastructure] = self.im.state(infrastructure)["state"]
        return states


def missing_vms(there, after):
    """Return how many VMs of each system are missing."""
    missing = {system: count - len(there.get(system, ())) for system, count in after.items()}
    return {system: count for system, count in missing.items() if count > 0}


def tosca_name(text):
    """Return the name that a TOSCA document's metadata gives."""
    if not HAS_YAML:
        raise ImError("a TOSCA document needs Python's package PyYAML here: install it")
    try:
        document = yaml_load(text)
    except Exception as error:
        raise ImError(f"the TOSCA document is no YAML: {error}") from None
    if not isinstance(document, dict) or "topology_template" not in document:
        raise ImError("the TOSCA document has no topology_template: give a whole one")
    return (document.get("metadata") or {}).get("infra_name")


def radl_problem(text):
    """Return what is wrong with a RADL, where Python's package RADL is there to find it; otherwise the server finds it."""
    if parse_radl is None:
        return None
    try:
        parse_radl(text).check()
    except Exception as error:
        return radl_places(text, str(error))
    return None


ACTIONS = {
    "present": lambda it: it.present(),
    "absent": lambda it: it.absent(),
    "started": lambda it: it.operate("start", "running"),
    "stopped": lambda it: it.operate("stop", "stopped"),
    "reconfigured": lambda it: it.reconfigure(),
}
ENDS = {
    "present": ("configured",),
    "started": ("configured", "running", "unconfigured"),
    "stopped": ("stopped", "off"),
    "reconfigured": ("configured",),
}


def wait_for_it(it):
    """Wait; what was just created, and broken off before it had VMs, is created again, and what another controller created before it is taken."""
    for attempt in range(1, TRIES + 1):
        try:
            it.wait(ENDS[it.params["state"]])
        except Interrupted:
            if not it.created or attempt == TRIES or not it.cleared():
                raise
            it.create()
        except NotFound:
            if not it.created or attempt == TRIES or not it.im.find(it.name):
                raise
            it.agree()
        else:
            # One that was listed at the same moment may have been seen by neither.
            if not it.created or it.agree() == it.created:
                return
            it.present()


def finish(module, it, changed):
    """Wait where that is wanted, and return what there is then."""
    state = module.params["state"]
    if state == "absent":
        if module.params["wait"] and it.all and not module.check_mode:
            it.wait_until_destroyed(it.all)
        return {"state": "absent", "infrastructure_ids": it.all}
    if module.check_mode or it.id is None:
        return {}
    if module.params["wait"] and (changed or state == "present" and it.im.state(it.id)["state"] != "stopped"):
        try:
            wait_for_it(it)
        except TimedOut as error:
            if it.created and it.created == it.id and module.params["on_timeout"] == "destroy":
                it.give_up(error)
            raise
    return describe(it.im, it.id, module.params["secrets"])


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "state": {"type": "str", "choices": ["present", "absent", "started", "stopped", "reconfigured"], "default": "present"},
            "infrastructure_id": {"type": "str"},
            "name": {"type": "str"},
            # They may carry credentials.
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
    it, result = None, {}
    try:
        it = Infrastructure(module, im)
        changed, before, after = ACTIONS[module.params["state"]](it)
        result = {"changed": changed, "diff": {"before": before, "after": after}, "name": it.name, "infrastructure_id": it.id}
        result.update({"removed": it.removed} if module.params["state"] == "present" else {})
        result.update({"estimate": it.estimate} if hasattr(it, "estimate") else {})
        result.update(finish(module, it, changed))
    except ImError as error:
        words = radl_places(it.text, str(error)) if it and it.text else str(error)
        module.fail_json(msg=words, code=error.code, **{**result, "infrastructure_id": it.id if it else module.params["infrastructure_id"]})
    module.exit_json(**result)


if __name__ == "__main__":
    main()
