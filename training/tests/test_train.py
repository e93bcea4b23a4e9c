# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contract of a training command, with a command that is not ours."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from services import LIMIT, free_port, wait_until

from deeptrain import activity, caches, resume
from deeptrain import serve as serving
from deeptrain import train as training
from deeptrain.archive import Archive
from deeptrain.checkpoint import last_checkpoint
from deeptrain.fetch import INDEX, fetch, share
from deeptrain.hdfs import Hdfs, Unavailable
from deeptrain.job import BadInput, Job, JobError, Stopped
from deeptrain.manifest import NAME, Entry, encode
from deeptrain.serve import main as serve_main
from deeptrain.serve import serve
from deeptrain.train import CheckpointCopier, train

CONTRACT = ("TF_CONFIG", "DEEPTRAIN_RUN", "DEEPTRAIN_DATA_URL", "DEEPTRAIN_CACHE_DIR", "DEEPTRAIN_MODEL_URL", "DEEPTRAIN_EXPORT_DIR")

GOOD = """
import json, os, sys
from pathlib import Path
with open(os.environ["DEEPTRAIN_PROGRESS_FILE"], "a") as file:
    file.write(json.dumps({"phase": "train", "done": 1}) + "\\n")
out = Path(os.environ["DEEPTRAIN_EXPORT_DIR"])
(out / "metrics.json").write_text(json.dumps({"environment": dict(os.environ)}))
"""


@pytest.fixture
def make_job(tmp_path, hdfs, monkeypatch):
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "s3.json").write_text("{}")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.setattr(training, "RETRY_SECONDS", 0)
    monkeypatch.setattr(training, "WAIT_SECONDS", 0.1)

    def make(program: str, **settings) -> Job:
        document = {
            "config": {
                "command": [sys.executable, "-c", program],
                "data_url": "hdfs://nowhere/data",
                "data_manifest_sha256": "",
                "model_url": hdfs.url,
            },
            "settings": {
                "run": "mine",
                "tf_config": {"cluster": {}, "task": {"type": "chief", "index": 0}},
                "cache_dir": str(tmp_path / "cache"),
                "export_dir": str(tmp_path / "export"),
                "environment": {"MINE": "1"},
                **settings,
            },
        }
        (tmp_path / "config.json").write_text(json.dumps(document))
        return Job(tmp_path)

    return make


def test_the_command_gets_the_contract(make_job, hdfs):
    outcome = train(make_job(GOOD))
    environment = outcome.summary["environment"]
    assert all(environment[name] for name in CONTRACT)
    assert environment["MINE"] == "1"
    assert "CREDENTIALS_DIRECTORY" not in environment
    assert hdfs.status("_SUCCESS") is not None


def test_an_old_success_is_forgotten(make_job, hdfs):
    train(make_job(GOOD))
    with pytest.raises(JobError, match="status 3"):
        train(make_job("raise SystemExit(3)"))
    assert hdfs.status("_SUCCESS") is None


def test_bad_input_is_not_tried_again(make_job):
    with pytest.raises(BadInput, match="deeptrain_training_options"):
        train(make_job("raise SystemExit(2)"))


def test_a_command_that_leaves_nothing(make_job):
    with pytest.raises(BadInput, match="DEEPTRAIN_EXPORT_DIR"):
        train(make_job("pass"))


def test_a_command_that_is_not_there(make_job):
    job = make_job("")
    job.config["command"] = ["/nowhere/python"]
    with pytest.raises(BadInput, match="deeptrain_command.*/nowhere/python"):
        train(job)


def test_metrics_that_are_none(make_job, hdfs):
    program = "import os; open(os.environ['DEEPTRAIN_EXPORT_DIR'] + '/metrics.json', 'w').close()"
    with pytest.raises(BadInput, match=r"metrics\.json is no JSON"):
        train(make_job(program))
    assert hdfs.status("_SUCCESS") is None


def test_a_command_in_a_shell_is_told_to_end(make_job, tmp_path, monkeypatch):
    ready = tmp_path / "cache" / "ready"
    program = """
import os, subprocess
subprocess.run(["sh", "-c", "cd $DEEPTRAIN_CACHE_DIR; trap 'touch saved; exit 143' TERM; touch ready; while :; do sleep 0.1; done"])
"""
    # Its patience ends when the trap is set.
    monkeypatch.setattr(activity, "time", SimpleNamespace(monotonic=lambda: 10 * ready.exists()))
    monkeypatch.setattr(training, "FAILURES", 1)
    with pytest.raises(JobError, match="no progress"):
        train(make_job(program, no_progress_seconds=5))
    assert (tmp_path / "cache" / "saved").exists()


# Does something until so much progress was seen that the patience would have ended without it.
UNTIL_SEEN = """
import os, time
from pathlib import Path
from deeptrain.hdfs import Hdfs
end = time.monotonic() + 600
while not Path("seen").exists():
    if time.monotonic() > end:
        raise SystemExit(2)
    step = time.time()
    {write}
    time.sleep(1)
"""


@pytest.mark.parametrize(
    "write",
    [
        "open(os.environ['DEEPTRAIN_PROGRESS_FILE'], 'a').write('{}\\n')",
        "Path(os.environ['DEEPTRAIN_CACHE_DIR'], f'events.{step}').write_text('x')",
        "Hdfs(os.environ['DEEPTRAIN_MODEL_URL']).write_bytes(f'checkpoints/ckpt-{step}.index', b'x')",
    ],
    ids=["progress", "events", "checkpoints"],
)
def test_progress_keeps_the_command_alive(make_job, tmp_path, monkeypatch, write):
    clock = SimpleNamespace(now=0)

    class Seen(activity.Activity):
        """Nothing but the progress that is seen takes time."""

        def moved(self):
            moved = super().moved()
            clock.now += 4 * moved
            if clock.now > 10:
                (tmp_path / "cache" / "work" / "seen").touch()
            return moved

    monkeypatch.setattr(training, "Activity", Seen)
    monkeypatch.setattr(activity, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(training, "FAILURES", 1)
    # Files are always looked for.
    monkeypatch.setattr(activity, "FILES_SECONDS", -1)
    assert train(make_job(UNTIL_SEEN.format(write=write) + GOOD, no_progress_seconds=5)).summary["environment"]


@contextlib.contextmanager
def listening(port: int = 0):
    """A server that answers; yields its address."""
    with socket.create_server(("127.0.0.1", port)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def chief_of(**cluster) -> dict:
    return {"cluster": cluster, "task": {"type": "chief", "index": 0}}


def records(job: Job, phase: str) -> list[dict]:
    lines = job.progress_file.read_text().splitlines() if job.progress_file.exists() else []
    return [record for record in map(json.loads, lines) if record.get("phase") == phase]


def test_no_progress_ends_the_command(make_job):
    began = time.monotonic()
    with listening() as ps, listening() as first, listening() as second:
        with pytest.raises(JobError, match=f"no progress for 1 s.*deeptrain-ps on {ps} and deeptrain-worker on {first}, {second}"):
            train(make_job("import time; time.sleep(600)", no_progress_seconds=1, tf_config=chief_of(ps=[ps], worker=[first, second])))
    # It has not ended by itself.
    assert time.monotonic() - began < 600


def test_a_negative_patience_ends_no_command(make_job):
    assert training.patience(make_job(GOOD, no_progress_seconds=-1)) == float("inf")


def test_without_patience_the_command_may_be_silent(make_job):
    assert train(make_job("import time; time.sleep(3)\n" + GOOD, no_progress_seconds=0)).summary["environment"]


# Counts its starts in the working directory, which is its own.
COUNT = """
from pathlib import Path
starts = Path("starts")
count = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (count + 1))
"""


def starts(tmp_path: Path) -> int:
    path = tmp_path / "cache" / "work" / "starts"
    return len(path.read_text()) if path.exists() else 0


def test_relative_paths_and_home_can_be_written(make_job, tmp_path):
    program = "import os; open('relative', 'w').close(); open(os.path.expanduser('~/home'), 'w').close()\n" + GOOD
    train(make_job(program))
    assert {path.name for path in (tmp_path / "cache" / "work").iterdir()} == {"relative", "home"}


def test_failures_of_the_command_itself_are_limited(make_job, tmp_path, hdfs):
    job = make_job(COUNT + "raise SystemExit(3)")
    with pytest.raises(JobError, match=r"status 3.*\(5 failures within an hour\)"):
        train(job)
    assert starts(tmp_path) == 5
    assert [record["done"] for record in records(job, "restart")] == [1, 2, 3, 4]
    assert "status 3" in records(job, "restart")[0]["extra"]["reason"]


# Saves a checkpoint, of a higher step at each start or of the same one.
SAVE = """
import os
from deeptrain.hdfs import Hdfs
name = f"ckpt-{{{step}}}"
directory = Hdfs(os.environ["DEEPTRAIN_MODEL_URL"] + "/checkpoints")
for suffix in ("index", "data-00000-of-00001"):
    directory.write_bytes(f"{{name}}.{{suffix}}", b"x")
directory.write_bytes("checkpoint", f'model_checkpoint_path: "{{name}}"'.encode())
"""


@pytest.mark.parametrize("save", ["", SAVE.format(step="7")])
def test_failures_without_a_newer_checkpoint_never_expire(make_job, tmp_path, monkeypatch, save):
    monkeypatch.setattr(training, "FAILURES", 3)
    # As if each attempt had taken longer than an hour.
    monkeypatch.setattr(training, "FAILURES_SECONDS", 0)
    with pytest.raises(JobError, match=r"status 3.*\(3 failures without a newer checkpoint\)"):
        train(make_job(COUNT + save + "if count < 6: raise SystemExit(3)\n" + GOOD))
    # The first checkpoint is newer than none.
    assert starts(tmp_path) == 3


def test_failures_expire_while_checkpoints_advance(make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "FAILURES", 2)
    monkeypatch.setattr(training, "FAILURES_SECONDS", 0)
    train(make_job(COUNT + SAVE.format(step="count") + "if count < 3: raise SystemExit(3)\n" + GOOD))
    assert starts(tmp_path) == 4


def test_a_command_that_fails_at_first_is_restarted(make_job, tmp_path):
    train(make_job(COUNT + "if count < 3: raise SystemExit(1)\n" + GOOD))
    assert starts(tmp_path) == 4


def test_room_on_the_disk_is_waited_for(make_job, tmp_path, monkeypatch):
    """A full disk ends the command as often as five failures would end the training."""
    job = make_job(COUNT + "if count < 6: raise SystemExit(1)\n" + GOOD)
    short_of, asked = training._short_of, []

    def full(directory, needed):
        # There is room when the command starts, and none when it has failed.
        asked.append(starts(tmp_path))
        return "full" if asked[-1] < 6 and asked.count(asked[-1]) == 1 else short_of(directory, needed)

    monkeypatch.setattr(training, "_short_of", full)
    train(job)
    assert min(asked) == 1
    assert starts(tmp_path) == 7
    assert [record["done"] for record in records(job, "restart")] == [0] * 5 + [1]


@pytest.mark.parametrize("place", [resume, training])
def test_what_the_chief_writes_waits_for_room(make_job, tmp_path, monkeypatch, place):
    """Such as its record of the training, and its own name; more often than failures would end the training."""
    job, replace, full = make_job(COUNT + GOOD), place.replace_file, [OSError(errno.ENOSPC, "No space left on device")] * 7

    def later(path, content):
        if full:
            raise full.pop()
        replace(path, content)

    monkeypatch.setattr(place, "replace_file", later)
    train(job)
    assert starts(tmp_path) == 1 and not full


def test_room_is_missing_where_a_checkpoint_does_not_fit(make_job, hdfs, tmp_path, monkeypatch):
    wait = training.Wait(make_job(GOOD), 60)
    usage = shutil.disk_usage(tmp_path)
    assert wait.missing_room() == "" and usage.free > 1 << 30
    monkeypatch.setattr(training, "ROOM_BYTES", usage.free * 2)
    assert "MiB free" in wait.missing_room() and str(tmp_path) in wait.missing_room()
    monkeypatch.undo()
    checkpoints = Hdfs(f"{hdfs.url}/checkpoints")
    for suffix in ("index", "data-00000-of-00001"):
        checkpoints.write_bytes(f"ckpt-7.{suffix}", b"x" * 100)
    checkpoints.write_bytes("checkpoint", b'model_checkpoint_path: "ckpt-7"')
    assert wait._checkpoint_bytes() == 200


def test_what_makes_room_comes_before_the_wait_for_it(make_job, tmp_path, monkeypatch):
    left = tmp_path / ".scratch-copy" / "part"
    left.parent.mkdir()
    left.write_bytes(b"x")
    monkeypatch.setattr(training, "_short_of", lambda directory, needed: "full" if left.exists() else "")
    job = make_job(COUNT + "if count < 1: raise SystemExit(1)\n" + GOOD)
    train(job)
    assert starts(tmp_path) == 2 and not left.exists()


def test_the_result_is_on_the_disk_before_the_training_is_done(make_job, hdfs, tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(training, "flush", lambda directory: flushed.append((directory, hdfs.read_bytes("_SUCCESS"))))
    train(make_job(GOOD))
    assert flushed == [(tmp_path / "export", None)]
    assert hdfs.read_bytes("_SUCCESS") == b""


def test_hdfs_is_waited_for(make_job, cluster, tmp_path):
    """A NameNode that comes later than five starts would have waited: a start is none that has failed."""
    port = free_port()
    job = make_job(COUNT + GOOD)
    job.config["model_url"] = f"hdfs://127.0.0.1:{port}/test-{secrets.token_hex(4)}"

    def forward():
        wait_until(lambda: len(records(job, "wait for HDFS")) >= 2, "it waits")
        ready.set()

    ready = threading.Event()
    waiter = threading.Thread(target=forward, daemon=True)
    with Forwarder(port, cluster.port, ready):
        waiter.start()
        train(job)
        waiter.join()
    assert starts(tmp_path) == 1
    assert "HDFS at" in records(job, "wait for HDFS")[0]["extra"]["missing"]


def test_other_data_than_the_configured_is_refused(make_job, hdfs, tmp_path):
    job = make_job(COUNT + GOOD)
    job.config.update(data_url=f"{hdfs.url}/data", data_manifest_sha256="abc")
    hdfs.write_bytes("data/_manifest.sha256", b"def")
    with pytest.raises(BadInput, match=r"hdfs://.*/data holds other data.*was abc, is now def.*data\.yml"):
        train(job)
    assert starts(tmp_path) == 0
    hdfs.write_bytes("data/_manifest.sha256", b"abc")
    train(job)
    assert starts(tmp_path) == 1


def test_data_that_is_being_staged_is_waited_for(make_job, hdfs, tmp_path):
    job = make_job(COUNT + GOOD)
    job.config.update(data_url=f"{hdfs.url}/data", data_manifest_sha256="abc")

    def stage():
        wait_until(lambda: len(records(job, "wait for data")) >= 1, "it waits")
        assert starts(tmp_path) == 0
        hdfs.write_bytes("data/_manifest.sha256", b"abc")

    staging = threading.Thread(target=stage)
    staging.start()
    train(job)
    staging.join()
    assert starts(tmp_path) == 1
    assert "has no _manifest.sha256" in records(job, "wait for data")[0]["extra"]["missing"]


def test_a_mark_of_success_that_cannot_be_written_is_repeated_alone(make_job, tmp_path, hdfs, monkeypatch):
    write, failures = Hdfs.write_bytes, 3

    def away(self, name, content):
        nonlocal failures
        if name == "_SUCCESS" and failures:
            failures -= 1
            raise Unavailable("HDFS is away")
        write(self, name, content)

    monkeypatch.setattr(Hdfs, "write_bytes", away)
    train(make_job(COUNT + GOOD))
    assert not failures and starts(tmp_path) == 1
    assert hdfs.status("_SUCCESS") is not None


@pytest.mark.parametrize("status", [0, 3])
def test_a_command_that_ends_by_itself_as_the_job_is_stopped(make_job, hdfs, monkeypatch, status):
    job = make_job(GOOD + f"raise SystemExit({status})")

    class Late(training.Command):
        """The job is told to stop right after the command has ended."""

        def __init__(self, *arguments):
            super().__init__(*arguments)
            wait = self.process.wait

            def then_stop(timeout=None):
                ended = wait(timeout)
                job.stop.set()
                return ended

            self.process.wait = then_stop

    monkeypatch.setattr(training, "Command", Late)
    with contextlib.nullcontext() if status == 0 else pytest.raises(Stopped):
        train(job)
    assert (hdfs.status("_SUCCESS") is not None) == (status == 0)


class Forwarder:
    """Forwards a port to another from the time on at which it is told to."""

    def __init__(self, port: int, to: int, ready: threading.Event):
        self.port, self.to, self.ready = port, to, ready

    def __enter__(self):
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def __exit__(self, *exception):
        self.ended.set()
        self.ready.set()

    def _serve(self):
        self.ready.wait()
        with socket.create_server(("127.0.0.1", self.port)) as server:
            server.settimeout(0.2)
            while not self.ended.is_set():
                with contextlib.suppress(TimeoutError):
                    client = server.accept()[0]
                    client.settimeout(None)
                    other = socket.create_connection(("127.0.0.1", self.to))
                    for pair in ((client, other), (other, client)):
                        threading.Thread(target=self._copy, args=pair, daemon=True).start()

    @staticmethod
    def _copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


# Ends as a chief does when its parameter server is lost, as often as it is lost.
LOST = (
    COUNT
    + """
import os, socket, time
if count < 3:
    Path("end-the-server").touch()
    while Path("end-the-server").exists():
        time.sleep(0.05)
    raise SystemExit(1)
"""
)


def test_a_server_that_is_lost_is_no_failure_of_the_command(make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "FAILURES", 2)
    port = free_port()
    job = make_job(LOST + GOOD, tf_config=chief_of(ps=[f"127.0.0.1:{port}"]))
    mark = tmp_path / "cache" / "work" / "end-the-server"

    def lose():
        for _time_lost in range(3):
            with listening(port):
                wait_until(mark.exists, "the command runs")
            before = len(records(job, "wait for servers"))
            mark.unlink()
            # It is away until it is waited for again.
            wait_until(lambda before=before: len(records(job, "wait for servers")) > before, "it is waited for")
        with listening(port):
            ended.wait()

    ended = threading.Event()
    server = threading.Thread(target=lose, daemon=True)
    server.start()
    train(job)
    ended.set()
    server.join()
    assert starts(tmp_path) == 4
    assert {record["done"] for record in records(job, "restart")} == {0}
    assert f"deeptrain-ps on 127.0.0.1:{port} does not answer" in records(job, "wait for servers")[0]["extra"]["missing"]


def test_the_wait_for_a_server_has_a_timeout(make_job, tmp_path):
    port = free_port()
    with pytest.raises(JobError, match=f"no progress for 2 s: deeptrain-ps on 127.0.0.1:{port} does not answer: .*run train.yml"):
        train(make_job(COUNT + GOOD, no_progress_seconds=0.5, tf_config=chief_of(ps=[f"127.0.0.1:{port}"])))
    assert starts(tmp_path) == 0


def test_a_training_waits_for_some_workers_only_so_long(make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "WORKER_SECONDS", 0.5)
    missing = f"127.0.0.1:{free_port()}"
    with listening() as ps, listening() as worker:
        job = make_job(COUNT + GOOD, tf_config=chief_of(ps=[ps], worker=[worker, missing]))
        train(job)
    assert records(job, "wait for servers")[0]["extra"]["missing"].startswith(f"deeptrain-worker on {missing} does not answer")


def test_a_run_that_trains_is_marked(make_job, hdfs, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "RUNNING_SECONDS", 0.2)
    job = make_job(COUNT + "import time\nwhile not Path('end').exists(): time.sleep(0.05)\n" + GOOD)
    worker = threading.Thread(target=train, args=(job,))
    worker.start()
    try:
        wait_until(lambda: hdfs.status("_RUNNING") is not None, "it is marked")
        first = hdfs.status("_RUNNING").modification_time
        wait_until(lambda: hdfs.status("_RUNNING").modification_time > first, "the mark is renewed")
        wait_until(lambda: starts(tmp_path) == 1, "the command runs")
    finally:
        (tmp_path / "cache" / "work").mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / "work" / "end").touch()
        worker.join()
    assert hdfs.status("_RUNNING") is None and hdfs.status("_SUCCESS") is not None


@pytest.fixture
def other_chief(make_job, tmp_path, monkeypatch):
    """The mark of another chief of the same run."""
    monkeypatch.setattr(training, "RUNNING_SECONDS", 0.2)
    make_job("")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "config.json", tmp_path / "other")
    return training.Mark(Job(tmp_path / "other"))


def chiefs(hdfs) -> set[str]:
    return set(Hdfs(f"{hdfs.url}/_CHIEFS").files())


def test_a_chief_waits_while_another_one_trains_the_run(make_job, hdfs, tmp_path, other_chief, monkeypatch):
    monkeypatch.setattr(training, "STALE_SECONDS", 60)
    job = make_job(COUNT + GOOD)
    worker = threading.Thread(target=train, args=(job,), daemon=True)
    with other_chief:
        assert other_chief.claim() == ""
        worker.start()
        wait_until(lambda: len(records(job, "wait for another chief")) >= 2, "it waits")
        assert starts(tmp_path) == 0 and chiefs(hdfs) == {other_chief.name}
        assert other_chief.name in records(job, "wait for another chief")[0]["extra"]["missing"]
    worker.join()
    assert starts(tmp_path) == 1 and chiefs(hdfs) == set()


def test_a_chief_takes_over_from_one_that_was_lost(make_job, hdfs, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STALE_SECONDS", 0.5)
    hdfs.write_bytes("_CHIEFS/lost-1", b"")
    job = make_job(COUNT + GOOD)
    train(job)
    assert starts(tmp_path) == 1 and chiefs(hdfs) == set()
    assert records(job, "wait for another chief")


def test_a_chief_that_was_restarted_waits_for_no_other(make_job, hdfs, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STALE_SECONDS", 3600)
    job = make_job(COUNT + GOOD)
    Hdfs(f"{hdfs.url}/_CHIEFS").write_bytes(training.Mark(job).name, b"")
    train(job)
    assert not records(job, "wait for another chief")


def test_a_chief_that_comes_back_yields_to_the_one_that_took_over(make_job, hdfs, tmp_path, other_chief, monkeypatch):
    monkeypatch.setattr(training, "STALE_SECONDS", 3600)
    program = """
import signal, time
signal.signal(signal.SIGTERM, lambda *arguments: Path("saved").touch())
if count == 0:
    time.sleep(600)
"""
    job = make_job(COUNT + program + GOOD)
    worker = threading.Thread(target=train, args=(job,), daemon=True)
    worker.start()
    wait_until(lambda: starts(tmp_path) == 1, "the command runs")
    (own,) = chiefs(hdfs)
    with other_chief:
        monkeypatch.setattr(training, "STALE_SECONDS", 0)
        assert other_chief.claim() == ""
        monkeypatch.setattr(training, "STALE_SECONDS", 3600)
        wait_until(lambda: records(job, "wait for another chief"), "it waits")
        assert chiefs(hdfs) == {other_chief.name} != {own}
        assert starts(tmp_path) == 1
    worker.join()
    assert starts(tmp_path) == 2 and not (tmp_path / "cache" / "work" / "saved").exists()


def test_a_mark_that_another_chief_replaces_at_the_same_time(make_job, hdfs, monkeypatch):
    mark, write = training.Mark(make_job(GOOD)), Hdfs.write_stream

    def replaced(self, name, chunks):
        write(self, name, chunks)
        raise FileNotFoundError(f"{name} (inode 7) Holder x does not have any open files.")

    monkeypatch.setattr(Hdfs, "write_stream", replaced)
    assert mark.claim() == ""


def test_of_two_chiefs_that_begin_at_once_one_withdraws(make_job, hdfs, other_chief, monkeypatch):
    mark, renew = training.Mark(make_job(GOOD)), training.Mark._renew

    def at_once(self):
        if self is mark:
            assert "trains this run" not in other_chief.claim()
        renew(self)

    monkeypatch.setattr(training.Mark, "_renew", at_once)
    assert other_chief.name in mark.claim()
    assert chiefs(hdfs) == {other_chief.name}


def test_the_commands_own_words_are_the_error(make_job):
    program = """
import json, os
with open(os.environ["DEEPTRAIN_PROGRESS_FILE"], "a") as file:
    file.write(json.dumps({"phase": "failed", "extra": {"error": "lower learning_rate"}}) + "\\n")
raise SystemExit(2)
"""
    with pytest.raises(BadInput, match="^lower learning_rate$"):
        train(make_job(program))
    # It is not that of the next start.
    with pytest.raises(BadInput, match="refused its input"):
        train(make_job("raise SystemExit(2)"))


def test_sigterm_reaches_the_command(make_job, tmp_path):
    program = """
import os, signal, sys, time
def stop(*signal):
    open(os.path.join(os.environ["DEEPTRAIN_CACHE_DIR"], "saved"), "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
open(os.path.join(os.environ["DEEPTRAIN_CACHE_DIR"], "ready"), "w").close()
time.sleep(600)
"""
    make_job(program)
    process = subprocess.Popen([sys.executable, "-m", "deeptrain.cli", "train", "--job", str(tmp_path)])
    wait_until((tmp_path / "cache" / "ready").exists, "the command runs")
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT) == 143
    assert (tmp_path / "cache" / "saved").exists()
    assert json.loads((tmp_path / "result.json").read_text())["status"] == "failed"


# A launcher that passes SIGTERM on to what it has started, which notes each one.
LAUNCHER = """
import os, signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import signal, time
def note(*signal):
    open("signals", "a").write("x")
signal.signal(signal.SIGTERM, note)
open("ready", "w").close()
end = time.monotonic() + 600
while time.monotonic() < end and not __import__("os").path.exists("signals"):
    time.sleep(0.05)
time.sleep(1)
'''])
signal.signal(signal.SIGTERM, lambda *signal: child.terminate())
sys.exit(child.wait() or 143)
"""


def signals_of(work: Path, process: subprocess.Popen) -> str:
    wait_until((work / "ready").exists, "the command runs")
    process.send_signal(signal.SIGTERM)
    process.wait(LIMIT)
    return (work / "signals").read_text()


def test_sigterm_reaches_each_process_once(make_job, tmp_path):
    make_job(LAUNCHER)
    process = subprocess.Popen([sys.executable, "-m", "deeptrain.cli", "train", "--job", str(tmp_path)])
    assert signals_of(tmp_path / "cache" / "work", process) == "x"
    assert process.returncode == 143


def test_sigterm_reaches_each_process_of_a_server_once(tmp_path):
    program = "import os, sys; from deeptrain.serve import serve; sys.exit(serve([sys.executable, '-c', sys.argv[1]], dict(os.environ), ('127.0.0.1', 9)))"
    environment = {**os.environ, "DEEPTRAIN_CACHE_DIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-c", program, LAUNCHER], env=environment)
    assert signals_of(tmp_path / "work", process) == "x"


def save(hdfs, step: int) -> None:
    for suffix in ("index", "data-00000-of-00001"):
        hdfs.write_bytes(f"checkpoints/ckpt-{step}.{suffix}", os.urandom(1000))
    hdfs.write_bytes("checkpoints/checkpoint", f'model_checkpoint_path: "ckpt-{step}"\n'.encode())


def test_the_last_checkpoint_goes_to_s3(make_job, hdfs, s3_server, tmp_path):
    (tmp_path / "credentials" / "s3.json").write_text(json.dumps(s3_server.credentials))
    prefix = f"models/{secrets.token_hex(4)}/checkpoints"
    job = make_job(GOOD, checkpoint_url=f"s3://{s3_server.bucket}/{prefix}", s3=s3_server.settings)
    model = Hdfs(job.config["model_url"])
    copier = CheckpointCopier(job, model)
    assert copier.copy() is None

    def names():
        listing = s3_server.client.list_objects_v2(Bucket=s3_server.bucket, Prefix=prefix).get("Contents", [])
        return {item["Key"].rsplit("/", 1)[1] for item in listing}

    for step in (1, 2):
        save(hdfs, step)
        assert copier.copy() == f"ckpt-{step}"
        assert names() == {"checkpoint", f"ckpt-{step}.index", f"ckpt-{step}.data-00000-of-00001"}
    assert copier.copy() is None


def test_copies_of_two_attempts_are_not_made_at_once(make_job, hdfs, s3_server, tmp_path, monkeypatch):
    (tmp_path / "credentials" / "s3.json").write_text(json.dumps(s3_server.credentials))
    prefix = f"models/{secrets.token_hex(4)}"
    job = make_job(GOOD, checkpoint_url=f"s3://{s3_server.bucket}/{prefix}/checkpoints", s3=s3_server.settings)
    first, second = (CheckpointCopier(job, Hdfs(job.config["model_url"])) for _attempt in range(2))
    upload, uploads = Archive.upload, []

    def noted(self, local, name):
        uploads.append(self)
        if len(uploads) == 1:
            # While the first copier uploads, its attempt ends, and the next one saves a checkpoint.
            first.end()
            save(hdfs, 2)
            thread.start()
            # Enough for a copy that does not wait.
            thread.join(3)
        upload(self, local, name)

    thread = threading.Thread(target=second.copy)
    monkeypatch.setattr(Archive, "upload", noted)
    save(hdfs, 1)
    with pytest.raises(Stopped):
        first.copy()
    thread.join(LIMIT)
    # The upload that was under way is the first copier's last one.
    assert [archive is first.archive for archive in uploads] == [True, False, False]
    listing = s3_server.client.list_objects_v2(Bucket=s3_server.bucket, Prefix=f"{prefix}/checkpoints/")["Contents"]
    assert {item["Key"].rsplit("/", 1)[1] for item in listing} == {"checkpoint", "ckpt-2.index", "ckpt-2.data-00000-of-00001"}
    assert not list(job.directory.glob(".scratch*"))


def test_copies_go_on_after_one_that_failed(make_job, hdfs, s3_server, tmp_path, capsys):
    (tmp_path / "credentials" / "s3.json").write_text(json.dumps(s3_server.credentials))
    bucket = f"late-{secrets.token_hex(4)}"
    job = make_job(GOOD, checkpoint_url=f"s3://{bucket}/run/checkpoints", s3=s3_server.settings, checkpoint_minutes=0.005)
    save(hdfs, 1)
    copier = CheckpointCopier(job, Hdfs(job.config["model_url"]))
    copier.start()
    said = []
    wait_until(lambda: said.append(capsys.readouterr().err) or "deeptrain_export_url" in "".join(said), "a copy fails")
    s3_server.client.create_bucket(Bucket=bucket)
    wait_until(lambda: s3_server.client.list_objects_v2(Bucket=bucket)["KeyCount"] >= 3, "the checkpoint is copied")
    copier.end()


def test_the_last_checkpoint_of_an_index():
    assert last_checkpoint('model_checkpoint_path: "/a/b/ckpt-7"\nall_model_checkpoint_paths: "ckpt-6"\n') == "ckpt-7"
    assert last_checkpoint("") is None


def test_a_server_is_ready_when_its_port_answers(tmp_path, monkeypatch):
    port = free_port()
    program = f"""
import socket, time
from pathlib import Path
time.sleep(1)
Path("{tmp_path}/begins").touch()
server = socket.create_server(("127.0.0.1", {port}))
while not Path("{tmp_path}/end").exists():
    time.sleep(0.05)
"""
    monkeypatch.setattr(serving.signal, "signal", lambda *arguments: None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd, ThreadPoolExecutor() as pool:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LIMIT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        status = pool.submit(serve, [sys.executable, "-c", program], dict(os.environ), ("127.0.0.1", port))
        try:
            assert systemd.recv(1000).startswith(b"READY=1")
            assert (tmp_path / "begins").exists()
        finally:
            (tmp_path / "end").touch()
        assert status.result() == 0


def test_a_server_that_fills_its_cache_gets_more_time(tmp_path, monkeypatch):
    monkeypatch.setattr(serving, "FILES_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(LIMIT)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        environment = {**os.environ, "DEEPTRAIN_CACHE_DIR": str(tmp_path / "cache")}
        program = "import time; from pathlib import Path\nwhile not Path('../../end').exists(): Path('shard').write_text(str(time.time())); time.sleep(0.05)"
        worker = threading.Thread(target=serving.serve, args=([sys.executable, "-c", program], environment, ("127.0.0.1", 9)))
        monkeypatch.setattr(serving.signal, "signal", lambda *arguments: None)
        worker.start()
        try:
            for _message in range(3):
                assert systemd.recv(1000).startswith(b"EXTEND_TIMEOUT_USEC=120000000")
        finally:
            (tmp_path / "end").touch()
            worker.join()


def test_a_server_that_fails_is_never_ready(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(0)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert serve([sys.executable, "-c", "raise SystemExit(2)"], dict(os.environ), ("127.0.0.1", 9)) == 2
        with pytest.raises(BlockingIOError):
            systemd.recv(1000)


@pytest.fixture
def shards(hdfs):
    import hashlib

    entries = []
    for index in range(5):
        content = os.urandom(1000 + index)
        hdfs.write_bytes(f"train-{index}.tfrecord", content)
        entries.append(Entry(f"train-{index}.tfrecord", len(content), hashlib.sha256(content).hexdigest()))
    hdfs.write_bytes(NAME, encode("s3://b/p", entries))
    return hdfs


def test_every_shard_goes_to_one_worker():
    names = [f"s{index}" for index in range(7)]
    assert sorted(share(names, 0, 3) + share(names, 1, 3) + share(names, 2, 3)) == names


def test_fetch_brings_and_mends_a_share(shards, tmp_path):
    cache = tmp_path / "cache"
    paths = fetch(shards.url, cache, "train-*.tfrecord", 1, 2)
    assert [path.name for path in paths] == ["train-1.tfrecord", "train-3.tfrecord"]
    assert all(path.read_bytes() == shards.read_bytes(path.name) for path in paths)
    paths[0].unlink()
    paths[1].write_bytes(b"short")
    again = fetch(shards.url, cache, "train-*.tfrecord", 1, 2)
    assert all(path.read_bytes() == shards.read_bytes(path.name) for path in again)
    # Another share takes the place of this one.
    fetch(shards.url, cache, "train-*.tfrecord", 0, 2)
    assert {path.name for path in cache.glob("train-*")} == {"train-0.tfrecord", "train-2.tfrecord", "train-4.tfrecord"}


def test_fetch_removes_files_that_its_index_lacks(shards, tmp_path):
    fetch(shards.url, tmp_path, "train-*.tfrecord", 1, 2)
    (tmp_path / INDEX).unlink()
    # Of older data, and of a copy that was interrupted.
    for name in ("train-9.tfrecord", "train-3.tfrecord.part", "other"):
        (tmp_path / name).write_text("old")
    fetch(shards.url, tmp_path, "train-*.tfrecord", 0, 2)
    assert {path.name for path in tmp_path.iterdir()} == {INDEX, "other", "train-0.tfrecord", "train-2.tfrecord", "train-4.tfrecord"}


def test_fetch_refuses_damaged_data(shards, tmp_path):
    shards.write_bytes("train-0.tfrecord", b"x" * 1000)
    with pytest.raises(JobError, match="not what the manifest says"):
        fetch(shards.url, tmp_path, "train-0*", 0, 1)
    assert not Path(tmp_path, "train-0.tfrecord").exists()


def test_fetch_tells_of_data_that_is_missing(shards, tmp_path):
    shards.delete("train-0.tfrecord")
    with pytest.raises(JobError, match=r"train-0.*run data\.yml"):
        fetch(shards.url, tmp_path, "train-0*", 0, 1)


def test_a_share_that_does_not_fit_the_disk(shards, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1500))
    with pytest.raises(BadInput, match=r"GiB free.*deeptrain_cache_dir"):
        fetch(shards.url, tmp_path, "train-*", 0, 1)
    assert not list(tmp_path.glob("train-*"))


def test_caches_that_no_run_uses_are_removed(hdfs, tmp_path):
    hdfs.write_bytes("done/_SUCCESS", b"")
    hdfs.write_bytes("other/checkpoints/checkpoint", b"")
    for run in ("mine", "done", "busy", "other"):
        for name in ("train/.fetched.json", "train/train-0.tfrecord", "chief/checkpoints/ckpt-1.index"):
            (tmp_path / run / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / run / name).write_text("{}")
    hdfs.write_bytes("busy/_SUCCESS", b"")
    program = (
        f"import sys; from pathlib import Path; from deeptrain import caches; caches.use(Path({str(tmp_path / 'busy')!r})); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as busy:
        busy.stdout.readline()
        caches.remove_stale(tmp_path / "mine", f"{hdfs.url}/mine")
        assert {path.name for path in tmp_path.iterdir()} == {"mine", "busy", "other"}
        # A run that can be resumed keeps what it wrote itself.
        assert [path.name for path in (tmp_path / "other").iterdir()] == ["chief"]
        assert (tmp_path / "mine" / "train" / "train-0.tfrecord").exists()
        assert (tmp_path / "busy" / "train" / "train-0.tfrecord").exists()
        busy.stdin.close()
    caches.remove_stale(tmp_path / "mine", f"{hdfs.url}/mine")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "other"}


def test_a_cache_that_is_removed_is_made_again(tmp_path):
    lock = caches.use(tmp_path / "run")
    (tmp_path / "run").rmdir()
    again = caches.use(tmp_path / "run")
    assert (tmp_path / "run").is_dir()
    os.close(lock)
    os.close(again)


def test_a_cache_may_be_a_link_to_a_larger_disk(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    # It is made where the link leads.
    os.close(caches.use(tmp_path / "run"))
    os.close(caches.use(tmp_path / "run"))
    assert (tmp_path / "disk" / "run").is_dir() and (tmp_path / "run").is_symlink()


def test_a_server_removes_stale_caches(hdfs, tmp_path, monkeypatch):
    hdfs.write_bytes("done/_SUCCESS", b"")
    (tmp_path / "cache" / "done").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = {
        "run": "mine",
        "command": [sys.executable, "-c", "pass"],
        "tf_config": {"cluster": {"worker": [f"127.0.0.1:{port}"]}, "task": {"type": "worker", "index": 0}},
        "data_url": hdfs.url,
        "model_url": f"{hdfs.url}/mine",
        "cache_dir": str(tmp_path / "cache" / "mine"),
    }
    (tmp_path / "worker.json").write_text(json.dumps(config))
    assert serve_main(str(tmp_path / "worker.json")) == 0
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["mine"]


def test_a_chief_removes_stale_caches(make_job, hdfs, tmp_path):
    hdfs.write_bytes("done/_SUCCESS", b"")
    for run in ("done", "other"):
        (tmp_path / "caches" / run).mkdir(parents=True)
    job = make_job(GOOD, cache_dir=str(tmp_path / "caches" / "mine"))
    job.config["model_url"] = f"{hdfs.url}/mine"
    train(job)
    assert {path.name for path in (tmp_path / "caches").iterdir()} == {"mine", "other"}


def test_fewer_shards_than_workers(shards, tmp_path):
    with pytest.raises(BadInput, match="5 files like .* for 6 workers"):
        fetch(shards.url, tmp_path, "train-*", 5, 6)


def test_data_that_is_not_there(hdfs, tmp_path):
    with pytest.raises(JobError, match=r"run data\.yml"):
        fetch(hdfs.url, tmp_path, "train-*", 0, 1)
