# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of the NameNode's answers is that of Hadoop 3.5.0."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.deeptrain.cluster.plugins.modules import hdfs_decommission

LEAVING = {"addresses": ["10.0.0.3", "10.0.0.4"], "remaining": 2}
FSCK = (
    "FSCK started by hdfs (auth:SIMPLE) from /10.0.0.1 for path / at Thu Nov 26 14:00:00 UTC 2026\n"
    "Cookie:\t{}\n{}\n\nThe filesystem under path '/' has {} CORRUPT files\n"
)


def state(live, dead=(), missing=0, blocks=0, safemode="", silent=0, dead_seconds=1000, copying=0):
    """Return what the NameNode says of DataNodes: the administrative state by the last number of the address.

    It calls a DataNode decommissioned that was dead when it read the lists.
    """
    nodes = {
        f"worker-{number}:9866": {"xferaddr": f"10.0.0.{number}:9866", "adminState": admin, "numBlocks": 7, "lastContact": silent}
        for number, admin in live.items()
    }
    decommissioning = {
        f"worker-{number}:9866": {"xferaddr": f"10.0.0.{number}:9866", "underReplicatedBlocks": blocks}
        for number, admin in live.items()
        if admin == "Decommission In Progress"
    }
    return {
        "LiveNodes": json.dumps(nodes),
        "DeadNodes": json.dumps(
            {f"worker-{number}:9866": {"xferaddr": f"10.0.0.{number}:9866", "adminState": DONE, "lastContact": dead_seconds} for number in dead}
        ),
        "DecomNodes": json.dumps(decommissioning),
        "NumberOfMissingBlocks": missing,
        "Safemode": safemode,
        # In the NameNode, of another bean.
        "PendingReconstructionBlocks": copying,
    }


SERVICE, PROGRESS, DONE = "In Service", "Decommission In Progress", "Decommissioned"


class NameNode(HTTPServer):
    """Answers with its states in their order, the last one for ever."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.states = []
        self.damaged = []
        self.replication = 2


class Handler(BaseHTTPRequestHandler):
    """Plays the three addresses that are asked."""

    def do_GET(self):
        if self.path.startswith("/jmx"):
            states = self.server.states
            last = len(states) == 1 or self.path.endswith("FSNamesystemState")
            self.answer(json.dumps({"beans": [states[0] if last else states.pop(0)]}))
        elif self.path.startswith("/fsck?ugi=hdfs&"):
            files = [f"blk_{number}\t2\t{path}" for number, path in enumerate(self.server.damaged)]
            self.answer(FSCK.format(len(files), "\n".join(files), len(files) or "no"))
        else:
            self.answer(json.dumps({"FsServerDefaults": {"replication": self.server.replication}}))

    def answer(self, text):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def namenode(serving, monkeypatch):
    monkeypatch.setattr(hdfs_decommission, "POLL_SECONDS", 0.01)
    with serving(NameNode()) as server:
        yield server


@pytest.fixture
def run(namenode, run_module, monkeypatch):
    """Return what runs the module, with the NameNode's states; warnings are in the result."""
    warnings = []
    monkeypatch.setattr(hdfs_decommission.AnsibleModule, "warn", lambda dummy, text: warnings.append(text))

    def call(*states, **arguments):
        namenode.states[:] = states
        return {**run_module(hdfs_decommission, namenode_url=namenode.url, **{**LEAVING, **arguments}), "warned": list(warnings)}

    return call


ALL = {1: SERVICE, 2: SERVICE, 3: SERVICE, 4: SERVICE}


def test_live_datanodes_are_refused_by_name(run):
    result = run(state(ALL))
    assert result["failed"]
    assert "The DataNodes worker-3 (10.0.0.3), worker-4 (10.0.0.4) are live in HDFS and not in the inventory" in result["msg"]
    assert "set hadoop_remove_datanodes to true" in result["msg"]


def test_datanodes_that_were_just_removed_are_dead_after_a_while(run, namenode):
    result = run(state(ALL, silent=1), state(ALL, silent=30), state(ALL, silent=59), state({1: SERVICE, 2: SERVICE}, dead=(3, 4)))
    assert "failed" not in result and result["live"] == [] and len(namenode.states) == 1


def test_the_wait_for_silent_datanodes_has_a_timeout(run, monkeypatch):
    monkeypatch.setattr(hdfs_decommission, "SILENT_SECONDS", 0.1)
    assert "are live in HDFS and not in the inventory" in run(state(ALL, silent=30))["msg"]


def test_live_datanodes_are_returned_with_the_users_word(run):
    result = run(state(ALL), remove=True)
    assert (result["live"], result["lost"], result["changed"]) == (["10.0.0.3", "10.0.0.4"], [], False)


def test_decommissioned_and_dead_datanodes_leave_without_it(run):
    assert run(state({**ALL, 3: DONE, 4: DONE}))["live"] == []
    assert run(state({1: SERVICE, 2: SERVICE}, dead=(3, 4)))["live"] == []


@pytest.mark.parametrize(
    ("unknown", "said"),
    [
        ({"dead": (3, 4), "dead_seconds": 61}, "worker-4 (10.0.0.4) died, and missing blocks are not counted yet, 0 being copied"),
        ({"dead": (3, 4), "copying": 7}, "worker-4 (10.0.0.4) died, and missing blocks are not counted yet, 7 being copied"),
        ({"dead": (3, 4), "safemode": "Safe mode is ON"}, "the NameNode is in safe mode"),
    ],
)
def test_dead_datanodes_whose_blocks_are_not_counted_yet(run, namenode, monkeypatch, unknown, said):
    remaining = {1: SERVICE, 2: SERVICE}
    assert run(state(remaining, **unknown), state(remaining, dead=(3, 4)))["live"] == [] and len(namenode.states) == 1
    namenode.damaged = ["/data/00"]
    assert "restart them" in run(state(remaining, **unknown), state(remaining, dead=(3, 4), missing=1))["msg"]
    monkeypatch.setattr(hdfs_decommission, "SILENT_SECONDS", 0.1)
    result = run(state(remaining, **unknown))
    assert result["failed"] and "whether they hold blocks is unknown" in result["msg"] and said in result["msg"]
    # They are waited for.
    assert run(state(remaining, **unknown), remove=True)["live"] == LEAVING["addresses"]


def test_fewer_datanodes_than_copies(run, namenode):
    namenode.replication = 3
    result = run(state(ALL), remove=True)
    assert result["failed"] and "2 would remain, and a block has 3 copies (hadoop_replication)" in result["msg"]
    assert "hdfs dfs -setrep -w 2 /" in result["msg"]


def test_dead_datanodes_with_the_only_copies(run, namenode):
    namenode.damaged = [f"/data/{number:02}" for number in range(12)]
    lost = state({1: SERVICE, 2: SERVICE}, dead=(3, 4), missing=12)
    result = run(lost)
    assert result["failed"] and "worker-3 (10.0.0.3), worker-4 (10.0.0.4) are dead" in result["msg"]
    assert "/data/00" in result["msg"] and "/data/09 and 2 more" in result["msg"]
    result = run(lost, remove=True)
    assert result["lost"] == namenode.damaged and result["live"] == []
    assert "/data/00" in result["warned"][0]


def test_a_namenode_that_does_not_answer(run_module):
    arguments = {"namenode_url": "http://127.0.0.1:9", **LEAVING}
    result = run_module(hdfs_decommission, **arguments)
    assert result["failed"] and "10.0.0.3, 10.0.0.4 are in HDFS and not in the inventory" in result["msg"]
    # The role starts it, and then all of them are decommissioned.
    assert run_module(hdfs_decommission, remove=True, **arguments)["live"] == LEAVING["addresses"]


def test_waits_until_all_are_decommissioned(run, namenode):
    result = run(
        state({1: SERVICE}, safemode="Safe mode is ON"),
        state(ALL),
        state({**ALL, 3: PROGRESS, 4: PROGRESS}, blocks=5),
        state({**ALL, 3: DONE, 4: PROGRESS}, blocks=1),
        state({**ALL, 3: DONE, 4: DONE}),
        state="decommissioned",
    )
    assert "failed" not in result and len(namenode.states) == 1


def test_no_progress(run):
    result = run(state({**ALL, 3: PROGRESS, 4: DONE}, blocks=5), state="decommissioned", timeout=0)
    assert result["failed"]
    assert "no progress for 0 s: worker-3 (10.0.0.3) still waits for 5 blocks" in result["msg"]


def dead(**said):
    return state({1: SERVICE, 2: SERVICE}, dead=(3, 4), **said)


BEGUN = state({**ALL, 3: PROGRESS, 4: PROGRESS}, blocks=5)


@pytest.mark.parametrize("left", [dead(missing=9), dead(copying=9), dead(dead_seconds=61)])
def test_a_datanode_that_dies_while_it_is_decommissioned(run, left):
    """In state `copying` the NameNode does not count what is missing, and for some seconds after it calls the DataNode dead."""
    result = run(BEGUN, left, state="decommissioned", timeout=1)
    assert result["failed"] and "The DataNodes worker-3 (10.0.0.3), worker-4 (10.0.0.4) died before they were decommissioned" in result["msg"]


def test_a_datanode_that_comes_back_is_decommissioned(run, namenode):
    result = run(BEGUN, dead(missing=9), BEGUN, state({**ALL, 3: DONE, 4: DONE}), state="decommissioned")
    assert "failed" not in result and len(namenode.states) == 1


@pytest.mark.parametrize(
    "states",
    [
        # Others have copies of what they held.
        (BEGUN, dead(copying=5), dead()),
        # Blocks of others are missing.
        (BEGUN, state({**ALL, 3: DONE, 4: PROGRESS}), state({1: SERVICE, 2: SERVICE, 4: DONE}, dead=(3,), missing=9)),
    ],
)
def test_a_dead_datanode_that_holds_nothing_leaves(run, namenode, states):
    result = run(*states, state="decommissioned")
    assert "failed" not in result and len(namenode.states) == 1
