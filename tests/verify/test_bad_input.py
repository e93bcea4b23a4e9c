# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input gives one message that names the variable or the host and the fix."""

from __future__ import annotations

import re

import pytest

# Not the converged run's.
OTHER_TRAINING = {"train_steps": 41, "train_batch_size": 32, "checkpoint_steps": 20}


def refused(run, *words: str, changes: bool = False) -> None:
    """The run failed with one message that has all of these words, and changed nothing unless it was to."""
    run.end()
    assert run.status != 0, run.text()
    # A failed play ends all that follow, so there is one failed task (on as many hosts as it ran on).
    messages = set(re.findall(r"^(?:\[ERROR\]: |  *msg: |fatal: )(.*(?:\n    .*)*)", run.text(), re.MULTILINE))
    joined = [" ".join(message.split()) for message in messages]
    found = [message for message in joined if all(word in message for word in words)]
    assert found, f"none with {words} among {joined}\n{run.text()}"
    print(found[0])
    assert changes or run.changed() == {}, run.text()


# Inventories


def no_worker(document: dict) -> None:
    document["children"]["ps"]["hosts"].update(document["children"]["worker"].pop("hosts"))


def stray(document: dict) -> None:
    document["hosts"]["stray"] = {"deeptrain_address": "192.0.2.1"}


def no_address(document: dict) -> None:
    del document["hosts"]["worker-1"]["deeptrain_address"]


def same_port(document: dict) -> None:
    del document["hosts"]["chief-0"]
    document["children"]["chief"]["hosts"] = {"ps-0": {}}
    document["hosts"]["ps-0"]["deeptrain_ports"] = {"chief": 2223}


def unreachable(document: dict) -> None:
    document["hosts"]["worker-1"]["ansible_port"] = 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_worker, ["group worker is empty or missing", "put at least one host into it"]),
        (stray, ["host stray is in no group", "put each host into ps, chief or worker"]),
        (no_address, ["host worker-1 has no address", "set deeptrain_address"]),
        (same_port, ["host ps-0", "both on port 2223", "deeptrain_ports"]),
        (unreachable, ["worker-1", "Connection refused"]),
    ],
)
def test_inventory(cluster, change, words):
    refused(cluster.play("site", inventory=cluster.with_inventory(change.__name__, change), deeptrain_connect_timeout=30), *words)


# Variables that preflight can judge alone


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"deeptrain_run": "No Name"}, ["deeptrain_run is 'No Name'", "use at most 63"]),
        ({"deeptrain_data_url": "s3://deeptrain"}, ["deeptrain_data_url is 's3://deeptrain'", "s3://BUCKET/PREFIX"]),
        ({"preflight_min_memory_mib": 10**8}, ["MiB of memory and needs 100000000", "take a larger machine"]),
        ({"preflight_min_disk_mib": 10**8}, ["MiB free in", "needs 100000000", "free some"]),
    ],
)
def test_preflight(cluster, variables, words):
    refused(cluster.play("site", **variables), *words)


# S3, as the chief sees it, and the program's options


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"deeptrain_s3_endpoint_url": "http://127.0.0.1:1"}, ["S3 at http://127.0.0.1:1", "check deeptrain_s3_endpoint_url"]),
        ({"deeptrain_s3_access_key_id": "NOBODY"}, ["check deeptrain_s3_access_key_id and deeptrain_s3_secret_access_key"]),
        ({"deeptrain_s3_secret_access_key": "wrong"}, ["check deeptrain_s3_access_key_id and deeptrain_s3_secret_access_key"]),
        ({"deeptrain_data_url": "s3://no-such-bucket/data"}, ["bucket of deeptrain_data_url, s3://no-such-bucket/data, is not there"]),
        ({"deeptrain_export_url": "s3://no-such-bucket/models"}, ["deeptrain_export_url, s3://no-such-bucket/models", "is not there"]),
        ({"deeptrain_data_url": "s3://deeptrain/nothing"}, ["no object under s3://deeptrain/nothing", "check deeptrain_data_url"]),
        ({"deeptrain_training_options": {"train_step": 5}}, ["unrecognized arguments: --train-step 5", "deeptrain_training_options"]),
    ],
    ids=["endpoint", "key", "secret", "bucket", "export-bucket", "prefix", "option"],
)
def test_s3(cluster, variables, words):
    # The check's own unit and job are all that changes.
    refused(cluster.play("storage.yml", deeptrain_run="bad-s3", **variables), *words, changes=True)


# HDFS


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"hadoop_archive_checksum": f"sha256:{'0' * 64}"},
            ["hadoop_archive_checksum is sha256:0000", "set the right one, or get the archive again"],
        ),
        (
            {"hadoop_cluster_id": "another"},
            ["/var/lib/hadoop/name on ps-0 is of the cluster 'deeptrain-ps-0'", "set hadoop_cluster_id to 'deeptrain-ps-0'"],
        ),
    ],
    ids=["checksum", "foreign-namenode"],
)
def test_hdfs(cluster, variables, words):
    refused(cluster.play("hdfs", **variables), *words)


def test_directory_that_holds_something_else(cluster):
    arguments = {"deeptrain_run": "bad-directory", "deeptrain_data_dir": "/user/deeptrain"}
    refused(cluster.play("data", **arguments), "holds something else", "choose another deeptrain_data_dir", changes=True)


# Training


def test_other_parameters_under_the_same_name(cluster):
    run = cluster.play("train", deeptrain_training_options=OTHER_TRAINING)
    refused(run, "Job train of run default is done with another configuration", "--train-steps", "use another deeptrain_run")


def test_option_out_of_range_is_mended(cluster):
    run = cluster.play("train", deeptrain_run="bad-option", deeptrain_training_options={**OTHER_TRAINING, "learning_rate": 1000})
    refused(run, "--learning-rate is 1000", "deeptrain_training_options", changes=True)
    cluster.play("train", deeptrain_run="bad-option", deeptrain_training_options=OTHER_TRAINING).succeeded()


def test_fewer_shards_than_workers(cluster):
    data = {
        "deeptrain_run": "bad-shards",
        "deeptrain_data_url": "s3://deeptrain/fashion-mnist-one",
        "deeptrain_data_dir": "/user/deeptrain/one",
    }
    cluster.play("data", **data).succeeded()
    refused(cluster.play("train", **data), "files like train-*.tfrecord for 2 workers", "use fewer workers", changes=True)
    cluster.play("stop", **data).succeeded()
