# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.hdfs_storage_errors; its documentation is in hdfs_storage_errors.yml."""

from __future__ import annotations

GIB = 1024**3


def _error(found, host, cluster_id, is_name_dir, min_free_gib):
    """Return why a daemon must not use a storage directory, or None."""
    path, owner, entry, free = (found[name] for name in ("path", "cluster_id", "first_entry", "free_bytes"))
    variable = "hadoop_name_dirs" if is_name_dir else "hadoop_data_dirs"
    if owner and owner != cluster_id:
        return (
            f"{path} on {host} is of the cluster '{owner}', and this one is '{cluster_id}': "
            f"if it is the same cluster, set hadoop_cluster_id to '{owner}'; "
            f"otherwise name another directory in {variable}, or empty this one if its content is no longer needed"
        )
    if owner:
        return None
    # A DataNode may use a directory with other entries, such as lost+found.
    if is_name_dir and entry:
        return (
            f"{path} on {host} holds '{entry}' and is no NameNode's directory: "
            f"name another one in {variable}, such as a directory below it, or empty this one if its content is no longer needed"
        )
    if free < min_free_gib * GIB:
        return (
            f"{path} on {host} has {free / GIB:.1f} GiB free and needs {min_free_gib}: "
            f"free some, name a directory on a larger disk in {variable}, or set hadoop_min_free_disk_gib lower"
        )
    return None


def hdfs_storage_errors(storage, host, cluster_id, name_dirs, min_free_gib):
    """Return why daemons must not use a host's storage directories, a message each."""
    errors = (_error(found, host, cluster_id, found["path"] in name_dirs, int(min_free_gib)) for found in storage)
    return [error for error in errors if error]


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"hdfs_storage_errors": hdfs_storage_errors}
