# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HDFS through hdfs-native, with a timeout on each call, and errors that say what to check."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import hdfs_native

from deeptrain.job import BadInput, JobError
from deeptrain.patience import Patience

# hdfs-native has no time limits of its own, and waits for minutes when the NameNode is gone.
CALL_SECONDS = 60.0
CONNECT_SECONDS = 10.0
# The NameNode sends writers to a lost DataNode until it counts as dead, by role hadoop after a minute.
PATIENCE_SECONDS = 120.0
RETRY_SECONDS = 2.0
CHUNK_BYTES = 4 * 1024 * 1024
# Entries of a listing for each call with a timeout; the NameNode's own pages have as many.
LISTING_ENTRIES = 1000

T = TypeVar("T")


class Unavailable(JobError):
    """HDFS does not do its work at the moment."""


def retry(call: Callable[[Patience], T], seconds: float | None = None) -> T:
    """Returns what the call returns, and repeats it while HDFS is unavailable.

    The call must be idempotent. It notes its progress in the patience that it gets.
    """
    patience = Patience(PATIENCE_SECONDS if seconds is None else seconds)
    while True:
        try:
            return call(patience)
        except Unavailable:
            # First, so that the pause is charged too.
            time.sleep(RETRY_SECONDS)
            if not patience.lasts():
                raise


def with_timeout(call: Callable[..., T], *arguments, seconds: float = CALL_SECONDS) -> T:
    """Returns what the call returns, or raises TimeoutError; the call itself cannot be ended."""
    box: dict = {}

    def work():
        try:
            box["value"] = call(*arguments)
        except BaseException as error:
            box["error"] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(f"no answer in {seconds:.0f} s")
    if "error" in box:
        raise box["error"]
    return box["value"]


class Hdfs:
    """A directory of HDFS, ``hdfs://NAMENODE:PORT/DIRECTORY``. Names are relative to it."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        if parts.scheme != "hdfs" or not parts.netloc or not parts.path.startswith("/"):
            raise BadInput(f"'{url}' is no HDFS directory: write hdfs://NAMENODE:PORT/DIRECTORY")
        self.url = url.rstrip("/")
        self.root = parts.path.rstrip("/") or "/"
        with self._explained():
            if parts.port:
                # hdfs-native goes on trying for minutes where nothing listens.
                socket.create_connection((parts.hostname, parts.port), CONNECT_SECONDS).close()
            self.client = hdfs_native.Client(f"hdfs://{parts.netloc}")

    @staticmethod
    def same(one: str, other: str) -> bool:
        """Whether two URLs name the same directory."""
        return one.rstrip("/") == other.rstrip("/")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, FileExistsError, JobError):
            raise
        except PermissionError as error:
            raise BadInput(f"{self.url} refuses: {error}; run hdfs.yml, or give the job's user the directory") from error
        except Exception as error:
            # hdfs-native raises RuntimeError, OSError or ValueError with the server's words.
            said = (str(error) or repr(error)).splitlines()[0]
            raise Unavailable(f"HDFS at {self.url} does not do its work ({said}): run hdfs.yml, and see that it is healthy") from error

    def path(self, name: str = "") -> str:
        return f"{self.root.rstrip('/')}/{name}" if name else self.root

    def status(self, name: str = "") -> hdfs_native.FileStatus | None:
        """The status of a file or directory, None when it is not there."""
        with self._explained():
            try:
                return with_timeout(self.client.get_file_info, self.path(name))
            except FileNotFoundError:
                return None

    def owner_of_root(self) -> str:
        """The owner of HDFS's root directory, which is its superuser."""
        with self._explained():
            return with_timeout(self.client.get_file_info, "/").owner

    def list_files(self) -> Iterator[tuple[str, hdfs_native.FileStatus]]:
        """All files below the directory with their relative names, in pages; none when it is missing."""
        if self.status() is None:
            return
        prefix = self.root.rstrip("/") + "/"
        with self._explained():
            listing = iter(with_timeout(self.client.list_status, self.root, True))
        while True:
            with self._explained():
                page = with_timeout(lambda: list(itertools.islice(listing, LISTING_ENTRIES)))
            if not page:
                return
            for item in page:
                if not item.isdir:
                    yield item.path.removeprefix(prefix), item

    def files(self) -> dict[str, hdfs_native.FileStatus]:
        """All files below the directory, by their relative names; none when it is missing."""
        return dict(self.list_files())

    def mkdirs(self, name: str = "") -> None:
        with self._explained():
            with_timeout(self.client.mkdirs, self.path(name), 0o755, True)

    def rename(self, source: str, target: str) -> None:
        """Moves a file, over the target if that is there."""
        with self._explained():
            with_timeout(self.client.rename, self.path(source), self.path(target), True)

    def delete(self, name: str = "", recursive: bool = False) -> None:
        """Deletes a file or directory; nothing happens when it is not there."""
        with self._explained(), contextlib.suppress(FileNotFoundError):
            with_timeout(self.client.delete, self.path(name), recursive)

    def set_modified(self, name: str, milliseconds: int, accessed: int | None = None) -> None:
        """Sets a file's time of modification, in milliseconds since 1970; that of access to the same or another."""
        with self._explained():
            with_timeout(self.client.set_times, self.path(name), milliseconds, milliseconds if accessed is None else accessed)

    def write_stream(self, name: str, chunks: Iterator[bytes], patience: Patience | None = None) -> int:
        """Writes a file from chunks, over an existing one; returns its length in bytes."""
        length = 0
        with self._explained():
            options = hdfs_native.WriteOptions(overwrite=True, create_parent=True)
            writer = with_timeout(self.client.create, self.path(name), options)
        for chunk in chunks:
            with self._explained():
                with_timeout(writer.write, chunk)
            length += len(chunk)
            if patience:
                patience.moved(length)
        with self._explained():
            with_timeout(writer.close)
        return length

    def read_stream(self, name: str, size: int = CHUNK_BYTES) -> Iterator[bytes]:
        """The whole content of a file, in chunks; FileNotFoundError when it is missing."""
        with self._explained():
            length = with_timeout(self.client.get_file_info, self.path(name)).length
        position, patience = 0, Patience(CALL_SECONDS)
        while position < length:
            with self._explained():
                reader = with_timeout(self.client.read, self.path(name))
                reader.seek(position)
                while chunk := with_timeout(reader.read, size):
                    position += len(chunk)
                    yield chunk
                    patience.moved(position)
            if position < length:
                # Just after a file is closed no DataNode may have reported its last block yet; hdfs-native then
                # reads to where the reported blocks end, without an error.
                time.sleep(0.1)
                if not patience.lasts():
                    raise JobError(
                        f"{self.url}/{name} has {length} bytes and only {position} can be read: see hdfs fsck {self.path(name)}, and start the DataNodes;"
                        " data.yml copies lost data again"
                    )

    def read_bytes(self, name: str) -> bytes | None:
        """The content of a small file, None when it is not there."""
        if self.status(name) is None:
            return None
        return b"".join(self.read_stream(name))

    def write_file(self, name: str, chunks: Callable[[], Iterator[bytes]]) -> None:
        """Writes a file in one step, from chunks that can be had again: a reader sees the old content or the new."""
        temporary = f"{name}.part"
        retry(lambda patience: self.write_stream(temporary, chunks(), patience))
        self.rename(temporary, name)

    def write_bytes(self, name: str, content: bytes) -> None:
        """Writes a small file in one step."""
        self.write_file(name, lambda: iter([content]))

    def sha256(self, name: str, moved: Callable[[int], None] | None = None) -> str:
        """The digest of a file's content, read back; ``moved`` gets the bytes read so far."""
        digest, position = hashlib.sha256(), 0
        for chunk in self.read_stream(name):
            digest.update(chunk)
            position += len(chunk)
            if moved:
                moved(position)
        return digest.hexdigest()

    def upload(self, local: str | os.PathLike, name: str) -> None:
        """Copies a local file to HDFS; it appears under its name only when it is complete."""

        def chunks() -> Iterator[bytes]:
            with open(local, "rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk

        self.write_file(name, chunks)

    def download(self, name: str, local: str | os.PathLike) -> str:
        """Copies a file to the node, complete or not at all; returns the sha256 of its content."""
        target = Path(local)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".part")
        digest = hashlib.sha256()
        with open(temporary, "wb") as file:
            for chunk in self.read_stream(name):
                file.write(chunk)
                digest.update(chunk)
        os.replace(temporary, target)
        return digest.hexdigest()
