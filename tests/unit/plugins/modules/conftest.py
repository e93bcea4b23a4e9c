# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import stat
from types import SimpleNamespace

import pytest
from ansible.module_utils import basic
from ansible_collections.deeptrain.cluster.plugins.modules import job, job_info

# Of an existing job, and what is given to one that is started.
JOB_CONFIG = {"steps": 5, "s3": {"region": "x"}}
JOB_SECRET = "not-to-be-seen"
# Debian's daemon.
JOB_USER = 1


class Ended(Exception):
    """The module's end, with what it returned."""


@pytest.fixture
def run_module(monkeypatch):
    """Return a function that runs a module's main() with arguments and gives what it returned."""

    def end(dummy, **result):
        raise Ended(result)

    def fail(dummy, msg, **result):
        raise Ended({"failed": True, "msg": msg, **result})

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", fail)

    def call(module, check_mode=False, **arguments):
        monkeypatch.setattr(basic, "_load_params", lambda: {**arguments, "_ansible_check_mode": check_mode})
        with pytest.raises(Ended) as caught:
            module.main()
        return caught.value.args[0]

    return call


class Node:
    """A node whose systemd knows one unit, and whose files belong to the user of the test."""

    def __init__(self, directory, units):
        self.directory = directory
        self.job = directory / "runs" / "default" / "train"
        self.credentials = directory / "run" / "credentials"
        self.units = units
        self.unit = {"LoadState": "loaded", "ActiveState": "inactive", "Result": "success", "NRestarts": "0", "NeedDaemonReload": "no"}
        self.calls = []
        self.start = {"ActiveState": "active"}
        self.system = "running"
        self.others = []

    def run_command(self, command):
        """Stands for AnsibleModule.run_command."""
        if command[0] == "journalctl":
            return 0, "a line\nthe last line\n", ""
        if command[1] == "show":
            assert command[-1] == "deeptrain-train@default.service"
            return 0, "".join(f"{name}={value}\n" for name, value in self.unit.items()), ""
        if command[1] == "is-system-running":
            return 0, f"{self.system}\n", ""
        if command[1] == "list-units":
            assert command[-1] == "deeptrain-train@*.service"
            return 0, "".join(f"deeptrain-train@{run}.service loaded active running a job\n" for run in self.others), ""
        self.calls.append(command[1])
        if command[1] in ("enable", "disable"):
            self.unit["UnitFileState"] = command[1] + "d"
        if command[1] == "start":
            # All that the job needs is written by now.
            assert self.document()["settings"] == {"parallel": 4}
            assert not (self.job / "result.json").exists()
            self.unit.update(self.start)
            return (0, "", "") if self.unit["ActiveState"] == "active" else (1, "", "Job failed. See systemctl status.\n")
        if command[1] == "stop":
            self.unit["ActiveState"] = "inactive"
        return 0, "", ""

    def document(self):
        """Return the job's configuration."""
        return json.loads((self.job / "config.json").read_text())

    def put(self, state, config=None):
        """Give the job a state."""
        self.job.mkdir(parents=True)
        (self.job / "config.json").write_text(json.dumps({"config": config or JOB_CONFIG, "settings": {"parallel": 1}}))
        if state != "none":
            (self.job / "progress.jsonl").write_text('{"done": 1}\n')
        if state == "running":
            self.unit["ActiveState"] = "active"
        elif state == "done":
            (self.job / "result.json").write_text('{"status": "succeeded", "changed": true}')
        elif state == "failed":
            (self.job / "result.json").write_text('{"status": "failed", "error": "no space: make some"}')

    def files(self):
        """Return all files with their content and mode."""
        return {str(path): (path.read_text() if path.is_file() else None, stat.S_IMODE(path.stat().st_mode)) for path in self.directory.rglob("*")}


@pytest.fixture
def node(tmp_path, tmp_path_factory, monkeypatch):
    """Return a node."""
    node = Node(tmp_path, tmp_path_factory.mktemp("systemd") / "system")
    monkeypatch.setattr(basic.AnsibleModule, "run_command", lambda dummy, command: node.run_command(command))
    monkeypatch.setattr(job.os, "fchown", lambda handle, uid, gid: None)
    (node.units).mkdir()
    monkeypatch.setattr(job, "UNITS", str(node.units))
    monkeypatch.setattr(job, "LOCK", str(tmp_path_factory.mktemp("run") / "lock" / "job"))
    monkeypatch.setattr(job.pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=JOB_USER))
    monkeypatch.setattr(job.grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=JOB_USER))
    return node


@pytest.fixture
def call(run_module, node):
    """Return a function that runs module job."""

    def call(state="started", config=None, **arguments):
        if state in ("started", "armed"):
            arguments = {"settings": {"parallel": 4}, "credentials": {"s3": {"key": JOB_SECRET}}, **arguments}
            config = config or JOB_CONFIG
        return run_module(
            job,
            kind="train",
            run="default",
            state=state,
            config=config,
            state_dir=str(node.directory),
            credentials_dir=str(node.credentials),
            **arguments,
        )

    return call


@pytest.fixture
def read(run_module, node):
    """Return a function that runs module job_info."""
    return lambda **arguments: run_module(job_info, kind="train", run="default", state_dir=str(node.directory), **arguments)
