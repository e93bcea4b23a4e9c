# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that speak to the Infrastructure Manager share."""

from __future__ import annotations

import time

from ansible.module_utils.basic import env_fallback
from ansible_collections.deeptrain.cluster.plugins.module_utils.im import ENDED, ImError, client

# In the order of the doc fragment.
CONNECTION = {
    "url": {"type": "str", "fallback": (env_fallback, ["IM_URL"])},
    "auth": {"type": "list", "elements": "dict", "no_log": True},
    "auth_file": {"type": "path", "fallback": (env_fallback, ["IM_AUTH_FILE"])},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
}

# Of a VM's description, what is returned only when it is asked for.
SECRETS = ("password", "private_key")
CONTMSG_END = 1500


def connect(module):
    """Return the module's Im; its secrets are kept out of what the module returns."""
    try:
        im = client(module.params, module.warn)
    except ImError as error:
        module.fail_json(msg=str(error))
    # Ansible would blot out types and user names of auth as well.
    module.no_log_values.difference_update(im.no_secrets)
    module.no_log_values.update(im.secrets)
    return im


def choose(im, infrastructure, name):
    """Return the id of the infrastructure with an id, else with a name; None when there is none.

    Raises ImError when two carry the name.
    """
    if infrastructure:
        return infrastructure if infrastructure in im.infrastructures() else None
    found = im.find(name)
    if len(found) > 1:
        raise ImError(f"{len(found)} infrastructures are named {name}: {', '.join(found)}. Say which one by infrastructure_id")
    return found[0] if found else None


def describe(im, infrastructure, secrets=False):
    """Return an infrastructure with its VMs, as the modules return it."""
    state = im.state(infrastructure)
    vms = [im.vm(infrastructure, vm) for vm in im.vms(infrastructure)]
    for vm in vms:
        # The infrastructure's states are the newer ones.
        vm["state"] = state["vm_states"].get(vm["id"], vm["state"])
        for key in () if secrets else SECRETS:
            del vm[key]
    return {
        "infrastructure_id": infrastructure,
        "name": im.name(infrastructure),
        "state": state["state"],
        "contmsg": im.contmsg(infrastructure),
        "outputs": im.outputs(infrastructure),
        "vms": vms,
    }


def wait_for(im, infrastructure, wanted, timeout, first_poll, last_poll):
    """Wait until the infrastructure's state is one of those wanted; return it, or None when the time is over.

    An Infrastructure Manager that does not answer for a while is asked again. Raises ImError when the infrastructure
    vanishes, or ends in another state, with the states of its VMs and the end of its contextualization.
    """
    end = time.monotonic() + timeout
    poll = first_poll
    while True:
        try:
            state = im.state(infrastructure)
        except ImError as error:
            if error.code == 404:
                raise ImError(f"infrastructure {infrastructure} vanished while it was waited for: somebody destroyed it", 404) from None
            if error.code is not None and not error.lost:
                raise
        else:
            if state["state"] in wanted:
                return state["state"]
            if state["state"] in ENDED and not _changing(state):
                raise ImError(_failure(im, infrastructure, state))
        left = end - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(poll, left))
        poll = min(poll * 1.5, last_poll)


def _changing(state):
    return any(vm not in ENDED for vm in state["vm_states"].values())


def _failure(im, infrastructure, state):
    try:
        contmsg = im.contmsg(infrastructure)
    except ImError as error:
        contmsg = str(error)
    states = ", ".join(f"{vm} {of}" for vm, of in state["vm_states"].items()) or "none"
    words = im.scrub(contmsg)[-CONTMSG_END:].strip() or "(none)"
    return f"infrastructure {infrastructure} is {state['state']} (VMs: {states}). The end of its contextualization: {words}"
