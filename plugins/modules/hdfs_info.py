#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.hdfs_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hdfs_info
short_description: Query the state of HDFS
version_added: 0.2.0
author: The deeptrain.cluster authors (@deeptrain)
extends_documentation_fragment: deeptrain.cluster._attributes.read_only
description:
  - Returns what the NameNode reports of HDFS and its DataNodes, and why HDFS is not ready. It does not fail when HDFS is not ready.
  - Reads the NameNode's state over HTTP, so it needs neither Java nor Hadoop where it runs.
options:
  namenode_url:
    description: The NameNode's HTTP address, C(http://HOST:9870).
    type: str
    required: true
  namenode_host:
    description: Name of the NameNode's host in RV(problem). By default O(namenode_url).
    type: str
  namenode_rpc_address:
    description: The NameNode's RPC address, C(HOST:8020), in RV(problem). By default "its RPC port".
    type: str
  cluster_id:
    description: Expected cluster ID. By default any.
    type: str
  datanodes:
    description: Addresses of the expected DataNodes by the names of their hosts.
    type: dict
    default: {}
  timeout:
    description: Seconds to wait until HDFS is ready. V(0) queries the state once.
    type: int
    default: 0
attributes:
  check_mode:
    details: It does not wait in check mode.
seealso:
  - module: deeptrain.cluster.hdfs_decommission
"""

EXAMPLES = r"""
- name: Query the state of HDFS
  deeptrain.cluster.hdfs_info:
    namenode_url: http://10.0.0.10:9870
  register: hdfs

- name: Wait until HDFS is ready
  deeptrain.cluster.hdfs_info:
    namenode_url: http://10.0.0.10:9870
    cluster_id: deeptrain-ps-0
    datanodes:
      worker-0: 10.0.0.12
      worker-1: 10.0.0.13
    timeout: 180
  register: hdfs
  failed_when: hdfs.problem | length > 0
"""

RETURN = r"""
answers:
  description: Whether the NameNode answers. While it does not, the following values are empty or 0, and all O(datanodes) are missing.
  type: bool
  returned: success
  sample: true
cluster_id:
  description: The cluster ID.
  type: str
  returned: success
  sample: deeptrain-ps-0
safe_mode:
  description: What the NameNode says of its safe mode, empty when it is off.
  type: str
  returned: success
  sample: ""
live:
  description: Addresses of the DataNodes that the NameNode counts as live.
  type: list
  elements: str
  returned: success
  sample: [10.0.0.12]
dead:
  description: Addresses of the DataNodes that the NameNode counts as dead.
  type: list
  elements: str
  returned: success
  sample: [10.0.0.13]
missing:
  description:
    - Names of the hosts in O(datanodes) whose DataNode is not live.
    - Those that have sent no heartbeat for 10 seconds, or have not reported their capacity yet, are missing, too.
  type: list
  elements: str
  returned: success
  sample: [worker-1]
total_bytes:
  description: Capacity of the live DataNodes.
  type: int
  returned: success
  sample: 107374182400
free_bytes:
  description: Free capacity of the live DataNodes.
  type: int
  returned: success
  sample: 96636764160
problem:
  description: Why HDFS is not ready, and what to do. Empty when the NameNode answers, has left safe mode, and nothing of what is expected is missing.
  type: str
  returned: success
  sample: ""
waited_seconds:
  description: How long the module has waited.
  type: float
  returned: success
  sample: 4.1
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils._webhdfs import (
    WebHdfs,
    WebHdfsError,
    datanodes,
)

POLL_SECONDS = 1
REQUEST_SECONDS = 10
# A DataNode sends a heartbeat every 3 seconds, and is dead after a minute of silence (role hadoop).
SILENT_SECONDS = 10
NAMED = 20


def described(info, expected):
    """Return the state of HDFS by the bean NameNodeInfo."""
    live = datanodes(info, "LiveNodes")
    fresh = {address for address, node in live.items() if node["capacity"] > 0 and node["lastContact"] < SILENT_SECONDS}
    return {
        "answers": True,
        "cluster_id": info["ClusterId"],
        "safe_mode": info["Safemode"],
        "live": sorted(live),
        "dead": sorted(datanodes(info, "DeadNodes")),
        "missing": [name for name, address in expected.items() if address not in fresh],
        "total_bytes": info["Total"],
        "free_bytes": info["Free"],
    }


def queried(hdfs, expected):
    """Return the state of HDFS."""
    try:
        return described(hdfs.bean("NameNodeInfo"), expected)
    # A NameNode that is starting leaves out what it does not know yet.
    except (WebHdfsError, LookupError, TypeError, ValueError):
        nothing = {"answers": False, "cluster_id": "", "safe_mode": "", "live": [], "dead": [], "total_bytes": 0, "free_bytes": 0}
        return {**nothing, "missing": list(expected)}


def not_ready(state, params):
    """Return why HDFS is not ready, and what to do; an empty text when it is ready."""
    url, cluster_id, expected, missing = params["namenode_url"], params["cluster_id"], params["datanodes"], state["missing"]
    host = params["namenode_host"] or url
    after = f" after {params['timeout']} s" if params["timeout"] else ""
    if not state["answers"]:
        return (
            f"The NameNode on {host} does not answer at {url}{after}: see 'journalctl --unit hadoop-namenode' there, "
            "and run the main entry point of role hadoop on that host first"
        )
    if cluster_id and state["cluster_id"] != cluster_id:
        return (
            f"At {url} answers the NameNode of the cluster '{state['cluster_id']}', and this one is '{cluster_id}': "
            f"stop the other one on {host}, or set hadoop_cluster_id to its identity"
        )
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        return (
            f"The NameNode on {host} does not know the DataNodes of {', '.join(missing[:NAMED])}{more}{after} "
            f"({len(expected) - len(missing)} of {len(expected)} are live): see 'journalctl --unit hadoop-datanode' there, and whether they reach "
            f"{params['namenode_rpc_address'] or 'its RPC port'}. If it only takes longer, set hadoop_ready_timeout higher"
        )
    if state["safe_mode"]:
        return f"The NameNode on {host} is still in safe mode{after}: {state['safe_mode']}"
    return ""


def wait(hdfs, params, seconds):
    """Return the state of HDFS as soon as it is ready, or at the end of the time."""
    began = time.monotonic()
    while True:
        state = queried(hdfs, params["datanodes"])
        problem, waited = not_ready(state, params), time.monotonic() - began
        if not problem or waited >= seconds:
            return {**state, "problem": problem, "waited_seconds": round(waited, 1)}
        time.sleep(POLL_SECONDS)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "namenode_url": {"type": "str", "required": True},
            "namenode_host": {"type": "str"},
            "namenode_rpc_address": {"type": "str"},
            "cluster_id": {"type": "str"},
            "datanodes": {"type": "dict", "default": {}},
            "timeout": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    hdfs = WebHdfs(module.params["namenode_url"], None, REQUEST_SECONDS)
    module.exit_json(changed=False, **wait(hdfs, module.params, 0 if module.check_mode else module.params["timeout"]))


if __name__ == "__main__":
    main()
