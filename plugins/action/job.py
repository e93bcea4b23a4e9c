# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin deeptrain.cluster.job: loops over the module until the job has ended, and shows its progress."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.deeptrain.cluster.plugins.module_utils._job import (
    ARGUMENT_SPEC,
    ATTACH,
    DONE,
    FAILED,
    NONE,
    REQUIRED_IF,
    RUNNING,
    START,
    duration,
    progress_line,
)

display = Display()

MODULE = "deeptrain.cluster.job"
# A job's end is seen late by a fifth of its time at most, since many jobs are short; a look costs the node some 0.1 s.
FIRST_POLL = 0.5
POLL_SHARE = 0.2
# A node that went away in the middle of a look would let ssh wait for hours.
ANSWER_SECONDS = 60
RETRY_SECONDS = 5
# A node that restarts again and again is no place for the job.
NODE_RESTARTS, NODE_RESTARTS_SECONDS = 5, 3600


@contextlib.contextmanager
def answer_within(seconds):
    """Raise AnsibleConnectionFailure in a block that takes longer."""

    def expire(number, frame):
        raise AnsibleConnectionFailure(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class ActionModule(ActionBase):
    """Start a job or attach to it, and wait for its end."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        """Return the module's result, of the job's end where the task waits for it."""
        super().run(tmp, task_vars)
        self._task_vars = task_vars
        self._args = self.validate_argument_spec(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF)[1]
        self._node_restarts = 0
        began = time.monotonic()
        first = self._look(self._task.args)
        if self._args["state"] != "started" or "job_state" not in first:
            return first
        result = first
        if self._args["wait"] and first["action"] in (START, ATTACH) and not self._task.check_mode and not first.get("failed"):
            result = self._outcome(first, self._watch(first, began))
        return {name: value for name, value in result.items() if name not in ("progress", "progress_offset")}

    def _outcome(self, first, last):
        """Return the task's result from what the first and the last look gave."""
        kept = {name: first[name] for name in ("changed", "invocation") if name in first}
        result = {**first, **last, **kept, "node_restarts": self._node_restarts}
        result["changed"] = result["changed"] or self._node_restarts > 0
        if last.get("job_state") == FAILED:
            result.update(failed=True, msg=last["reason"])
        elif last.get("job_state") == NONE and not last.get("failed"):
            node = self._task_vars["inventory_hostname"]
            message = f"{last['unit']} ended without progress and without a result: read its journal on {node}, and run this again"
            result.update(failed=True, msg=message)
        elif last.get("job_state") == DONE and self._args["recheck"]:
            result["changed"] = bool(last["result"].get("changed"))
        return result

    def _watch(self, look, began):
        """Show the job's progress until it has ended; return the last look, failed when the task's time has."""
        timeout = self._args["timeout"]
        playbook = os.getppid()
        restarts, boot, node_restarts = look["restarts"], look["boot"], []
        newest, shown = None, float("-inf")
        if look["job_state"] == RUNNING:
            self._say("attached to the running job" if look["action"] == ATTACH else "started")
        while True:
            newest = look["progress"][-1] if look["progress"] else newest
            # Of a unit that has failed since, a restart of the node is not the cause.
            if look["job_state"] in (NONE, FAILED) and look["unit_state"] == "inactive" and look["boot"] != boot:
                now = time.monotonic()
                node_restarts = [then for then in node_restarts if now - then < NODE_RESTARTS_SECONDS] + [now]
                if len(node_restarts) <= NODE_RESTARTS:
                    self._node_restarts += 1
                    self._say(f"the node was restarted, which ended the job; starting it again ({self._node_restarts})")
                    look = self._persist(self._task.args)
                    if look.get("failed") or "job_state" not in look:
                        return look
                    restarts = look["restarts"]
            boot = look["boot"]
            ended = look["job_state"] != RUNNING
            if newest and (ended or time.monotonic() - shown >= self._args["progress_interval"]):
                self._say(progress_line(newest, self._args["kind"]))
                newest, shown = None, time.monotonic()
            if look["restarts"] > restarts:
                restarts = look["restarts"]
                self._say(f"ended before its work was done, and was started again by systemd ({restarts})")
            if ended:
                if look["job_state"] == DONE:
                    self._say(f"done in {duration(look['result'].get('finished', 0) - look['result'].get('started', 0))}")
                return look
            if timeout and time.monotonic() - began >= timeout:
                message = f"{look['unit']} is not done after {timeout} s, and goes on: start this again to attach to it"
                return {**look, "failed": True, "msg": message}
            time.sleep(min(self._args["poll"], max(FIRST_POLL, POLL_SHARE * (time.monotonic() - began))))
            # A killed playbook leaves its worker processes behind, and each of their polls would renew the lease.
            if os.getppid() != playbook:
                return {**look, "failed": True, "msg": f"the playbook that waits for {look['unit']} is gone"}
            look = self._look_again(look["progress_offset"])
            if "job_state" not in look:
                return look

    def _look(self, args):
        return self._execute_module(module_name=MODULE, module_args=args, task_vars=self._task_vars)

    def _look_again(self, offset):
        """Look at the job, and try again for a while when that cannot be done; return the look, or its failure."""
        # Neither configuration nor credentials travel to the node again.
        args = {name: self._task.args[name] for name in ("kind", "run", "state_dir") if name in self._task.args}
        return self._persist({**args, "state": "observed", "progress_offset": offset})

    def _persist(self, args):
        """Run the module, and retry for a while when the node is unreachable; return its result, or the failure."""
        patience = self._args["unreachable_timeout"]
        began = time.monotonic()
        lost = False
        while True:
            try:
                # A task with a time limit of its own has the one alarm there is.
                with contextlib.nullcontext() if self._task.timeout else answer_within(ANSWER_SECONDS):
                    look = self._look(args)
            except AnsibleError as error:
                look = {"unreachable": True, "msg": str(error)}
            if "job_state" in look:
                if lost:
                    self._say(f"seen again after {duration(time.monotonic() - began)}")
                return look
            reason = " ".join(str(look.get("msg")).split())
            if not lost:
                self._say(f"cannot be seen, and goes on; trying again for {duration(patience)} ({reason})")
                lost = True
            if time.monotonic() - began >= patience:
                message = f"The job could not be seen for {patience} s ({reason}). It goes on: start this again to attach to it"
                return {**look, "msg": message}
            time.sleep(RETRY_SECONDS)
            self._reconnect()

    def _reconnect(self):
        with contextlib.suppress(AnsibleError):
            self._connection.reset()
        # It may have gone when the node was started again.
        self._connection._shell.tmpdir = None

    def _say(self, text):
        # Ansible buffers stdout where it is no terminal, stderr it does not.
        job = f"{self._task_vars['inventory_hostname']} {self._args['kind']} {self._args['run']}"
        display.display(f"{job}: {text}", stderr=True)
