# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks of role firewall that make the daemons require it, run here with a simulated systemctl."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles" / "firewall"


@pytest.mark.parametrize(("missing", "written", "reenabled"), [(None, False, False), (-1, False, True), (None, True, True)])
def test_the_daemons_require_the_unit_after_an_interrupted_upgrade(run_tasks, tmp_path, missing, written, reenabled):
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
    done = run_tasks(tasks, {**variables, "__firewall_unit": str(unit), "__firewall_service": {"changed": written}})
    assert done.returncode == 0, done.stdout + done.stderr
    calls = tmp_path / "calls"
    assert calls.exists() is reenabled
    assert not reenabled or calls.read_text() == "reenable deeptrain-firewall.service\n"
