# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible.plugins import loader
from ansible_collections.deeptrain.cluster.plugins.action import im_infrastructure


@pytest.fixture
def run(monkeypatch):
    """Return a function that runs the action plugin with a module of ours; it gives the result and what was shown."""

    def call(transport, module, **arguments):
        task = Task()
        task.args = arguments
        shown = []
        connection = SimpleNamespace(become=None, transport=transport, _shell=SimpleNamespace(tmpdir=None))
        monkeypatch.setattr(im_infrastructure.display, "display", lambda line, stderr: shown.append(line))
        action = im_infrastructure.ActionModule(task, connection, PlayContext(), DataLoader(), None, loader)
        monkeypatch.setattr(action, "_execute_module", lambda module_args, **dummy: module(module_args))
        return action.run(task_vars={"inventory_hostname": "host"}), shown

    return call


def test_progress_is_shown(run):
    files = []

    def module(args):
        files.append(args["progress_file"])
        with open(args["progress_file"], "a", encoding="utf-8") as file:
            file.write("one\ntwo\n")
        return {"changed": True, "args": sorted(args)}

    result, shown = run("local", module, name="cluster")
    assert result == {"changed": True, "args": ["name", "progress_file"]}
    assert shown == ["host: one", "host: two"]
    assert not os.path.exists(files[0])


def test_failure_ends_the_progress(run):
    def module(args):
        raise ValueError

    with pytest.raises(ValueError):
        run("local", module)


def test_no_file_where_it_could_not_be_read(run):
    assert run("ssh", lambda args: args, name="cluster") == ({"name": "cluster"}, [])
    assert run("local", lambda args: args, progress_file="/own") == ({"progress_file": "/own"}, [])
