# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.deeptrain.cluster.plugins.filter.hdfs_storage_errors import hdfs_storage_errors


def errors(*storage):
    return hdfs_storage_errors(storage, "ps-0", "ours", ["/name"], "2")


def found(path, cluster_id="", first_entry="", free_bytes=2 * 1024**3):
    return {"path": path, "cluster_id": cluster_id, "first_entry": first_entry, "free_bytes": free_bytes}


@pytest.mark.parametrize("path", ["/name", "/data"])
def test_right(path):
    assert errors(found(path)) == []
    # What it already holds needs no further disk.
    assert errors(found(path, "ours", "current", free_bytes=0)) == []


def test_other_entries_in_a_datanodes_directory():
    assert errors(found("/data", first_entry="lost+found")) == []


@pytest.mark.parametrize(("path", "variable"), [("/name", "hadoop_name_dirs"), ("/data", "hadoop_data_dirs")])
def test_another_cluster(path, variable):
    assert errors(found(path, "another", "current", 0)) == [
        f"{path} on ps-0 is of the cluster 'another', and this one is 'ours': if it is the same cluster, set hadoop_cluster_id to 'another'; "
        f"otherwise name another directory in {variable}, or empty this one if its content is no longer needed"
    ]


def test_other_entries_in_a_namenodes_directory():
    assert errors(found("/name", first_entry="photos")) == [
        "/name on ps-0 holds 'photos' and is no NameNode's directory: name another one in hadoop_name_dirs, such as a directory below it, "
        "or empty this one if its content is no longer needed"
    ]


@pytest.mark.parametrize(("path", "variable", "entry"), [("/name", "hadoop_name_dirs", ""), ("/data", "hadoop_data_dirs", "lost+found")])
def test_too_little_free_disk(path, variable, entry):
    assert errors(found(path, first_entry=entry, free_bytes=2 * 1024**3 - 1)) == [
        f"{path} on ps-0 has 2.0 GiB free and needs 2: free some, name a directory on a larger disk in {variable}, "
        "or set hadoop_min_free_disk_gib lower"
    ]


def test_all_errors_at_once():
    assert len(errors(found("/name", first_entry="photos"), found("/data"), found("/data2", "another"), found("/data3", free_bytes=1))) == 3
