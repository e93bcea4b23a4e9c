# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.deeptrain.cluster.plugins.filter.hadoop_errors import hadoop_errors

RIGHT = {
    "archive": "https://web.example/hadoop-3.5.0.tar.gz",
    "archive_checksum": "sha256:" + 64 * "0",
    "version": "3.5.0",
    "java_home": "/usr/lib/jvm/java-17-openjdk-amd64",
    "block_size": 134217728,
    "replication": 2,
    "cluster_id": "deeptrain-ps-0",
    "name_dirs": ["/var/lib/hadoop/name"],
    "data_dirs": ["/var/lib/hadoop/data"],
    "core_site": {},
    "hdfs_site": {},
}
FACTS = {"distribution": "Fedora", "distribution_version": "43"}


def errors(address="10.0.0.11", **variables):
    given = {f"hadoop_{name}": value for name, value in {**RIGHT, **variables}.items()}
    topology = {"hosts": {"worker-0": {"address": address}}, "namenode": {"host": "ps-0", "address": "10.0.0.10"}}
    return hadoop_errors(given, "worker-0", topology, FACTS)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"archive": "/srv/hadoop.tar.gz", "archive_checksum": "sha512:" + 128 * "F"},
        # As ansible-core 2.16 hands over numbers.
        {"block_size": "1048576", "replication": "1"},
        {"name_dirs": ["/name", "/mnt/a/name"], "data_dirs": ["/homes/data", "/var/data_2.x-y"]},
        {"core_site": {"io.file.buffer.size": 131072}, "hdfs_site": {"dfs.datanode.max.transfer.threads": None}},
    ],
)
def test_right(variables):
    assert errors(**variables) == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"archive": ""}, ["hadoop_archive is '':", "http(s) URL that the nodes reach", "hadoop-3.5.0.tar.gz", "tools/hdfs_archive/build.py"]),
        ({"archive": None}, ["hadoop_archive is '':"]),
        ({"archive": "hadoop.tar.gz"}, ["hadoop_archive is 'hadoop.tar.gz'", "an absolute path on the controller"]),
        ({"archive": "https://"}, ["hadoop_archive is 'https://'"]),
        ({"archive_checksum": ""}, ["hadoop_archive_checksum is '':", "set it to 'sha256:…' or 'sha512:…' of the archive", ".sha512", ".sha256"]),
        ({"archive_checksum": "sha256:" + 63 * "0"}, ["hadoop_archive_checksum is 'sha256:000"]),
        ({"archive_checksum": "md5:" + 32 * "0"}, ["hadoop_archive_checksum is 'md5:000"]),
        ({"java_home": ""}, ["hadoop_java_home is not set, and worker-0 runs Fedora 43", "install Java 17 or newer and set it, or use Debian 12"]),
        ({"block_size": 1048575}, ["hadoop_block_size is 1048575: use a multiple of 512 bytes, 1048576 or more"]),
        ({"block_size": 1048577}, ["hadoop_block_size is 1048577"]),
        ({"replication": "0"}, ["hadoop_replication is 0: use 1 or more"]),
        ({"address": "fd00::1"}, ["deeptrain_address of worker-0 or ps-0 is an IPv6 address: HDFS needs IPv4"]),
        ({"cluster_id": "my cluster"}, ["hadoop_cluster_id is 'my cluster': use letters, digits, dot, dash and underscore"]),
        ({"name_dirs": []}, ["hadoop_name_dirs or hadoop_data_dirs is empty: name at least one directory in each"]),
        ({"data_dirs": []}, ["hadoop_name_dirs or hadoop_data_dirs is empty"]),
        ({"data_dirs": RIGHT["name_dirs"]}, ["hadoop_name_dirs and hadoop_data_dirs are /var/lib/hadoop/name, /var/lib/hadoop/name: name each directory once"]),
        ({"data_dirs": ["data"]}, ["/var/lib/hadoop/name, data: name each directory once, by an absolute path"]),
        ({"data_dirs": ["/data|x"]}, ["letters, digits, dot, dash, underscore and slash"]),
        ({"data_dirs": ["/home/hdfs"]}, ["not below /home, /root, /tmp, /var/tmp, /run, /dev, /proc or /sys, which the daemons do not see"]),
        ({"data_dirs": ["/var/tmp/data"]}, ["/var/tmp/data: name each"]),
        (
            {"core_site": {"fs.defaultFS": "hdfs://x"}, "hdfs_site": {"dfs.hosts": "/x", "dfs.other": 1}},
            ["hadoop_core_site or hadoop_hdfs_site has fs.defaultFS, dfs.hosts, which the role computes", "hadoop_block_size", "the inventory's groups"],
        ),
    ],
)
def test_wrong(variables, words):
    (error,) = errors(**variables)
    assert [word for word in words if word not in error] == []


def test_all_errors_at_once():
    found = errors(archive="", archive_checksum="", replication=0)
    assert [error.split(" ")[0] for error in found] == ["hadoop_archive", "hadoop_archive_checksum", "hadoop_replication"]
