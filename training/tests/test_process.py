# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running program keeps its virtual environment while the link to it is switched."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from deeptrain.process import resolved

PROGRAM = """
import os, sys
link, other, done = sys.argv[1:]
os.unlink(link)
os.symlink(other, link)
import late
open(done, "w").write(late.__file__)
"""


@pytest.fixture
def environments(tmp_path: Path) -> list[Path]:
    made = [tmp_path / name for name in ("first", "second")]
    for directory in made:
        venv.create(directory, symlinks=True)
        [packages] = directory.glob("lib/python*/site-packages")
        (packages / "late.py").write_text("")
    (tmp_path / "link").symlink_to(made[0])
    return made


def test_a_server_imports_from_the_environment_that_it_was_started_with(environments, tmp_path):
    command = [f"{tmp_path}/link/bin/python", "-c", PROGRAM, f"{tmp_path}/link", f"{environments[1]}", f"{tmp_path}/done"]
    program = "import json, sys; from deeptrain.serve import serve; sys.exit(serve(json.loads(sys.argv[1]), {}, ('127.0.0.1', 1)))"
    # In a process of its own, since serve() sets signal handlers.
    subprocess.run([sys.executable, "-c", program, json.dumps(command)], check=True)
    assert (tmp_path / "done").read_text().startswith(f"{environments[0]}/")


def test_only_the_directory_of_an_environment_is_resolved(environments, tmp_path):
    assert resolved([f"{tmp_path}/link/bin/python", "-m", "x"]) == [f"{environments[0]}/bin/python", "-m", "x"]
    (tmp_path / "tools").symlink_to("/bin")
    for command in (["python", "x.py"], [f"{tmp_path}/tools/sh", "-c", "true"], ["./link/bin/python"], [f"{tmp_path}/missing/x"]):
        assert resolved(command) == command
