# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.filter.collapse_networks import FilterModule

collapse_networks = FilterModule().filters()["collapse_networks"]


@pytest.mark.parametrize(
    ("sources", "ipv4", "ipv6"),
    [
        ([], [], []),
        (["192.0.2.7"], ["192.0.2.7"], []),
        (["192.0.2.7/32", "192.0.2.0/24"], ["192.0.2.0/24"], []),
        (["192.0.2.128/25", "192.0.2.0/25"], ["192.0.2.0/24"], []),
        (["2001:DB8::1", "0.0.0.0/0", "::/0"], ["0.0.0.0/0"], ["::/0"]),
        (["10.0.0.9", "2001:DB8::1", "10.0.0.2"], ["10.0.0.2", "10.0.0.9"], ["2001:db8::1"]),
    ],
)
def test_networks(sources, ipv4, ipv6):
    assert collapse_networks(sources) == {"ipv4": ipv4, "ipv6": ipv6}


@pytest.mark.parametrize("sources", [["192.0.2.7/24"], ["node-a"], [""], ["192.0.2.0/33"], "192.0.2.7", None])
def test_what_is_no_network(sources):
    with pytest.raises(AnsibleFilterError, match="192.0.2|node-a|''|None"):
        collapse_networks(sources)
