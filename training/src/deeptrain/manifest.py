# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of what is in a directory of data, left beside the data.

Its bytes depend on the source's URL and on the data only, so that their digest
names the data: two stagings of the same objects leave the same manifest. The
digest is in a file of its own, which exists only beside the manifest, so that
it can be compared without reading a million entries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deeptrain import documents
from deeptrain.hdfs import CHUNK_BYTES, Hdfs
from deeptrain.job import JobError

NAME = "_manifest.json"
DIGEST = "_manifest.sha256"


@dataclass(frozen=True, order=True, slots=True)
class Entry:
    """A file: its relative path, its length in bytes and the sha256 of its content."""

    path: str
    length: int
    sha256: str


def chunks(source: str, entries: Iterable[Entry], names: Iterable[str] | None = None) -> Iterator[bytes]:
    """The manifest as ASCII JSON in chunks, entries in the order of their paths; with the names of further files that are the data's own."""
    return _joined(_pieces(source, entries, names))


def _pieces(source: str, entries: Iterable[Entry], names: Iterable[str] | None) -> Iterator[str]:
    yield '{\n "files": ['
    separator = "\n"
    for entry in sorted(entries, key=lambda entry: entry.path):
        yield f'{separator}  {{\n   "length": {entry.length},\n   "path": {json.dumps(entry.path)},\n   "sha256": "{entry.sha256}"\n  }}'
        separator = ",\n"
    yield "],\n" if separator == "\n" else "\n ],\n"
    if names is not None:
        separator = ' "names": ['
        for name in names:
            yield f"{separator}{json.dumps(name)}"
            separator = ",\n"
        yield ' "names": [],\n' if separator == ' "names": [' else "],\n"
    yield f' "source": {json.dumps(source)},\n "version": 1\n}}\n'


def _joined(pieces: Iterator[str]) -> Iterator[bytes]:
    buffer, length = [], 0
    for piece in pieces:
        buffer.append(piece)
        length += len(piece)
        if length >= CHUNK_BYTES:
            yield "".join(buffer).encode("ascii")
            buffer, length = [], 0
    yield "".join(buffer).encode("ascii")


def encode(source: str, entries: Iterable[Entry]) -> bytes:
    """The manifest as ASCII JSON, entries in the order of their paths."""
    return b"".join(chunks(source, entries))


def _entry(item: dict) -> dict | Entry:
    # At once, since a million dictionaries take several times the memory.
    return Entry(**item) if "sha256" in item else item


def parse(content: bytes) -> tuple[str, dict[str, Entry], list[str]]:
    """The source, the entries by path, and the further names."""
    try:
        document = documents.parse(content, object_hook=_entry)
        return document["source"], {item.path: item for item in document["files"]}, document.get("names", [])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(f"{NAME} is damaged ({error}): remove it, and run data.yml again") from error


def decode(content: bytes) -> tuple[str, dict[str, Entry]]:
    """The source and the entries by path."""
    return parse(content)[:2]


def read(directory: Hdfs) -> tuple[str, dict[str, Entry]] | None:
    """The manifest of a directory, None when it has none."""
    content = directory.read_bytes(NAME)
    return None if content is None else decode(content)
