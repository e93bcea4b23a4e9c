# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Infrastructure Manager has done is what the playbooks do."""

from __future__ import annotations

import json

import secrets_on_nodes
import test_data
import test_model
from infrastructure_manager import PASSWORD

# The pushed cluster's own tests: the bytes in HDFS are those in S3, and the model in S3 is whole and of use.
test_every_datanode_is_live = test_data.test_every_datanode_is_live
test_fsck_is_healthy = test_data.test_fsck_is_healthy
test_bytes_are_those_of_s3 = test_data.test_bytes_are_those_of_s3
manifest = test_model.manifest
test_manifest_tells_every_object = test_model.test_manifest_tells_every_object
test_accuracy_is_the_one_that_was_told = test_model.test_accuracy_is_the_one_that_was_told


def test_every_step_succeeded(cluster, infrastructure):
    words = infrastructure.words()
    assert infrastructure.state() == "configured", words[-10000:]
    failed = words.find("ERROR executing task")
    assert failed < 0, words[max(failed - 10000, 0) : failed + 200]
    assert "Task export_chief finished successfully" in words


def test_nodes_are_closed_and_have_a_lease(cluster):
    for node in cluster.nodes:
        assert "policy drop" in cluster.sh(node, "nft list table inet deeptrain")
        assert cluster.sh(node, "systemctl is-active deeptrain-autostop.timer").strip() == "active"


def test_servers_are_stopped_at_the_end(cluster):
    for node in cluster.groups["ps"] + cluster.groups["worker"]:
        assert cluster.sh(node, "systemctl is-active deeptrain-ps deeptrain-worker || true").split() == ["inactive"] * 2


def test_secret_is_where_the_manager_must_have_it_alone(cluster, infrastructure):
    words = infrastructure.words()
    assert cluster.secret not in words
    assert PASSWORD not in words
    # Its Ansible host has the RADL's variables, in a directory that is its user's alone.
    directory = f"/var/tmp/.im/{infrastructure.id}"
    assert cluster.sh(cluster.chief, f"stat --format %a {directory}").strip() == "700"
    for node in cluster.nodes:
        found = secrets_on_nodes.find(cluster, node, cluster.secret)
        assert [line for line in found if f" {directory}/" not in line] == [], node
        assert bool(found) == (node == cluster.chief)


def test_it_says_what_it_did(cluster, infrastructure):
    """The summaries of the stages reach who asks the Infrastructure Manager."""
    assert json.loads(cluster.get("models/default/manifest.json"))["model_uri"] in infrastructure.words()
