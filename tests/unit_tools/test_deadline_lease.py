# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first tasks of role deadline, run here in a directory of their own."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
import yaml

ARM = Path(__file__).parents[2] / "roles" / "deadline" / "tasks" / "arm.yml"
LEASE = ("Make the directory of the runs", "Make the directory of the lease", "Renew the lease")
USER = 1

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")


def renew(state_dir: Path, *options: str) -> None:
    tasks = [task for task in yaml.safe_load(ARM.read_text()) if task["name"] in LEASE]
    assert [task["name"] for task in tasks] == list(LEASE)
    variables = {"deadline_state_dir": str(state_dir), "__deadline_directory": str(state_dir / "deadline"), "deadline_hours": 2}
    playbook = state_dir.with_suffix(".yml")
    playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": tasks}]))
    done = subprocess.run(["ansible-playbook", *options, str(playbook)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_check_mode_on_a_fresh_node(tmp_path):
    renew(tmp_path / "state", "--check")
    assert not (tmp_path / "state").exists()


def test_what_the_jobs_user_left_leads_root_nowhere(tmp_path):
    """The directory was that user's in version 0.1."""
    secret, lease = tmp_path / "secret", tmp_path / "state" / "deadline"
    secret.write_text("secret")
    os.utime(secret, (0, 0))
    lease.mkdir(parents=True)
    (lease / ".until.new").symlink_to(secret)
    (lease / "armed").symlink_to(secret)
    os.mkfifo(lease / "until")
    os.link(secret, lease / "watched")
    (lease / "own").write_text("0 0")
    os.chown(lease / "own", USER, USER)
    before = time.time()
    renew(tmp_path / "state")
    assert secret.read_text() == "secret" and secret.stat().st_mtime == 0
    assert sorted(path.name for path in lease.iterdir()) == ["armed", "until", "watched"]
    assert all(path.is_file() and not path.is_symlink() and path.stat().st_uid == 0 for path in lease.iterdir())
    assert float((lease / "until").read_text().split()[0]) >= before + 7199
    (lease / "hdfs").touch()
    renew(tmp_path / "state")
    assert (lease / "hdfs").exists()
