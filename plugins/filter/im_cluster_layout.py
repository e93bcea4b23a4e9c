# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.im_cluster_layout; its documentation is in im_cluster_layout.yml."""

from __future__ import annotations

from ansible.module_utils.parsing.convert_bool import boolean

# Of a machine whose size is not set.
SMALL = {"cpus": 2, "memory_gib": 8}


def _counts(options):
    """Return the number of machines of each system. The first machine with a public address becomes the IM's Ansible host, so the chief leads."""
    return {
        "chief": 1,
        "ps": int(options["im_cluster_ps_count"]),
        "worker": int(options["im_cluster_worker_count"]),
        "hdfs_namenode": int(boolean(options["im_cluster_dedicated_namenode"])),
    }


def _system(options, name, count, public):
    own = options[f"im_cluster_{name.removeprefix('hdfs_')}"]
    return {**SMALL, **options["im_cluster_node"], **own, "count": count, "public": public == "all" or name == "chief"}


def _outports(options, cloud):
    sources = options["im_cluster_ssh_sources"] if cloud.get("sources") else []
    return ",".join(f"{source}-22/tcp" for source in sources) or "22/tcp"


def im_cluster_layout(options, clouds):
    """Return the machines of a cluster from the options of role im_cluster and the table of clouds."""
    cloud = clouds.get(options["im_cluster_cloud"], {})
    public = options["im_cluster_public_nodes"]
    if public == "auto":
        public = cloud.get("public", "all")
    counts = {name: count for name, count in _counts(options).items() if count > 0}
    systems = {name: _system(options, name, count, public) for name, count in counts.items()}
    return {
        "systems": systems,
        "machines": [name for name, count in counts.items() for _number in range(count)],
        "mounting": [name for name, system in systems.items() if int(system.get("disk_gib") or 0) > 0],
        "hosts": [{"system": name, "address": address} for name, system in systems.items() for address in system.get("addresses") or []],
        "outports": _outports(options, cloud),
    }


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"im_cluster_layout": im_cluster_layout}
