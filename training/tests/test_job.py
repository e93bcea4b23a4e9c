# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job writes, and how it ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from services import LIMIT

from deeptrain import activity, job
from deeptrain.job import BadInput, JobError, Outcome, Progress, Stopped


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"config": {"a": 1}, "settings": {"b": 2}}))
    return tmp_path


@pytest.fixture(autouse=True)
def signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def result(directory) -> dict:
    return json.loads((directory / "result.json").read_text())


def records(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_success(directory):
    def work(given):
        assert (given.config, given.settings) == ({"a": 1}, {"b": 2})
        return Outcome({"objects": 3}, changed=False)

    assert job.run(directory, work) == 0
    assert result(directory).items() >= {"status": "succeeded", "changed": False, "error": None, "summary": {"objects": 3}}.items()
    assert result(directory)["started"] <= result(directory)["finished"]
    assert (directory / "result.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (BadInput("set x"), 2, "set x"),
        (JobError("look there"), 1, "look there"),
        (Stopped(), 143, "goes on"),
        (ZeroDivisionError("oh"), 1, "unexpected ZeroDivisionError"),
    ],
)
def test_each_end_has_its_status_and_its_message(directory, capsys, error, status, words):
    def work(given):
        raise error

    assert job.run(directory, work) == status
    assert result(directory)["status"] == "failed"
    assert words in result(directory)["error"]
    assert words in capsys.readouterr().err


def test_an_old_result_is_gone_while_the_job_works(directory):
    (directory / "result.json").write_text("{}")
    assert job.run(directory, lambda given: Outcome({"there": (directory / "result.json").exists()})) == 0
    assert result(directory)["summary"] == {"there": False}


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_configuration_that_cannot_be_read(tmp_path, capsys, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert job.run(tmp_path, lambda given: Outcome()) == 2
    assert "config.json cannot be read" in capsys.readouterr().err


def test_sigterm(directory):
    program = f"""
import sys, time
from deeptrain import activity, job
def work(given):
    print("ready", flush=True)
    while True:
        given.check_stop()
        time.sleep(0.05)
sys.exit(job.run({str(directory)!r}, work))
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.wait(LIMIT) == 143
    assert result(directory)["status"] == "failed"


def test_credentials_are_those_of_the_unit(directory, tmp_path, monkeypatch):
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    assert job.Job(directory).credentials("s3") == {}
    (tmp_path / "s3.json").write_text('{"aws_access_key_id": "x"}')
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", os.fspath(tmp_path))
    assert job.Job(directory).credentials("s3") == {"aws_access_key_id": "x"}


def test_progress_tells_rate_and_time_to_go(tmp_path, monkeypatch):
    progress = Progress(tmp_path / "p", interval=0)
    for now, done, extra in ((1000, 100, {"files": 1}), (1000.5, 600, {})):
        monkeypatch.setattr(job, "time", SimpleNamespace(time=lambda now=now: now))
        progress.report("copy", done, 1100, "bytes", **extra)
    first, last = records(tmp_path / "p")
    assert first.items() >= {"phase": "copy", "done": 100, "total": 1100, "unit": "bytes", "rate": None, "eta_seconds": None, "extra": {"files": 1}}.items()
    assert (last["rate"], last["eta_seconds"]) == (1000, 0.5)


def test_progress_is_not_told_too_often(tmp_path):
    progress = Progress(tmp_path / "p", interval=60)
    told = [progress.report("copy", done, 10) for done in range(11)]
    assert told == [True, *[False] * 9, True]
    assert progress.report("verify", 0, 10)
    assert not progress.report("verify", 1, 10)
    assert progress.report("verify", 2, 10, force=True)
    assert [record["done"] for record in records(tmp_path / "p")] == [0, 10, 0, 2]


def test_a_scratch_directory_is_emptied_first(directory):
    given = job.Job(directory)
    # A job that is killed removes nothing.
    (directory / ".scratch-copy").mkdir()
    (directory / ".scratch-copy" / "old").write_text("")
    with given.scratch("copy") as scratch, given.scratch("events") as other:
        assert scratch == directory / ".scratch-copy" and other != scratch
        assert not list(scratch.iterdir())
        (scratch / "new").write_text("")
    assert {path.name for path in directory.iterdir()} == {"config.json"}


def test_lists_of_files_are_compared_whatever_their_order(directory):
    entries = [("a", 1), ("b", 2), ("c", 3)]
    assert activity.fold(entries) == activity.fold(reversed(entries)) != activity.fold(entries[:2])
    before = activity.local_files([directory])
    assert activity.local_files([directory]) == before
    (directory / "new").write_text("")
    assert activity.local_files([directory]) != before


def test_progress_on_a_full_disk(tmp_path, monkeypatch, capsys):
    full, path = Path("/dev/full"), tmp_path / "progress.jsonl"
    progress = Progress(full)
    assert progress.report("train", 1, 9)
    assert progress.report("train", 2, 9, force=True)
    assert capsys.readouterr().err.count("No space left") == 1
    # A line that another process could not write to its end.
    path.write_text('{"cut')
    progress = Progress(path)
    for done in (3, 4):
        progress.report("train", done, 9, force=True)
    assert [json.loads(line)["done"] for line in path.read_text().splitlines()[1:]] == [3, 4]


def test_a_result_waits_for_room(directory, monkeypatch):
    monkeypatch.setattr(job, "RESULT_PAUSE_SECONDS", 0.01)
    replace, full = job.replace_file, [OSError(errno.ENOSPC, "full")] * 3

    def later(path, content):
        if full:
            raise full.pop()
        replace(path, content)

    monkeypatch.setattr(job, "replace_file", later)
    assert job.run(directory, lambda given: Outcome()) == 0
    assert result(directory)["status"] == "succeeded"
    assert not full
    # Others are not waited for.
    full.append(OSError(errno.EROFS, "read-only"))
    with pytest.raises(OSError, match="read-only"):
        job.run(directory, lambda given: Outcome())


def test_a_directory_is_flushed_whatever_is_in_it(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_bytes(b"x")
    (tmp_path / "in" / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "in" / "fifo")
    job.flush(tmp_path)
