# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies everything under an S3 prefix to a directory of HDFS.

Objects are streamed, several at a time. A file carries its object's stamp as
its time of modification, so a later staging sees from two listings which are
unchanged; it gets its name only when its bytes have been read back and compared.
A file whose blocks are lost is copied again.

The manifest exists only while the target is complete. Before anything in the
target changes, a plan takes its place, from which the next staging resumes when
this one is interrupted. What a training uses is only repaired: its content and
its manifest stay.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import hdfs_native

from deeptrain import documents, manifest, s3
from deeptrain.autostop import is_running
from deeptrain.hdfs import Hdfs, Unavailable, retry
from deeptrain.job import BadInput, Job, JobError, Outcome, Progress
from deeptrain.manifest import Entry
from deeptrain.namenode import NameNode
from deeptrain.patience import Patience

# Objects on their way, and the plan.
INCOMING = "_incoming"
PLAN = f"{INCOMING}/plan.json"
# The target's own, which are no data.
_OWN = (manifest.NAME, manifest.DIGEST, INCOMING, f"{manifest.NAME}.part", f"{manifest.DIGEST}.part")
# A NameNode that starts with this node, at boot, loads its state and waits for its DataNodes first.
HDFS_SECONDS = 600
HDFS_RETRY_SECONDS = 5
# The limits of HDFS: bytes of a name, and entries of a directory.
_NAME_BYTES = 255
_DIRECTORY_LIMIT = "dfs.namenode.fs-limits.max-directory-items"


def stamp(item: s3.Object) -> int:
    """What an object's file has as its time of modification, in milliseconds since 1970.

    S3 has times in seconds; the milliseconds hold a trace of the ETag, so that a
    change within the same second is seen.
    """
    return item.modified * 1000 + int.from_bytes(hashlib.sha256(item.etag.encode()).digest()[:4], "big") % 1000


def parents(path: str) -> list[str]:
    """The directories that a path is in, the innermost first."""
    return [path[:end] for end in range(len(path) - 1, 0, -1) if path[end] == "/"]


def relative_paths(objects: Iterable[s3.Object], prefix: str) -> dict[str, s3.Object]:
    """The objects by the path each gets below the target; refuses names that HDFS cannot hold."""
    found: dict[str, s3.Object] = {}
    for item in objects:
        path = item.key.removeprefix(prefix + "/")
        segments = path.split("/")
        if any(segment in ("", ".", "..") or len(segment.encode()) > _NAME_BYTES for segment in segments) or ":" in path:
            raise BadInput(f"The object '{item.key}' cannot be a file in HDFS: rename it, or choose another deeptrain_data_url")
        if segments[0] in _OWN:
            raise BadInput(f"The object '{item.key}' has a name that staging needs for itself: rename it")
        found[path] = item
    for path in found:
        for directory in parents(path):
            if directory in found:
                raise BadInput(f"The objects '{found[directory].key}' and '{found[path].key}' cannot both be files in HDFS: rename one")
    return found


def list_source(client, source: str, settings: dict, progress: Progress | None = None) -> dict[str, s3.Object]:
    """The objects of a source by the path each gets below the target; refuses an empty source."""
    bucket, prefix = s3.split_url(source, "deeptrain_data_url")

    def objects() -> Iterator[s3.Object]:
        for count, item in enumerate(s3.iterate_objects(client, bucket, prefix), 1):
            if progress and count % 1000 == 0:
                progress.report("list", count, unit="objects")
            yield item

    with s3.as_job_errors(source, "deeptrain_data_url", settings):
        found = relative_paths(objects(), prefix)
    if not found:
        raise BadInput(f"There is no object under {source}: check deeptrain_data_url, or put the data there")
    return found


def largest_directory(paths: Iterable[str]) -> tuple[str, int]:
    """The directory with the most entries, empty for the topmost one, and their count."""
    entries: Counter[str] = Counter()
    known: set[str] = set()
    for path in paths:
        while True:
            directory = path.rpartition("/")[0]
            entries[directory] += 1
            if not directory or directory in known:
                break
            known.add(directory)
            path = directory
    return entries.most_common(1)[0]


@dataclass
class Target:
    """What earlier stagings left: their source, the digests they knew, and which files are unchanged or stale."""

    source: str | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    # Of the manifest, None without one.
    digest: str | None = None
    # Further files that are the data's own.
    names: set[str] = field(default_factory=set)
    unchanged: set[str] = field(default_factory=set)
    stale: list[str] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)
    # Bytes of the files that are removed or replaced.
    freed: int = 0


class Staging:
    """One staging of a source into a target."""

    def __init__(self, job: Job):
        self.job = job
        self.source = job.config["source"]
        self.settings = job.config["s3"]
        self.bucket, self.prefix = s3.split_url(self.source, "deeptrain_data_url")
        self.parallel = int(job.settings.get("parallel", 8))
        if not 1 <= self.parallel <= 256:
            raise BadInput(f"data_staging_parallel is {self.parallel}: use 1 to 256")
        self.client = s3.connect(self.settings, job.credentials("s3"), self.parallel, job.stop)
        self.target = self._wait_for_hdfs(job.config["target"])
        url = job.settings.get("namenode_url")
        self.namenode = NameNode(url) if url else None
        self._lock = threading.Lock()
        self._moved = 0
        self._wanted: dict[str, s3.Object] = {}
        # The entries that a file must keep, since a training uses the data; and the runs that train.
        self._kept: dict[str, Entry] | None = None
        self._users: list[str] = []
        self._etags_are_md5: bool | None = None

    def listing(self) -> dict[str, s3.Object]:
        return list_source(self.client, self.source, self.settings, self.job.progress)

    def run(self) -> Outcome:
        with self._alone():
            return self._run()

    def _wait_for_hdfs(self, url: str) -> Hdfs:
        """The target, when the NameNode answers and has left safe mode; nothing is changed there."""
        began = time.monotonic()
        while True:
            try:
                target = Hdfs(url)
                # A NameNode in safe mode refuses it, though the directory exists.
                Hdfs(url.rstrip("/").rpartition("/")[0] + "/").mkdirs()
                return target
            except Unavailable:
                if time.monotonic() - began >= HDFS_SECONDS:
                    raise
            self.job.progress.report("wait for HDFS", round(time.monotonic() - began), unit="s")
            self.job.stop.wait(HDFS_RETRY_SECONDS)
            self.job.check_stop()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits for other stagings into the target. The kernel ends the lock with the process that holds it."""
        # The name of version 0.1.0, whose staging may still run here.
        name = b"\0deeptrain/stage/" + hashlib.sha256(self.target.url.encode()).hexdigest().encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lock:
            while True:
                self.job.check_stop()
                try:
                    lock.bind(name)
                    break
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                self.job.progress.report("wait for another staging into the directory")
                self.job.stop.wait(1)
            yield

    def _run(self) -> Outcome:
        began = time.monotonic()
        # The lists first, since reading them takes memory for a while.
        target, known = self._read_target()
        wanted = self._wanted = self.listing()
        self._examine(target, known, wanted)
        unchanged, stale = target.unchanged, sorted(target.stale)
        # The largest first, or the last one is waited for alone.
        missing = sorted(path for path in wanted if path not in unchanged)
        missing.sort(key=lambda path: -wanted[path].length)
        entries = {path: entry for path, entry in target.entries.items() if path in unchanged}
        # What an earlier staging copied before it was interrupted has no digest yet.
        undigested = sorted(unchanged - entries.keys())

        self._total = sum(item.length for item in wanted.values())
        self._moved = sum(wanted[path].length for path in unchanged)
        self.job.progress.report("copy", self._moved, self._total, "bytes", files=len(unchanged))
        if missing or stale:
            self._protect(target, missing, stale, wanted)
            self._check_room(target, missing, wanted)
        if missing or stale or undigested:
            if self._kept is None:
                self._plan(target, entries.values(), wanted)
            self._remove(stale, wanted)
            entries.update(self._work(undigested, missing, wanted))
            self._compare_again(wanted)
        written = self._write_manifest(target, entries)
        if self.target.status(INCOMING) is not None:
            self.target.delete(INCOMING, recursive=True)

        seconds = time.monotonic() - began
        copied = sum(wanted[path].length for path in missing)
        self.job.progress.report("done", self._total, self._total, "bytes", force=True)
        return Outcome(
            changed=bool(missing or stale or written),
            summary={
                "objects": len(wanted),
                "bytes": self._total,
                "copied_objects": len(missing),
                "copied_bytes": copied,
                "skipped_objects": len(unchanged),
                "removed_objects": len(stale),
                "damaged_objects": len(target.damaged & wanted.keys()),
                "seconds": seconds,
                "bytes_per_second": copied / seconds,
                "manifest": f"{self.target.url}/{manifest.NAME}",
            },
        )

    def _read_target(self) -> tuple[Target, bool]:
        """What earlier stagings left, and whether all files that are the data's own are known; refuses the data of another source."""
        url = self.target.url
        status = self.target.status()
        if status is not None and not status.isdir:
            raise BadInput(f"{url} is a file: choose another deeptrain_data_dir")
        found = Target()
        if status is not None and self.namenode is not None:
            found.damaged = retry(lambda _patience: set(self.namenode.damaged_files(self.target)))
        # Which files are the data's own is unknown where the blocks of their list are lost; they are known by their stamps then.
        known = self._read_lists(found)
        if found.source not in (None, self.source) and not self.job.settings.get("replace"):
            raise BadInput(f"{url} holds the data of {found.source}: choose another deeptrain_data_dir, or set deeptrain_replace_data to true to replace it")
        return found, known

    def _examine(self, found: Target, known: bool, wanted: dict[str, s3.Object]) -> None:
        """Compares the files with the source; refuses a directory that holds something else."""
        foreign, foreigners = None, 0
        for path, file in self.target.list_files():
            if path.split("/", 1)[0] in _OWN:
                continue
            item = wanted.get(path)
            if known and path not in found.entries and path not in found.names:
                foreign, foreigners = min(foreign or path, path), foreigners + 1
            elif item is not None and found.source == self.source and self._is_unchanged(item, file) and path not in found.damaged:
                found.unchanged.add(path)
            else:
                found.freed += file.length
                if item is None:
                    found.stale.append(path)
        if foreign:
            more = f" and {foreigners - 1} more" if foreigners > 1 else ""
            raise BadInput(f"{self.target.url} holds something else ({foreign}{more}): choose another deeptrain_data_dir, or remove it")

    def _read_lists(self, found: Target) -> bool:
        """Reads the manifest and the plan; returns False when the blocks of one of them are lost."""
        document = plan = None
        if manifest.NAME not in found.damaged:
            document = self.target.read_bytes(manifest.NAME)
        if PLAN not in found.damaged:
            plan = self.target.read_bytes(PLAN)
        if document is not None:
            found.digest = hashlib.sha256(document).hexdigest()
            found.source, found.entries, _names = manifest.parse(document)
        if plan is not None:
            source, entries, names = manifest.parse(plan)
            found.names.update(names, entries)
            if document is None:
                found.source, found.entries = source, entries
        if document is None and plan is None and found.damaged & {manifest.NAME, PLAN}:
            found.source = self.source
            return False
        return True

    @staticmethod
    def _is_unchanged(item: s3.Object, file: hdfs_native.FileStatus) -> bool:
        return file.length == item.length and file.modification_time == stamp(item)

    def _protect(self, target: Target, missing: list[str], stale: list[str], wanted: dict[str, s3.Object]) -> None:
        """Refuses to change what a training uses; files that are lost are restored to what they were."""
        self._users = self._trainings(target)
        if not self._users:
            return
        changed = next((path for path in missing if path not in target.entries or target.entries[path].length != wanted[path].length), None)
        if stale or changed:
            raise self._in_use((stale or [changed])[0])
        self._kept = target.entries

    def _trainings(self, target: Target) -> list[str]:
        """The runs that use the target: those that train now, and this one once it has begun to train on the data as it is."""
        own, found = self.job.directory.parent, []
        for file in sorted(own.parent.glob("*/train/config.json")):
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                config, run = documents.parse(file.read_text(encoding="utf-8"))["config"], file.parent.parent
                if Hdfs.same(config["data_url"], self.target.url) and (
                    is_running(f"deeptrain-train@{run.name}.service")
                    or (run == own and target.digest == config["data_manifest_sha256"] and not self.job.settings.get("replace"))
                ):
                    found.append(run.name)
        return found

    def _in_use(self, path: str) -> BadInput:
        runs = ", ".join(f"'{run}'" for run in self._users)
        return BadInput(
            f"{self.target.url} is what the training of run {runs} uses, and {path} would change there by {self.source}:"
            " choose another deeptrain_data_dir and deeptrain_run, or stop the training (stop.yml) and set deeptrain_replace_data to true"
        )

    def _check_room(self, target: Target, missing: list[str], wanted: dict[str, s3.Object]) -> None:
        """Refuses what does not fit into HDFS before hours of copying."""
        if self.namenode is None:
            return
        directory, count = largest_directory(wanted)
        # The manifest, its digest and the directory of incoming objects are beside the data.
        limit = int(self.namenode.setting(_DIRECTORY_LIMIT)) - (0 if directory else 5)
        if count > limit:
            raise BadInput(
                f"{self.source}/{directory} has {count} entries, and a directory of HDFS holds {limit}: distribute them over several directories,"
                f" pack them into fewer objects, or set {_DIRECTORY_LIMIT} higher in hadoop_hdfs_site"
            )
        copies = self.namenode.replication()
        needed, room = copies * sum(wanted[path].length for path in missing), self.namenode.remaining() + copies * target.freed
        if needed > room:
            raise BadInput(
                f"{self.source} needs {needed} bytes in HDFS ({copies} copies), and {self.target.url} has room for {room}:"
                " add DataNodes or larger disks, set hadoop_replication lower, or remove what is not needed (hdfs dfs -du -h /)"
            )

    def _plan(self, target: Target, entries: Iterable[Entry], wanted: dict[str, s3.Object]) -> None:
        """Leaves what the next staging needs to know when this one is interrupted, in the place of the manifest."""
        entries = list(entries)
        others = [path for path in target.entries if path not in wanted] + [path for path in target.names if path not in wanted]
        names = [*wanted, *others]
        self.target.write_file(PLAN, lambda: manifest.chunks(self.source, entries, names))
        self.target.delete(manifest.DIGEST)
        self.target.delete(manifest.NAME)

    def _remove(self, stale: list[str], wanted: dict[str, s3.Object]) -> None:
        """Removes files, and the directories that hold no wanted file."""
        needed = {directory for path in wanted for directory in parents(path)}
        for path in stale:
            gone = itertools.takewhile(lambda directory: directory not in needed, parents(path))
            self.target.delete([path, *gone][-1], recursive=True)

    def _work(self, undigested: list[str], missing: list[str], wanted: dict[str, s3.Object]) -> dict[str, Entry]:
        """Digests and copies, several at a time; the first failure ends all."""
        entries: dict[str, Entry] = {}
        tasks = itertools.chain(((self._digest, path, wanted[path].length) for path in undigested), ((self._copy, path, wanted[path]) for path in missing))
        with ThreadPoolExecutor(self.parallel) as pool:
            pending: set[Future[Entry]] = set()
            try:
                while True:
                    # A million futures at once would take a gigabyte.
                    pending.update(pool.submit(*task) for task in itertools.islice(tasks, 2 * self.parallel - len(pending)))
                    if not pending:
                        return entries
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        entry = future.result()
                        entries[entry.path] = entry
            except BaseException:
                self.job.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _digest(self, path: str, length: int) -> Entry:
        self.job.check_stop()
        return Entry(path, length, retry(lambda patience: self.target.sha256(path, patience.moved)))

    def _copy(self, path: str, item: s3.Object) -> Entry:
        return retry(lambda patience: self._copy_once(path, item, patience))

    def _copy_once(self, path: str, item: s3.Object, patience: Patience) -> Entry:
        """Copies one object and reads it back."""
        self.job.check_stop()
        sha256, moved = hashlib.sha256(), 0
        temporary = f"{INCOMING}/{hashlib.sha256(path.encode()).hexdigest()}"

        def chunks() -> Iterator[bytes]:
            nonlocal moved
            with s3.as_job_errors(self.source, "deeptrain_data_url", self.settings), self._damaged(item):
                for chunk in s3.read(self.client, self.bucket, item):
                    self.job.check_stop()
                    # The time that S3 took is not HDFS's.
                    patience.moved(moved)
                    sha256.update(chunk)
                    yield chunk
                    moved += len(chunk)
                    self._advance(len(chunk))

        try:
            self.target.write_stream(temporary, chunks(), patience)
            if self.target.sha256(temporary, lambda done: patience.moved(item.length + done)) != sha256.hexdigest():
                raise JobError(f"{path} reads otherwise in HDFS than it was written: see the DataNodes' disks (hdfs fsck /), then run data.yml again")
            if self._kept is not None and self._kept[path].sha256 != sha256.hexdigest():
                raise self._in_use(path)
            self.target.set_modified(temporary, stamp(item))
            if "/" in path:
                self.target.mkdirs(path.rsplit("/", 1)[0])
            self.target.rename(temporary, path)
        except s3.Changed as error:
            raise self._changed(item.key) from error
        except Unavailable:
            # All of it is copied again.
            self._advance(-moved)
            raise
        return Entry(path, item.length, sha256.hexdigest())

    @contextlib.contextmanager
    def _damaged(self, item: s3.Object) -> Iterator[None]:
        """Refuses an object whose bytes are not those of its ETag, where the server's ETags are MD5s of the content."""
        try:
            yield
        except s3.Damaged as error:
            if error.__cause__ is None and not self._server_has_md5(item):
                return
            raise JobError(
                f"The object '{item.key}' of {self.source} has other bytes than its checksum or ETag says:"
                " upload it again, or see the S3 server's disks, then run data.yml again"
            ) from error

    def _server_has_md5(self, item: s3.Object) -> bool:
        with self._lock:
            if self._etags_are_md5 is None:
                self._etags_are_md5 = s3.etags_are_md5(self.client, self.bucket, (other for other in self._wanted.values() if other != item))
            return self._etags_are_md5

    def _compare_again(self, wanted: dict[str, s3.Object]) -> None:
        """Refuses a source that has changed since it was listed."""
        unseen = set(wanted)
        with s3.as_job_errors(self.source, "deeptrain_data_url", self.settings):
            for item in s3.iterate_objects(self.client, self.bucket, self.prefix):
                path = item.key.removeprefix(self.prefix + "/")
                if wanted.get(path) != item:
                    raise self._changed(item.key)
                unseen.discard(path)
        if unseen:
            raise self._changed(f"{self.prefix}/{min(unseen)}")

    def _changed(self, key: str) -> JobError:
        return JobError(f"The object '{key}' of {self.source} changed while it was copied: run data.yml again when nobody writes there")

    def _advance(self, count: int) -> None:
        with self._lock:
            self._moved += count
            moved = self._moved
        self.job.progress.report("copy", moved, self._total, "bytes")

    def _write_manifest(self, target: Target, entries: dict[str, Entry]) -> bool:
        def chunks() -> Iterator[bytes]:
            return manifest.chunks(self.source, entries.values())

        digest = hashlib.sha256()
        for chunk in chunks():
            digest.update(chunk)
        sha256 = digest.hexdigest()
        content = sha256.encode()
        written = False
        if target.digest != sha256 or self.target.status(manifest.NAME) is None:
            self.target.write_file(manifest.NAME, chunks)
            written = True
        if manifest.DIGEST in target.damaged or self.target.read_bytes(manifest.DIGEST) != content:
            self.target.write_bytes(manifest.DIGEST, content)
        return written


def stage(job: Job) -> Outcome:
    """Stages, by the job's ``source``, ``target`` and ``s3``."""
    return Staging(job).run()
