# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that speak to the Infrastructure Manager share."""

from __future__ import annotations

import contextlib
import time
from collections import Counter

from ansible.module_utils.basic import env_fallback
from ansible_collections.deeptrain.cluster.plugins.module_utils.im import (
    ENDED,
    ImError,
    NotFound,
    client,
    radl_name,
    radl_secrets,
)

# In the order of the doc fragment.
CONNECTION = {
    "url": {"type": "str", "fallback": (env_fallback, ["IM_URL"])},
    "auth": {"type": "list", "elements": "dict", "no_log": True},
    "auth_file": {"type": "path", "fallback": (env_fallback, ["IM_AUTH_FILE"])},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "timeout": {"type": "int", "default": 30},
    "unavailable_timeout": {"type": "int", "default": 300},
}


def wait_options(timeout):
    """Return the options of a module that waits, with its default of wait_timeout; documented in doc_fragments/im.py."""
    return {
        "wait": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": timeout},
        "poll": {"type": "float", "default": 3},
    }


# Of a VM's description, what is returned only when it is asked for.
SECRETS = ("password", "private_key")
CONTMSG_END = 1500
# How long a server may take to begin with the VMs. It asks the cloud for images and kinds of machines first, and makes the VMs
# even of an infrastructure that is destroyed meanwhile, so that a short time would cost machines that nobody knows.
BEGIN_SECONDS = 180
# How long a server that answers may take to show the effect of a call whose answer was lost.
LOST_SECONDS = 12
# Between two tries of a call.
RETRY_SECONDS = 1


class TimedOut(ImError):
    """What was waited for did not come in time."""


class Interrupted(ImError):
    """The server was ended while it made VMs, and does not go on with them."""


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

    Raises ImError when several carry the name.
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
        # The infrastructure's states are the newer ones.
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
    """Return an output, which may be nested, without secrets."""
    if isinstance(value, dict):
        return {key: _scrubbed(im, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_scrubbed(im, item) for item in value]
    return im.scrub(value) if isinstance(value, str) else value


def polls(timeout, poll, slowing=10):
    """Yield True for each poll, every `poll` s at first and up to `slowing` times less often later; yield False for the last one, after the timeout."""
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
    """Whether the server is still creating an infrastructure's VMs; `whole` tells of VMs, none of them orphaned, whether they are all."""

    def __init__(self, im, infrastructure, whole=bool):
        self.im, self.infrastructure, self.whole = im, infrastructure, whole
        self.since = None

    def poll(self):
        """Return the VMs and the orphaned ones, whose creation was interrupted; None while a server may still be creating VMs."""
        vms, creating, orphaned = self.im.vm_creation(self.infrastructure)
        if creating:
            self.since = None
            return None
        if not orphaned and self.whole(vms):
            return vms, orphaned
        # Another server with the same database may be creating them.
        self.since = self.since or time.monotonic()
        return (vms, orphaned) if time.monotonic() - self.since >= BEGIN_SECONDS else None


def wait_for(im, infrastructure, wanted, timeout, poll, say=lambda line: None):
    """Wait until the infrastructure's state is one of those wanted; `say` each change of what is seen.

    An Infrastructure Manager that does not answer for a while is asked again. Raises TimedOut, Interrupted, or ImError
    when the infrastructure vanishes, or ends in another state, with the states of its VMs and the end of its
    contextualization.
    """
    said, creation = None, VmCreation(im, infrastructure)
    for more in polls(timeout, poll):
        try:
            state = im.state(infrastructure)
            made = creation.poll() if state["state"] == "pending" else None
        except NotFound:
            raise NotFound(f"infrastructure {infrastructure} vanished while it was waited for: somebody destroyed it", 404) from None
        except ImError as error:
            if not error.transient:
                raise
            seen = f"could not be seen at last ({error})"
            if seen != said:
                say(f"infrastructure {infrastructure} {seen}")
                said = seen
        else:
            line = f"is {state['state']} (VMs: {_summary(state['vm_states'])})"
            if line != said:
                say(f"infrastructure {infrastructure} {line}")
                said = line
            if state["state"] in wanted and ("off" in wanted or not _ended(state)):
                return
            if state["state"] in ENDED and not _changing(state):
                raise ImError(_failure(im, infrastructure, state))
            if made and (made[1] or not made[0]):
                raise Interrupted(f"infrastructure {infrastructure} is {state['state']}: {_interrupted(made[1])}")
            seen = line
        if not more:
            raise TimedOut(f"infrastructure {infrastructure} {seen}, not {' or '.join(wanted)} after {timeout} s, and goes on")


def _interrupted(vms):
    which = f"VMs {', '.join(vms)}" if vms else "its VMs"
    return f"the Infrastructure Manager was ended while it made {which}. Run this again, which makes them"


def _summary(states):
    """Return how many VMs are in each state."""
    counts = Counter(states.values())
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none yet"


def _ended(state):
    """Return the VMs that are not there any more, which an infrastructure's own state need not show."""
    return [vm for vm, of in state["vm_states"].items() if of == "off"]


def _changing(state):
    return any(vm not in ENDED for vm in state["vm_states"].values())


def _failure(im, infrastructure, state):
    states = ", ".join(f"{vm} {of}" for vm, of in state["vm_states"].items()) or "none"
    what = f"infrastructure {infrastructure} is {state['state']} (VMs: {states})"
    try:
        left = im.vm_creation(infrastructure)[2]
        contmsg = im.contmsg(infrastructure)
    except ImError as error:
        return f"{what}. Why could not be seen: {error}"
    if left:
        return f"{what}: {_interrupted(left)}"
    if _ended(state):
        which = ", ".join(_ended(state))
        return f"{what}. VMs {which} were ended in their cloud, or stopped there: start them, or remove them with im_vm and run this again"
    words = im.scrub(contmsg)[-CONTMSG_END:].strip() or "(none: run this again, which configures it)"
    return f"{what}. The end of its contextualization: {words}"
