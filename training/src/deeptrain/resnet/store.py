# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints and events: written on the node, mirrored to the job's directory in the background."""

from __future__ import annotations

import shutil
import sys
import threading
from pathlib import Path

from deeptrain.hdfs import Hdfs
from deeptrain.job import JobError

INDEX = "checkpoint"
KEEP = 3


class LocalDirectory:
    """A local directory with the few calls of Hdfs that mirroring needs."""

    def __init__(self, path: str):
        self.root = Path(path)

    def files(self) -> dict:
        return {path.relative_to(self.root).as_posix(): path for path in self.root.rglob("*") if path.is_file()}

    def upload(self, local: Path, name: str) -> None:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".part")
        shutil.copyfile(local, temporary)
        temporary.replace(target)

    def download(self, name: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.root / name, local)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)


def remote(url: str):
    """The directory behind a URL or a local path."""
    return Hdfs(url) if url.startswith("hdfs://") else LocalDirectory(url)


class Mirror:
    """Keeps a remote directory like a local one. A file with the name of an index goes last, what vanished is removed after it."""

    def __init__(self, local: Path, url: str):
        self.local = local
        self.remote = remote(url)
        self._seen: dict[str, tuple[int, int]] = {}
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def restore(self) -> None:
        """Brings what the remote directory holds, when there is nothing here."""
        if any(self.local.iterdir()):
            return
        for name in self.remote.files():
            if not name.endswith(".part"):
                self.remote.download(name, self.local / name)

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
        with self._lock:
            here = {path.relative_to(self.local).as_posix(): path for path in sorted(self.local.rglob("*")) if path.is_file()}
            for name in sorted(here, key=lambda name: name == INDEX):
                status = here[name].stat()
                mark = (status.st_size, status.st_mtime_ns)
                if self._seen.get(name) != mark:
                    self.remote.upload(here[name], name)
                    self._seen[name] = mark
            for name in set(self.remote.files()) - set(here):
                self.remote.delete(name)
