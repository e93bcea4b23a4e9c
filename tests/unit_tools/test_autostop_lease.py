# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first tasks of role autostop, run here in a directory of their own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

ARM = Path(__file__).parents[2] / "roles" / "autostop" / "tasks" / "arm.yml"
LEASE = ("Create the directory of the runs", "Create the directory of the lease", "Renew the lease")
USER = 1

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")


@pytest.fixture
def renew(run_tasks, tmp_path):
    """Return a function that runs the tasks with ansible-playbook's options, for the directory `state`."""

    def run(*options: str) -> None:
        tasks = [task for task in yaml.safe_load(ARM.read_text()) if task["name"] in LEASE]
        assert [task["name"] for task in tasks] == list(LEASE)
        state_dir = str(tmp_path / "state")
        done = run_tasks(tasks, {"deeptrain_state_dir": state_dir, "__autostop_directory": f"{state_dir}/autostop", "deeptrain_autostop_hours": 2}, *options)
        assert done.returncode == 0, done.stdout + done.stderr

    return run


def test_check_mode_on_a_fresh_node(renew, tmp_path):
    renew("--check")
    assert not (tmp_path / "state").exists()


def test_what_the_jobs_user_left_leads_root_nowhere(renew, tmp_path):
    """The directory was that user's in version 0.1."""
    secret, lease = tmp_path / "secret", tmp_path / "state" / "autostop"
    secret.write_text("secret")
    os.utime(secret, (0, 0))
    lease.mkdir(parents=True)
    (lease / ".lease.new").symlink_to(secret)
    (lease / "armed").symlink_to(secret)
    os.mkfifo(lease / "lease")
    os.link(secret, lease / "renewed")
    (lease / "own").write_text("0 0")
    os.chown(lease / "own", USER, USER)
    before = time.time()
    renew()
    assert secret.read_text() == "secret" and secret.stat().st_mtime == 0
    assert sorted(path.name for path in lease.iterdir()) == ["armed", "lease", "renewed"]
    assert all(path.is_file() and not path.is_symlink() and path.stat().st_uid == 0 for path in lease.iterdir())
    assert float((lease / "lease").read_text().split()[0]) >= before + 7199
    (lease / "hdfs").touch()
    renew()
    assert (lease / "hdfs").exists()


def test_a_run_without_hours_renews_the_maximum_too(renew, run_tasks, tmp_path):
    """And makes no lease where there is none."""
    lease = tmp_path / "state" / "autostop"
    tasks = [task for task in yaml.safe_load((ARM.parent / "main.yml").read_text()) if "Renew" in task["name"]]

    def renew_again() -> None:
        done = run_tasks(tasks, {"__autostop_directory": str(lease), "deeptrain_autostop_hours": -1})
        assert done.returncode == 0, done.stdout

    lease.mkdir(parents=True)
    renew_again()
    assert not list(lease.iterdir())
    renew()
    for name in ("armed", "renewed"):
        os.utime(lease / name, (0, 0))
    renew_again()
    assert all((lease / name).stat().st_mtime > 0 for name in ("armed", "renewed"))


@pytest.mark.parametrize(
    ("access", "words"),
    [
        # Of all nodes but the chief.
        ({"skipped": True, "changed": False}, None),
        ({"rc": 0, "stderr": ""}, None),
        ({"rc": 2, "stderr": "has no infrastructure x"}, "has no infrastructure x"),
        ({"failed": True, "msg": "No such file"}, "No such file"),
    ],
)
def test_only_a_manager_that_was_asked_is_refused(run_tasks, access, words):
    [task] = [task for task in yaml.safe_load(ARM.read_text()) if task["name"].startswith("Refuse an Infrastructure Manager")]
    done = run_tasks([task], {"__autostop_access": access})
    assert done.returncode == (2 if words else 0) and (words or "") in done.stdout, done.stdout
