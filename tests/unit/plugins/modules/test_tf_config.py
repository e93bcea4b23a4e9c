# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.deeptrain.cluster.plugins.modules import tf_config


def test_addresses_get_the_default_ports(run_module):
    result = run_module(
        tf_config, chief="10.0.0.1", ps=["10.0.0.2"], worker=["10.0.0.3", "10.0.0.4:2300"], type="worker", index=1
    )
    assert result["changed"] is False
    assert result["tf_config"] == {
        "cluster": {"chief": ["10.0.0.1:2222"], "ps": ["10.0.0.2:2223"], "worker": ["10.0.0.3:2224", "10.0.0.4:2300"]},
        "task": {"type": "worker", "index": 1},
    }


def test_ports_may_be_partial(run_module):
    result = run_module(tf_config, master="a", ps=["b"], worker=["c"], ports={"ps": 3000}, type="master")
    assert result["tf_config"]["cluster"] == {"chief": ["a:2222"], "ps": ["b:3000"], "worker": ["c:2224"]}
    assert result["tf_config"]["task"] == {"type": "chief", "index": 0}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"ps": []}, "ps has no address"),
        ({"worker": ["http://c"]}, "worker: 'http://c' is no address"),
        ({"index": 1}, "there is no worker 1"),
        ({"ps": ["c:2224"]}, "ps 0 and worker 0 have the same address c:2224"),
        ({"ports": {"ps": 70000}}, "ps: the port of b is 70000"),
    ],
)
def test_mistakes_are_named(run_module, change, words):
    result = run_module(tf_config, **{"chief": "a", "ps": ["b"], "worker": ["c"], "type": "worker", **change})
    assert result["failed"] is True
    assert words in result["msg"]
