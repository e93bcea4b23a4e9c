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
  - After an answer that was lost the module looks for the name before it would create an infrastructure, so that there is never a second one.
extends_documentation_fragment: deeptrain.cluster.im
options:
  state:
    description:
      - V(present) creates it where there is none, brings the number of VMs of each system to that of the RADL, and configures again one
        whose contextualization has failed.
      - V(absent) destroys it, and V(started) and V(stopped) start and stop all of its VMs.
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
  remove:
    description:
      - VMs to remove first where there are too many, by id or host name. The newest by default.
    type: list
    elements: str
    default: []
  wait:
    description: Whether to wait until what was started has ended.
    type: bool
    default: true
  wait_timeout:
    description: How long to wait, in seconds.
    type: int
    default: 3600
  poll:
    description: How long to wait at first between two looks, in seconds. It grows to ten times that.
    type: float
    default: 3
  on_timeout:
    description: What becomes of an infrastructure that was just created and is not configured in time. Its id is in the error either way.
    type: str
    choices: [keep, destroy]
    default: keep
  force:
    description: With O(state=absent), whether an infrastructure is forgotten some of whose VMs cannot be removed.
    type: bool
    default: false
  secrets:
    description: Whether passwords and private keys of VMs are returned.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and say what it would change. A document is then tried by the Infrastructure Manager's dry run.
    support: full
  diff_mode:
    description: Shows the number of VMs of each system.
    support: full
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
      description: Its address outside.
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

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils.im import (
    RADL,
    TOSCA,
    ImError,
    radl_counts,
    radl_deploying,
    radl_name,
)
from ansible_collections.deeptrain.cluster.plugins.module_utils.im_module import (
    CONNECTION,
    choose,
    connect,
    describe,
    wait_for,
)

try:
    from radl.radl_parse import parse_radl
except ImportError:
    parse_radl = None

# How often, and how long, an infrastructure is looked for whose creation was not answered.
LOST_TRIES = 6
LOST_PAUSE = 2


class Infrastructure:
    """The infrastructure that the task is about."""

    def __init__(self, module, im):
        self.module = module
        self.params = module.params
        self.im = im
        self.text, self.media_type = self.document()
        self.name = self.wanted_name()
        self.id = choose(im, self.params["infrastructure_id"], self.name)

    def document(self):
        """Return the document and its media type."""
        if self.params["tosca"]:
            return self.params["tosca"], TOSCA
        text = self.params["radl"]
        if self.params["radl_file"]:
            try:
                with open(self.params["radl_file"], encoding="utf-8") as file:
                    text = file.read()
            except (OSError, UnicodeDecodeError) as error:
                raise ImError(f"cannot read radl_file: {error}") from None
        if text is not None:
            check_radl(text)
            if radl_name(text) is None and self.params["name"]:
                text = f"description {self.params['name']} ()\n{text}"
        return text, RADL

    def wanted_name(self):
        """Return the name, which a RADL must agree with."""
        name = self.params["name"]
        own = radl_name(self.text) if self.text and self.media_type == RADL else None
        if name and own and name != own:
            raise ImError(f"name is {name}, and the RADL's description is named {own}: give both the same name, or leave name out")
        if not (name or own or self.params["infrastructure_id"]):
            raise ImError("the infrastructure has no name: set name, give the RADL a 'description NAME ()', or set infrastructure_id")
        return name or own

    def present(self):
        if self.id is None:
            return self.create()
        changed, before, after = (False, {}, {}) if self.media_type == TOSCA or self.text is None else self.resize()
        if not changed and self.im.state(self.id)["state"] == "unconfigured":
            return self.reconfigure()
        return changed, before, after

    def create(self):
        """Create it; return whether anything changed, and the numbers of VMs before and after."""
        if self.params["infrastructure_id"]:
            raise ImError(f"there is no infrastructure {self.params['infrastructure_id']}: leave infrastructure_id out to create one")
        if self.text is None:
            raise ImError("there is no infrastructure of this name: give radl, radl_file or tosca to create it")
        counts = radl_counts(self.text) if self.media_type == RADL else {}
        if self.media_type == RADL and not sum(counts.values()):
            raise ImError("the RADL deploys nothing: add a line such as 'deploy worker 2', or the infrastructure would be empty")
        if self.module.check_mode:
            self.estimate = self.im.estimate(self.text, self.media_type)
            return True, {}, counts
        try:
            self.id = self.im.create(self.text, self.media_type)
        except ImError as error:
            if not error.lost:
                raise
            self.id = self.look_for_lost(error)
        return True, {}, counts

    def look_for_lost(self, error):
        """Return the id of what a call that was not answered has created all the same."""
        for number in range(LOST_TRIES):
            time.sleep(LOST_PAUSE if number else 0)
            try:
                found = choose(self.im, None, self.name)
            except ImError as again:
                if not again.lost and again.code is None and number == LOST_TRIES - 1:
                    raise
                continue
            if found:
                return found
        raise ImError(f"{error}. No infrastructure of the name {self.name} is there now; run this again, which looks for it first", error.code)

    def resize(self):
        """Bring the number of VMs to the RADL's; return whether anything changed, and the numbers before and after."""
        wanted = radl_counts(self.text)
        there = {}
        for vm in self.im.vms(self.id):
            described = self.im.vm(self.id, vm)
            there.setdefault(described["system"], []).append((vm, described["hostname"]))
        before = {system: len(vms) for system, vms in there.items()}
        after = {system: count for system, count in wanted.items() if count}
        missing = {system: count - before.get(system, 0) for system, count in after.items() if count > before.get(system, 0)}
        surplus = [vm for system, vms in there.items() for vm in self.surplus(vms, len(vms) - after.get(system, 0))]
        if not self.module.check_mode:
            if surplus:
                # With new ones to come, all are configured once, then.
                self.im.remove_vms(self.id, surplus, context=not missing)
            if missing:
                self.im.add(self.id, radl_deploying(self.text, missing))
        return bool(missing or surplus), before, after

    def surplus(self, vms, count):
        """Return the ids of so many of a system's VMs: first those that the user names, then the newest."""
        if count <= 0:
            return []
        named = [vm for vm, hostname in vms if {vm, hostname} & set(self.params["remove"])]
        newest = [vm for vm, hostname in reversed(vms) if vm not in named]
        return (named + newest)[:count]

    def absent(self):
        if self.id is None:
            return False, {}, {}
        if not self.module.check_mode:
            try:
                self.im.destroy(self.id, self.params["force"])
            except ImError as error:
                if error.code != 404 and not error.lost:
                    raise
        return True, {"state": "present"}, {"state": "absent"}

    def operate(self, operation, end):
        """Start or stop all VMs."""
        self.require()
        states = set(self.im.state(self.id)["vm_states"].values())
        here = {"stopped", "off"} if end == "stopped" else {"running", "configured", "unconfigured"}
        if states <= here:
            return False, {}, {}
        if not self.module.check_mode:
            self.im.operate(self.id, operation)
        return True, {"vms": sorted(states)}, {"vms": [end]}

    def reconfigure(self):
        self.require()
        before = {"state": self.im.state(self.id)["state"]}
        if not self.module.check_mode:
            self.im.reconfigure(self.id, self.text if self.media_type == RADL and self.text else "")
        return True, before, {"state": "configured"}

    def require(self):
        if self.id is None:
            raise ImError(f"there is no infrastructure {self.params['infrastructure_id'] or self.name}: create it with state present")

    def wait(self, wanted):
        """Wait for the state; fail when the time is over."""
        if wait_for(self.im, self.id, wanted, self.params["wait_timeout"], self.params["poll"], 10 * self.params["poll"]) is None:
            raise ImError(f"infrastructure {self.id} is not {' or '.join(wanted)} after {self.params['wait_timeout']} s, and goes on")

    def wait_until_gone(self):
        """Wait until it is listed no more: for its state, the server may have an answer even then."""
        end = time.monotonic() + self.params["wait_timeout"]
        while True:
            try:
                if self.id not in self.im.infrastructures():
                    return
            except ImError as error:
                if not error.lost and error.code is not None:
                    raise
            if time.monotonic() >= end:
                raise ImError(f"infrastructure {self.id} is still there {self.params['wait_timeout']} s after it was told to go: see its VMs, or set force")
            time.sleep(self.params["poll"])


def check_radl(text):
    """Raise ImError for a RADL with an error, where Python's package RADL is there to find it; otherwise the server finds it."""
    if parse_radl is None:
        return
    try:
        parse_radl(text).check()
    except Exception as error:
        raise ImError(f"the RADL has an error: {error}") from None


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


def finish(module, it, created, changed):
    """Wait where that is wanted, and return what there is then."""
    state = module.params["state"]
    if state == "absent" and it.id is None:
        return {"state": "absent"}
    if module.check_mode or it.id is None:
        return {}
    if state == "absent":
        if module.params["wait"] and changed:
            it.wait_until_gone()
        return {"state": "absent"}
    if module.params["wait"] and (changed or state == "present" and it.im.state(it.id)["state"] not in ("stopped", "off")):
        try:
            it.wait(ENDS[state])
        except ImError:
            if created and module.params["on_timeout"] == "destroy":
                it.im.destroy(it.id, force=True)
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
            "remove": {"type": "list", "elements": "str", "default": []},
            "wait": {"type": "bool", "default": True},
            "wait_timeout": {"type": "int", "default": 3600},
            "poll": {"type": "float", "default": 3},
            "on_timeout": {"type": "str", "choices": ["keep", "destroy"], "default": "keep"},
            "force": {"type": "bool", "default": False},
            "secrets": {"type": "bool", "default": False, "no_log": False},
        },
        mutually_exclusive=[("radl", "radl_file", "tosca")],
        supports_check_mode=True,
    )
    im = connect(module)
    it, result = None, {}
    try:
        it = Infrastructure(module, im)
        there = it.id
        changed, before, after = ACTIONS[module.params["state"]](it)
        result = {"changed": changed, "diff": {"before": before, "after": after}, "name": it.name, "infrastructure_id": it.id}
        result.update({"estimate": it.estimate} if hasattr(it, "estimate") else {})
        result.update(finish(module, it, there is None, changed))
    except ImError as error:
        module.fail_json(msg=str(error), code=error.code, **{**result, "infrastructure_id": it.id if it else module.params["infrastructure_id"]})
    module.exit_json(**result)


if __name__ == "__main__":
    main()
