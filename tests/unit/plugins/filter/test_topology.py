# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Mapping

import pytest
from ansible import constants as C
from ansible.errors import AnsibleFilterError, AnsibleUndefinedVariable
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.deeptrain.cluster.plugins.filter.topology import (
    FilterModule,
    topology,
)
from ansible_collections.deeptrain.cluster.plugins.module_utils import _topology as pure
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


@pytest.fixture
def inventory(tmp_path, monkeypatch):
    """Return a function that gives groups and hostvars as Ansible has them, of an inventory in which one host's variables are given."""
    monkeypatch.setattr(C, "DEFAULT_LOCAL_TMP", str(tmp_path))

    def read(worker):
        file = tmp_path / "hosts.ini"
        file.write_text(
            "\n".join(f"[{group}]\n{host}" for group, host in (("ps", "p deeptrain_address=10.0.0.1"), ("chief", "c deeptrain_address=10.0.0.2")))
            + f"\n[worker]\nw {worker}\n"
        )
        loader = DataLoader()
        manager = InventoryManager(loader=loader, sources=[str(file)])
        return manager.get_groups_dict(), HostVars(manager, VariableManager(loader=loader, inventory=manager), loader)

    return read


@pytest.fixture
def computed(monkeypatch):
    """Return a list with an item for each time that the topology is computed."""
    calls = []
    compute = pure.topology
    monkeypatch.setattr(pure, "topology", lambda *arguments: calls.append(None) or compute(*arguments))
    return calls


def test_it_is_computed_once_while_nothing_changes(inventory, computed):
    groups, variables = inventory("deeptrain_address=10.0.0.3")
    first = topology(groups, variables)
    assert topology(groups, variables) == first and len(computed) == 1
    assert topology(groups, variables, {"worker": 5000})["cluster"]["worker"] == ["10.0.0.3:5000"]
    # Another process, or a later play.
    assert topology(*inventory("deeptrain_address=10.0.0.3")) == first and len(computed) == 2
    assert topology(*inventory("deeptrain_address=10.0.0.4"))["cluster"]["worker"] == ["10.0.0.4:2224"]


def test_it_is_computed_again_when_a_host_gets_a_fact(inventory):
    groups, variables = inventory("deeptrain_address=10.0.0.3")
    assert topology(groups, variables)["cluster"]["worker"] == ["10.0.0.3:2224"]
    variables._variable_manager.set_nonpersistent_facts("w", {"deeptrain_address": "10.0.0.5"})
    assert topology(groups, variables)["cluster"]["worker"] == ["10.0.0.5:2224"]


def test_it_is_computed_each_time_when_a_template_is_read(inventory, computed):
    groups, variables = inventory("deeptrain_address='{{ mine }}'")
    for address in ("10.0.0.6", "10.0.0.7"):
        variables._variable_manager.set_nonpersistent_facts("w", {"mine": address})
        assert topology(groups, variables)["cluster"]["worker"] == [f"{address}:2224"]
    assert len(computed) == 2
