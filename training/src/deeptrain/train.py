# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the chief's training command as a job.

The command is anybody's. Around it: the wait for HDFS and the servers, the
environment of the contract, a check of its progress, its restarts, copies of the
last checkpoint to S3, and the mark of success.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import random
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from deeptrain import caches, checkpoint, manifest, servers
from deeptrain.activity import Activity
from deeptrain.archive import REPLACEMENT, Archive
from deeptrain.export import exported_files, read_metrics
from deeptrain.hdfs import Hdfs, Unavailable
from deeptrain.identity import FILE, Identity
from deeptrain.job import EXIT_BAD_INPUT, BadInput, Job, JobError, Outcome, Stopped, flush, is_full, replace_file
from deeptrain.namenode import Intact, NameNode
from deeptrain.process import Command, work_directory
from deeptrain.resume import Resume

SUCCESS = "_SUCCESS"
# Renewed while a run trains, so that no other run takes its servers; files below CHIEFS name the chiefs that train it.
RUNNING, CHIEFS = "_RUNNING", "_CHIEFS"
RUNNING_SECONDS, STALE_SECONDS = 30, 120
JOIN_SECONDS = 5
# What a command gets to save a checkpoint after SIGTERM.
STOP_SECONDS = 240
# So many failures of the command's own within so many seconds, or without a newer checkpoint, end the training.
FAILURES, FAILURES_SECONDS = 5, 3600
RETRY_SECONDS = 10
WAIT_SECONDS = 5
# A machine that restarts needs longer than a step of the training: so many times the patience with the latter.
WAIT_FACTOR = 4
# Without some of its workers a training works too, so they are not waited for so long.
WORKER_SECONDS = 120
# Less on the disk, and a failure counts as that of a full disk.
ROOM_BYTES = 64 << 20
# A DataNode that restarts is back by then, with its blocks.
BLOCKS_SECONDS = 600

T = TypeVar("T")


def task_environment(config: dict) -> dict[str, str]:
    """The whole environment of a training command, by ``run``, ``tf_config``, ``data_url``, ``model_url``, ``cache_dir``,
    and, of the chief alone, ``export_dir``, ``progress_file`` and ``namenode_url``."""
    environment = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    environment["HOME"] = str(work_directory(config["cache_dir"]))
    environment.update({str(name): str(value) for name, value in config.get("environment", {}).items()})
    environment.update(
        TF_CONFIG=json.dumps(config["tf_config"]),
        DEEPTRAIN_RUN=str(config["run"]),
        DEEPTRAIN_DATA_URL=config["data_url"],
        DEEPTRAIN_MODEL_URL=config["model_url"],
        DEEPTRAIN_CACHE_DIR=config["cache_dir"],
    )
    for name in ("export_dir", "progress_file", "namenode_url"):
        if config.get(name):
            environment[f"DEEPTRAIN_{name.upper()}"] = str(config[name])
    return environment


class CheckpointCopier:
    """Copies the last checkpoint from HDFS to S3 every so often, its index last. A copy that fails is tried again."""

    # The copier of the attempt before may still be at work when the next one begins.
    _alone = threading.Lock()

    def __init__(self, job: Job, model: Hdfs, damaged: checkpoint.Found | None = None):
        """``damaged`` is a checkpoint in S3 that does not count, however new it is."""
        self.job, self.damaged = job, damaged
        self.url = job.settings.get("checkpoint_url", "")
        self.seconds = 60.0 * float(job.settings.get("checkpoint_minutes", 10))
        self.replace = bool(job.settings.get("replace"))
        self.model = model
        self.directory = Hdfs(f"{model.url}/{checkpoint.DIRECTORY}")
        self._copied: dict[str, tuple[int, int]] = {}
        self._ended = threading.Event()

    @functools.cached_property
    def archive(self) -> Archive:
        return Archive(self.url.removesuffix(f"/{checkpoint.DIRECTORY}"), self.job.settings["s3"], self.job.credentials("s3"), self.job.stop)

    def start(self) -> None:
        if self.url and self.seconds > 0:
            threading.Thread(target=self._work, daemon=True).start()

    def end(self) -> None:
        """Lets it change nothing in S3 from now on, but for the request that is under way; that is not waited for."""
        self._ended.set()

    def _check_ended(self) -> None:
        if self._ended.is_set():
            raise Stopped

    def _work(self) -> None:
        while not self._ended.wait(self.seconds):
            try:
                self.copy()
            except Stopped:
                return
            except (JobError, OSError) as error:
                # A checkpoint may be replaced by a newer one meanwhile.
                print(f"The checkpoint is not copied to S3 this time: {error}", file=sys.stderr, flush=True)

    def copy(self) -> str | None:
        """Copies the last checkpoint unless S3 has it; returns its name. Raises Stopped when it is ended meanwhile."""
        with self._alone:
            return self._copy()

    def _copy(self) -> str | None:
        self._check_ended()
        found = checkpoint.find(self.directory)
        marks = _marks(found.files) if found else {}
        if found is None or marks == self._copied:
            return None
        self._claim()
        directory = self.archive.checkpoints(checkpoint.DIRECTORY)
        copied = checkpoint.find(directory)
        if copied == self.damaged:
            copied = None
        if checkpoint.newer(copied, found):
            raise JobError(f"{self.url} holds {copied.name}, which is newer than {found.name} in {self.directory.url}")
        if copied is None or copied.name != found.name:
            self._upload(found, {path for path in marks if marks[path] != self._copied.get(path)}, checkpoint.DIRECTORY)
            self._remove_older(found)
        # Also where what was copied under the name has changed since: not every number at a name's end is a step.
        elif found.step is None or self._copied or copied.index != found.index or _lengths(copied.files) != _lengths(found.files):
            self._replace(found)
        self._copied = marks
        return found.name

    def _claim(self) -> None:
        """Makes S3 say whose checkpoints it holds; removes those that the user wants replaced."""
        content, record = self.model.read_bytes(FILE), self.job.directory / FILE
        if content is None and record.exists():
            # HDFS has lost it.
            content = record.read_bytes()
        if content:
            copied, identity = self.archive.copied(), Identity.decode(content)
            if copied is not None and not identity.continues(copied):
                if not self.replace:
                    raise self.archive.foreign_checkpoints(copied, identity)
                self._check_ended()
                self.archive.delete_checkpoints()
            if copied != identity:
                self._check_ended()
                self.archive.write_bytes(f"{checkpoint.DIRECTORY}/{FILE}", content)

    def _replace(self, found: checkpoint.Found) -> None:
        """Replaces the files of the copy of the same name. Whenever this is interrupted, S3 has the old or the new ones under an index."""
        self.archive.delete_checkpoints(REPLACEMENT)
        self._upload(found, set(found.files), REPLACEMENT)
        self.archive.delete([f"{checkpoint.DIRECTORY}/{checkpoint.INDEX}"])
        for path in found.files:
            self._check_ended()
            self.archive.copy(f"{REPLACEMENT}/{path}", f"{checkpoint.DIRECTORY}/{path}")
        self._write_index(found, checkpoint.DIRECTORY)
        self._remove_older(found)

    def _upload(self, found: checkpoint.Found, changed: set[str], prefix: str) -> None:
        existing = self.archive.files(prefix)
        with self.job.scratch("copy") as scratch:
            for path, status in found.files.items():
                if path in changed or path not in existing or existing[path].length != status.length:
                    local = scratch / path
                    self.directory.download(path, local)
                    self._check_ended()
                    self.archive.upload(local, f"{prefix}/{path}")
                    local.unlink()
        now = _marks(self.directory.files())
        if any(now.get(path, mark) != mark for path, mark in _marks(found.files).items()):
            raise JobError(f"{found.name} in {self.directory.url} was replaced while it was copied")
        self._write_index(found, prefix)

    def _write_index(self, found: checkpoint.Found, prefix: str) -> None:
        existing = self.archive.files(prefix)
        if {path: existing[path].length for path in found.files if path in existing} != _lengths(found.files):
            raise JobError(f"{self.archive.url}/{prefix} does not hold all files of {found.name} after they were copied")
        self._check_ended()
        self.archive.write_bytes(f"{prefix}/{checkpoint.INDEX}", found.index)

    def _remove_older(self, found: checkpoint.Found) -> None:
        prefix, mirrored = checkpoint.DIRECTORY, self.directory.files()
        self.archive.delete_checkpoints(REPLACEMENT)
        for path in self.archive.files(prefix).keys() - {*found.files, checkpoint.INDEX, FILE}:
            # Without a step in its name a checkpoint is older when HDFS has it no more.
            if found.supersedes(path) or path not in mirrored and None in (found.step, checkpoint.step_of(path)):
                self._check_ended()
                self.archive.delete([f"{prefix}/{path}"])


def _marks(files: dict) -> dict[str, tuple[int, int]]:
    return {path: (status.length, status.modification_time) for path, status in files.items()}


def _lengths(files: dict) -> dict[str, int]:
    return {path: status.length for path, status in files.items()}


class Mark:
    """Marks in HDFS that a run trains, and lets one chief at a time train it.

    Every RUNNING_SECONDS the chief that trains renews ``_RUNNING``, and ``_CHIEFS/HOST-ID``, whose name says which chief it
    is; the ID stays with the job's directory. Both are empty, since renewing them then needs the NameNode alone.

    A chief waits while the mark of another one is renewed. It takes over what was not renewed for STALE_SECONDS in which HDFS
    answered, by its own clock, and removes that mark. Should the other chief come back, it misses its mark, kills its
    command without letting it save, and waits in turn.
    """

    def __init__(self, job: Job):
        self.url = job.config["model_url"]
        self.name = f"{socket.gethostname()}-{_chief_id(job.directory)}"
        self._held = False
        # Other chiefs' marks: when each was renewed by HDFS's clock, and since when that is known by this node's.
        self._seen: dict[str, tuple[int, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Mark:
        self._thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self._ended.set()
        # With STOP_SECONDS and the deletion all of it must end within the unit's TimeoutStopSec.
        self._thread.join(JOIN_SECONDS)
        if self._held:
            with contextlib.suppress(JobError, OSError):
                Hdfs(self.url).delete(RUNNING)
                self._chiefs().delete(self.name)

    def claim(self) -> str:
        """Which other chief trains the run; empty when this one may from now on. Raises Unavailable."""
        if self._held:
            return ""
        try:
            others = self._others()
        except JobError:
            # The other chief cannot renew its mark either.
            self._seen.clear()
            raise
        now, seen = time.monotonic(), self._seen
        self._seen = {name: seen[name] if name in seen and seen[name][0] == renewed else (renewed, now) for name, renewed in others.items()}
        if any(now - since < STALE_SECONDS for _renewed, since in self._seen.values()):
            return self._said(others)
        self._renew()
        if new := self._others().keys() - others.keys():
            # It began at the same time, and may not have seen this one.
            self._chiefs().delete(self.name)
            return self._said(new)
        for name in others:
            self._chiefs().delete(name)
        self._held = True
        return ""

    def check(self) -> None:
        """Raises Unavailable when another chief has taken over."""
        if not self._held:
            raise Unavailable(f"Another chief has taken over this run, since the mark of this one in {self.url} was not renewed")

    def _said(self, names: Iterable[str]) -> str:
        return f"The chief {', '.join(sorted(names))} trains this run, too: stop the training there; one that is lost counts for {STALE_SECONDS} s"

    def _chiefs(self) -> Hdfs:
        return Hdfs(f"{self.url}/{CHIEFS}")

    def _others(self) -> dict[str, int]:
        return {name: status.modification_time for name, status in self._chiefs().files().items() if name != self.name}

    def _renew(self) -> None:
        for directory, name in ((self._chiefs(), self.name), (Hdfs(self.url), RUNNING)):
            # Missing before it is closed: another chief renews or removes it at this moment.
            with contextlib.suppress(FileNotFoundError):
                directory.write_stream(name, iter(()))

    def _work(self) -> None:
        while not self._ended.wait(RUNNING_SECONDS):
            if self._held:
                with contextlib.suppress(JobError, OSError):
                    self._keep()

    def _keep(self) -> None:
        """Renews the marks, or yields to another chief that has taken over."""
        others = self._others()
        # Where both have a mark, the same one yields on both.
        if others and (self._chiefs().status(self.name) is None or self.name > min(others)):
            self._held = False
            self._chiefs().delete(self.name)
        else:
            self._renew()


def _chief_id(directory: Path) -> str:
    """What tells this chief from others, whatever their host names: it stays while the job's directory does."""
    path = directory / "chief"
    if not path.exists():
        replace_file(path, uuid.uuid4().hex.encode())
    return path.read_text(encoding="ascii")


class OutOfPatience(JobError):
    """What the training needs was missing for too long."""


class Wait:
    """Waits for what a training needs; altogether no longer than ``seconds`` since it last made progress."""

    def __init__(self, job: Job, seconds: float):
        self.job = job
        self.seconds = seconds
        self.tf_config = job.settings["tf_config"]
        self.moved = time.monotonic()
        # Whether the last failure was for lack of room.
        self._full = False
        # Files whose blocks were waited for in vain.
        self._lost: set[str] = set()

    def progressed(self) -> None:
        self.moved = time.monotonic()

    def check(self, reason: str) -> None:
        """Raises OutOfPatience, with the last reason for it, when the time is up."""
        if time.monotonic() - self.moved > self.seconds:
            raise OutOfPatience(f"The training has made no progress for {self.seconds:.0f} s: {reason}")

    def pause(self, seconds: float) -> None:
        self.job.stop.wait(seconds)
        self.job.check_stop()

    def until(self, phase: str, missing: Callable[[], str]) -> None:
        """Waits until nothing is missing; ``missing`` returns what is, and the fix."""
        began = time.monotonic()
        while said := missing():
            self.check(said)
            self.job.progress.report(phase, round(time.monotonic() - began), unit="s", missing=said)
            # Two chiefs that wait for each other do not stay in step.
            self.pause(WAIT_SECONDS * random.uniform(0.5, 1))

    def for_hdfs(self) -> None:
        self.until("wait for HDFS", self.missing_hdfs)

    def for_blocks(self) -> None:
        """Waits for lost blocks of the checkpoints, once: the training resumes from others when they do not come back."""
        model, began, lost = Intact(self.job.config["model_url"], self.job.settings.get("namenode_url")), time.monotonic(), set()
        # Never longer than all that is waited for.
        seconds = min(BLOCKS_SECONDS, self.seconds / 2)

        def missing() -> str:
            nonlocal lost
            names = (name for name in model.damaged() if not name.endswith(checkpoint.PART))
            lost = {name for name in names if name == FILE or name.startswith(f"{checkpoint.DIRECTORY}/")}
            if lost <= self._lost or time.monotonic() - began >= seconds:
                return ""
            return f"No live DataNode has all blocks of {', '.join(sorted(lost))} in {model.url}: start the DataNodes (hdfs.yml)"

        self.until("wait for blocks", missing)
        self._lost |= lost

    def for_data(self) -> None:
        """Waits while the data is staged; raises BadInput where HDFS has other data than the run was configured with."""
        if self.job.config.get("data_manifest_sha256"):
            self.until("wait for data", self.missing_data)

    def missing_data(self) -> str:
        url, configured = self.job.config["data_url"], self.job.config["data_manifest_sha256"]
        content = Intact(url, self.job.settings.get("namenode_url")).read_bytes(manifest.DIGEST)
        if content is None:
            return f"{url} has no {manifest.DIGEST}, so the data is not complete: run data.yml, unless it runs"
        if (found := content.decode(errors="replace").strip()) != configured:
            raise BadInput(
                f"{url} holds other data than this run was configured with (the sha256 of its manifest was {configured}, is now {found}):"
                " stage the old data again with data.yml, or use another deeptrain_run or deeptrain_data_dir"
            )
        return ""

    def for_servers(self) -> None:
        began = time.monotonic()
        self.until("wait for servers", lambda: self.missing_servers(all_workers=time.monotonic() - began < WORKER_SECONDS))

    def missing_hdfs(self) -> str:
        # A NameNode in safe mode refuses it.
        return _unavailable(lambda: Hdfs(self.job.config["model_url"]).mkdirs())

    def mark_success(self) -> None:
        """Writes the mark of success. The training is finished: while HDFS is unavailable, nothing but the mark is repeated."""
        self.progressed()
        self.until("wait for HDFS", lambda: _unavailable(lambda: Hdfs(self.job.config["model_url"]).write_bytes(SUCCESS, b"")))

    def missing_servers(self, all_workers: bool = False) -> str:
        silent = servers.silent(self.tf_config)
        if not all_workers:
            silent = servers.needed(self.tf_config, silent)
        return f"{servers.describe(silent)} does not answer: see its journal, or run train.yml, which starts it" if silent else ""

    def for_room(self) -> None:
        """Waits for room where the last failure was for lack of it. A training that never lacked any may do with less."""
        if self._full:
            self.until("wait for room", self.missing_room)
            self._full = False

    def retry_full(self, call: Callable[[], T]) -> T:
        """Returns what the call returns, and repeats it while a disk is full."""
        while True:
            try:
                return call()
            except OSError as error:
                if not is_full(error):
                    raise
                self.check(str(error))
                print(f"Waits for room: {error}", file=sys.stderr, flush=True)
            self.pause(WAIT_SECONDS)

    def missing_room(self) -> str:
        """Where there is no room for another checkpoint, on this node or in HDFS."""
        needed = max(ROOM_BYTES, 2 * self._checkpoint_bytes())
        for directory in (self.job.directory, Path(self.job.settings["cache_dir"]), Path(self.job.settings["export_dir"])):
            if said := _short_of(directory, needed):
                return said
        url = self.job.settings.get("namenode_url")
        try:
            free = NameNode(url).remaining() if url else needed
        except JobError:
            # It is waited for all the same.
            return ""
        if free < needed:
            return f"HDFS has {free >> 20} MiB free, and {needed >> 20} are needed: remove files from HDFS, or add DataNodes"
        return ""

    def _checkpoint_bytes(self) -> int:
        try:
            found = checkpoint.find(Hdfs(f"{self.job.config['model_url']}/{checkpoint.DIRECTORY}"))
        except (JobError, OSError):
            return 0
        return sum(status.length for status in found.files.values()) if found else 0

    def lost(self) -> str:
        """What goes missing in the time after a failure, and so may be its cause."""
        end = time.monotonic() + RETRY_SECONDS
        if said := self.missing_room():
            self._full = True
            return said
        while not (said := self.missing_servers() or self.missing_hdfs()) and time.monotonic() < end:
            self.pause(1)
        return said


def _short_of(directory: Path, needed: int) -> str:
    """Why the disk of a directory, which may not exist yet, has no room for so many bytes; empty when it has."""
    try:
        while not directory.exists():
            directory = directory.parent
        status = os.statvfs(directory)
    except OSError as error:
        return str(error)
    if status.f_files and not status.f_favail:
        return f"{directory} has no inodes free: remove files from its disk"
    free = status.f_bavail * status.f_frsize
    return f"{directory} has {free >> 20} MiB free, and {needed >> 20} are needed: remove files from its disk" if free < needed else ""


def _unavailable(call: Callable[[], object]) -> str:
    """Why HDFS did not do the call; empty when it did."""
    try:
        call()
    except Unavailable as error:
        return str(error)
    return ""


def supervise(job: Job, command: list[str], environment: dict[str, str], patience: float, progressed: Callable[[], None], check: Callable[[], None]) -> None:
    """Runs the command until it has succeeded; raises what else became of it.

    ``patience`` is the time without progress, in seconds, after which it is ended;
    ``progressed`` is called when it makes progress. What ``check`` raises kills it.
    """
    try:
        running = Command(command, environment)
    except OSError as error:
        raise BadInput(f"The training command cannot be run ({error}): check deeptrain_command, {command}") from error
    activity = Activity(job, patience)
    try:
        while True:
            try:
                status = running.process.wait(0.5)
                break
            except subprocess.TimeoutExpired:
                pass
            if job.stop.is_set():
                running.end(STOP_SECONDS)
                raise Stopped
            check()
            if activity.moved():
                progressed()
            elif activity.stalled():
                running.end(10)
                needed = servers.describe(servers.all_servers(job.settings["tf_config"])) or "its servers"
                raise JobError(f"The training made no progress for {patience:.0f} s: see that {needed} run, then run train.yml")
    finally:
        running.kill()
    if status != 0 and job.stop.is_set():
        raise Stopped
    error = activity.last_error()
    if status == EXIT_BAD_INPUT:
        raise BadInput(error or "The training command refused its input: see the unit's journal, and change deeptrain_training_options or deeptrain_command")
    if status != 0:
        why = error or "the unit's journal says why"
        raise JobError(f"The training command ended with status {status}: {why}; run train.yml, which resumes from the last checkpoint")


class Advance:
    """Whether a training saves newer checkpoints in HDFS."""

    def __init__(self, url: str):
        self.url = url
        self._last: checkpoint.Found | None = None

    def advanced(self) -> bool:
        """Whether HDFS has a newer checkpoint than at any call before; False where it cannot be read."""
        try:
            found = checkpoint.find(Hdfs(self.url))
        except (JobError, OSError):
            return False
        if not self._newer(found):
            return False
        self._last = found
        return True

    def _newer(self, found: checkpoint.Found | None) -> bool:
        last = self._last
        if found and last and None in (found.step, last.step):
            return _modified(found) > _modified(last)
        return checkpoint.newer(found, last)


def _modified(found: checkpoint.Found) -> int:
    return max(status.modification_time for status in found.files.values())


def persist(job: Job, wait: Wait, attempt: Callable[[], Outcome]) -> Outcome:
    """Repeats the attempt until it succeeds, or fails for its own reasons too often.

    A failure while HDFS, a server or room on the disk is missing is none of the
    command's own: it is waited for what is missing. Failures expire only while the checkpoints advance:
    each stall lasts so long that a training which always stalls would never end.
    """
    failures: list[float] = []
    checkpoints = Advance(f"{job.config['model_url']}/{checkpoint.DIRECTORY}")
    while True:
        try:
            wait.for_hdfs()
            return attempt()
        except (BadInput, OutOfPatience):
            raise
        except Unavailable as error:
            reason = str(error)
            wait.pause(RETRY_SECONDS)
        except (JobError, OSError) as error:
            reason = str(error)
            if isinstance(error, OSError) and is_full(error):
                # Whatever is free by now.
                wait.pause(RETRY_SECONDS)
            elif not wait.lost():
                now = time.monotonic()
                if checkpoints.advanced():
                    failures = [then for then in failures if now - then < FAILURES_SECONDS]
                failures.append(now)
                if len(failures) >= FAILURES:
                    how = "within an hour" if now - failures[0] < FAILURES_SECONDS else "without a newer checkpoint"
                    raise JobError(f"{reason} ({FAILURES} failures {how})", getattr(error, "summary", None)) from error
        wait.check(reason)
        print(f"Restarts the training command: {reason}", file=sys.stderr, flush=True)
        job.progress.report("restart", len(failures), unit="failures", force=True, reason=reason)


def attempt(job: Job, wait: Wait, mark: Mark) -> Outcome:
    """Trains until the command ends."""
    settings = job.settings
    model = Intact(job.config["model_url"], settings.get("namenode_url"))
    export_dir = Path(settings["export_dir"])
    # What makes room comes first.
    caches.remove_stale(Path(settings["cache_dir"]), job.config["model_url"])
    wait.for_room()
    wait.until("wait for another chief", mark.claim)
    wait.for_blocks()
    resume = Resume(job)
    restored = resume.run()
    export_dir.mkdir(parents=True, exist_ok=True)
    model.delete(SUCCESS)
    if not restored:
        environment = task_environment({**settings, **job.config, "progress_file": job.progress_file})
        copier = CheckpointCopier(job, model, resume.damaged.get(checkpoint.DIRECTORY, (None,))[0])
        wait.for_data()
        wait.for_servers()
        copier.start()
        try:
            supervise(job, job.config["command"], environment, patience(job), wait.progressed, mark.check)
        finally:
            copier.end()
    if not exported_files(export_dir):
        raise BadInput(f"The training command left nothing in DEEPTRAIN_EXPORT_DIR ({export_dir}): it must leave there what is to be exported")
    summary = read_metrics(export_dir)
    flush(export_dir)
    wait.mark_success()
    return Outcome(summary=summary)


def patience(job: Job) -> float:
    """Seconds without progress after which the command is ended; with 0 or less it never is."""
    seconds = float(job.settings.get("no_progress_seconds", 900))
    return seconds if seconds > 0 else math.inf


def train(job: Job) -> Outcome:
    """Trains, by the job's ``command``, ``data_url`` and ``model_url``."""
    job.remove_scratch()
    wait = Wait(job, WAIT_FACTOR * patience(job))
    wait.retry_full(lambda: caches.use(Path(job.settings["cache_dir"])))
    with wait.retry_full(lambda: Mark(job)) as mark:
        return persist(job, wait, lambda: attempt(job, wait, mark))
