# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs tasks of a role on this machine, with a simulated systemctl."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml


@pytest.fixture
def run_tasks(tmp_path):
    """Return a function that runs tasks and returns the process; the calls of systemctl are in the file `calls`."""
    tool = tmp_path / "systemctl"
    tool.write_text(f'#!/bin/sh\ncase $1 in list-units) ;; *) echo "$@" >>{tmp_path}/calls ;; esac\n')
    tool.chmod(0o755)

    def run(tasks: list[dict], variables: dict, *options: str) -> subprocess.CompletedProcess:
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}
        play["environment"] = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        playbook = tmp_path / "playbook.yml"
        playbook.write_text(yaml.safe_dump([play]))
        command = ["ansible-playbook", *options, str(playbook)]
        return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=600, check=False)

    return run
