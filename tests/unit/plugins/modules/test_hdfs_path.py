# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NameNode's answers here were recorded from Hadoop 3.5.0."""

from __future__ import annotations

import json
import socket
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.deeptrain.cluster.plugins.modules import hdfs_path


def status(permission="755", owner="hdfs", group="supergroup", kind="DIRECTORY", children=0):
    """Return the answer that describes a path."""
    return 200, {
        "FileStatus": {
            "accessTime": 0,
            "blockSize": 0,
            "childrenNum": children,
            "fileId": 16387,
            "group": group,
            "length": 0,
            "modificationTime": 1795411708457,
            "owner": owner,
            "pathSuffix": "",
            "permission": permission,
            "replication": 0,
            "storagePolicy": 0,
            "type": kind,
        }
    }


def refusal(code, package, name, message):
    """Return the answer that refuses."""
    return code, {"RemoteException": {"exception": name, "javaClassName": f"{package}.{name}", "message": message}}


MISSING = refusal(404, "java.io", "FileNotFoundException", "File does not exist: /user/deeptrain")
DONE = 200, {"boolean": True}
SET = 200, None


class NameNode(HTTPServer):
    """Gives answers in their order and notes what was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.answers = []
        self.asked = []


class Handler(BaseHTTPRequestHandler):
    """Plays one answer for each request."""

    def play(self):
        self.server.asked.append(f"{self.command} {self.path.partition('/webhdfs/v1')[2]}")
        code, body = self.server.answers.pop(0)
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_DELETE = play

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def namenode(serving):
    """Return a NameNode on loopback; all its answers must have been fetched in the end."""
    with serving(NameNode()) as server:
        yield server
    assert server.answers == []


@pytest.fixture
def run(run_module, namenode):
    """Return a function that runs the module on the NameNode with /user/deeptrain."""

    def call(**arguments):
        return run_module(hdfs_path, **{"path": "/user/deeptrain", "namenode_url": namenode.url, **arguments})

    return call


WANTED = {"owner": "deeptrain", "group": "deeptrain", "mode": "0750"}


def test_a_directory_is_made(run, namenode):
    namenode.answers += [MISSING, DONE, DONE, status("750"), SET, status("750", "deeptrain", "deeptrain")]
    result = run(**WANTED)
    assert namenode.asked == [
        "GET /user/deeptrain?op=GETFILESTATUS&user.name=hdfs",
        "PUT /user?op=MKDIRS&user.name=hdfs&permission=755",
        "PUT /user/deeptrain?op=MKDIRS&user.name=hdfs&permission=0750",
        "GET /user/deeptrain?op=GETFILESTATUS&user.name=hdfs",
        "PUT /user/deeptrain?op=SETOWNER&user.name=hdfs&owner=deeptrain&group=deeptrain",
        "GET /user/deeptrain?op=GETFILESTATUS&user.name=hdfs",
    ]
    after = {"path": "/user/deeptrain", "state": "directory", **WANTED}
    assert result == {
        "changed": True,
        **after,
        "diff": {"before": {"path": "/user/deeptrain", "state": "absent"}, "after": after},
    }


def test_a_directory_that_is_there_is_left_alone(run, namenode):
    namenode.answers += [status("750", "deeptrain", "deeptrain", children=3)]
    result = run(**{**WANTED, "mode": "750"})
    assert result["changed"] is False
    assert result["diff"]["before"] == result["diff"]["after"]
    assert len(namenode.asked) == 1


def test_nothing_said_of_owner_group_and_mode_leaves_them(run, namenode):
    namenode.answers += [status("1777", "someone", "others")]
    result = run()
    assert (result["changed"], result["owner"], result["group"], result["mode"]) == (False, "someone", "others", "1777")


@pytest.mark.parametrize(
    "wanted, calls",
    [
        ({"group": "deeptrain"}, ["PUT /user/deeptrain?op=SETOWNER&user.name=hdfs&group=deeptrain"]),
        ({"owner": "hdfs", "mode": "1777"}, ["PUT /user/deeptrain?op=SETPERMISSION&user.name=hdfs&permission=1777"]),
    ],
)
def test_only_what_differs_is_set(run, namenode, wanted, calls):
    namenode.answers += [status(), SET, status()]
    result = run(**wanted)
    assert namenode.asked[1:-1] == calls
    assert result["diff"]["before"] == {
        "path": "/user/deeptrain",
        "state": "directory",
        "owner": "hdfs",
        "group": "supergroup",
        "mode": "0755",
    }


@pytest.mark.parametrize("answer, before", [(MISSING, "absent"), (status(), "directory")])
def test_check_mode_asks_and_does_nothing(run, namenode, answer, before):
    namenode.answers += [answer]
    result = run(check_mode=True, **WANTED)
    assert result["changed"] is True
    assert result["diff"]["before"]["state"] == before
    assert result["diff"]["after"] == {"path": "/user/deeptrain", "state": "directory", **WANTED}
    assert [line.split(maxsplit=1)[0] for line in namenode.asked] == ["GET"]


def test_a_path_is_quoted_and_made_plain(run, namenode):
    namenode.answers += [status()]
    assert run(path="//a//b c%/ü/", user="me&you")["path"] == "/a/b c%/ü"
    assert namenode.asked == ["GET /a/b%20c%25/%C3%BC?op=GETFILESTATUS&user.name=me%26you"]


def test_a_path_is_removed(run, namenode):
    namenode.answers += [status(), DONE]
    result = run(state="absent")
    assert namenode.asked[1] == "DELETE /user/deeptrain?op=DELETE&user.name=hdfs&recursive=false"
    assert (result["changed"], result["state"]) == (True, "absent")


def test_a_path_that_is_absent_is_left_so(run, namenode):
    namenode.answers += [MISSING]
    assert run(state="absent")["changed"] is False


def test_what_is_in_a_directory_is_removed_only_when_told(run, namenode):
    namenode.answers += [status(children=1)]
    result = run(state="absent")
    assert (result["failed"], result["msg"]) == (
        True,
        "/user/deeptrain is not empty: set recurse to remove it with all that is in it",
    )
    namenode.answers += [status(children=1)]
    assert run(state="absent", recurse=True, check_mode=True)["changed"] is True
    namenode.answers += [status(children=1), DONE]
    run(state="absent", recurse=True)
    assert namenode.asked[-1] == "DELETE /user/deeptrain?op=DELETE&user.name=hdfs&recursive=true"


def test_the_root_is_never_removed(run, namenode):
    namenode.answers += [status()]
    assert "root of HDFS" in run(path="/", state="absent", recurse=True)["msg"]


def test_a_file_is_no_directory(run, namenode):
    namenode.answers += [status(kind="FILE")]
    result = run()
    assert (result["failed"], result["msg"]) == (True, "/user/deeptrain is a file: move it away, or give another path")


def test_a_refusal_is_told(run, namenode):
    namenode.answers += [
        refusal(
            403,
            "org.apache.hadoop.security",
            "AccessControlException",
            'Permission denied: user=bob, access=EXECUTE, inode="/user":hdfs:supergroup:drwxr-x---\n\tat org.apache',
        )
    ]
    result = run(user="bob")
    assert result["failed"] is True
    assert result["msg"] == (
        f"the NameNode at {namenode.url} refuses: Permission denied: user=bob, access=EXECUTE, "
        'inode="/user":hdfs:supergroup:drwxr-x--- (AccessControlException)'
    )


@pytest.mark.parametrize("answer", [(404, b"<html>"), (200, b"<html>"), (404, {"message": "gone"}), (500, b"")])
def test_what_does_not_speak_webhdfs_is_told(run, namenode, answer):
    namenode.answers += [answer]
    assert f"{namenode.url} does not speak WebHDFS" in run()["msg"]


def test_a_directory_that_was_not_made(run, namenode):
    namenode.answers += [MISSING, DONE, (200, {"boolean": False})]
    assert "did not make /user/deeptrain" in run()["msg"]


def test_a_namenode_that_is_not_there(run_module):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        result = run_module(hdfs_path, path="/x", namenode_url=url)
    assert result["failed"] is True
    assert f"cannot reach the NameNode at {url}" in result["msg"]
    assert "namenode_url" in result["msg"]


def test_a_namenode_that_says_nothing(run_module):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        result = run_module(hdfs_path, path="/x", namenode_url=url, timeout=1)
    assert f"cannot reach the NameNode at {url} (timed out)" in result["msg"]


def test_a_proxy_for_the_web_is_not_asked(run, namenode, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    namenode.answers += [status()]
    assert run()["changed"] is False


@pytest.mark.parametrize(
    "argument, value",
    [
        ("path", "user/deeptrain"),
        ("path", "/user/../etc"),
        ("mode", 493),
        ("mode", "u=rwx"),
        ("mode", "0955"),
        ("namenode_url", "hdfs://node:8020"),
        ("namenode_url", "node:9870"),
        ("owner", ""),
        ("group", ""),
        ("user", ""),
    ],
)
def test_an_argument_that_will_not_do(run, argument, value):
    result = run(**{argument: value})
    assert result["failed"] is True
    assert result["msg"].startswith(f"{argument} is ")
