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
    with_module = [(file, task[module]) for file in FILES for task in tasks(yaml.safe_load(file.read_text())) if module in task]
    assert with_module
    assert [str(file) for file, arguments in with_module if argument not in arguments] == []
