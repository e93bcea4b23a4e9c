# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is in the nodes' network and not in the topology reaches SSH alone."""

from __future__ import annotations

import json
import shlex

from cluster import HERE

RULES = "nft list table inet deeptrain"


def scan(cluster, host: str, addresses: list[str]) -> dict[str, dict[str, str]]:
    """The TCP ports of some addresses that answer to a host, and how."""
    script = (HERE / "port_scan.py").read_text()
    return json.loads(cluster.sh(host, f"python3 - {' '.join(map(shlex.quote, addresses))} <<'END'\n{script}END\n"))


def test_an_outsider_reaches_ssh_alone(cluster):
    for node in cluster.nodes:
        address = cluster.hosts[node]["deeptrain_address"]
        # Of IPv6 the nodes have link-local addresses, and the outsider one interface.
        local = cluster.sh(node, "ip -6 -brief address show dev eth0 | grep -o 'fe80[^/]*' || true").strip()
        addresses = [address, *([f"{local}%eth0"] if local else [])]
        assert scan(cluster, cluster.s3_host, addresses) == {each: {"22": "open"} for each in addresses}, node


def test_a_node_reaches_the_others(cluster):
    address = cluster.hosts[cluster.namenode]["deeptrain_address"]
    cluster.sh(cluster.chief, f"timeout 5 bash -c ': </dev/tcp/{address}/9870'")


def test_the_table_is_systemds_to_load(cluster):
    rules = cluster.sh(cluster.chief, RULES)
    assert cluster.sh(cluster.chief, "systemctl is-enabled deeptrain-firewall").strip() == "enabled"
    cluster.sh(cluster.chief, "nft flush ruleset; systemctl restart deeptrain-firewall")
    assert cluster.sh(cluster.chief, RULES) == rules
