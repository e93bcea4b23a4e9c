# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run saves, above all checkpoints, whatever command writes them and wherever they are: on the node, in HDFS or in S3."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from deeptrain.identity import FILE

# Directories of a run in HDFS.
DIRECTORY, EVENTS = "checkpoints", "events"
# The file in which TensorFlow names the last checkpoint.
INDEX = "checkpoint"
# Added to a checkpoint's name: a file that holds a directory saved_model, the model as it was then.
PACKED_MODEL = ".saved_model.zip"
# A file that is being written.
PART = ".part"

_DATA = re.compile(r"\.data-(\d{5})-of-(\d{5})")
_STEP = re.compile(rf"-(\d+)(?:(?:\.index|\.meta|\.data-\d{{5}}-of-\d{{5}}|{re.escape(PACKED_MODEL)})(?:{re.escape(PART)})?)?$")


class Directory(Protocol):
    """What is needed of a directory of checkpoints."""

    def files(self) -> dict[str, object]: ...

    def read_bytes(self, name: str) -> bytes | None: ...


class Found(NamedTuple):
    """A complete checkpoint: its name, the index that names it, and its files with what their directory knows of them."""

    name: str
    index: bytes
    files: dict[str, object]

    @property
    def step(self) -> int | None:
        return step_of(self.name)

    def supersedes(self, file: str) -> bool:
        """Whether a file belongs to an older checkpoint; False where the steps do not say so."""
        step = step_of(file)
        return step is not None and self.step is not None and step < self.step


def step_of(name: str) -> int | None:
    """The global step at the end of the name of a checkpoint, or of a file of it; None when there is none."""
    step = _STEP.search(name)
    return int(step[1]) if step else None


def newer(found: Found | None, other: Found | None) -> bool:
    """Whether the first checkpoint is to be preferred to the second, by step; without steps the second stays."""
    if found is None or other is None:
        return other is None and found is not None
    return found.step is not None and other.step is not None and found.step > other.step


def last_checkpoint(index: str) -> str | None:
    """The name of the last checkpoint by TensorFlow's index file."""
    for line in index.splitlines():
        if line.startswith("model_checkpoint_path:"):
            return os.path.basename(line.split(":", 1)[1].strip().strip('"'))
    return None


def _complete(suffixes: set[str]) -> bool:
    data = [match for suffix in suffixes if (match := _DATA.fullmatch(suffix))]
    if not data and ".index" not in suffixes:
        # Another format than TensorFlow's.
        return bool(suffixes - {PACKED_MODEL})
    counts = {int(match[2]) for match in data}
    return ".index" in suffixes and any({int(match[1]) for match in data if int(match[2]) == count} == set(range(count)) for count in counts)


def find(directory: Directory) -> Found | None:
    """The last checkpoint by the index; None when there is none, or a file of it is missing."""
    index = directory.read_bytes(INDEX)
    name = last_checkpoint(index.decode(errors="replace")) if index else None
    return _found(name, index, directory.files()) if name else None


def find_all(directory: Directory) -> Iterator[Found]:
    """The complete checkpoints, the highest step first, whatever the index says, each with an index that names it alone.

    For a directory whose last checkpoint is lost.
    """
    files = directory.files()
    # In a directory such as ckpt-7_temp are the parts of one that is being saved.
    names = {path.removesuffix(".index") for path in files if path.endswith(".index") and "/" not in path}
    for name in sorted((name for name in names if step_of(name) is not None), key=step_of, reverse=True):
        if found := _found(name, f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'.encode(), files):
            yield found


def _found(name: str, index: bytes, files: dict[str, object]) -> Found | None:
    own = {path: status for path, status in files.items() if path.startswith(name + ".") and not path.endswith(PART)}
    return Found(name, index, own) if _complete({path.removeprefix(name) for path in own}) else None


def is_saved(path: str) -> bool:
    """Whether a file of a run, by its path in the run's directory of HDFS, would be missed: all but events and the collection's own files."""
    top, _slash, rest = path.partition("/")
    return not (top == EVENTS and rest or top.startswith("_") or top.removesuffix(PART) == FILE)
