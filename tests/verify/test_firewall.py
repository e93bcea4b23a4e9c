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
    cluster.sh(cluster.chief, f"timeout 60 bash -c ': </dev/tcp/{address}/9870'")


def test_the_table_is_systemds_to_load(cluster):
    rules = cluster.sh(cluster.chief, RULES)
    assert cluster.sh(cluster.chief, "systemctl is-enabled deeptrain-firewall").strip() == "enabled"
    cluster.sh(cluster.chief, "nft flush ruleset; systemctl reload deeptrain-firewall")
    assert cluster.sh(cluster.chief, RULES) == rules


def test_nftables_never_leaves_the_node_open(cluster):
    node = cluster.chief
    rules = cluster.sh(node, RULES)
    daemon = "systemctl show --property=MainPID hadoop-datanode"
    before = cluster.sh(node, daemon)
    poll = f"while ! test -e /tmp/polled; do {RULES} >/dev/null || echo missing; done & "
    verbs = "for verb in start reload restart restart stop; do systemctl $verb nftables; done; touch /tmp/polled; wait; rm /tmp/polled"
    assert cluster.sh(node, poll + verbs) == ""
    assert cluster.sh(node, RULES) == rules
    assert cluster.sh(node, daemon) == before


def test_daemons_do_not_run_without_the_firewall(cluster):
    node = cluster.groups["worker"][-1]
    file = "/etc/deeptrain-firewall.nft"
    active = "systemctl is-active deeptrain-firewall hadoop-datanode || true"
    cluster.sh(node, f"cp {file} /root/rules; echo nonsense >>{file}")
    try:
        cluster.sh(node, "systemctl stop deeptrain-firewall")
        assert cluster.sh(node, active).split() == ["inactive", "inactive"]
        said = cluster.sh(node, "systemctl start hadoop-datanode 2>&1 || true")
        assert "A dependency job for hadoop-datanode.service failed" in said
        assert cluster.sh(node, active).split() == ["failed", "inactive"]
    finally:
        cluster.sh(node, f"mv /root/rules {file}; systemctl start hadoop-datanode")
    assert cluster.sh(node, active).split() == ["active", "active"]
