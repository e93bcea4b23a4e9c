# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.filter.im_authorization import FilterModule

im_authorization = FilterModule().filters()["im_authorization"]


def test_header():
    own = {"type": "InfrastructureManager", "username": "u", "password": "a;b"}
    cloud = {"id": "c", "type": "Dummy", "host": None}
    assert im_authorization([own, cloud]) == 'type = InfrastructureManager; username = u; password = "a;b"\\nid = c; type = Dummy'


@pytest.mark.parametrize("entries", [None, "type = Dummy", [1], [{"type": "Dummy"}], [{"username": "u", "password": "secret"}]])
def test_what_is_none(entries):
    with pytest.raises(AnsibleFilterError) as raised:
        im_authorization(entries)
    assert "secret" not in str(raised.value)
