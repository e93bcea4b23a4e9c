# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The units of TensorFlow's tasks load NVIDIA's driver as root, with a simulated nvidia-modprobe."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import yaml

ROLES = Path(__file__).parents[2] / "roles"


def load_command() -> str:
    return yaml.safe_load((ROLES / "tensorflow" / "vars" / "main.yml").read_text())["__tensorflow_load_driver"]


def test_the_driver_is_loaded(tmp_path):
    gpus = tmp_path / "gpus"
    for name in ("0000:01:00.0", "0000:02:00.0"):
        (gpus / name).mkdir(parents=True)
    command = shlex.split(load_command().replace("/proc/driver/nvidia/gpus", str(gpus)).replace("$$", "$"))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    # Without the tool there is nothing to load.
    subprocess.run(command, env={"PATH": str(tmp_path)}, check=True)
    tool = tmp_path / "nvidia-modprobe"
    tool.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/arguments\n')
    tool.chmod(0o755)
    subprocess.run(command, env=environment, check=True)
    assert (tmp_path / "arguments").read_text().splitlines() == ["-u -c 0", "-u -c 0", "-u -c 1"]


def test_the_units_run_it_as_root_before_the_task():
    server = (ROLES / "tensorflow" / "templates" / "server.service.j2").read_text().splitlines()
    assert "ExecStartPre=-+{{ __tensorflow_load_driver }}" in server
    tasks = yaml.safe_load((ROLES / "tensorflow" / "tasks" / "train.yml").read_text())
    service = next(task["vars"]["node_job_service"] for task in tasks if "node_job_service" in task.get("vars", {}))
    assert service["ExecStartPre"] == "-+{{ __tensorflow_load_driver }}"
