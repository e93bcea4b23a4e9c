# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings everything under an S3 prefix to a directory of HDFS.

Objects are streamed, several at a time. A file carries its object's time of
change, so a later staging sees from two listings what is there unchanged; it
gets its name only when its bytes have been read back and compared.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import botocore.exceptions

from deeptrain import manifest, s3
from deeptrain.hdfs import CHUNK_BYTES, Hdfs
from deeptrain.job import BadInput, Job, JobError, Outcome, Stopped
from deeptrain.manifest import Entry

# Objects on their way, and the names of those that are meant to come.
INCOMING = "_incoming"
PLAN = f"{INCOMING}/plan.txt"

# The ETag of an object that was put in one piece is the MD5 of its content.
_MD5 = re.compile(r'"([0-9a-f]{32})"')
_NO_MD5_ENCRYPTION = ("aws:kms", "aws:kms:dsse")


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
        for end in (index for index, letter in enumerate(path) if letter == "/"):
            if path[:end] in found:
                raise BadInput(f"The objects '{found[path[:end]].key}' and '{found[path].key}' cannot both be files in HDFS: rename one")
    return found


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
        with s3.explained(self.source, "deeptrain_data_url", self.settings):
            objects = s3.list_objects(self.client, self.bucket, self.prefix)
        if not objects:
            raise BadInput(f"There is no object under {self.source}: check deeptrain_data_url, or put the data there")
        return relative_paths(objects, self.prefix)

    def run(self) -> Outcome:
        began = time.monotonic()
        wanted = self.listing()
        known, present = self._examine_target(wanted)
        unchanged = {path for path, item in wanted.items() if self._is_same(present.get(path), item)}
        missing = [wanted[path] for path in wanted if path not in unchanged]
        stale = sorted(set(present) - set(wanted))

        total = sum(item.length for item in wanted.values())
        self._total, self._moved = total, sum(wanted[path].length for path in unchanged)
        self.job.progress.report("copy", self._moved, total, "bytes", files=len(unchanged))

        entries = {path: known[path] for path in unchanged if path in known and known[path].length == wanted[path].length}
        # What an earlier staging brought before it was cut off has no digest yet.
        undigested = [path for path in unchanged if path not in entries]
        if missing or undigested or stale:
            self.target.write_bytes(PLAN, "\n".join(sorted(set(wanted) | set(known))).encode())
        entries.update(self._work(undigested, [path for path in wanted if path not in unchanged], wanted))
        for path in stale:
            self.target.delete(path)
        written = self._write_manifest(list(entries.values()))
        if self.target.status(INCOMING) is not None:
            self.target.delete(INCOMING, recursive=True)

        seconds = time.monotonic() - began
        copied = sum(item.length for item in missing)
        self.job.progress.report("done", total, total, "bytes", force=True)
        return Outcome(
            changed=bool(missing or stale or written),
            summary={
                "objects": len(wanted),
                "bytes": total,
                "copied_objects": len(missing),
                "copied_bytes": copied,
                "skipped_objects": len(unchanged),
                "removed_objects": len(stale),
                "seconds": seconds,
                "bytes_per_second": copied / seconds,
                "manifest": f"{self.target.url}/{manifest.NAME}",
            },
        )

    def _examine_target(self, wanted: dict[str, s3.Object]) -> tuple[dict[str, Entry], dict]:
        """The entries of the manifest that is there, and all files; refuses a directory that holds something else."""
        url = self.target.url
        status = self.target.status()
        if status is not None and not status.isdir:
            raise BadInput(f"{url} is a file: choose another deeptrain_data_dir")
        present = {path: item for path, item in self.target.files().items() if not path.startswith(INCOMING + "/")}
        here = manifest.read(self.target)
        present.pop(manifest.NAME, None)
        present.pop(manifest.NAME + ".part", None)
        known: dict[str, Entry] = {}
        if here is not None:
            source, known = here
            if source != self.source and not self.job.settings.get("overwrite"):
                raise BadInput(f"{url} holds the data of {source}: choose another deeptrain_data_dir, or set deeptrain_overwrite to true to replace it")
        plan = self.target.read_bytes(PLAN)
        ours = set(known) | (set() if plan is None else set(plan.decode().split("\n")) | set(wanted))
        if here is not None:
            ours |= set(wanted)
        foreign = sorted(set(present) - ours)
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise BadInput(f"{url} holds something else ({foreign[0]}{more}): choose another deeptrain_data_dir, or remove it")
        return known, present

    @staticmethod
    def _is_same(status, item: s3.Object) -> bool:
        return status is not None and status.length == item.length and status.modification_time == item.modified * 1000

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
        """Copies one object and reads it back."""
        self.job.check_stop()
        changed = f"The object '{item.key}' of {self.source} changed while it was copied: start again when nobody writes there"
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        temporary = f"{INCOMING}/{hashlib.sha256(path.encode()).hexdigest()}"
        with s3.explained(self.source, "deeptrain_data_url", self.settings):
            try:
                answer = self.client.get_object(Bucket=self.bucket, Key=item.key, IfMatch=item.etag)
            except botocore.exceptions.ClientError as error:
                if error.response["Error"]["Code"] in ("PreconditionFailed", "412", "NoSuchKey"):
                    raise JobError(changed) from error
                raise

        def chunks() -> Iterator[bytes]:
            while True:
                with s3.explained(self.source, "deeptrain_data_url", self.settings):
                    chunk = answer["Body"].read(CHUNK_BYTES)
                if not chunk:
                    return
                self.job.check_stop()
                sha256.update(chunk)
                md5.update(chunk)
                yield chunk
                self._advance(len(chunk))

        try:
            length = self.target.write_stream(temporary, chunks())
        finally:
            answer["Body"].close()
        plain = _MD5.fullmatch(item.etag)
        if answer.get("ServerSideEncryption") in _NO_MD5_ENCRYPTION or answer.get("SSECustomerAlgorithm"):
            plain = None
        if length != item.length or plain and plain.group(1) != md5.hexdigest():
            raise JobError(changed)
        if self.target.sha256(temporary) != sha256.hexdigest():
            raise JobError(f"{path} reads otherwise in HDFS than it was written: look at the DataNodes' disks (hdfs fsck /), then start again")
        self.target.set_modified(temporary, item.modified)
        if "/" in path:
            self.target.mkdirs(path.rsplit("/", 1)[0])
        self.target.rename(temporary, path)
        return Entry(path, length, sha256.hexdigest())

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
    try:
        return Staging(job).run()
    except Stopped:
        raise
    except BaseException:
        job.stop.set()
        raise
