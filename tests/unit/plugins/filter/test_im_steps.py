# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.filter.im_steps import FilterModule
from ansible_collections.deeptrain.cluster.plugins.filter.variable_errors import ROLES

im_steps = FilterModule().filters()["im_steps"]
SYSTEMS = ["chief", "ps", "worker"]
STAGES = yaml.safe_load(pathlib.Path(ROLES, "deeptrain/vars/main/stages.yml").read_text(encoding="utf-8"))["deeptrain_stages"]


def stage(*plays):
    return {"name": "stage", "plays": list(plays)}


def play(role, *hosts, entry=None, step=None, requires=None):
    given = {"role": role, "hosts": list(hosts) or ["all"], "entry": entry, "step": step, "requires": requires}
    return {name: value for name, value in given.items() if value is not None}


def blocks(stages, systems=None):
    """Return the blocks, shortened: name, step, systems, and roles with their entry points."""
    found = im_steps(stages, systems or SYSTEMS)
    return [(block["name"], block["step"], block["systems"], [f"{call['role']}/{call['entry']}" for call in block["roles"]]) for block in found]


def test_plays_of_one_step_make_a_block():
    assert blocks([stage(play("a", step="x")), stage(play("b", entry="e", step="x"))]) == [("x", 1, SYSTEMS, ["a/main", "b/e"])]


def test_systems_with_other_roles_have_a_block_of_their_own():
    plays = [play("a", "chief", step="x"), play("b", "chief", "ps", "worker", step="x"), play("c", "worker", step="x")]
    assert blocks([stage(*plays)]) == [
        ("x_chief", 1, ["chief"], ["a/main", "b/main"]),
        ("x_ps", 1, ["ps"], ["b/main"]),
        ("x_worker", 1, ["worker"], ["b/main", "c/main"]),
    ]


def test_systems_with_the_same_roles_share_one():
    assert blocks([stage(play("a", "chief", step="x"), play("b", "ps", "worker", step="x"))]) == [
        ("x_chief", 1, ["chief"], ["a/main"]),
        ("x_ps", 1, ["ps", "worker"], ["b/main"]),
    ]


def test_steps_have_the_order_of_their_first_plays():
    plays = [play("a", "ps", step="x"), play("b", "chief", step="y"), play("c", "worker", step="x"), play("d")]
    assert [(name, step) for name, step, _systems, _roles in blocks([stage(*plays)])] == [("x_ps", 1), ("x_worker", 1), ("y", 2)]


def test_a_block_begins_with_what_it_requires():
    plays = [play("a", step="x"), play("b", "ps", step="x", requires=[{"role": "r"}, {"role": "a"}, {"role": "s", "entry": "e"}])]
    assert blocks([stage(*plays)]) == [
        # What the block runs itself keeps its place.
        ("x_chief", 1, ["chief", "worker"], ["a/main"]),
        ("x_ps", 1, ["ps"], ["r/main", "s/e", "a/main", "b/main"]),
    ]


@pytest.mark.parametrize(
    ("hosts", "systems", "expected"),
    [
        (["all"], [*SYSTEMS, "hdfs_namenode"], [*SYSTEMS, "hdfs_namenode"]),
        (["hdfs_namenode"], SYSTEMS, ["ps"]),
        (["hdfs_namenode"], [*SYSTEMS, "hdfs_namenode"], ["hdfs_namenode"]),
        (["hdfs_datanode"], [*SYSTEMS, "hdfs_namenode"], SYSTEMS),
    ],
)
def test_systems_are_the_groups(hosts, systems, expected):
    assert blocks([stage(play("a", *hosts, step="x"))], systems) == [("x", 1, expected, ["a/main"])]


def test_other_groups_are_refused():
    with pytest.raises(AnsibleFilterError, match="step x: 'localhost' is no group"):
        im_steps([stage(play("a", "localhost", step="x"))], SYSTEMS)


def test_the_steps_of_the_stages():
    assert blocks(STAGES) == [
        ("prepare", 1, SYSTEMS, ["autostop/main", "preflight/main", "node/main"]),
        ("hdfs", 2, SYSTEMS, ["firewall/main", "hadoop/main"]),
        ("data", 3, ["chief"], ["preflight/storage", "hadoop/ready", "data_staging/main"]),
        ("tensorflow_chief", 4, ["chief"], ["tensorflow_chief/validate", "tensorflow/prepare"]),
        ("tensorflow_ps", 4, ["ps"], ["firewall/main", "tensorflow/prepare", "tensorflow_ps/serve"]),
        ("tensorflow_worker", 4, ["worker"], ["firewall/main", "tensorflow/prepare", "tensorflow_worker/serve"]),
        ("train", 5, ["chief"], ["firewall/main", "tensorflow/prepare", "model_export/arm", "tensorflow_chief/train"]),
        ("export", 6, ["chief"], ["model_export/main"]),
        ("stop_ps", 7, ["ps"], ["tensorflow_ps/stop"]),
        ("stop_worker", 7, ["worker"], ["tensorflow_worker/stop"]),
    ]


def test_the_namenode_of_its_own_gets_hdfs_and_what_comes_before():
    steps = [name for name, _step, systems, _roles in blocks(STAGES, [*SYSTEMS, "hdfs_namenode"]) if "hdfs_namenode" in systems]
    assert steps == ["prepare", "hdfs"]
