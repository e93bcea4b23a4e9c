# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workers that are lost and come back: who takes part, and which shards each holds."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import socket
import threading
import time

import pytest
from services import LIMIT, wait_until

from deeptrain.job import BadInput, JobError, Progress
from deeptrain.resnet import cluster, data


@contextlib.contextmanager
def server():
    """An address at which something listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def progress(tmp_path):
    return Progress(tmp_path / "progress.jsonl", interval=0.0)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.05)


class Clock:
    """Pauses alone take time, until there are too many of them."""

    now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        assert self.now < 10


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(cluster, "time", Clock())


def test_a_worker_that_does_not_answer_is_left_out(quick, clock, progress, tmp_path, capsys):
    with server() as ps, server() as first, server() as second:
        with server() as lost:
            pass
        addresses = {"chief": ["c:1"], "ps": [ps], "worker": [first, lost, second]}
        assert cluster.wait(addresses, progress, 0.5)["worker"] == [first, second]
        assert f"without 1 of 3 workers, which do not answer: {lost}" in capsys.readouterr().err
    records = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert len(records) > 1 and {record["phase"] for record in records} == {"connect"}


def test_a_chief_that_reconnects_waits_for_no_worker_twice(quick, clock, progress, monkeypatch):
    with server() as ps, server() as first:
        with server() as lost:
            pass
        monkeypatch.setenv(cluster.MISSING, lost)
        assert cluster.wait({"chief": ["c:1"], "ps": [ps], "worker": [first, lost]}, progress, 600)["worker"] == [first]


def test_servers_that_are_needed_are_waited_for(quick, progress):
    with server() as ps, server() as worker:
        pass
    with pytest.raises(JobError, match=f"deeptrain-ps answers on {ps}"), server() as worker:
        cluster.wait({"chief": ["c:1"], "ps": [ps], "worker": [worker]}, progress, 0, server_seconds=0.2)
    with pytest.raises(JobError, match=f"deeptrain-worker answers on {worker}"), server() as ps:
        cluster.wait({"chief": ["c:1"], "ps": [ps], "worker": [worker]}, progress, 0, server_seconds=0.2)


def test_lost_workers_and_those_that_come_back_are_noticed(quick, monkeypatch):
    with contextlib.ExitStack() as stack, server() as first:
        second = stack.enter_context(server())
        watch = cluster.Watch([first, second], [first, second], 0.2)
        stack.close()
        wait_until(lambda: watch.change, "the lost worker is noticed")
        with pytest.raises(cluster.Reconnect, match=f"{second} is lost"):
            watch.check()
        assert watch.missing == [second]
        # Now the first one comes back to a training without it.
        watch = cluster.Watch([first], [], 0.2)
        wait_until(lambda: watch.change, "the worker that is back is noticed")
        with pytest.raises(cluster.Reconnect, match=f"{first} answers again"):
            watch.check()


def test_a_worker_follows_the_chiefs_deal(quick, tmp_path):
    fetched, wrong = [], threading.Event()

    def fetch(index, count):
        if not wrong.is_set():
            wrong.set()
            raise JobError("HDFS is away")
        fetched.append((index, count))

    assert cluster.read_deal(tmp_path, 1, 3) == (1, 3)
    cluster.follow_deals(tmp_path, (1, 3), fetch)
    (tmp_path / cluster.DEAL).write_text('{"index": 0, "cou')
    (tmp_path / cluster.DEAL).write_text('{"index": 0, "count": 2}')
    wait_until(lambda: fetched, "the share is fetched, and retried")
    assert fetched == [(0, 2)] and wrong.is_set()


def test_a_worker_that_cannot_hold_its_share_retries_ever_less_often(quick, tmp_path):
    tries = []

    def fetch(index, count):
        tries.append(time.monotonic())
        raise BadInput("use a larger disk")

    cluster.follow_deals(tmp_path, (1, 3), fetch)
    (tmp_path / cluster.DEAL).write_text('{"index": 0, "count": 2}')
    wait_until(lambda: len(tries) >= 6, "the share is retried")
    pauses = [later - earlier for earlier, later in itertools.pairwise(tries[:6])]
    assert all(pause >= cluster.POLL_SECONDS * 2**number for number, pause in enumerate(pauses, 1)), pauses


def test_a_lost_workers_shards_go_to_the_others(hdfs_processes, tmp_path):
    """A real cluster: a worker is lost, comes back, and is lost again while the chief restarts."""

    def shards(worker: int) -> set[str]:
        return {path.name for path in (tmp_path / f"worker{worker}" / "cache" / "train").glob(data.TRAIN)}

    def log() -> str:
        return hdfs_processes.log("chief0") + hdfs_processes.log("worker0")

    # A worker that is later than the chief's patience would take no part at first.
    servers = hdfs_processes.cluster["ps"] + hdfs_processes.cluster["worker"]
    wait_until(lambda: cluster.answering(servers) == servers, "the servers answer", lambda: hdfs_processes.log("worker1"))
    arguments = ["--checkpoint-steps", "20", "--steps-per-call", "2", "--worker-minutes", "0.05"]
    chief = hdfs_processes.start("chief", 0, *arguments, "--train-steps", "100000")
    hdfs_processes.wait_for_steps(20, chief)
    everything = shards(0) | shards(1)
    assert len(everything) == 4 and len(shards(0)) == len(shards(1)) == 2

    _ps, _worker, lost, _chief = hdfs_processes.running
    lost.kill()
    wait_until(lambda: shards(0) == everything, "the shards of the lost worker are fetched", log)
    hdfs_processes.wait_for_steps(hdfs_processes.steps() + 20, chief)
    lost = hdfs_processes.start("worker", 1)
    wait_until(lambda: len(shards(0)) == len(shards(1)) == 2 and shards(0) | shards(1) == everything, "each worker holds its share again", log)
    hdfs_processes.wait_for_steps(hdfs_processes.steps() + 20, chief)

    chief.send_signal(signal.SIGKILL)
    chief.wait()
    lost.kill()
    steps = hdfs_processes.steps() + 20
    chief = hdfs_processes.start("chief", 0, *arguments, "--train-steps", str(steps))
    assert chief.wait(LIMIT) == 0, log()
    assert shards(0) == everything
