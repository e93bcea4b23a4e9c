#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.im_vm."""

from __future__ import annotations

DOCUMENTATION = r"""
module: im_vm
short_description: Manage one VM of an infrastructure
version_added: 0.1.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - Starts, stops, reboots, resizes or removes one VM of an infrastructure of the Infrastructure Manager.
extends_documentation_fragment:
  - deeptrain.cluster._attributes
  - deeptrain.cluster._im
  - deeptrain.cluster._im.wait
options:
  infrastructure_id:
    description: Id of the infrastructure. Required unless O(name) is set, and excludes it.
    type: str
  name:
    description: Name of the infrastructure. Required unless O(infrastructure_id) is set, and excludes it.
    type: str
  vm:
    description: Id or host name of the VM.
    type: str
    required: true
  state:
    description:
      - V(started) and V(stopped) start and stop the VM, and V(absent) removes it, unless it has that state.
      - V(rebooted) reboots it each time.
      - V(resized) resizes it to the sizes in O(radl).
    type: str
    choices: [started, stopped, rebooted, resized, absent]
    default: started
  radl:
    description: RADL with a C(system) that has the new C(cpu.count) and C(memory.size). Required with O(state=resized).
    type: str
  context:
    description: Whether O(state=absent) configures the other VMs again.
    type: bool
    default: true
  wait_timeout:
    default: 600
attributes:
  diff_mode:
    details: Shows the VM's state.
seealso:
  - module: deeptrain.cluster.im_infrastructure
"""

EXAMPLES = r"""
- name: Stop a worker
  deeptrain.cluster.im_vm:
    url: https://im.example.org:8800
    auth_file: ~/.im/auth.dat
    name: deeptrain
    vm: worker-2
    state: stopped

- name: Resize a worker
  deeptrain.cluster.im_vm:
    url: https://im.example.org:8800
    auth_file: ~/.im/auth.dat
    name: deeptrain
    vm: worker-2
    state: resized
    radl: system worker ( cpu.count = 4 and memory.size = 16g )
"""

RETURN = r"""
vm:
  description: The VM as M(deeptrain.cluster.im_infrastructure) returns it.
  type: dict
  returned: when the VM exists
  sample: {id: "2", system: worker, state: stopped, hostname: worker-2, private_ip: 10.0.0.4, public_ip: null, ssh_port: 22, user: ubuntu}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import ImError, radl_fits
from ansible_collections.deeptrain.cluster.plugins.module_utils._im_module import (
    CONNECTION,
    OUTCOME_SECONDS,
    SECRETS,
    choose,
    connect,
    polls,
    retry_while_unavailable,
    wait_options,
)

RUNNING = ("running", "configured", "unconfigured")
STOPPED = ("stopped", "off")


class Vm:
    """The VM of the task."""

    def __init__(self, module, im):
        self.params = module.params
        self.im = im
        self.infrastructure = choose(im, self.params["infrastructure_id"], self.params["name"])
        if self.infrastructure is None:
            raise ImError(f"there is no infrastructure {self.params['infrastructure_id'] or self.params['name']}: create it first")
        self.id = self.find()

    def find(self):
        """Return the VM's id, or None."""
        if self.params["vm"] in self.im.vms(self.infrastructure):
            return self.params["vm"]
        named = [vm["id"] for vm in self.im.all_vms(self.infrastructure) if vm["hostname"] == self.params["vm"]]
        if len(named) > 1:
            raise ImError(f"VMs {', '.join(named)} have the host name {self.params['vm']}: select one by its id")
        return named[0] if named else None

    def state(self):
        """Return the VM's state, `absent` if it does not exist."""
        if self.id is None:
            return "absent"
        return self.im.state(self.infrastructure)["vm_states"].get(self.id, "absent")

    def change(self):
        """Request the change from the Infrastructure Manager."""
        wanted = self.params["state"]
        if wanted == "absent":
            self.im.remove_vms(self.infrastructure, [self.id], self.params["context"])
        elif wanted == "resized":
            self.im.resize(self.infrastructure, self.id, self.params["radl"])
        else:
            self.im.operate(self.infrastructure, {"started": "start", "stopped": "stop", "rebooted": "reboot"}[wanted], self.id)

    def has_size(self):
        """Return whether the VM has the wanted sizes."""
        return radl_fits(self.params["radl"], self.im.vm_classes(self.infrastructure, self.id))

    def described(self):
        """Return the VM without its secrets."""
        vm = self.im.vm(self.infrastructure, self.id)
        return {key: value for key, value in vm.items() if key not in SECRETS}


WANTED_STATES = {"started": RUNNING, "stopped": STOPPED, "rebooted": RUNNING, "resized": RUNNING + STOPPED, "absent": ("absent",)}


def change(vm, waiting):
    """Request the change of the VM. While the server is unavailable, retry it until the VM has the wanted state, which does not show a reboot."""
    wanted = vm.params["state"]
    try:
        if wanted == "rebooted":
            vm.change()
        else:
            retry_while_unavailable(vm.im, vm.change, lambda: vm.has_size() if wanted == "resized" else vm.state() in WANTED_STATES[wanted], OUTCOME_SECONDS)
    except ImError as error:
        wait_tells = waiting and wanted in ("started", "stopped", "absent")
        if not (error.outcome_unknown and wait_tells or error.code == 404 and wanted == "absent"):
            raise


def wait(vm, wanted):
    """Wait for one of the states, or raise ImError."""
    for _poll in polls(vm.params["wait_timeout"], vm.params["poll"]):
        try:
            state = vm.state()
        except ImError as error:
            if not error.transient:
                raise
            state = f"in an unknown state ({error})"
        if state in wanted:
            return
        if state == "failed":
            break
    raise ImError(f"VM {vm.id} of infrastructure {vm.infrastructure} is {state}, and did not become {wanted[0]} within {vm.params['wait_timeout']} s")


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "infrastructure_id": {"type": "str"},
            "name": {"type": "str"},
            "vm": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["started", "stopped", "rebooted", "resized", "absent"], "default": "started"},
            "radl": {"type": "str", "no_log": True},
            "context": {"type": "bool", "default": True},
            **wait_options(600),
        },
        required_one_of=[("infrastructure_id", "name")],
        mutually_exclusive=[("infrastructure_id", "name")],
        required_if=[("state", "resized", ["radl"])],
        supports_check_mode=True,
    )
    im = connect(module)
    wanted = module.params["state"]
    try:
        vm = Vm(module, im)
        before = vm.state()
        if vm.id is None and wanted != "absent":
            raise ImError(f"infrastructure {vm.infrastructure} has no VM {module.params['vm']}: see its VMs with im_infrastructure_info")
        changed = wanted == "rebooted" or before not in WANTED_STATES[wanted] or wanted == "resized" and not vm.has_size()
        if changed and not module.check_mode:
            change(vm, module.params["wait"])
            if module.params["wait"]:
                wait(vm, WANTED_STATES[wanted])
        after = WANTED_STATES[wanted][0] if module.check_mode and changed else vm.state()
        described = {"vm": vm.described()} if after != "absent" and vm.id is not None else {}
    except ImError as error:
        module.fail_json(msg=str(error), code=error.code)
    module.exit_json(changed=changed, diff={"before": {"state": before}, "after": {"state": after}}, **described)


if __name__ == "__main__":
    main()
