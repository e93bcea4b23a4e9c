# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the units of the jobs do after a job's end, with a simulated systemctl."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

TEMPLATE = Path(__file__).parents[2] / "roles" / "node" / "templates" / "job.service.j2"


@pytest.mark.parametrize(
    ("result", "status", "disabled", "removed"),
    [
        ("success", "0", True, True),
        # Another start would be refused too, but after a correction the credentials are needed.
        ("exit-code", "2", True, False),
        ("exit-code", "1", False, False),
        ("success", "TERM", False, False),
        ("timeout", "0", False, False),
        ("exit-code", "243", False, False),
    ],
)
def test_what_needs_no_start_does_not_start_at_boot(result, status, disabled, removed, tmp_path):
    text = TEMPLATE.read_text().replace("\\\n", " ").replace("%n", "the-unit")
    text = text.replace("/run/deeptrain/credentials/{{ node_job_kind }}/%i", f"{tmp_path}/credentials")
    command = shlex.split(re.search(r"^ExecStopPost=-\+(.*)$", text, re.MULTILINE)[1])
    (tmp_path / "credentials").mkdir()
    calls = tmp_path / "calls"
    tool = tmp_path / "systemctl"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{calls}\n')
    tool.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SERVICE_RESULT": result, "EXIT_STATUS": status}
    subprocess.run(command, env=environment, check=True)
    assert calls.exists() is disabled and (tmp_path / "credentials").exists() is not removed
    assert not disabled or calls.read_text() == "--no-reload disable the-unit\n"
