# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.filter import (
    cluster_hosts,
    tf_config,
    topology,
)

GROUPS = {"ps": ["10.0.0.1"], "master": ["10.0.0.2"], "worker": ["10.0.0.3", "10.0.0.4"]}


def test_tf_config_from_the_inventory():
    shape = topology.FilterModule().filters()["topology"](GROUPS, {})
    assert tf_config.FilterModule().filters()["tf_config"](shape, "10.0.0.4", "worker") == {
        "cluster": {"chief": ["10.0.0.2:2222"], "ps": ["10.0.0.1:2223"], "worker": ["10.0.0.3:2224", "10.0.0.4:2224"]},
        "task": {"type": "worker", "index": 1},
    }


@pytest.mark.parametrize("shape", [None, {}, GROUPS])
def test_tf_config_needs_what_topology_gave(shape):
    with pytest.raises(AnsibleFilterError, match="filter deeptrain.cluster.topology"):
        tf_config.tf_config(shape, "10.0.0.4", "worker")


def test_hosts_of_a_play():
    assert cluster_hosts.FilterModule().filters()["cluster_hosts"](GROUPS, "chief", "worker") == [
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.4",
    ]


@pytest.mark.parametrize("groups", [{}, None, {**GROUPS, "worker": []}])
def test_mistakes_in_groups_are_filter_errors(groups):
    with pytest.raises(AnsibleFilterError, match="group"):
        cluster_hosts.cluster_hosts(groups)
