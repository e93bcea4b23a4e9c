#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.hdfs_decommission."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hdfs_decommission
short_description: Validate and await the decommissioning of DataNodes
version_added: 0.2.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - A DataNode that leaves HDFS without decommissioning takes its copies of blocks with it.
  - Reads the NameNode's state over HTTP, so it needs neither Java nor Hadoop where it runs. It changes nothing. The
    role P(deeptrain.cluster.hadoop#role) writes the NameNode's lists of hosts and makes it read them.
extends_documentation_fragment:
  - deeptrain.cluster._attributes.read_only
  - deeptrain.cluster._hdfs
options:
  state:
    description:
      - V(validated) fails when the DataNodes cannot leave, and returns those that have to be decommissioned. It waits for up to 90 seconds
        until silent DataNodes, such as those of machines just removed, count as dead, and the blocks without another copy as missing.
      - V(decommissioned) waits until none of them holds a block that is needed. One that died before it was decommissioned is waited for
        while blocks are missing.
    type: str
    choices: [validated, decommissioned]
    default: validated
  addresses:
    description: Addresses of the DataNodes that leave.
    type: list
    elements: str
    required: true
  remaining:
    description: Number of DataNodes that remain.
    type: int
    required: true
  remove:
    description: Whether live DataNodes, and dead ones with the only copies of blocks, may leave.
    type: bool
    default: false
  timeout:
    description: Seconds without progress after which O(state=decommissioned) fails.
    type: int
    default: 600
attributes:
  check_mode:
    details: It does not wait in check mode.
"""

EXAMPLES = r"""
- name: Validate that a DataNode can leave
  deeptrain.cluster.hdfs_decommission:
    addresses: [10.0.0.14]
    remaining: 3
    remove: true
    namenode_url: http://10.0.0.10:9870

- name: Wait until a DataNode is decommissioned
  deeptrain.cluster.hdfs_decommission:
    state: decommissioned
    addresses: [10.0.0.14]
    remaining: 3
    remove: true
    namenode_url: http://10.0.0.10:9870
"""

RETURN = r"""
live:
  description:
    - Addresses of the live DataNodes among O(addresses) that hold blocks.
    - All of O(addresses) while it is unknown what they hold, such as while the NameNode does not answer.
  type: list
  elements: str
  returned: success
  sample: [10.0.0.14]
lost:
  description: Files of which no live DataNode holds all blocks, where a dead DataNode leaves; 500 at most.
  type: list
  elements: str
  returned: success
  sample: []
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils._webhdfs import (
    NAMENODE,
    WebHdfs,
    WebHdfsError,
    datanodes,
)

DECOMMISSIONED = "Decommissioned"
POLL_SECONDS = 2
# A DataNode that is silent for a minute is dead (role hadoop), and within 20 seconds more the NameNode counts its blocks as missing.
COUNTED_SECONDS = 82
SILENT_SECONDS = 90
WORD = "set hadoop_remove_datanodes to true to decommission them"


def nodes(info, kind, addresses):
    """Return the DataNodes of one kind that have one of the addresses, by address."""
    return {address: node for address, node in datanodes(info, kind).items() if address in addresses}


def not_decommissioned(info, addresses):
    """Return the live DataNodes that still hold blocks."""
    return {address: node for address, node in nodes(info, "LiveNodes", addresses).items() if node["adminState"] != DECOMMISSIONED}


def state_of(hdfs):
    """Return the NameNode's state, and how many blocks it is having copied."""
    # Copies that fail count as missing afterwards, so in this order none is overlooked.
    copying = hdfs.bean("FSNamesystemState")["PendingReconstructionBlocks"]
    return hdfs.bean("NameNodeInfo"), copying


def uncounted(info, copying, addresses):
    """Return the dead DataNodes whose blocks may be missing without being counted: a copy from a dead DataNode fails after 5 minutes."""
    return {address: node for address, node in nodes(info, "DeadNodes", addresses).items() if copying or node["lastContact"] < COUNTED_SECONDS}


def settled(hdfs, addresses):
    """Return the NameNode's state when it knows which of the DataNodes are live and what the dead ones held, or why it does not."""
    began = time.monotonic()
    while True:
        info, copying = state_of(hdfs)
        seconds = time.monotonic() - began
        # Those that were just removed count as live; others have sent a heartbeat meanwhile.
        silent = [node for node in not_decommissioned(info, addresses).values() if node["lastContact"] + 1 > seconds]
        unknown = uncounted(info, copying, addresses)
        if seconds > SILENT_SECONDS or not (silent or unknown or info["Safemode"]):
            problem = f"{named(unknown)} died, and missing blocks are not counted yet, {copying} being copied" if unknown else ""
            return info, "the NameNode is in safe mode" if info["Safemode"] else problem
        time.sleep(POLL_SECONDS)


def named(found):
    """Return the DataNodes in words."""
    return ", ".join(f"{node['name']} ({address})" for address, node in sorted(found.items()))


def some(files):
    """Return the first files in words."""
    more = f" and {len(files) - 10} more" if len(files) > 10 else ""
    return ", ".join(files[:10]) + more


def validate(module, hdfs):
    """Return which DataNodes have to be decommissioned, and the files that are lost; fail when they cannot leave."""
    addresses, remaining, remove = (module.params[name] for name in ("addresses", "remaining", "remove"))
    try:
        info, problem = settled(hdfs, addresses)
    except WebHdfsError as error:
        info, problem = None, str(error)
    live = not_decommissioned(info, addresses) if info else {}
    if live and not remove:
        module.fail_json(
            msg=f"The DataNodes {named(live)} are live in HDFS and not in the inventory; without decommissioning their blocks would be lost: "
            f"put them back into the inventory, or {WORD}"
        )
    if problem and not remove:
        module.fail_json(
            msg=f"The DataNodes {', '.join(addresses)} are in HDFS and not in the inventory, and whether they hold blocks is unknown ({problem}): "
            f"put them back into the inventory, or {WORD}"
        )
    replication = hdfs.replication() if live else 0
    if live and remaining < replication:
        module.fail_json(
            msg=f"The DataNodes {named(live)} cannot be decommissioned: {remaining} would remain, and a block has {replication} copies (hadoop_replication). "
            f"Keep {replication} DataNodes, or first set hadoop_replication to {max(remaining, 1)} and run 'hdfs dfs -setrep -w {max(remaining, 1)} /'"
        )
    if problem:
        return addresses, []
    dead = nodes(info, "DeadNodes", addresses)
    lost = hdfs.damaged_files() if dead and info["NumberOfMissingBlocks"] else []
    if lost and not remove:
        module.fail_json(
            msg=f"The DataNodes {named(dead)} are dead and not in the inventory, and blocks without another copy are missing, of {some(lost)}: "
            "restart them and put them back into the inventory, or set hadoop_remove_datanodes to true to give these files up"
        )
    if lost:
        module.warn(f"Blocks of these files are lost with the DataNodes {named(dead)}: {some(lost)}. data.yml copies those of the data again")
    return sorted(live), lost


def wait(module, hdfs):
    """Wait until the DataNodes are decommissioned; fail when that makes no progress."""
    addresses, timeout = module.params["addresses"], module.params["timeout"]
    seen, dead, least, since, problem = set(), {}, {}, time.monotonic(), "the NameNode has not answered"
    while True:
        try:
            info, copying = state_of(hdfs)
            busy = not_decommissioned(info, addresses)
            seen |= set(nodes(info, "LiveNodes", addresses)) - set(busy)
            # The NameNode calls a DataNode decommissioned, too, that was dead when it read the lists.
            unseen = [address for address in addresses if address not in seen]
            dead = nodes(info, "DeadNodes", unseen) if info["NumberOfMissingBlocks"] else uncounted(info, copying, unseen)
            if not info["Safemode"] and not busy and not dead:
                return
            left = sum(node.get("underReplicatedBlocks", 0) for node in nodes(info, "DecomNodes", addresses).values())
            # None of them has begun while the NameNode is in safe mode or has not read the lists.
            begun = sum(node["adminState"] != "In Service" for node in busy.values())
            now = (len(busy), -begun, left)
            # One that comes back starts with the blocks that it had left.
            if len(dead) not in least or now < least[len(dead)]:
                least[len(dead)], since = now, time.monotonic()
            problem = f"{named(busy) or 'the NameNode'} still waits for {left} blocks to be copied"
        except WebHdfsError as error:
            problem = str(error)
        if time.monotonic() - since > timeout and dead:
            module.fail_json(
                msg=f"The DataNodes {named(dead)} died before they were decommissioned, and blocks without another copy are missing "
                "(hdfs fsck / -list-corruptfileblocks): restart them, then rerun hdfs.yml. While they are dead, "
                "hdfs.yml with hadoop_remove_datanodes gives up the files that it warns of"
            )
        if time.monotonic() - since > timeout:
            module.fail_json(
                msg=f"The decommissioning made no progress for {timeout} s: {problem}. See that the other DataNodes are live and have room "
                "(hdfs dfsadmin -report), and that no file has more copies than DataNodes remain (hdfs fsck /); then run hdfs.yml again"
            )
        time.sleep(POLL_SECONDS)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["validated", "decommissioned"], "default": "validated"},
            "addresses": {"type": "list", "elements": "str", "required": True},
            "remaining": {"type": "int", "required": True},
            "remove": {"type": "bool", "default": False},
            **NAMENODE,
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    hdfs = WebHdfs(module.params["namenode_url"], module.params["user"], 30)
    try:
        if module.params["state"] == "validated":
            live, lost = validate(module, hdfs)
            module.exit_json(changed=False, live=live, lost=lost)
        if not module.check_mode:
            wait(module, hdfs)
    except WebHdfsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, live=[], lost=[])


if __name__ == "__main__":
    main()
