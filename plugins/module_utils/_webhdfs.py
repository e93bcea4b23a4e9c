# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The few calls of WebHDFS that need the NameNode alone, and what the NameNode says of DataNodes."""

from __future__ import annotations

import http.client
import json
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

from ansible.module_utils.urls import open_url

# Options of the modules, documented in doc_fragments/_hdfs.py.
NAMENODE = {
    "namenode_url": {"type": "str", "required": True},
    "user": {"type": "str", "default": "hdfs"},
}


class WebHdfsError(Exception):
    """A call failed; the message says at which NameNode, and why.

    `exception` is the Java exception's name where the NameNode gave one.
    """

    def __init__(self, message, exception=None):
        super().__init__(message)
        self.exception = exception


def datanodes(info, kind):
    """Return the DataNodes of one kind in the bean NameNodeInfo by their addresses: what the NameNode says of each, with its name."""
    return {
        node["xferaddr"].rpartition(":")[0]: {**node, "name": name.rpartition(":")[0]}
        for name, node in json.loads(info[kind]).items()
    }


class WebHdfs:
    """HDFS over its NameNode's HTTP port, as one user; each call may take `timeout` seconds. The beans need no user."""

    def __init__(self, url, user, timeout):
        self._url = url.rstrip("/")
        self._user = user
        self._timeout = timeout

    def status(self, path):
        """Return the FileStatus of a path, or None when there is nothing."""
        try:
            return self._call("GET", path, "GETFILESTATUS")["FileStatus"]
        except WebHdfsError as error:
            if error.exception == "FileNotFoundException":
                return None
            raise

    def make_directory(self, path, permission="755"):
        """Create a directory, and with the same permission what is missing above it."""
        if not self._call("PUT", path, "MKDIRS", permission=permission)["boolean"]:
            raise WebHdfsError(f"the NameNode at {self._url} did not make {path}")

    def set_owner(self, path, **names):
        """Set owner, group or both."""
        self._call("PUT", path, "SETOWNER", **names)

    def set_permission(self, path, permission):
        """Set the permission, octal digits."""
        self._call("PUT", path, "SETPERMISSION", permission=permission)

    def delete(self, path, recursive):
        """Delete a path; a directory that is not empty only when `recursive`."""
        self._call("DELETE", path, "DELETE", recursive="true" if recursive else "false")

    def replication(self):
        """Return how many copies a block of a new file has."""
        return self._call("GET", "/", "GETSERVERDEFAULTS")["FsServerDefaults"]["replication"]

    def bean(self, name):
        """Return one of the NameNode's own JMX beans."""
        body = self._request("GET", "/jmx", qry=f"Hadoop:service=NameNode,name={name}")
        try:
            return json.loads(body)["beans"][0]
        except (ValueError, LookupError, TypeError):
            raise WebHdfsError(self._foreign("its metrics are no JSON")) from None

    def damaged_files(self):
        """Return the first files that have blocks without an intact copy on a live DataNode, 500 at most."""
        text = self._request("GET", "/fsck", ugi=self._user, path="/", listcorruptfileblocks="1").decode()
        if "CORRUPT files" not in text:
            raise WebHdfsError(f"the NameNode at {self._url} lists no damaged files: {(text.strip() or 'no answer').splitlines()[-1]}")
        return sorted({line.split("\t", 2)[2] for line in text.splitlines() if line.startswith("blk_")})

    def _call(self, method, path, operation, **parameters):
        body = self._request(method, "/webhdfs/v1" + path, **{"op": operation, "user.name": self._user, **parameters})
        if not body:
            return {}
        try:
            return json.loads(body)
        except ValueError:
            raise WebHdfsError(self._foreign("its answer is no JSON")) from None

    def _request(self, method, resource, **parameters):
        try:
            with open_url(
                f"{self._url}{quote(resource)}?{urlencode(parameters)}",
                method=method,
                timeout=self._timeout,
                # The NameNode is in the nodes' own network.
                use_proxy=False,
            ) as answer:
                return answer.read()
        except HTTPError as error:
            raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise WebHdfsError(
                f"cannot reach the NameNode at {self._url} ({reason}): "
                "see that it runs, and that namenode_url is its HTTP address"
            ) from None

    def _refusal(self, error):
        """Return the error that an HTTP error stands for."""
        try:
            remote = json.loads(error.read())["RemoteException"]
            name, message = remote["exception"], remote["message"]
        except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
            return WebHdfsError(self._foreign(f"it answers {error.code} {error.reason}"))
        first_line = message.partition("\n")[0]
        return WebHdfsError(f"the NameNode at {self._url} refuses: {first_line} ({name})", name)

    def _foreign(self, what):
        return (
            f"{self._url} does not speak WebHDFS ({what}): "
            "set namenode_url to the NameNode's HTTP address, http://HOST:9870"
        )
