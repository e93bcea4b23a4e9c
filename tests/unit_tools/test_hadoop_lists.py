# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tasks of role hadoop that have the NameNode read its lists of DataNodes, run here with a simulated command hdfs."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

ROLE = Path(__file__).parents[2] / "roles" / "hadoop"
START = ("Compare the lists of DataNodes with those that the NameNode has read", "Admit the DataNodes of the inventory")
DECOMMISSION = ("Remove the DataNodes from the lists", "Write the lists of DataNodes", "Remove the DataNodes from HDFS")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="runuser needs root")


@pytest.fixture
def refreshed(run_tasks, tmp_path):
    """Return a function that writes the lists and runs tasks, and returns whether these succeeded and how often the lists were read."""
    hdfs, calls = tmp_path / "hdfs", tmp_path / "refreshed"
    hdfs.write_text(f"#!/bin/sh\necho >>{calls}\n[ ! -e {tmp_path}/broken ]\n")
    hdfs.chmod(0o755)
    for name in ("conf", "run"):
        (tmp_path / name).mkdir()
    for name in ("hosts.yml", "refresh.yml", "start.yml", "decommission.yml"):
        (tmp_path / name).write_text((ROLE / "tasks" / name).read_text().replace("/usr/local/bin/hdfs", str(hdfs)))
    shutil.copytree(ROLE / "templates", tmp_path / "templates")
    variables = {
        name: value
        for name, value in yaml.safe_load((ROLE / "vars" / "main" / "host.yml").read_text()).items()
        if name in ("__hadoop_lists", "__hadoop_can_start")
    }

    def run(*datanodes: str, leaving: tuple = (), file: str = "start.yml", names: tuple = START) -> tuple[bool, int]:
        topology = {"datanodes": list(datanodes), "hosts": {host: {"address": host} for host in datanodes}}
        tasks = [{"ansible.builtin.include_tasks": "hosts.yml"}]
        tasks += [task for task in yaml.safe_load((tmp_path / file).read_text()) if task["name"] in names]
        assert len(tasks) == len(names) + 1
        done = run_tasks(
            tasks,
            {
                **variables,
                "deeptrain_topology": topology,
                "__hadoop_decommissioning": list(leaving),
                "deeptrain_namenode": {"address": "10.0.0.1", "port": 8020},
                "__hadoop_daemons": ["namenode"],
                "__hadoop_conf": str(tmp_path / "conf"),
                "__hadoop_read_dir": str(tmp_path / "run"),
                "hadoop_user": "root",
            },
        )
        number = len(calls.read_text().splitlines()) if calls.exists() else 0
        calls.unlink(missing_ok=True)
        return done.returncode == 0, number

    return run


@pytest.mark.parametrize(("file", "names"), [("start.yml", START), ("decommission.yml", DECOMMISSION)])
def test_a_refresh_that_failed_is_repeated(refreshed, tmp_path, file, names):
    (tmp_path / "broken").touch()
    assert refreshed("10.0.0.1", "10.0.0.3", leaving=("10.0.0.2",), file=file, names=names) == (False, 1)
    (tmp_path / "broken").unlink()
    assert refreshed("10.0.0.1", "10.0.0.3") == (True, 1)
    assert refreshed("10.0.0.1", "10.0.0.3") == (True, 0)


def test_a_namenode_that_was_started_has_read_the_lists(refreshed, tmp_path):
    """Its unit copies them, and its directory is removed when it stops."""
    assert refreshed("10.0.0.1", "10.0.0.2", names=()) == (True, 0)
    for name in ("dfs.hosts", "dfs.hosts.exclude"):
        shutil.copy(tmp_path / "conf" / name, tmp_path / "run")
    assert refreshed("10.0.0.1", "10.0.0.2") == (True, 0)


def test_what_the_daemons_user_left_stops_nothing(refreshed, tmp_path):
    os.mkfifo(tmp_path / "run" / "dfs.hosts")
    assert refreshed("10.0.0.1") == (True, 1)
    assert (tmp_path / "run" / "dfs.hosts").is_file()
