# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin deeptrain.cluster.job: runs the module, polls the job until it has ended, and shows its progress."""

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

MODULE, POLL_MODULE = "deeptrain.cluster.job", "deeptrain.cluster.job_info"
# A job's end is reported late by a fifth of its time at most, since many jobs are short; a poll costs the node some 0.1 s.
FIRST_POLL = 0.5
POLL_SHARE = 0.2
# ssh would wait for hours for a node that was lost during a poll.
ANSWER_SECONDS = 60
RETRY_SECONDS = 5
# Of a node that restarts more often than this, the job is not restarted.
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
        first = self._run_module()
        if self._args["state"] != "started" or "job_state" not in first:
            return first
        result = first
        if self._args["wait"] and first["action"] in (START, ATTACH) and not self._task.check_mode and not first.get("failed"):
            result = self._outcome(first, self._wait(first, began))
        return {name: value for name, value in result.items() if name not in ("progress", "progress_offset")}

    def _outcome(self, first, last):
        """Return the task's result from those of the first and the last call."""
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

    def _wait(self, state, began):
        """Show the job's progress until it has ended; return its last state, failed when the task has timed out."""
        timeout = self._args["timeout"]
        playbook = os.getppid()
        restarts, boot, node_restarts = state["restarts"], state["boot"], []
        newest, shown = None, float("-inf")
        if state["job_state"] == RUNNING:
            self._say("attached to the running job" if state["action"] == ATTACH else "started")
        while True:
            newest = state["progress"][-1] if state["progress"] else newest
            # Of a unit that has failed since, a restart of the node is not the cause.
            if state["job_state"] in (NONE, FAILED) and state["unit_state"] == "inactive" and state["boot"] != boot:
                now = time.monotonic()
                node_restarts = [then for then in node_restarts if now - then < NODE_RESTARTS_SECONDS] + [now]
                if len(node_restarts) <= NODE_RESTARTS:
                    self._node_restarts += 1
                    self._say(f"the node was restarted, which ended the job; restarting it ({self._node_restarts})")
                    state = self._retry(self._run_module)
                    if state.get("failed") or "job_state" not in state:
                        return state
                    restarts = state["restarts"]
            boot = state["boot"]
            ended = state["job_state"] != RUNNING
            if newest and (ended or time.monotonic() - shown >= self._args["progress_interval"]):
                self._say(progress_line(newest, self._args["kind"]))
                newest, shown = None, time.monotonic()
            if state["restarts"] > restarts:
                restarts = state["restarts"]
                self._say(f"ended before its work was done, and systemd restarted it ({restarts})")
            if ended:
                if state["job_state"] == DONE:
                    self._say(f"done in {duration(state['result'].get('finished', 0) - state['result'].get('started', 0))}")
                return state
            if timeout and time.monotonic() - began >= timeout:
                message = f"{state['unit']} is not done after {timeout} s, and continues: rerun this to attach to it"
                return {**state, "failed": True, "msg": message}
            time.sleep(min(self._args["poll"], max(FIRST_POLL, POLL_SHARE * (time.monotonic() - began))))
            # A killed playbook leaves its worker processes behind, and each of their polls would renew the lease.
            if os.getppid() != playbook:
                return {**state, "failed": True, "msg": f"the playbook that waited for {state['unit']} has ended"}
            state = self._retry(self._poll, state["progress_offset"])
            if "job_state" not in state:
                return state

    def _run_module(self):
        return self._execute_module(module_name=MODULE, module_args=self._task.args, task_vars=self._task_vars)

    def _poll(self, offset):
        """Return the job's state. A controller that waits renews the lease."""
        # Neither configuration nor credentials travel to the node again.
        args = {name: self._task.args[name] for name in ("kind", "run", "state_dir") if name in self._task.args}
        args.update(progress_offset=offset, renew_lease=True)
        return self._execute_module(module_name=POLL_MODULE, module_args=args, task_vars=self._task_vars)

    def _retry(self, call, *arguments):
        """Return the result of a call, which is retried for a while when the node is unreachable; or the failure."""
        patience = self._args["unreachable_timeout"]
        began = time.monotonic()
        lost = False
        while True:
            try:
                # A task with a time limit of its own has the one alarm there is.
                with contextlib.nullcontext() if self._task.timeout else answer_within(ANSWER_SECONDS):
                    state = call(*arguments)
            except AnsibleError as error:
                state = {"unreachable": True, "msg": str(error)}
            if "job_state" in state:
                if lost:
                    self._say(f"polled again after {duration(time.monotonic() - began)}")
                return state
            reason = " ".join(str(state.get("msg")).split())
            if not lost:
                self._say(f"cannot be polled, and continues; retrying for {duration(patience)} ({reason})")
                lost = True
            if time.monotonic() - began >= patience:
                message = f"The job could not be polled for {patience} s ({reason}). It continues: rerun this to attach to it"
                return {**state, "msg": message}
            time.sleep(RETRY_SECONDS)
            self._reconnect()

    def _reconnect(self):
        with contextlib.suppress(AnsibleError):
            self._connection.reset()
        # A restart of the node may have removed it.
        self._connection._shell.tmpdir = None

    def _say(self, text):
        # Ansible buffers stdout where it is no terminal, stderr it does not.
        job = f"{self._task_vars['inventory_hostname']} {self._args['kind']} {self._args['run']}"
        display.display(f"{job}: {text}", stderr=True)
