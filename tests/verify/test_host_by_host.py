# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The roles as the Infrastructure Manager runs them.

One process of ansible-core 2.16 for each host and step, limited to that host, no facts of others, the hosts named
<ip>_<id>, a step of all hosts side by side. The cluster is the same, so there is nothing to do.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cluster import PROJECT
from stages import calls

PROGRAM = PROJECT / ".cache/venv-2.16/bin/ansible-playbook"

CALLS = calls()


@pytest.fixture(scope="module")
def inventory(cluster) -> tuple[Path, dict[str, str]]:
    """The inventory in the Infrastructure Manager's form, and the nodes' names there."""
    names = {}

    def change(document: dict) -> None:
        for number, (host, variables) in enumerate(cluster.hosts.items()):
            names[host] = f"{variables['deeptrain_address']}_{number}"
            document["hosts"][names[host]] = document["hosts"].pop(host)
            del document["hosts"][names[host]]["deeptrain_address"]
            document["hosts"][names[host]].update(IM_NODE_PRIVATE_IP=variables["deeptrain_address"], IM_NODE_HOSTNAME=host, IM_NODE_NUM=str(number))
        for group in document["children"].values():
            group["hosts"] = {names[host]: {} for host in group["hosts"]}

    return cluster.with_inventory("im", change), names


def test_program_is_the_oldest_supported():
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    assert "[core 2.16." in version


@pytest.mark.parametrize(("role", "entry"), CALLS, ids=map("-".join, CALLS))
def test_step_changes_nothing(cluster, inventory, role, entry):
    file, names = inventory
    groups = {**cluster.groups, "all": cluster.nodes, "hdfs_namenode": [cluster.namenode], "hdfs_datanode": cluster.nodes}
    hosts = {names[host] for group in CALLS[role, entry] for host in groups[group]}
    runs = {host: cluster.start("host.yml", "--limit", host, inventory=file, program=str(PROGRAM), verify_role=role, verify_entry=entry) for host in hosts}
    for host, run in runs.items():
        run.succeeded()
        assert set(run.recap()) == {host}
        assert run.changed() == {}, run.text()


def test_servers_of_a_done_run_stay_stopped(cluster):
    for task in ("ps", "worker"):
        for node in cluster.groups[task]:
            assert cluster.sh(node, f"systemctl is-active deeptrain-{task}", check=False).strip() == "inactive"
