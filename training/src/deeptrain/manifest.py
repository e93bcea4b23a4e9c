# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of what is in a directory of data, left beside the data.

Its bytes depend on the source's URL and on the data only, so that their digest
names the data: two stagings of the same objects leave the same manifest.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from deeptrain.hdfs import Hdfs
from deeptrain.job import JobError

NAME = "_manifest.json"


@dataclass(frozen=True, order=True)
class Entry:
    """A file: its relative path, its length in bytes and the sha256 of its content."""

    path: str
    length: int
    sha256: str


def encode(source: str, entries: list[Entry]) -> bytes:
    """The manifest as ASCII JSON, entries in the order of their paths."""
    document = {"version": 1, "source": source, "files": [asdict(entry) for entry in sorted(entries)]}
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def decode(content: bytes) -> tuple[str, dict[str, Entry]]:
    """The source and the entries by path."""
    try:
        document = json.loads(content)
        return document["source"], {item["path"]: Entry(**item) for item in document["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise JobError(f"{NAME} is damaged ({error}): remove it, and run data.yml again") from error


def read(directory: Hdfs) -> tuple[str, dict[str, Entry]] | None:
    """The manifest of a directory, None when it has none."""
    content = directory.read_bytes(NAME)
    return None if content is None else decode(content)
