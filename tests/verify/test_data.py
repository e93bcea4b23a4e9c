# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""HDFS is whole, and holds the bytes that are in S3."""

from __future__ import annotations

import hashlib
import json


def test_every_datanode_is_live(cluster):
    report = cluster.sh(cluster.namenode, "runuser --user hdfs -- hdfs dfsadmin -report")
    assert f"Live datanodes ({len(cluster.nodes)})" in report
    assert "Dead datanodes" not in report
    for node in cluster.nodes:
        assert f"Name: {cluster.hosts[node]['deeptrain_address']}:9866" in report


def test_fsck_is_healthy(cluster):
    assert "The filesystem under path '/' is HEALTHY" in cluster.sh(cluster.namenode, "runuser --user hdfs -- hdfs fsck /")


def test_bytes_are_those_of_s3(cluster):
    objects = {name: cluster.get(f"fashion-mnist/{name}") for name in cluster.objects("fashion-mnist")}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in objects.items()}
    read = cluster.sh(
        cluster.chief,
        """set -e
        directory=$(mktemp --directory)
        trap 'rm -rf "$directory"' EXIT
        chown deeptrain "$directory"
        runuser --user deeptrain -- hdfs dfs -get /user/deeptrain/data "$directory"
        cat "$directory/data/_manifest.json"
        echo
        rm "$directory"/data/_manifest.*
        cd "$directory/data" && find . -type f -printf '%P\\n' | xargs sha256sum
        """,
    )
    manifest, separator, sums = read.rpartition("}\n\n")
    entries = json.loads(manifest + "}")["files"]
    assert len(objects) >= 6
    assert dict(reversed(line.split()) for line in sums.splitlines()) == digests
    assert {entry["path"]: entry["sha256"] for entry in entries} == digests
    assert {entry["path"]: entry["length"] for entry in entries} == {name: len(content) for name, content in objects.items()}
