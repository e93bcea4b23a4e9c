# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loops over the module of the same name until the job has ended, and shows its progress."""

from __future__ import annotations

import time

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.deeptrain.cluster.plugins.module_utils.job import FAILED, RUNNING, progress_line

display = Display()

MODULE = "deeptrain.cluster.job"
# People read a line every so often; a module call costs the node more than a line does.
SHOW_SECONDS = 5


class ActionModule(ActionBase):
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        started = time.monotonic()
        first = self._look(self._task.args, task_vars)
        result.update(first)
        args = self._task.args
        waits = args.get("state", "started") == "started" and self._truth(args.get("wait", True))
        if result.get("failed") or self._task.check_mode or not waits:
            return result

        offset = result.get("progress_offset", 0)
        self._shown = 0.0
        self._show(result)
        while result.get("job_state") == RUNNING:
            timeout = int(args.get("timeout", 0))
            if timeout and time.monotonic() - started > timeout:
                result.update(failed=True, msg="%s goes on after %d s: attach to it by the same task" % (result["unit"], timeout))
                return result
            time.sleep(float(args.get("poll", 2)))
            look = self._look_again({**args, "state": "observed", "progress_offset": offset}, task_vars)
            if look.get("failed") or look.get("unreachable"):
                return look
            offset = look.get("progress_offset", offset)
            look["changed"] = first.get("changed", False)
            result = look
            self._show(result)

        document = result.get("result") or {}
        if result.get("job_state") == FAILED:
            result.update(failed=True, msg=result.get("reason", "%s failed" % result["unit"]))
        elif self._truth(args.get("recheck", False)):
            result["changed"] = bool(document.get("changed", False))
        for name in ("progress", "progress_offset"):
            result.pop(name, None)
        return result

    @staticmethod
    def _truth(value):
        return value if isinstance(value, bool) else str(value).lower() in ("true", "yes", "on", "1")

    def _look(self, args, task_vars):
        return self._execute_module(module_name=MODULE, module_args=args, task_vars=task_vars)

    def _look_again(self, args, task_vars):
        """Look at the job; go on trying while the node cannot be reached, for a while."""
        patience = int(args.get("unreachable_timeout", 600))
        since = None
        while True:
            try:
                look = self._look(args, task_vars)
                reason = look.get("msg") if look.get("unreachable") else None
            except AnsibleConnectionFailure as error:
                look, reason = {}, str(error)
            if reason is None:
                return look
            now = time.monotonic()
            if since is None:
                since = now
                self._say("cannot be reached; the job goes on, trying again")
            if now - since > patience:
                return {
                    "unreachable": True,
                    "msg": "Not reachable for %d s (%s). The job goes on: start this again to attach to it" % (patience, reason),
                }
            time.sleep(min(10.0, float(args.get("poll", 2))))
            self._connection.reset()

    def _show(self, look):
        """Show the newest record, at most every few seconds, and the last one always."""
        records = look.get("progress") or []
        now = time.monotonic()
        if records and (now - self._shown >= SHOW_SECONDS or look.get("job_state") != RUNNING):
            self._shown = now
            self._say(progress_line(records[-1]))

    def _say(self, text):
        # stderr is not buffered when it is no terminal; stdout is.
        name = "%s %s" % (self._task.args.get("kind"), self._task.args.get("run"))
        display.display("%s  %s" % (name, text), stderr=True)
