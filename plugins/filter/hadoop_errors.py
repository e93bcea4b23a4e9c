# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.hadoop_errors; its documentation is in hadoop_errors.yml."""

from __future__ import annotations

import re

# The daemons do not see other directories.
DIRECTORY = re.compile(r"/(?!(home|root|tmp|var/tmp|run|dev|proc|sys)/)[A-Za-z0-9._/-]+")
# The role computes these, so they have no second place.
COMPUTED = {
    "fs.defaultFS",
    "dfs.blocksize",
    "dfs.datanode.address",
    "dfs.datanode.data.dir",
    "dfs.datanode.hostname",
    "dfs.datanode.http.address",
    "dfs.datanode.ipc.address",
    "dfs.hosts",
    "dfs.hosts.exclude",
    "dfs.namenode.http-address",
    "dfs.namenode.name.dir",
    "dfs.namenode.rpc-address",
    "dfs.replication",
}


def hadoop_errors(variables, host, topology, facts):
    """Return what is wrong with the variables of role hadoop on a host, a message each."""
    given = {name.removeprefix("hadoop_"): value for name, value in variables.items()}
    # Empty values are None, and those from a vault no plain text.
    archive, checksum = (str(given[name] or "") for name in ("archive", "archive_checksum"))
    block_size, replication = int(given["block_size"]), int(given["replication"])
    directories = [*given["name_dirs"], *given["data_dirs"]]
    computed = [name for name in [*given["core_site"], *given["hdfs_site"]] if name in COMPUTED]
    namenode = topology["namenode"]
    checks = [
        (
            re.match(r"https?://.|/", archive),
            f"hadoop_archive is '{archive}': set it to an http(s) URL that the nodes reach, or to an absolute path on the controller. "
            f"There are two ways to an archive: Apache's own hadoop-{given['version']}.tar.gz from the project's download page, "
            "or the small one that tools/hdfs_archive/build.py makes",
        ),
        (
            re.fullmatch(r"sha256:[0-9a-fA-F]{64}|sha512:[0-9a-fA-F]{128}", checksum),
            f"hadoop_archive_checksum is '{checksum}': set it to 'sha256:…' or 'sha512:…' of the archive. "
            "Apache publishes it beside its own as .sha512; tools/hdfs_archive/build.py prints it and writes it beside its own as .sha256",
        ),
        (
            given["java_home"],
            f"hadoop_java_home is not set, and {host} runs {facts['distribution']} {facts['distribution_version']}, whose Java this role does not know: "
            "install Java 17 or newer and set it, or use Debian 12 or 13, or Ubuntu 22.04 or 24.04",
        ),
        (
            block_size >= 1048576 and block_size % 512 == 0,
            f"hadoop_block_size is {block_size}: use a multiple of 512 bytes, 1048576 or more",
        ),
        (
            replication >= 1,
            f"hadoop_replication is {replication}: use 1 or more",
        ),
        (
            ":" not in topology["hosts"][host]["address"] + namenode["address"],
            f"deeptrain_address of {host} or {namenode['host']} is an IPv6 address: HDFS needs IPv4",
        ),
        (
            re.fullmatch(r"[A-Za-z0-9._-]+", given["cluster_id"]),
            f"hadoop_cluster_id is '{given['cluster_id']}': use letters, digits, dot, dash and underscore",
        ),
        (
            given["name_dirs"] and given["data_dirs"],
            "hadoop_name_dirs or hadoop_data_dirs is empty: name at least one directory in each",
        ),
        (
            all(map(DIRECTORY.fullmatch, directories)) and len(set(directories)) == len(directories),
            f"hadoop_name_dirs and hadoop_data_dirs are {', '.join(directories)}: name each directory once, by an absolute path of "
            "letters, digits, dot, dash, underscore and slash, and not below /home, /root, /tmp, /var/tmp, /run, /dev, /proc or /sys, "
            "which the daemons do not see",
        ),
        (
            not computed,
            f"hadoop_core_site or hadoop_hdfs_site has {', '.join(computed)}, which the role computes: use its variables "
            "(hadoop_block_size, hadoop_replication, hadoop_name_dirs, hadoop_data_dirs, deeptrain_address, deeptrain_hdfs_port, "
            "deeptrain_hdfs_http_port) or the inventory's groups",
        ),
    ]
    return [message for right, message in checks if not right]


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"hadoop_errors": hadoop_errors}
