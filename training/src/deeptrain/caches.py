# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The caches of the runs on a node: which are in use, and which can be removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import time
from pathlib import Path

from deeptrain import fetch
from deeptrain.hdfs import Hdfs
from deeptrain.job import JobError

SUCCESS = "_SUCCESS"
POLL_SECONDS = 0.2


def _lock(directory: Path, kind: int) -> int | None:
    """A descriptor that holds a lock of the directory; None where another process's lock excludes it or the directory is removed."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(directory)):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None


def use(directory: Path) -> int:
    """Makes a run's cache and marks it as used until the descriptor is closed, or this process ends.

    It may be a symbolic link to a larger disk.
    """
    directory = directory.resolve()
    while True:
        directory.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            descriptor = _lock(directory, fcntl.LOCK_SH)
            if descriptor is not None:
                return descriptor
        # It is being removed.
        time.sleep(POLL_SECONDS)


def remove_stale(directory: Path, model_url: str) -> None:
    """Removes the caches of other runs beside this run's: all of a run that has succeeded, and shards of others.

    What a process uses on this node is kept, and so is what a run that has not succeeded wrote itself.
    """
    runs = model_url.rstrip("/").rsplit("/", 1)[0]
    for other in sorted(directory.parent.iterdir()):
        if other == directory or other.is_symlink() or not other.is_dir():
            continue
        lock = None
        try:
            lock = _lock(other, fcntl.LOCK_EX)
            if lock is None:
                continue
            succeeded = Hdfs(runs).status(f"{other.name}/{SUCCESS}") is not None
            for removed in [other] if succeeded else [path.parent for path in other.glob(f"*/{fetch.INDEX}")]:
                print(f"Removes {removed}, which no run on this node uses", file=sys.stderr, flush=True)
                shutil.rmtree(removed)
        except (JobError, OSError) as error:
            print(f"{other} is kept: {error}", file=sys.stderr, flush=True)
        finally:
            if lock is not None:
                os.close(lock)
