# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared code of the modules that use the Infrastructure Manager."""

from __future__ import annotations

import contextlib
import time
from collections import Counter

from ansible.module_utils.basic import env_fallback
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import (
    FINAL_STATES,
    ImError,
    NotFound,
    client,
    radl_name,
    radl_secrets,
)

# Documented in doc_fragments/_im.py.
CONNECTION = {
    "url": {"type": "str", "fallback": (env_fallback, ["IM_URL"])},
    "auth": {"type": "list", "elements": "dict", "no_log": True},
    "auth_file": {"type": "path", "fallback": (env_fallback, ["IM_AUTH_FILE"])},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
    "unavailable_timeout": {"type": "int", "default": 300},
}

# Keys of a VM's description that are returned on request only.
SECRETS = ("password", "private_key")
# Maximum length of the contextualization log in an error message.
CONTMSG_LENGTH = 1500
# Seconds within which a server begins to create VMs. It first requests images and instance types from the cloud, and it creates the VMs
# even if the infrastructure is destroyed meanwhile: a shorter time would leave orphaned VMs in the cloud.
BEGIN_SECONDS = 180
# Seconds within which a server that answers shows the effect of a call whose outcome is unknown.
OUTCOME_SECONDS = 12
# Pause between two retries of a call.
RETRY_SECONDS = 1


class TimedOut(ImError):
    """A wait has timed out."""


class Interrupted(ImError):
    """The creation of VMs was interrupted by the end of the server, which does not resume it."""


def wait_options(timeout):
    """Return the options of a module that waits, with its default of wait_timeout; documented in doc_fragments/_im.py."""
    return {
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": timeout},
        "poll": {"type": "float", "default": 3},
    }


def connect(module):
    """Return the module's Im; its secrets are masked in what the module returns."""
    try:
        im = client(module.params, module.warn)
    except ImError as error:
        module.fail_json(msg=str(error))
    # Ansible would mask types and user names of auth as well.
    module.no_log_values.difference_update(im.public_values)
    module.no_log_values.update(im.secrets)
    return im


def choose(im, infrastructure, name):
    """Return the id of the infrastructure with an id, or else with a name; None if it does not exist.

    Raises ImError when several have the name.
    """
    if infrastructure:
        return infrastructure if infrastructure in im.infrastructures() else None
    return im.find_one(name)


def describe(im, infrastructure, secrets=False):
    """Return an infrastructure with its VMs, as the modules return it."""
    state = im.state(infrastructure)
    radl = im.radl(infrastructure)
    vms = im.all_vms(infrastructure)
    for vm in vms:
        # The states in the infrastructure's state are newer.
        vm["state"] = state["vm_states"].get(vm["id"], vm["state"])
    if not secrets:
        im.hide(radl_secrets(radl))
        im.hide([vm.pop(key) or "" for vm in vms for key in SECRETS])
    return {
        "infrastructure_id": infrastructure,
        "name": radl_name(radl),
        "state": state["state"],
        "contmsg": im.scrub(im.contmsg(infrastructure)),
        "outputs": _scrubbed(im, im.outputs(infrastructure)),
        "vms": vms,
    }


def _scrubbed(im, value):
    """Return an output, which can be nested, with its secrets masked."""
    if isinstance(value, dict):
        return {key: _scrubbed(im, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrubbed(im, item) for item in value]
    return im.scrub(value) if isinstance(value, str) else value


def polls(timeout, poll, slowing=10):
    """Yield True for each poll until the timeout, and False for the last one. The interval grows from `poll` seconds to `slowing` times that."""
    end = time.monotonic() + timeout
    slowest = slowing * poll
    while time.monotonic() < end:
        yield True
        time.sleep(max(0, min(poll, end - time.monotonic())))
        poll = min(poll * 1.5, slowest)
    yield False


def retry_while_unavailable(im, call, done=lambda: False, pause=0):
    """Make a call. While the server is unavailable, check for `pause` seconds whether the call was carried out, then retry it.

    Raises the last error after the seconds for which the Infrastructure Manager may be unavailable.
    """
    end = time.monotonic() + im.unavailable_timeout
    while True:
        try:
            return call()
        except ImError as error:
            if not error.unavailable or time.monotonic() >= end:
                raise
        for _poll in polls(max(pause, RETRY_SECONDS), RETRY_SECONDS, slowing=1):
            with contextlib.suppress(ImError):
                if done():
                    return None


class VmCreation:
    """Polls whether the server is still creating an infrastructure's VMs; `complete` returns whether VMs, none of them orphaned, are all of them."""

    def __init__(self, im, infrastructure, complete=bool):
        self.im, self.infrastructure, self.complete = im, infrastructure, complete
        self.since = None

    def poll(self):
        """Return the VMs and the orphaned ones, whose creation was interrupted; None while a server may still be creating VMs."""
        vms, creating, orphaned = self.im.vm_creation(self.infrastructure)
        if creating:
            self.since = None
            return None
        if not orphaned and self.complete(vms):
            return vms, orphaned
        # Another server with the same database may be creating them.
        self.since = self.since or time.monotonic()
        return (vms, orphaned) if time.monotonic() - self.since >= BEGIN_SECONDS else None


def wait_for(im, infrastructure, wanted, timeout, poll, log=lambda line: None):
    """Wait until the infrastructure is in one of the wanted states; log each change of its state.

    Transient errors are logged, and the polls continue. Raises TimedOut; Interrupted; NotFound when the infrastructure is destroyed meanwhile; and,
    when it ends in another state, ImError with the states of its VMs and the end of its contextualization log.
    """
    logged, creation = None, VmCreation(im, infrastructure)
    for more in polls(timeout, poll):
        try:
            state = im.state(infrastructure)
            created = creation.poll() if state["state"] == "pending" else None
        except NotFound:
            raise NotFound(f"infrastructure {infrastructure} was destroyed during the wait for it, by another user or controller", 404) from None
        except ImError as error:
            if not error.transient:
                raise
            state, created, line = None, None, f"is in an unknown state ({error})"
        else:
            line = f"is {state['state']} (VMs: {_summary(state['vm_states'])})"
        if line != logged:
            log(f"infrastructure {infrastructure} {line}")
            logged = line
        if state and state["state"] in wanted and ("off" in wanted or not _off(state)):
            return
        if state and state["state"] in FINAL_STATES and not _changing(state):
            raise ImError(_failure(im, infrastructure, state))
        if created and (created[1] or not created[0]):
            raise Interrupted(f"infrastructure {infrastructure} is {state['state']}: {_interrupted(created[1])}")
        if not more:
            raise TimedOut(f"infrastructure {infrastructure} {line}, not {' or '.join(wanted)} after {timeout} s, and continues")


def _interrupted(vms):
    which = f"VMs {', '.join(vms)}" if vms else "its VMs"
    return f"the Infrastructure Manager was interrupted while it created {which}. Run this again to replace them"


def _summary(states):
    """Return how many VMs are in each state."""
    counts = Counter(states.values())
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none yet"


def _off(state):
    """Return the VMs that do not run in their cloud any more, which the infrastructure's own state need not show."""
    return [vm for vm, vm_state in state["vm_states"].items() if vm_state == "off"]


def _changing(state):
    return any(vm_state not in FINAL_STATES for vm_state in state["vm_states"].values())


def _failure(im, infrastructure, state):
    """Return the message for an infrastructure that has ended in another state than the wanted one."""
    states = ", ".join(f"{vm} {vm_state}" for vm, vm_state in state["vm_states"].items()) or "none"
    what = f"infrastructure {infrastructure} is {state['state']} (VMs: {states})"
    try:
        orphaned = im.vm_creation(infrastructure)[2]
        contmsg = im.contmsg(infrastructure)
    except ImError as error:
        return f"{what}. The reason is unknown: {error}"
    if orphaned:
        return f"{what}: {_interrupted(orphaned)}"
    if _off(state):
        which = ", ".join(_off(state))
        return f"{what}. VMs {which} were terminated or stopped in their cloud: start them, or remove them with im_vm and run this again"
    end = im.scrub(contmsg)[-CONTMSG_LENGTH:].strip() or "(empty: run this again to configure it)"
    return f"{what}. The end of its contextualization log: {end}"
