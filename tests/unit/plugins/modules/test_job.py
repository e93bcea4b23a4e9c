# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import subprocess
from types import SimpleNamespace

import pytest
from ansible.module_utils import basic
from ansible_collections.deeptrain.cluster.plugins.modules import job

CONFIG = {"steps": 5, "s3": {"region": "x"}}
OTHER = {"steps": 7, "s3": {"region": "x"}}
SECRET = "not-to-be-seen"
# Debian's daemon.
USER = 1
FCHOWN = os.fchown


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
    assert result["failed"] and "was signalled to end 5 s ago and is still ending" in result["msg"]


def test_a_link_in_the_place_of_a_directory_is_refused(node, call, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (node.directory / "runs").mkdir()
    (node.directory / "runs" / "default").symlink_to(elsewhere)
    assert call()["failed"]
    assert list(elsewhere.iterdir()) == []


def test_without_a_directory_the_role_is_named(node, call):
    os.rmdir(node.directory)
    assert "run role deeptrain.cluster.node first" in call()["msg"]
    assert call(check_mode=True)["changed"]


@pytest.mark.parametrize(("state", "check_mode", "renewed"), [("stopped", False, True), ("started", False, True), ("started", True, False)])
def test_each_call_renews_the_lease(node, call, state, check_mode, renewed):
    renewed_file = node.directory / "autostop" / "renewed"
    renewed_file.parent.mkdir()
    renewed_file.touch()
    os.utime(renewed_file, (0, 0))
    call(state, check_mode=check_mode)
    assert (renewed_file.stat().st_mtime > 0) is renewed


def test_without_a_lease_none_is_created(node, call):
    call("stopped")
    assert not (node.directory / "autostop").exists()


def test_one_controller_at_a_time(node, call, monkeypatch):
    taken = []
    monkeypatch.setattr(job.locks.fcntl, "flock", lambda handle, operation: taken.append((operation, len(node.calls))))
    call()
    assert taken == [(fcntl.LOCK_EX | fcntl.LOCK_NB, 0)]


def test_the_wait_for_another_controller_has_a_timeout(node, call, monkeypatch):
    monkeypatch.setattr(job, "LOCK_SECONDS", 1)
    os.makedirs(os.path.dirname(job.LOCK))
    with open(job.LOCK, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        result = call()
    assert result["failed"] and f"Another task has held {job.LOCK} on this node for 1 s" in result["msg"]
    assert node.calls == [] and call()["action"] == "start"


def test_what_the_jobs_user_holds_stops_nothing(node, call):
    # The state directory was the lock once, and that user could hold it for ever.
    handle = os.open(node.directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert call()["action"] == "start"
    finally:
        os.close(handle)


@pytest.mark.parametrize("name", ["result.json", "progress.jsonl", "config.json"])
@pytest.mark.parametrize("kind", ["fifo", "link", "huge"])
def test_a_file_that_is_none_is_not_read(node, call, read, tmp_path_factory, name, kind):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    secret.write_text('{"status": "succeeded", "error": "not-to-be-seen", "config": {"a": "not-to-be-seen"}}\n')
    node.put("failed")
    (node.job / name).unlink()
    if kind == "fifo":
        os.mkfifo(node.job / name)
    elif kind == "link":
        (node.job / name).symlink_to(secret)
    else:
        with open(node.job / name, "wb") as file:
            file.truncate(2**40)
    signal.alarm(20)
    try:
        result = read(config=CONFIG)
        assert "not-to-be-seen" not in json.dumps(result) and result["job_state"] == "failed"
        started = call(overwrite=True)
    finally:
        signal.alarm(0)
    assert started["action"] == "start" and started["job_state"] == "running"
    assert secret.read_text().startswith('{"status"') and node.document()["config"] == CONFIG


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user who is not root")
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_the_jobs_user_leads_root_nowhere(node, call, monkeypatch, tmp_path_factory, depth):
    """The directories of an earlier version, which were all of the job's user, one of them exchanged for a link."""
    monkeypatch.setattr(job.os, "fchown", FCHOWN)
    other = tmp_path_factory.mktemp("etc")
    for below in ("default/train", "train", ""):
        (other / below).mkdir(parents=True, exist_ok=True)
    other.chmod(0o700)
    path = [node.job.parents[1], node.job.parents[0], node.job][depth]
    path.parent.mkdir(parents=True, exist_ok=True)
    for directory in [node.directory, *(node.job.parents[1], node.job.parents[0])[:depth]]:
        os.chown(directory, USER, USER)
    path.symlink_to(other)
    result = call()
    assert result["failed"] and f"{path} is a link or a file where a directory is needed" in result["msg"]
    assert (other.stat().st_uid, stat.S_IMODE(other.stat().st_mode)) == (0, 0o700) and not list(other.rglob("config.json"))
    assert all(each.stat().st_uid == 0 for each in other.rglob("*"))
    path.unlink()
    (node.directory / "runs" / "other").mkdir(parents=True, exist_ok=True)
    os.chown(node.directory / "runs" / "other", USER, USER)
    assert call()["job_state"] == "running"
    # Root's are all that lead there, of other runs too.
    assert [each.stat().st_uid for each in (node.directory, node.job.parents[1], node.job.parents[0], node.job.parents[1] / "other")] == [0] * 4
    assert node.job.stat().st_uid == USER
    assert ((node.job / "config.json").stat().st_uid, (node.job / "config.json").stat().st_gid) == (0, USER)
    # What that user can still try: nothing above its own directory can be exchanged.
    moved = subprocess.run(["mv", "train", "moved"], cwd=node.job.parent, user=USER, group=USER, extra_groups=[], capture_output=True, check=False)
    assert moved.returncode != 0 and node.job.exists()


@pytest.mark.parametrize(("unit_state", "expected"), [("inactive", "done"), ("failed", "failed"), ("active", "running")])
def test_done_is_the_success_of_the_last_start(node, call, read, unit_state, expected):
    node.put("done")
    node.unit.update(ActiveState=unit_state, Result="exit-code" if unit_state == "failed" else "success", ExecMainStatus="243")
    assert read()["job_state"] == expected
    assert call(check_mode=True)["action"] == {"done": "nothing", "failed": "start", "running": "attach"}[expected]


@pytest.mark.parametrize("state", ["started", "armed"])
@pytest.mark.parametrize("check_mode", [False, True])
def test_another_run_is_refused_while_one_is_running(node, call, read, state, check_mode):
    node.others = ["mine", "default"]
    node.put("failed")
    before = node.files()
    result = call(state, exclusive=True, check_mode=check_mode)
    assert result["failed"] and result["action"] == "refuse" and "run mine is running" in result["msg"] and "deeptrain_run=mine" in result["msg"]
    assert node.files() == before and node.calls == []
    assert "run mine is running" in read(config=CONFIG, exclusive=True)["refusal"]
    assert call(state, check_mode=check_mode)["action"] == "start"
    # Itself is none of the others, and what needs no start disturbs nobody.
    node.others = ["default"]
    assert call(state, exclusive=True, check_mode=check_mode)["action"] in ("start", "attach")


@pytest.mark.parametrize("state", ["running", "done"])
def test_what_is_not_started_is_not_refused_for_another_run(node, call, state):
    node.others = ["mine"]
    node.put(state)
    assert call(exclusive=True)["action"] in ("attach", "nothing")


def test_a_job_with_the_role_of_the_machine_starts_at_boot(node, call):
    drop_in = node.units / "deeptrain-train@default.service.d" / "boot.conf"
    role = {"s3": {"key": "", "token": None}}
    call(credentials=role)
    assert not drop_in.exists()
    node.unit["ActiveState"] = "failed"
    call(credentials=role, at_boot=True)
    assert drop_in.read_text() == "[Service]\nSetCredential=s3.json:{}\nExecStartPre=-+systemctl --no-reload enable %n\n"
    assert node.calls[-3:] == ["daemon-reload", "reset-failed", "start"]
    # As the unit does then.
    node.unit.update(ActiveState="failed", UnitFileState="enabled")
    assert not call("armed", credentials=role, at_boot=True)["changed"]
    call(at_boot=True)
    assert not drop_in.exists() or drop_in.read_text() == ""
    assert node.unit["UnitFileState"] == "disabled" and node.calls[-4:] == ["disable", "daemon-reload", "reset-failed", "start"]


def test_another_run_that_failed_does_not_start_at_boot_beside_this_one(node, call, monkeypatch):
    wants = node.units / "multi-user.target.wants"
    wants.mkdir()
    for name in ("train@default", "train@mine", "export@mine"):
        (wants / f"deeptrain-{name}.service").symlink_to("/dev/null")
    disabled = []

    def run_command(module, command):
        if command[1] != "disable":
            return node.run_command(command)
        disabled.append(command[2:])
        return 0, "", ""

    monkeypatch.setattr(basic.AnsibleModule, "run_command", run_command)
    assert call(check_mode=True)["changed"] and call("armed", exclusive=True)["changed"] and not disabled
    call(exclusive=True)
    assert disabled == [["deeptrain-train@mine.service"]] and node.calls[-1] == "start"


def test_what_is_stopped_does_not_start_at_boot(node, call):
    node.put("failed")
    node.unit["UnitFileState"] = "enabled"
    assert call("stopped", check_mode=True)["changed"] and node.calls == []
    assert call("stopped")["changed"] and node.calls == ["disable"]
    assert not call("stopped")["changed"]
    node.unit.update(ActiveState="active", UnitFileState="enabled")
    assert call("stopped")["changed"] and node.calls == ["disable", "disable", "stop"]


def test_a_restart_while_the_unit_is_stopped_does_not_enable_it(node, call, monkeypatch):
    node.put("running")
    node.unit["UnitFileState"] = "enabled"
    run = node.run_command

    def restart_first(command):
        if command[1] == "stop":
            # By the unit's ExecStartPre=.
            node.unit["UnitFileState"] = "enabled"
        return run(command)

    monkeypatch.setattr(node, "run_command", restart_first)
    assert call("stopped")["changed"] and node.unit["UnitFileState"] == "disabled"


def test_a_unit_that_waits_for_its_restart_gets_the_credentials_that_it_lacks(node, call):
    node.put("running")
    node.unit["ActiveState"] = "activating"
    path = node.credentials / "default" / "s3.json"
    result = call("armed")
    assert result["action"] == "attach" and result["changed"] and json.loads(path.read_text()) == {"key": SECRET}
    assert not call("armed", credentials={"s3": {"key": "another"}})["changed"] and json.loads(path.read_text()) == {"key": SECRET}


def test_arguments_are_checked(run_module, call):
    assert "deeptrain_run is '../x'" in run_module(job, kind="train", run="../x", state="stopped")["msg"]
    assert "config" in run_module(job, kind="train", run="x")["msg"]
