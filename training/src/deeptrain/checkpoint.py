# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checkpoints of a run in HDFS, whatever command writes them."""

from __future__ import annotations

import os

from deeptrain.hdfs import Hdfs

DIRECTORY = "checkpoints"
# The file in which TensorFlow names the last checkpoint.
INDEX = "checkpoint"
# Added to a checkpoint's name: a file that holds a directory saved_model, the model as it was then.
PACKED_MODEL = ".saved_model.zip"


def last_checkpoint(index: str) -> str | None:
    """The name of the last checkpoint by TensorFlow's index file."""
    for line in index.splitlines():
        if line.startswith("model_checkpoint_path:"):
            return os.path.basename(line.split(":", 1)[1].strip().strip('"'))
    return None


def find(directory: Hdfs) -> tuple[str, bytes, list[str]] | None:
    """The last checkpoint's name, the index that names it, and its files; None when there is none."""
    index = directory.read_bytes(INDEX)
    name = last_checkpoint(index.decode()) if index else None
    if name is None:
        return None
    return name, index, [path for path in directory.files() if path.startswith(name + ".")]
