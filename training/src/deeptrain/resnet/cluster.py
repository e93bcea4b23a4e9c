# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which servers of the cluster answer, and which shards each worker holds."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deeptrain import documents
from deeptrain.job import JobError, Progress
from deeptrain.servers import PARALLEL, answers, split_address

PROBE_SECONDS = 2.0
POLL_SECONDS = 2.0
# The longest pause of a worker that cannot fetch its shards.
PAUSE_SECONDS = 60.0
# A worker that was missing takes part again after it has answered for so long.
BACK_SECONDS = 60.0
# A training without parameter servers, or without any worker, ends after this time.
SERVER_SECONDS = 3600.0
# Written into a worker's cache by the chief: the worker's position among those that take part, and their number.
DEAL = "deal.json"
# Workers that a chief which reconnects does not wait for again.
MISSING = "_DEEPTRAIN_MISSING_WORKERS"


class Reconnect(Exception):
    """The workers that take part have changed: connect again, from the checkpoint that was just saved."""


def answering(addresses: list[str]) -> list[str]:
    """The addresses at which something listens, in their order."""
    with ThreadPoolExecutor(PARALLEL) as pool:
        answered = pool.map(lambda address: answers(split_address(address), PROBE_SECONDS), addresses)
        return [address for address, answer in zip(addresses, answered, strict=True) if answer]


def wait(cluster: dict, progress: Progress, worker_seconds: float, server_seconds: float = SERVER_SECONDS) -> dict:
    """Waits for the servers; returns the cluster of those that take part.

    All parameter servers must answer. Workers that do not within ``worker_seconds`` are left out, as long as one answers.
    """
    excused = set(filter(None, os.environ.pop(MISSING, "").split(",")))
    began, named = time.monotonic(), None
    while True:
        answered = set(answering(cluster["ps"] + cluster["worker"]))
        missing = {kind: [address for address in cluster[kind] if address not in answered] for kind in ("ps", "worker")}
        workers = [address for address in cluster["worker"] if address in answered]
        waited = time.monotonic() - began
        if not missing["ps"] and workers and (set(missing["worker"]) <= excused or waited >= worker_seconds):
            if missing["worker"]:
                print(
                    f"Trains without {len(missing['worker'])} of {len(cluster['worker'])} workers, which do not answer: {', '.join(missing['worker'])}",
                    file=sys.stderr,
                    flush=True,
                )
            return {**cluster, "worker": workers}
        wanted = missing["ps"] or missing["worker"]
        if waited >= server_seconds:
            kind = "ps" if missing["ps"] else "worker"
            raise JobError(f"No deeptrain-{kind} answers on {', '.join(wanted)} after {waited:.0f} s: see that its unit runs, then run train.yml")
        if wanted != named:
            named = wanted
            print(f"Waits for {', '.join(wanted)}", file=sys.stderr, flush=True)
        progress.report("connect", waited, unit="s")
        time.sleep(POLL_SECONDS)


class Watch:
    """Polls the workers while they train. ``workers`` may take part, ``taking_part`` do."""

    def __init__(self, workers: list[str], taking_part: list[str], worker_seconds: float):
        # Workers that do not answer now, and why the chief has to connect again.
        self.missing: list[str] = []
        self.change: str | None = None
        threading.Thread(target=self._work, args=(workers, set(taking_part), worker_seconds), daemon=True).start()

    def _work(self, workers: list[str], taking_part: set[str], worker_seconds: float) -> None:
        # Worker → since when it answers, or does not.
        since: dict[str, tuple[bool, float]] = {}
        while True:
            answered, now, change = set(answering(workers)), time.monotonic(), None
            for worker in workers:
                present = worker in answered
                known = since.setdefault(worker, (present, now))
                if known[0] != present:
                    since[worker] = known = (present, now)
                    print(f"Worker {worker} {'answers again' if present else 'does not answer'}", file=sys.stderr, flush=True)
                if present != (worker in taking_part) and now - known[1] >= (min(BACK_SECONDS, worker_seconds) if present else worker_seconds):
                    change = f"Worker {worker} {'answers again' if present else 'is lost'}"
            self.missing, self.change = [worker for worker in workers if worker not in answered], change
            time.sleep(POLL_SECONDS)

    def check(self) -> None:
        """Raises Reconnect when a worker that takes part is lost, or one that does not answers again."""
        if self.change:
            raise Reconnect(self.change)

    def reconnect(self) -> None:
        """Starts this program again in this process, since TensorFlow connects to one cluster only."""
        os.environ[MISSING] = ",".join(self.missing)
        os.execv(sys.executable, [sys.executable, "-m", "deeptrain.resnet", *sys.argv[1:]])


def read_deal(cache: Path, index: int, count: int) -> tuple[int, int]:
    """The worker's position and the number of workers by the chief's last deal; those given when there is none."""
    try:
        document = documents.parse((cache / DEAL).read_text(encoding="utf-8"))
        return int(document["index"]), int(document["count"])
    except (OSError, ValueError, KeyError, TypeError):
        return index, count


def follow_deals(cache: Path, dealt: tuple[int, int], fetch: Callable[[int, int], object]) -> None:
    """Fetches the worker's share of each new deal, in the background."""

    def work():
        done, failure, pause = dealt, None, POLL_SECONDS
        while True:
            time.sleep(pause)
            deal = read_deal(cache, *done)
            if deal == done:
                continue
            try:
                fetch(*deal)
                done, failure, pause = deal, None, POLL_SECONDS
            except (JobError, OSError) as error:
                pause = min(2 * pause, PAUSE_SECONDS)
                if str(error) != failure:
                    failure = str(error)
                    print(f"The shards of worker {deal[0] + 1} of {deal[1]} are not fetched: {error}", file=sys.stderr, flush=True)

    threading.Thread(target=work, daemon=True).start()


def deal(cluster: dict, cache: Path, pattern: str, names: list[list[str]], progress: Progress, seconds: float = SERVER_SECONDS) -> None:
    """Deals the shards to the workers of the cluster, and waits until the files of each that match are its ``names``.

    TensorFlow's operations run on the workers, so that the files are theirs, not the chief's.
    """
    import tensorflow as tf

    count = len(cluster["worker"])

    def on_worker(index):
        return tf.device(f"/job:worker/replica:0/task:{index}/device:CPU:0")

    for index in range(count):
        with on_worker(index):
            tf.io.write_file(os.fspath(cache / DEAL), json.dumps({"index": index, "count": count}))
    waiting, began = list(range(count)), time.monotonic()
    while True:
        still = []
        for index in waiting:
            with on_worker(index):
                found = tf.io.matching_files(pattern).numpy()
            if sorted(os.path.basename(path.decode()) for path in found) != sorted(names[index]):
                still.append(index)
        waiting = still
        progress.report("deal", count - len(waiting), count, "workers")
        if not waiting:
            return
        if time.monotonic() - began > seconds:
            workers = ", ".join(cluster["worker"][index] for index in waiting)
            raise JobError(f"Workers have not fetched their shards after {seconds:.0f} s: {workers}; the journal of their unit deeptrain-worker says why")
        time.sleep(POLL_SECONDS)
