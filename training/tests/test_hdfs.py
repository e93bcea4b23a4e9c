# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Time limits of HDFS's client, by a clock of the test's own."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from deeptrain import hdfs
from deeptrain.hdfs import Hdfs, Unavailable


class Clock:
    """Time that passes only when the test says so."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Writer:
    """Takes its time for each chunk; fails at the end of the first ``failures`` files."""

    def __init__(self, clock: Clock, seconds: float, failures: list):
        self.clock, self.seconds, self.failures = clock, seconds, failures

    def write(self, _chunk: bytes) -> None:
        self.clock.now += self.seconds

    def close(self) -> None:
        if self.failures:
            self.failures.pop()
            raise RuntimeError("a DataNode is gone")


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in ("hdfs", "patience"):
        monkeypatch.setattr(f"deeptrain.{module}.time", clock, raising=False)
    return clock


def directory(**calls) -> Hdfs:
    found = object.__new__(Hdfs)
    found.url, found.root, found.client = "hdfs://x/data", "/data", SimpleNamespace(**calls)
    return found


@pytest.fixture
def local(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3 * hdfs.CHUNK_BYTES)
    return path


def test_a_long_copy_is_retried(clock, local):
    """It has copied for 300 s when HDFS fails, which is longer than HDFS may be unavailable."""
    failures, renamed = [1, 1], []
    target = directory(create=lambda *_arguments: Writer(clock, 100, failures), rename=lambda *arguments: renamed.append(arguments))
    target.upload(local, "x")
    assert failures == [] and len(renamed) == 1


def test_a_copy_that_never_gets_further_ends(clock, local):
    endless = [1] * 1000
    target = directory(create=lambda *_arguments: Writer(clock, 100, endless))
    with pytest.raises(Unavailable, match="a DataNode is gone"):
        target.upload(local, "x")
    assert 900 < len(endless) < 999


def test_a_long_read_whose_last_block_is_not_reported_yet(clock):
    """The first reading ends after 70 s without the last block."""

    class Reader:
        def __init__(self, blocks: int):
            self.left = blocks

        def seek(self, position: int) -> None:
            self.left -= position

        def read(self, _size: int) -> bytes:
            clock.now += 10
            if self.left <= 0:
                return b""
            self.left -= 1
            return b"x"

    readers = [Reader(6), Reader(6), Reader(7)]
    source = directory(get_file_info=lambda _path: SimpleNamespace(length=7), read=lambda _path: readers.pop(0))
    assert b"".join(source.read_stream("x")) == b"x" * 7


def test_a_listing_is_had_in_pages(monkeypatch):
    """Each call has its own timeout, however many files there are."""
    files = [SimpleNamespace(path=f"/data/{index}", isdir=False) for index in range(2500)]
    yielded, calls = [], []
    with_timeout = hdfs.with_timeout

    def counted(call, *arguments, **options):
        before = len(yielded)
        result = with_timeout(call, *arguments, **options)
        calls.append(len(yielded) - before)
        return result

    def listing(*_arguments):
        for item in files:
            yielded.append(item)
            yield item

    monkeypatch.setattr(hdfs, "with_timeout", counted)
    found = directory(get_file_info=lambda _path: SimpleNamespace(), list_status=listing).files()
    assert len(found) == 2500 and found["7"].path == "/data/7"
    assert max(calls) <= 1000


def test_a_call_that_hangs(monkeypatch):
    released = threading.Event()
    with pytest.raises(TimeoutError):
        hdfs.with_timeout(released.wait, seconds=0.1)
    released.set()
    assert time.monotonic() > 0
