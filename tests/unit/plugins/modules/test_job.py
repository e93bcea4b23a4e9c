# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import json
import os
import stat
from types import SimpleNamespace

import pytest
from ansible.module_utils import basic
from ansible_collections.deeptrain.cluster.plugins.modules import job

CONFIG = {"steps": 5, "s3": {"region": "x"}}
OTHER = {"steps": 7, "s3": {"region": "x"}}
SECRET = "not-to-be-seen"


class Node:
    """A node whose systemd knows one unit, and whose files belong to whoever runs the test."""

    def __init__(self, directory):
        self.directory = directory
        self.job = directory / "runs" / "default" / "train"
        self.credentials = directory / "run" / "credentials"
        self.unit = {"LoadState": "loaded", "ActiveState": "inactive", "Result": "success", "NRestarts": "0", "NeedDaemonReload": "no"}
        self.calls = []
        self.start = {"ActiveState": "active"}

    def run_command(self, command):
        """Stands for AnsibleModule.run_command."""
        if command[0] == "journalctl":
            return 0, "a line\nthe last line\n", ""
        if command[1] == "show":
            assert command[-1] == "deeptrain-train@default.service"
            return 0, "".join(f"{name}={value}\n" for name, value in self.unit.items()), ""
        self.calls.append(command[1])
        if command[1] == "start":
            # All that the job needs is there by now.
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
        """Bring the job into a state."""
        self.job.mkdir(parents=True)
        (self.job / "config.json").write_text(json.dumps({"config": config or CONFIG, "settings": {"parallel": 1}}))
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
def node(tmp_path, monkeypatch):
    """Return a node."""
    node = Node(tmp_path)
    monkeypatch.setattr(basic.AnsibleModule, "run_command", lambda dummy, command: node.run_command(command))
    monkeypatch.setattr(job.os, "fchown", lambda handle, uid, gid: None)
    monkeypatch.setattr(job.pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid=1))
    monkeypatch.setattr(job.grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=1))
    return node


@pytest.fixture
def call(run_module, node):
    """Return a function that runs the module."""

    def call(state="started", config=None, **arguments):
        if state in ("started", "armed"):
            arguments = {"settings": {"parallel": 4}, "credentials": {"s3": {"key": SECRET}}, **arguments}
            config = config or CONFIG
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


@pytest.mark.parametrize("state", ["none", "running", "done", "failed"])
@pytest.mark.parametrize("config", [CONFIG, OTHER])
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("recheck", [False, True])
@pytest.mark.parametrize("check_mode", [False, True])
def test_every_cell_of_the_table(node, call, state, config, overwrite, recheck, check_mode):
    node.put(state)
    same = config == CONFIG
    before = node.files()
    result = call(config=config, overwrite=overwrite, recheck=recheck, check_mode=check_mode)
    if state == "done" and same and not recheck:
        assert result["action"] == "nothing" and result["result"]["status"] == "succeeded"
    elif state == "running" and same:
        assert result["action"] == "attach"
    elif state == "none" or same or (overwrite and (state == "failed" or state == "done" and recheck)):
        assert result["action"] == "start" and result["changed"]
        assert not result.get("failed")
        # What nothing has begun to work on binds nobody.
        assert result["difference"] == ({} if same or state == "none" else {"steps": {"was": 5, "is": 7}})
        # The settings are others each time.
        assert result["diff"]["after"] == {"config": config, "settings": {"parallel": 4}}
        assert SECRET not in json.dumps(result)
        if not check_mode:
            assert result["job_state"] == "running" and result["progress"] == [] and node.calls == ["start"]
            assert node.document() == result["diff"]["after"]
            assert stat.S_IMODE((node.job / "config.json").stat().st_mode) == 0o640
            path = node.credentials / "default" / "s3.json"
            assert json.loads(path.read_text()) == {"key": SECRET}
            assert [stat.S_IMODE(each.stat().st_mode) for each in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]
            return
    else:
        assert result["failed"] and result["action"] == "refuse" and result["difference"] == {"steps": {"was": 5, "is": 7}}
        assert "steps was 5, is now 7" in result["msg"]
    if result["action"] in ("nothing", "attach"):
        assert not result["changed"] and result["job_state"] == state
    assert node.files() == before and node.calls == []


def test_a_recheck_of_what_is_done_changes_nothing_by_itself(node, call):
    call()
    node.unit["ActiveState"] = "inactive"
    (node.job / "result.json").write_text('{"status": "succeeded"}')
    result = call(recheck=True)
    assert result["action"] == "start" and not result["changed"] and node.calls == ["start", "start"]


def test_arming_leaves_what_the_job_needs_and_starts_nothing(node, call):
    result = call("armed", check_mode=True)
    assert result["changed"] and node.files() == {}
    result = call("armed")
    assert result["changed"] and result["job_state"] == "none" and node.calls == []
    assert not call("armed")["changed"]
    (node.credentials / "default" / "s3.json").unlink()
    assert call("armed")["changed"]
    assert call("armed", credentials={"s3": {"key": "another"}})["changed"]


@pytest.mark.parametrize(
    ("state", "config", "action", "changed"),
    [
        ("running", CONFIG, "attach", False),
        ("done", CONFIG, "nothing", False),
        ("failed", CONFIG, "start", True),
        ("running", OTHER, "refuse", False),
        ("done", OTHER, "refuse", False),
        ("failed", OTHER, "refuse", False),
    ],
)
def test_arming_by_state(node, call, state, config, action, changed):
    node.put(state)
    # Even with recheck nothing is left for a job that is done.
    result = call("armed", config=config, recheck=True)
    assert result["action"] == action and result.get("changed", False) is changed
    assert result.get("failed", False) is (action == "refuse")
    assert node.credentials.exists() is changed
    assert node.calls == [] and (state == "running" or (node.job / "result.json").exists())


@pytest.mark.parametrize(
    ("state", "config", "action"),
    [("none", OTHER, "start"), ("done", CONFIG, "nothing"), ("running", OTHER, "refuse"), ("done", None, None)],
)
def test_observing_changes_nothing(node, call, state, config, action):
    node.put(state)
    before = node.files()
    result = call("observed", config=config)
    assert result.get("action") == action and not result["changed"] and not result.get("failed")
    assert ("refusal" in result) == (action == "refuse")
    assert node.files() == before and node.calls == []


def test_a_failure_is_told_with_the_end_of_the_journal(node, call):
    node.put("failed")
    result = call("observed")
    assert result["reason"] == "deeptrain-train@default.service: no space: make some" and result["log"] == ["a line", "the last line"]
    (node.job / "result.json").unlink()
    node.unit.update(ActiveState="failed", Result="signal", ExecMainStatus="9")
    result = call("observed")
    assert "it was killed by signal 9" in result["reason"] and "the last line" in result["reason"]


def test_a_unit_that_does_not_start(node, call):
    node.start = {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "243"}
    result = call()
    assert result["failed"] and result["changed"] and "it ended with status 243" in result["msg"]
    node.start = {"ActiveState": "inactive"}
    node.unit["ActiveState"] = "inactive"
    (node.job / "progress.jsonl").unlink(missing_ok=True)
    assert call()["msg"] == "deeptrain-train@default.service did not start: Job failed. See systemctl status."


def test_a_unit_is_read_again_and_forgiven_first(node, call):
    node.put("failed")
    node.unit.update(NeedDaemonReload="yes", ActiveState="failed")
    call()
    assert node.calls == ["daemon-reload", "reset-failed", "start"]


@pytest.mark.parametrize("load_state", ["not-found", "bad-setting", "masked"])
def test_a_unit_that_is_not_there(node, call, load_state):
    node.put("failed")
    node.unit["LoadState"] = load_state
    before = node.files()
    result = call()
    assert result["failed"] and f"its unit is {load_state}: run the role that installs it first" in result["msg"]
    assert node.files() == before
    assert not call(check_mode=True).get("failed")


def test_stopping(node, call, monkeypatch):
    assert not call("stopped")["changed"]
    node.put("running")
    result = call("stopped", check_mode=True)
    assert result["changed"] and result["job_state"] == "running" and node.calls == []
    result = call("stopped")
    assert result["changed"] and result["job_state"] == "failed" and node.calls == ["stop"]
    assert not call("stopped")["changed"]


def test_stopping_takes_no_longer_than_told(node, call, monkeypatch):
    node.put("running")
    clock = iter(range(100))
    monkeypatch.setattr(job, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda seconds: node.unit.update(ActiveState="deactivating")))
    run = node.run_command
    monkeypatch.setattr(node, "run_command", lambda command: (0, "", "") if command[1] == "stop" else run(command))
    result = call("stopped", timeout=5)
    assert result["failed"] and "was told to end 5 s ago and is still ending" in result["msg"]


@pytest.mark.parametrize(
    ("content", "offset", "records", "next_offset"),
    [
        (b'{"done": 1}\n{"done": 2}\n', 0, [{"done": 1}, {"done": 2}], 24),
        (b'{"done": 1}\n{"done": 2}\n', 12, [{"done": 2}], 24),
        # Half a record is read when it is whole.
        (b'{"done": 1}\n{"don', 0, [{"done": 1}], 12),
        (b'{"done": 1}\n{"don', 12, [], 12),
        # A job that was started again has begun its file anew.
        (b'{"done": 1}\n', 4000, [{"done": 1}], 12),
        # What a user's own command may write.
        (b'text\n[1]\n\xff\n\n{"done": NaN}\n', 0, [{"done": None}], 26),
    ],
)
def test_progress(node, call, content, offset, records, next_offset):
    node.put("running")
    (node.job / "progress.jsonl").write_bytes(content)
    result = call("observed", progress_offset=offset)
    assert (result["progress"], result["progress_offset"]) == (records, next_offset)


def test_of_much_progress_only_the_end_is_read(node, call):
    node.put("running")
    (node.job / "progress.jsonl").write_text("".join(f'{{"done": {number}}}\n' for number in range(100000)))
    result = call("observed")
    assert result["progress"][-1] == {"done": 99999} and 100 < len(result["progress"]) < 2000
    assert result["progress_offset"] == (node.job / "progress.jsonl").stat().st_size


def test_a_link_in_the_place_of_a_directory_is_refused(node, call, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (node.directory / "runs").mkdir()
    (node.directory / "runs" / "default").symlink_to(elsewhere)
    assert call()["failed"]
    assert list(elsewhere.iterdir()) == []


def test_without_a_directory_the_role_is_named(node, call):
    os.rmdir(node.directory)
    assert "run role deeptrain.cluster.runtime first" in call()["msg"]
    assert call(check_mode=True)["changed"]


@pytest.mark.parametrize(("state", "check_mode", "renewed"), [("observed", False, True), ("started", False, True), ("observed", True, False)])
def test_who_watches_renews_the_deadline(node, call, state, check_mode, renewed):
    watched = node.directory / "deadline" / "watched"
    watched.parent.mkdir()
    watched.touch()
    os.utime(watched, (0, 0))
    call(state, check_mode=check_mode)
    assert (watched.stat().st_mtime > 0) is renewed


def test_without_a_deadline_none_is_armed(node, call):
    call("observed")
    assert not (node.directory / "deadline").exists()


def test_one_controller_at_a_time(node, call, monkeypatch):
    taken = []
    monkeypatch.setattr(job.fcntl, "flock", lambda handle, operation: taken.append((operation, len(node.calls))))
    call()
    assert taken == [(fcntl.LOCK_EX, 0)]


def test_arguments_are_checked(run_module, call):
    assert "deeptrain_run is '../x'" in run_module(job, kind="train", run="../x", state="observed")["msg"]
    assert "config" in run_module(job, kind="train", run="x")["msg"]
