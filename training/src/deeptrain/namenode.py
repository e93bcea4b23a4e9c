# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NameNode's state over HTTP: what hdfs-native has no call for."""

from __future__ import annotations

import urllib.error
import urllib.request
import xml.etree.ElementTree
from collections.abc import Iterator
from urllib.parse import urlencode

import hdfs_native

from deeptrain import documents
from deeptrain.hdfs import CALL_SECONDS, Hdfs, Unavailable

# The nodes reach each other directly.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class NameNode:
    """The NameNode's HTTP address, ``http://HOST:PORT``."""

    def __init__(self, url: str):
        self.url = url.rstrip("/")

    def _get(self, resource: str, **query: str) -> bytes:
        try:
            with _OPENER.open(f"{self.url}{resource}?{urlencode(query)}", timeout=CALL_SECONDS) as answer:
                return answer.read()
        except (OSError, urllib.error.URLError) as error:
            raise Unavailable(f"The NameNode at {self.url} does not answer {resource} ({error}): run hdfs.yml, and see that it is healthy") from error

    def remaining(self) -> int:
        """HDFS's free capacity in bytes, all copies counted."""
        return documents.parse(self._get("/jmx", qry="Hadoop:service=NameNode,name=FSNamesystemState"))["beans"][0]["CapacityRemaining"]

    def replication(self) -> int:
        """Copies of a block of new files."""
        return documents.parse(self._get("/webhdfs/v1/", op="GETSERVERDEFAULTS"))["FsServerDefaults"]["replication"]

    def setting(self, name: str) -> str:
        """A value of the NameNode's configuration."""
        value = xml.etree.ElementTree.fromstring(self._get("/conf", name=name)).findtext("property/value")
        if value is None:
            raise Unavailable(f"The NameNode at {self.url} has no setting {name}: see {self.url}/conf")
        return value

    def damaged_files(self, directory: Hdfs) -> Iterator[str]:
        """Names, relative to a directory of HDFS, of the files that have blocks without an intact copy on a live DataNode."""
        root, cookie = directory.root.rstrip("/") + "/", "0"
        # The superuser alone may ask. It owns the root directory.
        user = directory.owner_of_root()
        while True:
            text = self._get("/fsck", ugi=user, path=directory.root, listcorruptfileblocks="1", startblockafter=cookie).decode()
            if "CORRUPT files" not in text and "does not exist" not in text:
                raise Unavailable(f"The NameNode at {self.url} does not list damaged files ({text.strip().splitlines()[-1]}): run hdfs.yml")
            found = [line.split("\t", 2)[2] for line in text.splitlines() if line.startswith("blk_")]
            if not found:
                return
            yield from (path.removeprefix(root) for path in found)
            cookies = [line.split("\t")[1] for line in text.splitlines() if line.startswith("Cookie:")]
            if cookies in ([], [cookie]):
                return
            cookie = cookies[0]


class Intact(Hdfs):
    """A directory of HDFS in which a file with lost blocks counts as missing.

    Blocks are lost while no live DataNode has an intact copy: they may come back with a DataNode that restarts, so whoever
    gives them up waits first. Without the NameNode's HTTP URL all files count.
    """

    def __init__(self, url: str, namenode_url: str | None):
        super().__init__(url)
        self._namenode = NameNode(namenode_url) if namenode_url else None

    def damaged(self) -> set[str]:
        """The names of the files with lost blocks."""
        return set(self._namenode.damaged_files(self)) if self._namenode else set()

    def list_files(self) -> Iterator[tuple[str, hdfs_native.FileStatus]]:
        damaged = self.damaged()
        for name, item in super().list_files():
            if name not in damaged:
                yield name, item

    def read_bytes(self, name: str) -> bytes | None:
        return None if name in self.damaged() else super().read_bytes(name)
