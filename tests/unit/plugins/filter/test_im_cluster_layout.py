# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.deeptrain.cluster.plugins.filter.im_cluster_layout import im_cluster_layout


@pytest.fixture
def layout(options, clouds):
    """Return a function that gives the layout of some options."""
    return lambda **given: im_cluster_layout(options(**given), clouds)


def test_defaults(layout):
    found = layout()
    assert found["machines"] == ["chief", "ps", "worker", "worker"]
    assert found["systems"] == {
        "chief": {"cpus": 2, "memory_gib": 8, "count": 1, "public": True},
        "ps": {"cpus": 2, "memory_gib": 8, "count": 1, "public": False},
        "worker": {"cpus": 4, "memory_gib": 16, "gpus": 1, "count": 2, "public": False},
    }
    assert (found["mounting"], found["hosts"], found["outports"]) == ([], [], "22/tcp")


def test_counts_may_be_text(layout):
    found = layout(ps_count="2", worker_count="3", dedicated_namenode="yes")
    assert found["machines"] == ["chief", "ps", "ps", "worker", "worker", "worker", "hdfs_namenode"]
    assert list(found["systems"]) == ["chief", "ps", "worker", "hdfs_namenode"]
    assert "hdfs_namenode" not in layout(dedicated_namenode="no")["systems"]


def test_a_system_differs_from_all_machines(layout):
    found = layout(node={"image": "a", "cpus": 3}, ps={"cpus": 5}, worker={}, namenode={"memory_gib": 32}, dedicated_namenode=True)["systems"]
    assert {name: (system["image"], system["cpus"], system["memory_gib"]) for name, system in found.items()} == {
        "chief": ("a", 3, 8), "ps": ("a", 5, 8), "worker": ("a", 3, 8), "hdfs_namenode": ("a", 3, 32),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("cloud", "public_nodes", "public"),
    [("EC2", "auto", False), ("GCE", "auto", True), ("EC2", "all", True), ("GCE", "chief", False)],
)
def test_public_addresses(layout, cloud, public_nodes, public):
    systems = layout(cloud=cloud, public_nodes=public_nodes)["systems"]
    assert systems["chief"]["public"] and systems["ps"]["public"] is systems["worker"]["public"] is public


@pytest.mark.parametrize(
    ("cloud", "sources", "outports"),
    [
        ("EC2", ["192.0.2.0/24", "198.51.100.7/32"], "192.0.2.0/24-22/tcp,198.51.100.7/32-22/tcp"),
        ("EC2", [], "22/tcp"),
        # It does not restrict them.
        ("OpenNebula", ["192.0.2.0/24"], "22/tcp"),
    ],
)
def test_outports(layout, cloud, sources, outports):
    assert layout(cloud=cloud, ssh_sources=sources)["outports"] == outports


def test_further_disks(layout):
    assert layout(worker={"disk_gib": "100"}, ps={"disk_gib": 0}, chief={"disk_gib": None})["mounting"] == ["worker"]
    # A system without machines has none.
    assert layout(namenode={"disk_gib": 100})["mounting"] == []


def test_existing_hosts(layout):
    found = layout(chief={"addresses": ["10.0.0.1"]}, ps={}, worker={"addresses": ["10.0.0.3", "10.0.0.4"]})
    assert found["hosts"] == [
        {"system": "chief", "address": "10.0.0.1"},
        {"system": "worker", "address": "10.0.0.3"},
        {"system": "worker", "address": "10.0.0.4"},
    ]
