# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints and events: written on the node, mirrored to the job's directory in the background."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

from deeptrain import checkpoint, identity
from deeptrain.hdfs import Hdfs
from deeptrain.job import JobError
from deeptrain.namenode import Intact

KEEP = 3


class LocalDirectory:
    """A local directory with the few calls of Hdfs that mirroring needs."""

    def __init__(self, path: str | os.PathLike):
        self.root = Path(path)

    def files(self) -> dict[str, Path]:
        return {path.relative_to(self.root).as_posix(): path for path in sorted(self.root.rglob("*")) if path.is_file()}

    def read_bytes(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None

    def write_bytes(self, name: str, content: bytes) -> None:
        self._write(name, lambda temporary: temporary.write_bytes(content))

    def upload(self, local: Path, name: str) -> None:
        self._write(name, lambda temporary: shutil.copyfile(local, temporary))

    def _write(self, name: str, write: Callable[[Path], object]) -> None:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + checkpoint.PART)
        write(temporary)
        temporary.replace(target)

    def download(self, name: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root / name, local)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


def remote(url: str):
    """The directory behind a URL or a local path."""
    return Hdfs(url) if url.startswith("hdfs://") else LocalDirectory(url)


def intact(url: str):
    """The same without the files whose blocks HDFS has lost."""
    return Intact(url, os.environ.get("DEEPTRAIN_NAMENODE_URL")) if url.startswith("hdfs://") else LocalDirectory(url)


def forget_other(local: Path, url: str) -> None:
    """Removes what another training of the same name has left on this node."""
    content = remote(url).read_bytes(identity.FILE)
    if content is None:
        return
    own, left = identity.Identity.decode(content), identity.read_identity(local)
    if left.configuration is not None and not own.continues(left):
        shutil.rmtree(local)
    LocalDirectory(local).write_bytes(identity.FILE, content)


class Mirror:
    """Copies a local directory's files to a remote one, in the background, again where HDFS has lost them; removes none there."""

    def __init__(self, local: Path, url: str):
        self.local, self.url = local, url
        # What is restored from: a lost block may come back, so nothing else takes its place here.
        self.remote = remote(url)
        # What is uploaded to: the node has the lost files.
        self.intact = intact(url)
        self._seen: dict[str, tuple[int, int]] = {}
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def push(self) -> None:
        """Mirrors soon, in the background."""
        self._wake.set()

    def close(self) -> None:
        """Mirrors for the last time and raises what goes wrong with it."""
        self._ended.set()
        self._wake.set()
        self._thread.join()
        self.sync()

    def _work(self) -> None:
        while self._wake.wait() and not self._ended.is_set():
            self._wake.clear()
            try:
                self.sync()
            except (JobError, OSError) as error:
                print(f"Not mirrored this time: {error}", file=sys.stderr, flush=True)

    def sync(self) -> None:
        """Uploads what has changed."""
        with self._lock:
            self._sync()

    def _sync(self) -> None:
        self._upload(self.local, LocalDirectory(self.local).files(), self.intact.files())

    def _upload(self, directory: Path, names: Iterable[str], existing: Container[str]) -> None:
        for name in names:
            status = (directory / name).stat()
            mark = (status.st_size, status.st_mtime_ns)
            if self._seen.get(name) != mark or name not in existing:
                self.remote.upload(directory / name, name)
                self._seen[name] = mark


class CheckpointMirror(Mirror):
    """Mirrors the last checkpoint, its index last; then removes older ones."""

    _held = False

    def hold(self) -> None:
        """Mirrors nothing before the next push: a checkpoint that is being saved may have to be discarded."""
        self._held = True

    def push(self) -> None:
        self._held = False
        super().push()

    def restore(self, readable: Callable[[Path], bool]) -> None:
        """Makes the newer checkpoint of both directories the local one.

        ``readable`` says of a local checkpoint's path whether it is intact: a loss of power leaves empty files.
        """
        local, mirrored = self._last_readable(readable), checkpoint.find(self.remote)
        if not checkpoint.newer(mirrored, local):
            return
        # It replaces the local directory only when it is complete.
        with self._scratch() as scratch:
            for name in mirrored.files:
                if not name.endswith(checkpoint.PACKED_MODEL):
                    self.remote.download(name, scratch / name)
            (scratch / checkpoint.INDEX).write_bytes(mirrored.index)
            shutil.rmtree(self.local)
            scratch.rename(self.local)

    def _last_readable(self, readable: Callable[[Path], bool]) -> checkpoint.Found | None:
        """The last local checkpoint that can be read. The index names it then, since TensorFlow restores what that names."""
        directory = LocalDirectory(self.local)
        last = checkpoint.find(directory)
        if last and readable(self.local / last.name):
            return last
        for found in checkpoint.find_all(directory):
            if readable(self.local / found.name):
                directory.write_bytes(checkpoint.INDEX, found.index)
                return found
        directory.delete(checkpoint.INDEX)
        return None

    def _sync(self) -> None:
        found = checkpoint.find(LocalDirectory(self.local))
        if found is None or self._held:
            return
        with self._scratch() as scratch:
            # The training may remove this checkpoint before all of it is uploaded.
            for name in found.files:
                os.link(self.local / name, scratch / name)
            self._upload(scratch, found.files, self.intact.files())
        mirrored = checkpoint.find(self.intact)
        if not checkpoint.newer(mirrored, found) and (mirrored is None or mirrored.index != found.index):
            self.remote.write_bytes(checkpoint.INDEX, found.index)
        files = self.remote.files()
        if checkpoint.newer(mirrored, found) or not found.files.keys() <= files.keys():
            # Its mirror removes what is older than its own checkpoint, also between the two lines above.
            if other := checkpoint.find(self.intact) or next(checkpoint.find_all(self.intact), None):
                self.remote.write_bytes(checkpoint.INDEX, other.index)
            raise JobError(f"Another chief saves checkpoints of this run, too: {self.url} has a newer one than {found.name}")
        for name in filter(found.supersedes, files):
            self.remote.delete(name)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        """An empty directory on the file system of the local one."""
        scratch = self.local.with_name(f".{self.local.name}.part")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        yield scratch
        shutil.rmtree(scratch, ignore_errors=True)
