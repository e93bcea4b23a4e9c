# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Private to modules job and job_info: what a node has of a job."""

from __future__ import annotations

import contextlib
import json
import os

from ansible_collections.deeptrain.cluster.plugins.module_utils import _guarded_files as guarded_files
from ansible_collections.deeptrain.cluster.plugins.module_utils._job import (
    FAILED,
    NONE,
    REFUSE,
    RUNNING,
    START,
    decide,
    differences,
    failure,
    job_state,
    occupied,
    refusal,
)

# Of the progress at most so much is returned, its end.
PROGRESS_BYTES = 16384
LOG_LINES = 20


def parse(content):
    """Return the JSON document in a file's content; None where there is none, or none yet."""
    try:
        document = json.loads(content.decode("utf-8")) if content is not None else None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def boot():
    """Return what identifies the boot of the node; a container shares the kernel's, and has an init of its own."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        kernel = file.read().strip()
    with open("/proc/1/stat", encoding="utf-8", errors="replace") as file:
        return f"{kernel}-{file.read().rpartition(')')[2].split()[19]}"


def renew_lease(module):
    """Renew the node's lease, where role autostop has created one."""
    if not module.check_mode:
        with contextlib.suppress(OSError):
            os.utime(os.path.join(module.params["state_dir"], "autostop", "renewed"), follow_symlinks=False)


class JobReader:
    """One kind of job of one run on this node; changes nothing."""

    def __init__(self, module):
        params = module.params
        self.module = module
        self.params = params
        self.unit = f"deeptrain-{params['kind']}@{params['run']}.service"
        # Of these root owns all but the last, which is the job's user's.
        self.names = ("runs", params["run"], params["kind"])
        self.recheck = params["recheck"]

    @contextlib.contextmanager
    def directory(self):
        """Open the job's directory; None where there is none yet."""
        with contextlib.ExitStack() as stack:
            try:
                handle = stack.enter_context(guarded_files.directory(self.params["state_dir"], *self.names))
            except FileNotFoundError:
                handle = None
            yield handle

    def stored(self):
        """Return the configuration and the settings of the existing job."""
        with self.directory() as handle:
            return (parse(guarded_files.read(handle, "config.json")) if handle is not None else None) or {}

    def systemctl(self, *arguments):
        """Run systemctl; fail with its message."""
        code, output, error = self.module.run_command(["systemctl", *arguments])
        if code != 0:
            self.module.fail_json(msg=f"systemctl {' '.join(arguments)}: {(error or output).strip()}", unit=self.unit)
        return output

    def properties(self):
        """Return the unit's properties."""
        names = "LoadState,ActiveState,Result,ExecMainStatus,NRestarts,NeedDaemonReload,UnitFileState"
        output = self.systemctl("show", "--property=" + names, self.unit)
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def poll(self):
        """Return the unit's properties, the job's result and its state. The unit comes first: a job writes its result, then ends."""
        unit = self.properties()
        with self.directory() as handle:
            result = None if handle is None else parse(guarded_files.read(handle, "result.json"))
            progressed = handle is not None and "progress.jsonl" in os.listdir(handle)
        state = job_state(unit, result, progressed)
        # A job that ends with the node does so before the connection does; its state shows after the restart.
        return unit, result, RUNNING if state in (NONE, FAILED) and self.stopping() else state

    def stopping(self):
        """Return whether the node is shutting down."""
        return self.module.run_command(["systemctl", "is-system-running"])[1].strip() == "stopping"

    def others(self):
        """Return the other runs with a running job of this kind, where there must be none."""
        if not self.params["exclusive"]:
            return []
        pattern = f"deeptrain-{self.params['kind']}@*.service"
        listed = self.systemctl("list-units", "--plain", "--no-legend", "--state=active,activating,deactivating,reloading", pattern)
        units = [line.split()[0] for line in listed.splitlines() if line.strip()]
        return sorted(unit.partition("@")[2][: -len(".service")] for unit in units if unit != self.unit)

    def compare(self, state):
        """Return the action of a start, the difference of the configuration, and why the start is refused or None."""
        # A configuration on which no work has begun does not bind.
        difference = {} if state == NONE else differences(self.stored().get("config", {}), self.params["config"])
        action = decide(state, not difference, self.params["overwrite"], self.recheck)
        if action == REFUSE:
            return action, difference, refusal(self.params["kind"], self.params["run"], state, difference, self.recheck)
        others = self.others() if action == START else []
        return (REFUSE, difference, occupied(self.params["kind"], others)) if others else (action, difference, None)

    def progress(self, offset=0):
        """Return the newest whole records of progress since an offset, and the next offset."""
        with self.directory() as handle:
            file = None if handle is None else guarded_files.open_regular(handle, "progress.jsonl")
        if file is None:
            return [], 0
        with file:
            size = os.fstat(file.fileno()).st_size
            # A job that was restarted begins a new file.
            offset = max(offset if offset <= size else 0, size - PROGRESS_BYTES)
            file.seek(offset)
            data = file.read(PROGRESS_BYTES)
        data = data[: data.rfind(b"\n") + 1]
        records = []
        for line in data.splitlines():
            with contextlib.suppress(ValueError):  # the rest of a cut line, or what a user's own command wrote
                records.append(json.loads(line, parse_constant=lambda constant: None))
        return [record for record in records if isinstance(record, dict)], offset + len(data)

    def snapshot(self):
        """Return the job's state, as both modules do."""
        unit, result, state = self.poll()
        found = {"unit": self.unit, "job_state": state, "result": result, "restarts": int(unit.get("NRestarts") or 0)}
        found.update(boot=boot(), unit_state=unit.get("ActiveState", ""))
        if state == FAILED:
            found["log"] = self.journal()
            found["reason"] = failure(self.unit, unit, result, found["log"])
        return found

    def journal(self):
        """Return the end of the unit's journal."""
        self.module.run_command(["journalctl", "--sync"])
        code, output, error = self.module.run_command(
            ["journalctl", "--unit", self.unit, "--lines", str(LOG_LINES), "--output", "cat", "--no-pager", "--quiet"]
        )
        return output.splitlines() if code == 0 else [error.strip()]
