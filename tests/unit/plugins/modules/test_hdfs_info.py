# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The form of the NameNode's answers is that of Hadoop 3.5.0."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.deeptrain.cluster.plugins.modules import hdfs_info

EXPECTED = {
    "namenode_host": "ps-0",
    "namenode_rpc_address": "10.0.0.1:8020",
    "cluster_id": "ours",
    "datanodes": {"worker-1": "10.0.0.1", "worker-2": "10.0.0.2"},
}
SAFE = "Safe mode is ON. The reported blocks 0 needs additional 4 blocks"


def node(number, last_contact=1, capacity=1000):
    return {"xferaddr": f"10.0.0.{number}:9866", "lastContact": last_contact, "capacity": capacity}


def bean(*live, dead=(), safe_mode="", cluster_id="ours"):
    """Return what the NameNode reports of HDFS; a live DataNode is a number, or what it reports of one."""
    nodes = [node(found) if isinstance(found, int) else found for found in live]
    return {
        "LiveNodes": json.dumps({f"host-{index}:9866": found for index, found in enumerate(nodes)}),
        "DeadNodes": json.dumps({f"dead-{number}:9866": node(number, 1000) for number in dead}),
        "Safemode": safe_mode,
        "ClusterId": cluster_id,
        "Total": 3000,
        "Free": 2000,
    }


class Handler(BaseHTTPRequestHandler):
    """Answers with the server's beans in their order, the last one for ever; None is none yet."""

    def do_GET(self):
        beans = self.server.beans
        found = beans[0] if len(beans) == 1 else beans.pop(0)
        assert self.path == "/jmx?qry=Hadoop%3Aservice%3DNameNode%2Cname%3DNameNodeInfo"
        body = json.dumps({"beans": [] if found is None else [found]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def run(serving, run_module, monkeypatch):
    """Return a function that runs the module with the NameNode's successive beans."""
    monkeypatch.setattr(hdfs_info, "POLL_SECONDS", 0.01)
    with serving(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"

        def call(*beans, **arguments):
            server.beans = list(beans)
            result = run_module(hdfs_info, namenode_url=url, **arguments)
            assert result.pop("changed") is False
            return {**result, "problem": result["problem"].replace(url, "URL"), "unread": len(server.beans) - 1}

        yield call


def test_what_the_namenode_reports(run):
    result = run(bean(2, 1, dead=(3,), safe_mode=SAFE))
    assert result.pop("waited_seconds") < 5
    assert result == {
        "answers": True,
        "cluster_id": "ours",
        "safe_mode": SAFE,
        "live": ["10.0.0.1", "10.0.0.2"],
        "dead": ["10.0.0.3"],
        "missing": [],
        "total_bytes": 3000,
        "free_bytes": 2000,
        "problem": f"The NameNode on URL is still in safe mode: {SAFE}",
        "unread": 0,
    }


def test_ready(run):
    result = run(bean(1, 2, 3), **EXPECTED)
    assert (result["problem"], result["missing"]) == ("", [])
    # Nothing is expected.
    assert run(bean(cluster_id="another"))["problem"] == ""


INCOMPLETE = {name: value for name, value in bean(1, 2).items() if name != "LiveNodes"}


@pytest.mark.parametrize("found", [None, INCOMPLETE, {**bean(1, 2), "LiveNodes": None}, {**bean(1, 2), "DeadNodes": ""}])
def test_a_namenode_that_is_starting(run, found):
    result = run(found, **EXPECTED)
    assert result["problem"] == (
        "The NameNode on ps-0 does not answer at URL: see 'journalctl --unit hadoop-namenode' there, "
        "and run the main entry point of role hadoop on that host first"
    )
    assert (result["answers"], result["cluster_id"], result["live"], result["free_bytes"]) == (False, "", [], 0)
    assert result["missing"] == ["worker-1", "worker-2"]


def test_a_namenode_that_does_not_answer(run_module):
    result = run_module(hdfs_info, namenode_url="http://127.0.0.1:9")
    assert (result["answers"], result["missing"], result.get("failed")) == (False, [], None)
    assert "The NameNode on http://127.0.0.1:9 does not answer" in result["problem"]


def test_another_cluster(run):
    assert run(bean(cluster_id="another", safe_mode=SAFE), **EXPECTED)["problem"] == (
        "At URL answers the NameNode of the cluster 'another', and this one is 'ours': "
        "stop the other one on ps-0, or set hadoop_cluster_id to its identity"
    )


@pytest.mark.parametrize(
    "second",
    [
        (),
        # Silent, and not dead yet.
        (node(2, last_contact=10),),
        # It has sent no report yet.
        (node(2, capacity=0),),
    ],
)
def test_datanodes_that_are_missing(run, second):
    """In safe mode, too, which the NameNode leaves when it knows where the blocks are."""
    result = run(bean(1, *second, safe_mode=SAFE), **EXPECTED)
    assert result["missing"] == ["worker-2"]
    assert result["problem"] == (
        "The NameNode on ps-0 does not know the DataNodes of worker-2 (1 of 2 are live): see 'journalctl --unit hadoop-datanode' there, "
        "and whether they reach 10.0.0.1:8020. If it only takes longer, set hadoop_ready_timeout higher"
    )


def test_many_datanodes_are_missing(run):
    result = run(bean(), datanodes={f"worker-{number}": f"10.0.0.{number}" for number in range(23)})
    assert len(result["missing"]) == 23
    assert "worker-18, worker-19 and 3 more (0 of 23 are live)" in result["problem"] and "its RPC port" in result["problem"]


STARTING = (None, bean(1, safe_mode=SAFE), bean(1, 2, safe_mode=SAFE))


def test_waits_until_it_is_ready(run):
    result = run(*STARTING, bean(1, 2), timeout=60, **EXPECTED)
    assert (result["problem"], result["unread"]) == ("", 0)
    assert 0 < result["waited_seconds"] < 60


def test_the_wait_has_a_timeout(run):
    result = run(bean(1), timeout=1, **EXPECTED)
    assert "does not know the DataNodes of worker-2 after 1 s (1 of 2 are live)" in result["problem"]
    assert 1 <= result["waited_seconds"] < 60


def test_check_mode_does_not_wait(run):
    result = run(*STARTING, timeout=60, check_mode=True, **EXPECTED)
    assert "does not answer" in result["problem"] and result["unread"] == 1
