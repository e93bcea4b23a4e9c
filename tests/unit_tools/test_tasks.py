# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments that every task of a module needs in this collection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
FILES = [*PROJECT.glob("roles/*/tasks/*.yml"), *PROJECT.glob("playbooks/*.yml"), *PROJECT.glob("playbooks/tasks/*.yml")]


def tasks(found: object) -> Iterator[dict]:
    """Return all dictionaries at any depth, so all tasks."""
    if isinstance(found, dict):
        yield found
    for item in found.values() if isinstance(found, dict) else found if isinstance(found, list) else ():
        yield from tasks(item)


def with_module(module: str) -> list[tuple[Path, dict]]:
    """Return all tasks of a module, each with its file."""
    return [(file, task) for file in FILES for task in tasks(yaml.safe_load(file.read_text())) if module in task]


@pytest.mark.parametrize(
    ("module", "argument"),
    [
        # Nodes are reached directly.
        ("ansible.builtin.uri", "use_proxy"),
        # unattended-upgrades and cloud-init hold apt's lock for minutes.
        ("ansible.builtin.apt", "lock_timeout"),
    ],
)
def test_every_task_has(module, argument):
    found = with_module(module)
    assert found
    assert [str(file) for file, task in found if argument not in task[module]] == []


def test_every_request_to_a_node_goes_directly():
    """Only what an archive is fetched from may be behind a proxy."""
    requests = [task for _file, task in with_module("ansible.builtin.uri")]
    assert len(requests) > 5
    proxied = [task["name"] for task in requests if task["ansible.builtin.uri"]["use_proxy"] is not False]
    assert proxied == ["Request the archive's first byte"]


APT = [(file.parts[-3], task) for file, task in with_module("ansible.builtin.apt")]
# Stands for the module: fails at first, with a message.
ONCE = """
import os
from ansible.module_utils.basic import AnsibleModule
module = AnsibleModule({"mark": {}, "message": {}})
if os.path.exists(module.params["mark"]):
    module.exit_json()
open(module.params["mark"], "w").close()
module.fail_json(msg=module.params["message"])
"""


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1 (unattended-upgr)", 0),
        ("E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?", 0),
        ("E: Unable to lock directory /var/lib/apt/lists/", 0),
        ("No package matching 'x' is available", 2),
    ],
)
@pytest.mark.parametrize("task", [task for _role, task in APT], ids=[role for role, _task in APT])
def test_apt_waits_for_the_lock_of_another(run_tasks, tmp_path, task, message, status):
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "once.py").write_text(ONCE)
    task = {name: value for name, value in task.items() if name not in ("ansible.builtin.apt", "when")}
    done = run_tasks([{**task, "once": {"mark": f"{tmp_path}/mark", "message": message}, "delay": 0}], {})
    assert done.returncode == status, done.stdout
