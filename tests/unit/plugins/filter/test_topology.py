# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Mapping

import pytest
from ansible.errors import AnsibleFilterError, AnsibleUndefinedVariable
from ansible_collections.deeptrain.cluster.plugins.filter.topology import (
    FilterModule,
    topology,
)
from jinja2 import StrictUndefined

GROUPS = {"ps": ["p"], "chief": ["c"], "worker": ["w"], "ungrouped": []}


class Lazy(Mapping):
    """Variables that count and note how they are read, and may fail."""

    def __init__(self, values):
        self.values_by_name = values
        self.reads = []

    def __getitem__(self, name):
        self.reads.append(name)
        value = self.values_by_name[name]
        if isinstance(value, Exception):
            raise value
        return value

    def __contains__(self, name):
        return name in self.values_by_name

    def __iter__(self):
        return iter(self.values_by_name)

    def __len__(self):
        return len(self.values_by_name)


def hostvars(**changes):
    return Lazy(
        {
            name: Lazy(
                {"deeptrain_address": f"10.0.0.{number}", "secret": AssertionError("read"), **changes.get(name, {})}
            )
            for number, name in enumerate("pcw", 1)
        }
    )


def test_it_is_offered_by_its_name():
    assert FilterModule().filters() == {"topology": topology}


def test_each_hosts_variables_are_fetched_once_and_only_what_is_needed():
    lazy = hostvars()
    assert topology(GROUPS, lazy)["cluster"]["worker"] == ["10.0.0.3:2224"]
    assert sorted(lazy.reads) == ["c", "p", "w"]
    assert "secret" not in lazy.values_by_name["w"].reads


@pytest.mark.parametrize("value", [StrictUndefined(name="x"), AnsibleUndefinedVariable("x is undefined")])
def test_an_undefined_address_is_named(value):
    with pytest.raises(
        AnsibleFilterError, match="deeptrain_address of host w refers to a variable that is not defined"
    ):
        topology(GROUPS, hostvars(w={"deeptrain_address": value}))


@pytest.mark.parametrize("value", [StrictUndefined(name="x"), AnsibleUndefinedVariable("x is undefined")])
def test_what_is_undefined_and_not_needed_does_no_harm(value):
    assert topology(GROUPS, hostvars(w={"ansible_host": value}))["hosts"]["w"]["address"] == "10.0.0.3"


def test_hosts_without_variables():
    with pytest.raises(AnsibleFilterError, match="host w has no address"):
        topology(
            GROUPS,
            {
                "p": {"deeptrain_address": "10.0.0.1"},
                "c": {"deeptrain_address": "10.0.0.2"},
                "w": StrictUndefined(name="w"),
            },
        )


def test_mistakes_in_groups_are_filter_errors():
    with pytest.raises(AnsibleFilterError, match="group ps is empty"):
        topology({**GROUPS, "ps": []}, hostvars())


def test_hostvars_must_be_given():
    with pytest.raises(AnsibleFilterError, match="must be hostvars"):
        topology(GROUPS, "p")
