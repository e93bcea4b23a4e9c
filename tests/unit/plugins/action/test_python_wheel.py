# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import re
from types import SimpleNamespace

import pytest
from ansible import constants
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader
from ansible_collections.deeptrain.cluster.plugins.action.python_wheel import (
    ActionModule,
)


class Copy:
    """Stands for ansible.builtin.copy; notes its arguments and that the wheel was there."""

    def __init__(self, result):
        self.result = result
        self.arguments = None
        self.size = None

    def get(self, name, task, **dummy):
        assert name == "ansible.legacy.copy"
        self.arguments = task.args
        return self

    def run(self, task_vars):
        self.size = os.path.getsize(self.arguments["src"])
        return self.result


@pytest.fixture
def project(tmp_path):
    """Return the directory of a project."""
    (tmp_path / "src" / "thing").mkdir(parents=True)
    (tmp_path / "src" / "thing" / "__init__.py").write_text("")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "thing"\nversion = "1.2"\n')
    return tmp_path


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that runs the action plugin with a copy action of ours."""
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path))

    def call(copy, **arguments):
        task = Task()
        task.args = arguments
        connection = SimpleNamespace(become=None, _shell=SimpleNamespace(tmpdir=None))
        monkeypatch.setattr(loader.action_loader, "get", copy.get)
        return ActionModule(task, connection, PlayContext(), DataLoader(), None, loader).run(task_vars={})

    return call


@pytest.mark.parametrize("changed", [True, False])
def test_the_wheel_is_copied_under_its_name(run, project, changed):
    before = sorted(os.listdir(project))
    copy = Copy({"changed": changed, "diff": ["binary"], "checksum": "0"})
    result = run(copy, src=str(project), dest="/wheels")
    assert re.fullmatch(r"1\.2\+[0-9a-f]{8}", result["version"])
    filename = f"thing-{result['version']}-py3-none-any.whl"
    assert result == {
        "changed": changed,
        "diff": ["binary"],
        "name": "thing",
        "version": result["version"],
        "filename": filename,
        "path": f"/wheels/{filename}",
        "requirement": f"thing=={result['version']}",
    }
    assert os.path.basename(copy.arguments["src"]) == filename
    assert copy.arguments["dest"] == f"/wheels/{filename}"
    assert copy.arguments["mode"] == "0644"
    assert copy.size > 0
    assert sorted(os.listdir(project)) == before


def test_a_failed_copy_is_a_failure(run, project):
    result = run(Copy({"failed": True, "msg": "no such directory"}), src=str(project), dest="/wheels")
    assert result["failed"] is True
    assert result["msg"] == "no such directory"


def test_sources_that_make_no_wheel(run, project):
    (project / "pyproject.toml").unlink()
    with pytest.raises(AnsibleError, match="pyproject.toml"):
        run(Copy({}), src=str(project), dest="/wheels")


def test_arguments_are_required(run, project):
    with pytest.raises(AnsibleError, match="dest"):
        run(Copy({}), src=str(project))
