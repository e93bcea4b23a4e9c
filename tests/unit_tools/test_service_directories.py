# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories of the job's and the daemons' user, in which root works, too: tasks of roles node and hadoop, run here."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest
import yaml

ROLES = Path(__file__).parents[2] / "roles"
USER = "daemon"
UID = pwd.getpwnam(USER).pw_uid

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directories of root and of another user")


def found(file: Path, *names: str) -> list[dict]:
    """Return tasks by their names, of blocks too."""
    tasks = yaml.safe_load(file.read_text())
    tasks += [task for block in tasks for task in block.get("block", [])]
    return [next(task for task in tasks if task["name"] == name) for name in names]


def test_the_cache(run_tasks, tmp_path):
    tasks = found(ROLES / "node" / "tasks" / "main.yml", "Create the directory of the job's user")
    cache, etc = tmp_path / "data" / "deeptrain" / "cache", tmp_path / "etc"
    variables = {"deeptrain_cache_dir": str(cache), "deeptrain_user": USER}
    done = run_tasks(tasks, variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.stat().st_uid for path in (cache, *cache.parents[:2])] == [UID, 0, 0]
    # As an older version left it.
    os.chown(cache.parent, UID, UID)
    etc.mkdir()
    cache.rmdir()
    cache.symlink_to(etc)
    os.chown(cache, UID, UID, follow_symlinks=False)
    done = run_tasks(tasks, variables)
    assert done.returncode != 0 and f"{cache} is a link" in done.stdout + done.stderr
    assert etc.stat().st_uid == 0


@pytest.mark.parametrize("existing", [False, True])
def test_the_storage_directories(run_tasks, tmp_path, existing):
    """The directory above them was the daemons' user's."""
    above = tmp_path / "hadoop"
    file = tmp_path / "configure.yml"
    file.write_text((ROLES / "hadoop" / "tasks" / "configure.yml").read_text().replace("/var/lib/hadoop", str(above)))
    tasks = found(file, "Create the directory of the default storage directories", "Create the storage directories")
    variables = {"__hadoop_dirs": [f"{above}/name", f"{above}/data"], "hadoop_user": USER, "hadoop_group": USER}
    if existing:
        above.mkdir(mode=0o700)
        os.chown(above, UID, UID)
    done = run_tasks(tasks, variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (above.stat().st_uid, above.stat().st_mode & 0o777) == (0, 0o755)
    assert [((above / name).stat().st_uid, (above / name).stat().st_mode & 0o777) for name in ("name", "data")] == [(UID, 0o700)] * 2
    assert "changed=0 " in run_tasks(tasks, variables).stdout


def test_the_identity_of_a_storage_directory(run_tasks, tmp_path):
    for name in ("good", "fifo", "link", "linked", "empty"):
        (tmp_path / name / "current").mkdir(parents=True)
    (tmp_path / "good" / "current" / "VERSION").write_text("clusterID=own\n")
    os.mkfifo(tmp_path / "fifo" / "current" / "VERSION")
    (tmp_path / "link" / "current" / "VERSION").symlink_to(tmp_path / "good" / "current" / "VERSION")
    (tmp_path / "linked" / "current").rmdir()
    (tmp_path / "linked" / "current").symlink_to(tmp_path / "good" / "current")
    directories = ["good", "fifo", "link", "linked", "empty"]
    tasks = found(ROLES / "hadoop" / "tasks" / "check.yml", "Query the storage directories and what is installed")
    seen = "{{ __hadoop_node_info.storage | map(attribute='cluster_id') }}"
    tasks.append({"ansible.builtin.assert": {"that": "__seen == ['own', '', '', '', '']", "fail_msg": "{{ __seen }}"}, "vars": {"__seen": seen}})
    variables = {"__hadoop_dirs": [str(tmp_path / name) for name in directories]}
    done = run_tasks(tasks, {**variables, **dict.fromkeys(("__hadoop_java", "__hadoop_marker", "__hadoop_formatted"), "/none")})
    assert done.returncode == 0, done.stdout + done.stderr
