# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bucket as program


def run(env_file: Path, name: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, program.__file__, env_file, name],
        # A proxy that nobody runs: it must not be asked.
        env={"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_made_once(s3_process, tmp_path):
    env_file = tmp_path / "s3.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in s3_process.items()))
    assert run(env_file, "once").stdout == "created\n"
    assert run(env_file, "once").stdout == "present\n"


def test_wrong_name(s3_process, tmp_path):
    env_file = tmp_path / "s3.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in s3_process.items()))
    done = run(env_file, "No_Good")
    assert done.returncode == 1 and "InvalidBucketName" in done.stderr
    assert s3_process["AWS_SECRET_ACCESS_KEY"] not in done.stderr
