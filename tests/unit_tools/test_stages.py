# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of stages is that of the playbooks, the roles and the jobs of the package."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deeptrain import kinds

PROJECT = Path(__file__).parents[2]
ROLES, PLAYBOOKS = PROJECT / "roles", PROJECT / "playbooks"
STAGES = {stage["name"]: stage for stage in yaml.safe_load((ROLES / "deeptrain/vars/main/stages.yml").read_text())["deeptrain_stages"]}
# Those of no stage: all of them, what only reads, and what only renders.
OTHERS = {"site", "status", "radl"}

Call = tuple[tuple[str, ...], str, str]


def groups(hosts: str) -> tuple[str, ...]:
    """Return the groups of a play's hosts, as the list of stages has them."""
    if match := re.fullmatch(r"\{\{ groups \| deeptrain[.]cluster[.]cluster_hosts(?:[(](.*)[)])? \}\}", hosts):
        return tuple(re.findall(r"'(\w+)'", match[1] or "")) or ("all",)
    # By the groups' names, for a cluster whose shape may be wrong.
    if match := re.fullmatch(r"\{\{ \[(.*)\] \| select\('in', groups\) \| map\('extract', groups\) \| flatten \| unique \}\}", hosts):
        assert set(re.findall(r"'(\w+)'", match[1])) == {"chief", "master", "ps", "worker", "hdfs_namenode", "hdfs_datanode"}
        return ("all",)
    return ("chief",) if hosts == "{{ groups.chief | default(groups.master) | default([]) }}" else (hosts,)


def included(tasks: object) -> Iterator[tuple[str, str]]:
    """Return the roles and entry points of tasks at any depth, in order."""
    if isinstance(tasks, list):
        for item in tasks:
            yield from included(item)
    elif isinstance(tasks, dict):
        for name, value in tasks.items():
            if name in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
                yield value["name"], value.get("tasks_from", "main")
            yield from included(value)


def calls(playbook: str) -> list[Call]:
    """Return hosts, role and entry point of each play's roles, each once, in order."""
    found = []
    for play in yaml.safe_load((PLAYBOOKS / f"{playbook}.yml").read_text()):
        roles = [(role, "main") for role in play.get("roles", [])]
        for role, entry in [*included(play.get("pre_tasks")), *roles, *included(play.get("tasks")), *included(play.get("post_tasks"))]:
            # The shared settings alone are no work.
            if role != "deeptrain.cluster.deeptrain":
                found.append((groups(play["hosts"]), role.removeprefix("deeptrain.cluster."), entry))
    return list(dict.fromkeys(found))


def listed(stage: dict) -> list[Call]:
    return [(tuple(play["hosts"]), play["role"], play.get("entry", "main")) for play in stage["plays"]]


def test_site_imports_the_stages_in_their_order():
    imported = [play["ansible.builtin.import_playbook"] for play in yaml.safe_load((PLAYBOOKS / "site.yml").read_text())]
    assert imported == [f"{name}.yml" for name, stage in STAGES.items() if stage.get("site", True)]


def test_every_playbook_is_a_stage():
    assert {file.stem for file in PLAYBOOKS.glob("*.yml")} == STAGES.keys() | OTHERS


@pytest.mark.parametrize("name", STAGES)
def test_a_playbook_runs_the_roles_of_its_stage(name):
    assert calls(name) == listed(STAGES[name])


def test_a_stage_has_no_other_keys():
    assert set().union(*STAGES.values()) == {"name", "site", "job", "units", "plays"}
    plays = [play for stage in STAGES.values() for play in stage["plays"]]
    assert set().union(*plays) == {"hosts", "role", "entry", "step", "requires"}


def test_what_a_step_requires_runs_earlier_in_the_playbooks():
    before: list[tuple[str, str]] = []
    for stage in STAGES.values():
        for play in stage["plays"]:
            for item in play.get("requires", []):
                assert (item["role"], item.get("entry", "main")) in before, play
            before.append((play["role"], play.get("entry", "main")))


def test_jobs_are_those_of_the_package_in_their_order():
    assert [stage["job"] for stage in STAGES.values() if "job" in stage] == list(kinds.STAGES)


def test_jobs_of_the_roles_are_those_of_the_package():
    tasks = [task for file in ROLES.glob("*/tasks/*.yml") for task in yaml.safe_load(file.read_text())]
    assert {task["deeptrain.cluster.job"]["kind"] for task in tasks if "deeptrain.cluster.job" in task} == kinds.KINDS.keys()


def test_every_job_but_the_export_can_be_stopped():
    stopped = {play["role"] for play in STAGES["stop"]["plays"] if play["hosts"] == ["chief"]}
    running = [{play["role"] for play in stage["plays"]} for stage in STAGES.values() if stage.get("job", "export") != "export"]
    assert len(running) == len(stopped) and all(roles & stopped for roles in running)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_a_job_has_a_function(kind):
    function, _text = kinds.KINDS[kind]
    assert callable(pkgutil.resolve_name(function))


def test_units_are_the_firewall_and_what_requires_it():
    """So what listens is behind the firewall, and what the firewall protects is shown."""
    units = [f"{unit}.service" for stage in STAGES.values() for unit in stage.get("units", [])]
    assert units == ["deeptrain-firewall.service", *yaml.safe_load((ROLES / "firewall/vars/main.yml").read_text())["__firewall_daemons"]]
