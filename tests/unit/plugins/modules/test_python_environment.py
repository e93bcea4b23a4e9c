# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environments are real, and what pip installs into them is a file each."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from ansible_collections.deeptrain.cluster.plugins.modules import python_environment

# Stands in for the interpreter: as `-m venv DIRECTORY`, and in the environment as `-m pip install …` with the requirements in its input.
PYTHON = """#!/bin/sh
if [ "$2" = venv ]; then
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
elif [ "$2" = pip ]; then
    echo "$@" >>"$(dirname "$0")/../arguments"
    cat "/dev/stdin" | tr ' ' '\\n' >"$0.words"
    while read -r word; do
        case $word in
            *broken*) echo "ERROR: No matching distribution found for $word" >&2; exit 1 ;;
            *==*) echo >"$(dirname "$0")/../$word" ;;
        esac
    done <"$0.words"
else
    exec {python} "$@"
fi
"""


@pytest.fixture
def home(tmp_path):
    """Return the directory of the link, with an interpreter in it."""
    python = tmp_path / "python"
    python.write_text(PYTHON.replace("{python}", sys.executable))
    python.chmod(0o755)
    return tmp_path


@pytest.fixture
def install(run_module, home):
    """Return a function that runs the module."""

    def run(*requirements, **arguments):
        arguments = {"path": f"{home}/venv", "python": f"{home}/python", "requirements": list(requirements), **arguments}
        return run_module(python_environment, **arguments)

    return run


@pytest.fixture
def running():
    """Return a function that starts a process whose first argument is given."""
    processes = []

    def start(program):
        process = subprocess.Popen([str(program), "300"], executable="/bin/sleep")
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def target(home):
    """Return what the link refers to."""
    assert os.path.islink(home / "venv")
    return os.path.realpath(home / "venv")


def test_requirements_are_installed_once(install, home):
    first = install("a==1", "b==1")
    assert first["changed"] and target(home) == first["environment"]
    assert os.path.exists(f"{home}/venv/a==1")
    second = install("b==1", "a==1")
    assert not second["changed"] and second["environment"] == first["environment"]


def test_check_mode_changes_nothing(install, home):
    before = install("a==1")
    after = install("a==2", check_mode=True)
    assert after["changed"] and target(home) == before["environment"] != after["environment"]
    assert not os.path.exists(after["environment"])
    assert not install("a==1", check_mode=True)["changed"]


def test_check_mode_on_a_fresh_node(install, home):
    assert install("a==1", check_mode=True)["changed"]
    assert sorted(os.listdir(home)) == ["python"]


def test_a_running_process_keeps_its_environment(install, home, running):
    first = install("a==1")["environment"]
    process = running(f"{first}/bin/program")
    second = install("a==2")
    assert target(home) == second["environment"] != first and second["removed"] == []
    assert os.path.exists(f"{first}/a==1")
    process.kill()
    process.wait()
    third = install("a==2")
    assert third["removed"] == [first] and not third["changed"] and not os.path.exists(first)


def test_a_complete_environment_is_used_again(install, running):
    first = install("a==1")["environment"]
    running(f"{first}/bin/program")
    install("a==2")
    open(f"{first}/seen", "w").close()
    assert install("a==1")["changed"] and os.path.exists(f"{first}/seen")


def test_others_are_kept_on_request(install):
    install("deeptrain==1", "tensorflow-cpu[x]==2", "extra==1")
    kept = install("DeepTrain==2", keep_others=True)
    assert kept["requirements"] == ["DeepTrain==2", "extra==1", "tensorflow-cpu[x]==2"]
    assert not install("DeepTrain==2", keep_others=True)["changed"]
    assert install("DeepTrain==2")["requirements"] == ["DeepTrain==2"]


def test_a_failed_installation_leaves_the_current_environment(install, home):
    first = install("a==1")["environment"]
    failed = install("broken==1")
    assert failed["failed"] and "cannot install broken==1" in failed["msg"] and "No matching distribution" in failed["msg"]
    assert target(home) == first
    assert [name for name in os.listdir(home / "environments") if not name.startswith(".")] == [os.path.basename(first)]


@pytest.mark.parametrize("secret", ["https://not-to-be-seen@git.example.org/a.git", "https://git.example.org/a?token=not-to-be-seen"])
def test_credentials_of_a_requirement_stay_with_root(install, home, monkeypatch, secret):
    logged = []
    monkeypatch.setattr("ansible.module_utils.basic.AnsibleModule._log_to_syslog", lambda module, message: logged.append(message))
    monkeypatch.setattr("ansible.module_utils.basic.has_journal", False)
    requirement = f"a @ git+{secret}"
    done = install(requirement)
    marker = home / "venv" / "environment.json"
    assert stat.S_IMODE(marker.stat().st_mode) == 0o600 and json.loads(marker.read_text())["requirements"] == [requirement]
    failed = install(f"{requirement}-broken")
    assert failed["failed"] and "cannot install a @ git+https://" in failed["msg"]
    assert logged and "not-to-be-seen" not in json.dumps([done, failed, logged])
    assert "not-to-be-seen" not in (home / "venv" / "arguments").read_text()
    # Those of the current environment too.
    assert install("b==1", keep_others=True)["requirements"] == [done["requirements"][0], "b==1"]
    assert not install("b==1", requirement)["changed"]


def test_an_interrupted_installation_is_repeated(install, home):
    first = install("a==1")["environment"]
    os.unlink(home / "venv")
    os.unlink(f"{first}/environment.json")
    open(f"{first}/half", "w").close()
    assert install("a==1")["changed"] and target(home) == first and not os.path.exists(f"{first}/half")


def test_a_plain_directory_is_replaced_once_unused(install, home, running):
    (home / "venv/bin").mkdir(parents=True)
    process = running(home / "venv/bin/deeptrain")
    refused = install("a==1")
    assert refused["failed"] and str(process.pid) in refused["msg"] and "stop.yml" in refused["msg"]
    assert (home / "venv/bin").is_dir() and not os.path.islink(home / "venv")
    process.kill()
    process.wait()
    done = install("a==1")
    assert done["changed"] and target(home) == done["environment"]
    assert len(done["removed"]) == 1 and sorted(os.listdir(home / "environments")) == [".lock", os.path.basename(done["environment"])]


@pytest.mark.parametrize(("python", "message"), [("/missing/python", "cannot run the interpreter /missing/python"), ("echo", "is not a Python")])
def test_a_wrong_interpreter_is_named(install, python, message):
    assert message in install("a==1", python=python)["msg"]
