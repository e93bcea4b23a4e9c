# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a training command makes progress, and why it failed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from deeptrain import documents
from deeptrain.hdfs import Hdfs
from deeptrain.job import Job, JobError

FILES_SECONDS = 15.0
TAIL_BYTES = 64 * 1024


def fold(entries: Iterable[tuple]) -> tuple[int, int]:
    """The number of the entries and a hash that does not depend on their order, to compare lists of a million files."""
    count = total = 0
    for entry in entries:
        count, total = count + 1, total + hash(entry)
    return count, total


def local_files(directories: Iterable[Path]) -> tuple[int, int]:
    """All files below the directories with their sizes and their times of modification, folded."""
    return fold(_local_files(directories))


def _local_files(directories: Iterable[Path]) -> Iterator[tuple]:
    for directory in directories:
        for parent, _directories, names in os.walk(directory):
            for name in names:
                try:
                    status = os.stat(os.path.join(parent, name))
                except OSError:
                    continue
                yield parent, name, status.st_size, status.st_mtime_ns


class Activity:
    """The progress of a command: lines in its progress file, and files that it writes in local directories or in HDFS.

    A command that writes no progress file but events or checkpoints counts as alive.
    """

    def __init__(self, job: Job, patience: float):
        """``patience`` is the time without progress that is tolerated, in seconds."""
        self._progress_file, self._model_url = job.progress_file, job.config["model_url"]
        self._directories = [Path(job.settings[name]) for name in ("cache_dir", "export_dir")]
        self._patience = patience
        self._remote = (0, 0)
        self._files: tuple | None = None
        self._mark = self._current()
        self._start = self._mark[0]
        self._moved = self._listed = time.monotonic()
        self._listing: threading.Thread | None = None

    def _list(self) -> None:
        try:
            found = Hdfs(self._model_url).list_files()
            # Names such as _SUCCESS are the collection's own.
            self._remote = fold((name, item.length, item.modification_time) for name, item in found if not name.startswith("_"))
        except (JobError, OSError):
            # HDFS that does not answer is neither progress nor the lack of it.
            pass
        self._files = (local_files(self._directories), self._remote)
        self._listed = time.monotonic()

    def _current(self) -> tuple:
        try:
            size = self._progress_file.stat().st_size
        except FileNotFoundError:
            size = 0
        return size, self._files

    def moved(self) -> bool:
        """Whether there was progress since the last call."""
        if time.monotonic() - self._listed > min(FILES_SECONDS, self._patience / 4) and not (self._listing and self._listing.is_alive()):
            # In the background, since HDFS may take long to answer.
            self._listing = threading.Thread(target=self._list, daemon=True)
            self._listing.start()
        mark = self._current()
        if self._mark[1] is None:
            # The first listing is what the next ones are compared with.
            self._mark = (self._mark[0], mark[1])
        if mark == self._mark:
            return False
        self._mark, self._moved = mark, time.monotonic()
        return True

    def stalled(self) -> bool:
        """Whether there was none for longer than is tolerated."""
        return time.monotonic() - self._moved > self._patience

    def last_error(self) -> str:
        """``extra.error`` of the command's last line of progress; empty when it has written none."""
        try:
            with open(self._progress_file, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(self._start, size - TAIL_BYTES))
                line = file.read().splitlines()[-1]
            return str(documents.parse(line)["extra"]["error"])
        except (OSError, ValueError, LookupError, TypeError):
            return ""
