# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""validate.yml before there are machines, in each mode and on the oldest and the newest ansible-core."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PROGRAMS = [PROJECT / venv / "bin" / "ansible-playbook" for venv in (".cache/venv-2.16", ".cache/venv-newest")]


@pytest.mark.parametrize("program", PROGRAMS, ids=["2.16", "newest"])
@pytest.mark.parametrize(("mode", "cloud"), [("push", "ec2"), ("im", "ec2"), ("existing_hosts", "existing")])
def test_a_cluster_to_create_is_validated(tmp_path, program, mode, cloud):
    if not program.exists():
        pytest.skip("no Python for it")
    (tmp_path / "hosts").touch()
    archive = {"push": str(tmp_path / "hosts")}.get(mode, "https://web.example/hadoop.tar.gz")
    files = [f"--extra-vars=@examples/{name}.yml" for name in ("common", cloud)]
    settings = f"im_cluster_mode={mode} deeptrain_validate_remote=false hadoop_archive={archive} hadoop_archive_checksum=sha256:{'0' * 64}"
    command = [program, "playbooks/validate.yml", f"--inventory={tmp_path / 'hosts'}", *files, f"--extra-vars={settings}"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # A misspelt variable is refused, and one of another project not.
    done = subprocess.run(
        [*command, "--extra-vars=node_exporter_port=1 deeptrain_dta_url=x"], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0 and "deeptrain_dta_url does not exist: write deeptrain_data_url" in " ".join(done.stdout.split()), done.stdout
