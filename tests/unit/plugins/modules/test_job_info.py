# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.deeptrain.cluster.plugins.modules import job_info

CONFIG = {"steps": 5, "s3": {"region": "x"}}
OTHER = {"steps": 7, "s3": {"region": "x"}}


@pytest.mark.parametrize(
    ("state", "config", "action"),
    [("none", OTHER, "start"), ("done", CONFIG, "nothing"), ("running", OTHER, "refuse"), ("done", None, None)],
)
def test_reading_changes_nothing(node, read, state, config, action):
    node.put(state)
    before = node.files()
    result = read(config=config)
    assert result.get("action") == action and not result["changed"] and not result.get("failed")
    assert ("refusal" in result) == (action == "refuse")
    assert node.files() == before and node.calls == []


def test_a_failure_is_returned_with_the_end_of_the_journal(node, read):
    node.put("failed")
    result = read()
    assert result["reason"] == "deeptrain-train@default.service: no space: make some" and result["log"] == ["a line", "the last line"]
    (node.job / "result.json").unlink()
    node.unit.update(ActiveState="failed", Result="signal", ExecMainStatus="9")
    result = read()
    assert "it was killed by signal 9" in result["reason"] and "the last line" in result["reason"]


@pytest.mark.parametrize(
    ("content", "offset", "records", "next_offset"),
    [
        (b'{"done": 1}\n{"done": 2}\n', 0, [{"done": 1}, {"done": 2}], 24),
        (b'{"done": 1}\n{"done": 2}\n', 12, [{"done": 2}], 24),
        # Half a record is read when it is whole.
        (b'{"done": 1}\n{"don', 0, [{"done": 1}], 12),
        (b'{"done": 1}\n{"don', 12, [], 12),
        # A job that was restarted has begun a new file.
        (b'{"done": 1}\n', 4000, [{"done": 1}], 12),
        # What a user's own command may write.
        (b'text\n[1]\n\xff\n\n{"done": NaN}\n', 0, [{"done": None}], 26),
    ],
)
def test_progress(node, read, content, offset, records, next_offset):
    node.put("running")
    (node.job / "progress.jsonl").write_bytes(content)
    result = read(progress_offset=offset)
    assert (result["progress"], result["progress_offset"]) == (records, next_offset)


def test_of_much_progress_only_the_end_is_read(node, read):
    node.put("running")
    (node.job / "progress.jsonl").write_text("".join(f'{{"done": {number}}}\n' for number in range(100000)))
    result = read()
    assert result["progress"][-1] == {"done": 99999} and 100 < len(result["progress"]) < 2000
    assert result["progress_offset"] == (node.job / "progress.jsonl").stat().st_size


@pytest.mark.parametrize("state", ["failed", "none"])
def test_a_job_that_ends_with_its_node_has_not_failed(node, read, state):
    node.put(state)
    node.system = "stopping"
    assert read()["job_state"] == "running"
    node.system = "degraded"
    result = read()
    assert result["job_state"] == state and result["unit_state"] == "inactive" and result["boot"] == read()["boot"] != ""


def test_a_lack_of_memory_is_reported(node, read):
    node.put("failed")
    (node.job / "result.json").write_text('{"status": "failed", "error": "stopped; start it again"}')
    node.unit.update(ActiveState="failed", Result="oom-kill")
    assert "the node ran out of memory" in read()["reason"]


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize("renew", [None, False, True])
def test_the_lease_is_renewed_only_where_that_is_asked(node, read, renew, check_mode):
    renewed_file = node.directory / "autostop" / "renewed"
    renewed_file.parent.mkdir()
    renewed_file.touch()
    os.utime(renewed_file, (0, 0))
    node.put("running")
    arguments = {} if renew is None else {"renew_lease": renew}
    assert read(check_mode=check_mode, **arguments)["job_state"] == "running"
    assert (renewed_file.stat().st_mtime > 0) is (renew is True and not check_mode)


def test_without_a_lease_none_is_created(node, read):
    read(renew_lease=True)
    assert not (node.directory / "autostop").exists()


@pytest.mark.parametrize(
    ("state", "config", "arguments", "action"),
    [
        ("failed", OTHER, {}, "refuse"),
        ("failed", OTHER, {"overwrite": True}, "start"),
        ("done", CONFIG, {"recheck": True}, "start"),
        ("done", OTHER, {"recheck": True}, "refuse"),
        ("done", OTHER, {"recheck": True, "overwrite": True}, "start"),
    ],
)
def test_the_action_is_that_of_a_start(node, read, call, state, config, arguments, action):
    node.put(state)
    result = read(config=config, **arguments)
    started = call(config=config, check_mode=True, **arguments)
    assert result["action"] == started["action"] == action and result["difference"] == started["difference"]
    assert result.get("refusal") == started.get("msg")


@pytest.mark.parametrize("state", ["none", "failed"])
def test_a_running_job_of_another_run(node, read, state):
    node.others = ["mine"]
    node.put(state)
    assert "run mine is running" in read(config=CONFIG, exclusive=True)["refusal"]
    assert read(config=CONFIG)["action"] == "start"


def test_a_link_in_the_place_of_a_directory_is_reported(node, read, tmp_path_factory):
    (node.directory / "runs").mkdir()
    (node.directory / "runs" / "default").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    result = read()
    assert result["failed"] and "is a link or a file where a directory is needed" in result["msg"]


def test_arguments_are_validated(run_module):
    assert "deeptrain_run is '../x'" in run_module(job_info, kind="train", run="../x")["msg"]
    assert "'X' is no kind of job" in run_module(job_info, kind="X", run="x")["msg"]
