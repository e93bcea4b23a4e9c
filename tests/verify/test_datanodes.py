# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A DataNode that leaves the inventory is decommissioned first, and only when the user says so."""

from __future__ import annotations

import re


def fsck(cluster) -> str:
    return cluster.sh(cluster.namenode, "runuser --user hdfs -- hdfs fsck / -files -blocks -locations")


def test_a_datanode_is_decommissioned_before_it_leaves(cluster):
    leaving = cluster.groups["worker"][-1]
    address = cluster.hosts[leaving]["deeptrain_address"]

    def remove(inventory):
        inventory["children"]["hdfs_datanode"] = {"hosts": {name: {} for name in cluster.nodes if name != leaving}}

    fewer = cluster.with_inventory("fewer-datanodes", remove)
    refused = cluster.play("hdfs", inventory=fewer)
    assert refused.status != 0
    assert "hadoop_remove_datanodes" in refused.text() and address in refused.text()
    assert f"{address}:9866" in fsck(cluster)

    cluster.play("hdfs", inventory=fewer, hadoop_remove_datanodes=True).succeeded()
    report = cluster.sh(cluster.namenode, "runuser --user hdfs -- hdfs dfsadmin -report")
    assert f"Live datanodes ({len(cluster.nodes) - 1})" in report
    # The NameNode drops what it knew of a DataNode's blocks after it has struck it off.
    cluster.wait_until("no block is said to be on the DataNode", lambda: f"{address}:9866" not in fsck(cluster))
    blocks = fsck(cluster)
    assert "is HEALTHY" in blocks and re.search(r"Under-replicated blocks:\s+0\b", blocks)

    cluster.play("hdfs").succeeded()
    cluster.wait_until(
        "the DataNode is live again",
        lambda: f"Live datanodes ({len(cluster.nodes)})" in cluster.sh(cluster.namenode, "runuser --user hdfs -- hdfs dfsadmin -report"),
    )
