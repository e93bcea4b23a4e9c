# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings a task's share of the data from HDFS to the node's own cache."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
from pathlib import Path

from deeptrain import documents, manifest
from deeptrain.hdfs import CHUNK_BYTES, Hdfs
from deeptrain.job import BadInput, JobError, replace_file

# What the cache holds: name → [length, sha256], so that a file is digested once.
INDEX = ".fetched.json"
# What stays free on the cache's disk.
RESERVED_BYTES = 64 * 1024 * 1024


def share(names: list[str], index: int, count: int) -> list[str]:
    """Every ``count``-th of the names in their order, from the ``index``-th on."""
    return sorted(names)[index::count]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _check_room(cache: Path, sizes: dict[str, int], data_url: str) -> None:
    """Raises BadInput when the files do not fit the cache's disk."""
    missing = 0
    for path, length in sizes.items():
        local = cache / path
        missing += length if not local.is_file() or local.stat().st_size != length else 0
    free = shutil.disk_usage(cache).free
    if missing > free - RESERVED_BYTES:
        raise BadInput(
            f"{missing / 2**30:.2f} GiB of {data_url} are to be copied to {cache}, which has {free / 2**30:.2f} GiB free: "
            "use a larger disk, another deeptrain_cache_dir, or more workers"
        )


def _download(directory: Hdfs, path: str, local: Path) -> str | None:
    try:
        return directory.download(path, local)
    except FileNotFoundError:
        return None


def fetch(data_url: str, cache_dir: str | os.PathLike, pattern: str, index: int = 0, count: int = 1) -> list[Path]:
    """Makes the cache hold this task's share of the files that match, verified, and no other file of the data.

    ``pattern`` is a shell pattern over the data's relative paths; the task is the
    ``index``-th of ``count``. Returns the local paths in order. Raises BadInput
    when there are fewer files than tasks.
    """
    directory = Hdfs(data_url)
    here = manifest.read(directory)
    if here is None:
        raise JobError(f"{data_url} has no {manifest.NAME}, so the data is not there or not complete: run data.yml")
    entries = {path: entry for path, entry in here[1].items() if fnmatch.fnmatchcase(path, pattern)}
    if len(entries) < count:
        raise BadInput(
            f"{data_url} has {len(entries)} files like {pattern} for {count} workers: make at least as many shards as there are workers, or use fewer workers"
        )
    cache = Path(cache_dir)
    cache.mkdir(parents=True, exist_ok=True)
    index_file = cache / INDEX
    try:
        fetched = documents.parse(index_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        fetched = {}
    wanted = share(list(entries), index, count)
    # The index lacks a file that was copied just before the task was killed.
    existing = {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}
    stale = {path for path in existing if fnmatch.fnmatchcase(path.removesuffix(".part"), pattern)}
    for path in (stale | set(fetched)) - set(wanted):
        (cache / path).unlink(missing_ok=True)
        fetched.pop(path, None)
    _check_room(cache, {path: entries[path].length for path in wanted}, data_url)
    for path in wanted:
        entry, local = entries[path], cache / path
        if fetched.get(path) != [entry.length, entry.sha256] or not local.is_file() or local.stat().st_size != entry.length:
            if not local.is_file() or local.stat().st_size != entry.length or _sha256(local) != entry.sha256:
                if _download(directory, path, local) != entry.sha256:
                    local.unlink(missing_ok=True)
                    raise JobError(f"{data_url}/{path} is not what the manifest says: run data.yml, which copies damaged files again")
            fetched[path] = [entry.length, entry.sha256]
            replace_file(index_file, json.dumps(fetched).encode())
    return [cache / path for path in wanted]
