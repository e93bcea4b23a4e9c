# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's configuration, progress, result and end.

A job is a process that reads ``config.json`` in its directory, appends its
progress to ``progress.jsonl`` there, writes ``result.json`` once at its end, and
exits 0 only when its work is verified.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deeptrain import documents

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_STOPPED = 128 + signal.SIGTERM

# How long a result is kept for a full disk to have room again.
RESULT_SECONDS, RESULT_PAUSE_SECONDS = 3600.0, 5.0


class JobError(Exception):
    """The job cannot be done; the message is one sentence that names the fix, the summary what was done nevertheless."""

    exit_status = EXIT_FAILED

    def __init__(self, message: str, summary: dict | None = None):
        super().__init__(message)
        self.summary = summary or {}


class BadInput(JobError):
    """What was asked cannot be done, and starting again does not mend it."""

    exit_status = EXIT_BAD_INPUT


class Stopped(Exception):
    """Somebody asked the job to end."""


def finite(value):
    """The value with null for every number that JSON cannot hold (NaN and the infinities)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


class Progress:
    """Appends progress to a file, a JSON object a line, at most one every ``interval`` seconds and phase."""

    def __init__(self, path: str | os.PathLike | None, interval: float = 2.0):
        self._path = path
        self._interval = interval
        self._lock = threading.Lock()
        self._phase = None
        # Whether the last line could not be written.
        self._failing = False
        self._phase_began = self._phase_done = self._last = 0.0

    def report(
        self,
        phase: str,
        done: float | None = None,
        total: float | None = None,
        unit: str = "",
        rate: float | None = None,
        force: bool = False,
        **extra,
    ) -> bool:
        """Reports how far a phase is; returns whether it was time for a line. On a full disk the line is left out.

        ``rate`` is in units a second and is computed since the phase began when
        it is not given; the rest of the time to go is derived from it.
        """
        now = time.time()
        with self._lock:
            if phase != self._phase:
                self._phase, self._phase_began, self._phase_done, force = phase, now, done or 0, True
            finished = total is not None and done == total
            if not force and not finished and now - self._last < self._interval:
                return False
            self._last = now
            elapsed = now - self._phase_began
            if rate is None and done is not None and elapsed > 0:
                rate = (done - self._phase_done) / elapsed
            eta = (total - done) / rate if rate and total is not None and done is not None else None
            record = {
                "time": round(now, 3),
                "phase": phase,
                "done": done,
                "total": total,
                "unit": unit,
                "rate": rate,
                "eta_seconds": eta,
                "extra": extra,
            }
            if self._path is not None:
                self._append(json.dumps(finite(record), allow_nan=False))
            return True

    def _append(self, line: str) -> None:
        try:
            with open(self._path, "ab+") as file:
                if os.fstat(file.fileno()).st_size:
                    # A full disk may have cut the last line, of whoever else writes here.
                    file.seek(-1, os.SEEK_END)
                    line = line if file.read() == b"\n" else f"\n{line}"
                file.write(f"{line}\n".encode())
            self._failing = False
        except OSError as error:
            if not self._failing:
                print(f"Progress cannot be written: {error}", file=sys.stderr, flush=True)
            self._failing = True

    @contextlib.contextmanager
    def during(self, phase: str, seconds: float = 3600.0) -> Iterator[None]:
        """Reports a phase that has no steps to report, for at most ``seconds``."""
        ended, began = threading.Event(), time.monotonic()

        def work():
            while not ended.wait(self._interval) and time.monotonic() - began < seconds:
                self.report(phase, round(time.monotonic() - began, 1), unit="s")

        self.report(phase)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@dataclass
class Outcome:
    """What a job has done: its figures, and whether it changed anything outside its directory."""

    summary: dict = field(default_factory=dict)
    changed: bool = True


class Job:
    """The directory of a job, as its program sees it."""

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)
        try:
            document = documents.parse((self.directory / "config.json").read_text(encoding="utf-8"))
            self.config: dict = document["config"]
            self.settings: dict = document.get("settings", {})
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise BadInput(f"{self.directory / 'config.json'} cannot be read ({error!r}): start the job with module deeptrain.cluster.job") from error
        self.progress = Progress(self.progress_file)
        self.stop = threading.Event()

    @property
    def progress_file(self) -> Path:
        return self.directory / "progress.jsonl"

    def credentials(self, name: str) -> dict:
        """The credentials that systemd handed to the job's unit; empty outside a unit."""
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            return {}
        return documents.parse((Path(directory) / f"{name}.json").read_text(encoding="utf-8"))

    def remove_scratch(self) -> None:
        """Removes what a killed process left in temporary directories."""
        for directory in self.directory.glob(".scratch-*"):
            shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A temporary directory in the job's own, since /tmp may be memory. What a killed process left in it is removed first."""
        directory = self.directory / f".scratch-{name}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def check_stop(self) -> None:
        """Raises Stopped when somebody asked the job to end."""
        if self.stop.is_set():
            raise Stopped


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file in one step, so that it is never seen incomplete, nor after a loss of power."""
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, document: dict) -> None:
    """Writes a document in one step, readable by all."""
    replace_file(path, json.dumps(finite(document), indent=2, sort_keys=True, allow_nan=False).encode() + b"\n")


def run(directory: str | os.PathLike, work: Callable[[Job], Outcome]) -> int:
    """Runs a job's work, writes its result and returns the process's exit status."""
    try:
        job = Job(directory)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    result_file = job.directory / "result.json"
    with contextlib.suppress(FileNotFoundError):
        result_file.unlink()
    signal.signal(signal.SIGTERM, lambda number, frame: job.stop.set())
    began = time.time()
    result = {"status": "failed", "changed": False, "started": began, "error": None, "summary": {}}
    try:
        outcome = work(job)
        result.update(status="succeeded", changed=outcome.changed, summary=outcome.summary)
        status = 0
    except Stopped:
        result["error"] = "stopped; start it again and it goes on from where it was"
        status = EXIT_STOPPED
    except JobError as error:
        result.update(error=str(error), summary=error.summary)
        status = error.exit_status
    except Exception as error:
        traceback.print_exc()
        result["error"] = f"unexpected {error!r}: the unit's journal has the details"
        status = EXIT_FAILED
    if result["error"]:
        print(result["error"], file=sys.stderr, flush=True)
    result["finished"] = time.time()
    _write_result(job, result_file, result)
    return status


def is_full(error: OSError) -> bool:
    """Whether it says that a disk has no room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _write_result(job: Job, path: Path, result: dict) -> None:
    """Writes the result; waits for room on a full disk, since success without a result would be done again."""
    end = time.monotonic() + RESULT_SECONDS
    while True:
        try:
            return write_json(path, result)
        except OSError as error:
            if not is_full(error) or result["status"] != "succeeded" or job.stop.is_set() or time.monotonic() > end:
                raise
            print(f"The result cannot be written, tried again: {error}", file=sys.stderr, flush=True)
        job.stop.wait(RESULT_PAUSE_SECONDS)


def flush(directory: Path) -> None:
    """Has the disk hold all files of a directory, before something says that they are complete."""
    for path in (directory, *directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            continue
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
