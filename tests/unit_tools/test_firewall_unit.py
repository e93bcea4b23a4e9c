# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks of role firewall that make the daemons require it, run here with a simulated systemctl."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles" / "firewall"


@pytest.mark.parametrize(("missing", "written", "reenabled"), [(None, False, False), (-1, False, True), (None, True, True)])
def test_the_daemons_require_the_unit_after_an_interrupted_upgrade(tmp_path, missing, written, reenabled):
    block = next(task["block"] for task in yaml.safe_load((ROLE / "tasks" / "install.yml").read_text()) if "block" in task)
    tasks = [task for task in block if task["name"].endswith(("require the unit", "require the unit # noqa: no-handler"))]
    variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    daemons = variables["__firewall_daemons"] + variables["__firewall_jobs"]
    unit = tmp_path / "system" / "deeptrain-firewall.service"
    unit.parent.mkdir()
    unit.touch()
    for directory in ["sysinit.target.wants", *(f"{daemon}.requires" for daemon in daemons if missing is None or daemon != daemons[missing])]:
        (unit.parent / directory).mkdir()
        (unit.parent / directory / unit.name).symlink_to(unit)
    calls, tool = tmp_path / "calls", tmp_path / "systemctl"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    tool.chmod(0o755)
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    play["environment"] = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    play["vars"] = {**variables, "__firewall_unit": str(unit), "__firewall_service": {"changed": written}}
    playbook = tmp_path / "playbook.yml"
    playbook.write_text(yaml.safe_dump([play]))
    done = subprocess.run(["ansible-playbook", str(playbook)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert calls.exists() is reenabled
    assert not reenabled or calls.read_text() == "reenable deeptrain-firewall.service\n"
