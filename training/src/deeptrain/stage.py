# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings everything under an S3 prefix to a directory of HDFS.

Objects are streamed, several at a time. A file carries its object's stamp as
its time of modification, so a later staging sees from two listings what is there
unchanged; it gets its name only when its bytes have been read back and compared.

The manifest is there only while the target is complete. Before anything in the
target changes, a plan takes its place, from which the next staging goes on when
this one is cut off.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field

import hdfs_native

from deeptrain import manifest, s3
from deeptrain.hdfs import Hdfs, Unavailable, persistently
from deeptrain.job import BadInput, Job, JobError, Outcome
from deeptrain.manifest import Entry

# Objects on their way, and the plan.
INCOMING = "_incoming"
PLAN = f"{INCOMING}/plan.json"


def stamp(item: s3.Object) -> int:
    """What an object's file has as its time of modification, in milliseconds since 1970.

    S3 tells times in seconds; the milliseconds hold a trace of the ETag, so that a
    change within the same second is seen.
    """
    return item.modified * 1000 + int.from_bytes(hashlib.sha256(item.etag.encode()).digest()[:4], "big") % 1000


def parents(path: str) -> list[str]:
    """The directories that a path is in, the innermost first."""
    return [path[:end] for end in range(len(path) - 1, 0, -1) if path[end] == "/"]


def relative_paths(objects: list[s3.Object], prefix: str) -> dict[str, s3.Object]:
    """The objects by the path each gets below the target; refuses names that HDFS cannot hold."""
    found: dict[str, s3.Object] = {}
    for item in objects:
        path = item.key.removeprefix(prefix + "/")
        segments = path.split("/")
        if any(segment in ("", ".", "..") for segment in segments) or ":" in path:
            raise BadInput(f"The object '{item.key}' cannot be a file in HDFS: rename it, or choose another deeptrain_data_url")
        if segments[0] in (manifest.NAME, INCOMING):
            raise BadInput(f"The object '{item.key}' has a name that staging needs for itself: rename it")
        found[path] = item
    for path in found:
        for directory in parents(path):
            if directory in found:
                raise BadInput(f"The objects '{found[directory].key}' and '{found[path].key}' cannot both be files in HDFS: rename one")
    return found


def list_source(client, source: str, settings: dict) -> dict[str, s3.Object]:
    """The objects of a source by the path each gets below the target; refuses an empty source."""
    bucket, prefix = s3.split_url(source, "deeptrain_data_url")
    with s3.explained(source, "deeptrain_data_url", settings):
        objects = s3.list_objects(client, bucket, prefix)
    if not objects:
        raise BadInput(f"There is no object under {source}: check deeptrain_data_url, or put the data there")
    return relative_paths(objects, prefix)


@dataclass
class Target:
    """What an earlier staging left: its source, the digests it knew, the names of its files, and all files that are there."""

    source: str | None = None
    entries: dict[str, Entry] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    files: dict[str, hdfs_native.FileStatus] = field(default_factory=dict)


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
        self.client = s3.connect(self.settings, job.credentials("s3"), self.parallel)
        self.target = Hdfs(job.config["target"])
        self._lock = threading.Lock()
        self._moved = 0

    def listing(self) -> dict[str, s3.Object]:
        return list_source(self.client, self.source, self.settings)

    def run(self) -> Outcome:
        began = time.monotonic()
        wanted = self.listing()
        target = self._examine()
        unchanged = {path for path, item in wanted.items() if self._is_there(target, path, item)}
        # The largest first, or the last one is waited for alone.
        missing = sorted(wanted.keys() - unchanged, key=lambda path: (-wanted[path].length, path))
        stale = sorted(target.files.keys() - wanted.keys())
        entries = {path: entry for path, entry in target.entries.items() if path in unchanged}
        # What an earlier staging brought before it was cut off has no digest yet.
        undigested = sorted(unchanged - entries.keys())

        self._total = sum(item.length for item in wanted.values())
        self._moved = sum(wanted[path].length for path in unchanged)
        self.job.progress.report("copy", self._moved, self._total, "bytes", files=len(unchanged))
        if missing or stale or undigested:
            self._plan(entries, target.names | wanted.keys())
            self._remove(stale, wanted)
            entries.update(self._work(undigested, missing, wanted))
            changed = sorted(path for path, item in self.listing().items() ^ wanted.items())
            if changed:
                raise self._changed(f"{self.prefix}/{changed[0]}")
        written = self._write_manifest(list(entries.values()))
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
                "seconds": seconds,
                "bytes_per_second": copied / seconds,
                "manifest": f"{self.target.url}/{manifest.NAME}",
            },
        )

    def _examine(self) -> Target:
        """What is in the target; refuses a directory that holds something else."""
        url = self.target.url
        status = self.target.status()
        if status is not None and not status.isdir:
            raise BadInput(f"{url} is a file: choose another deeptrain_data_dir")
        ignored = (manifest.NAME, manifest.NAME + ".part")
        found = Target(files={path: item for path, item in self.target.files().items() if path not in ignored and not path.startswith(INCOMING + "/")})
        plan = self.target.read_bytes(PLAN)
        document = self.target.read_bytes(manifest.NAME) or plan
        if document is not None:
            found.source, found.entries = manifest.decode(document)
            found.names = set(found.entries)
        if plan is not None:
            found.names.update(json.loads(plan)["names"])
        if found.source not in (None, self.source) and not self.job.settings.get("overwrite"):
            raise BadInput(f"{url} holds the data of {found.source}: choose another deeptrain_data_dir, or set deeptrain_overwrite to true to replace it")
        foreign = sorted(found.files.keys() - found.names)
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise BadInput(f"{url} holds something else ({foreign[0]}{more}): choose another deeptrain_data_dir, or remove it")
        return found

    def _is_there(self, target: Target, path: str, item: s3.Object) -> bool:
        status = target.files.get(path)
        return target.source == self.source and status is not None and status.length == item.length and status.modification_time == stamp(item)

    def _plan(self, entries: dict[str, Entry], names: set[str]) -> None:
        """Leaves what the next staging needs to know when this one is cut off, in the place of the manifest."""
        document = {"source": self.source, "files": [asdict(entry) for entry in entries.values()], "names": sorted(names)}
        self.target.write_bytes(PLAN, json.dumps(document).encode())
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
        with ThreadPoolExecutor(self.parallel) as pool:
            futures = [pool.submit(self._digest, path, wanted[path].length) for path in undigested]
            futures += [pool.submit(self._copy, path, wanted[path]) for path in missing]
            try:
                for future in as_completed(futures):
                    entry = future.result()
                    entries[entry.path] = entry
            except BaseException:
                self.job.stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        return entries

    def _digest(self, path: str, length: int) -> Entry:
        self.job.check_stop()
        return Entry(path, length, self.target.sha256(path))

    def _copy(self, path: str, item: s3.Object) -> Entry:
        return persistently(lambda: self._copy_once(path, item))

    def _copy_once(self, path: str, item: s3.Object) -> Entry:
        """Copies one object and reads it back."""
        self.job.check_stop()
        sha256, moved = hashlib.sha256(), 0
        temporary = f"{INCOMING}/{hashlib.sha256(path.encode()).hexdigest()}"

        def chunks() -> Iterator[bytes]:
            nonlocal moved
            with s3.explained(self.source, "deeptrain_data_url", self.settings):
                for chunk in s3.read(self.client, self.bucket, item):
                    self.job.check_stop()
                    sha256.update(chunk)
                    yield chunk
                    moved += len(chunk)
                    self._advance(len(chunk))

        try:
            self.target.write_stream(temporary, chunks())
        except s3.Changed as error:
            raise self._changed(item.key) from error
        except Unavailable:
            self._advance(-moved)
            raise
        if self.target.sha256(temporary) != sha256.hexdigest():
            raise JobError(f"{path} reads otherwise in HDFS than it was written: look at the DataNodes' disks (hdfs fsck /), then start again")
        self.target.set_modified(temporary, stamp(item))
        if "/" in path:
            self.target.mkdirs(path.rsplit("/", 1)[0])
        self.target.rename(temporary, path)
        return Entry(path, item.length, sha256.hexdigest())

    def _changed(self, key: str) -> JobError:
        return JobError(f"The object '{key}' of {self.source} changed while it was copied: start again when nobody writes there")

    def _advance(self, count: int) -> None:
        with self._lock:
            self._moved += count
            moved = self._moved
        self.job.progress.report("copy", moved, self._total, "bytes")

    def _write_manifest(self, entries: list[Entry]) -> bool:
        content = manifest.encode(self.source, entries)
        if self.target.read_bytes(manifest.NAME) == content:
            return False
        self.target.write_bytes(manifest.NAME, content)
        return True


def stage(job: Job) -> Outcome:
    """Stages, by the job's ``source``, ``target`` and ``s3``."""
    return Staging(job).run()
