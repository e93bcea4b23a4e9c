# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real Infrastructure Manager with its Dummy cloud, and the modules as Ansible runs them on a node."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
sys.path += [str(PROJECT / "tests" / directory) for directory in ("verify", "unit/plugins")]

import im_server  # noqa: E402
from infrastructure_manager import LIMIT, InfrastructureManager  # noqa: E402

SECRET = "planted-0123456789"
AUTH = [{"type": "InfrastructureManager", "username": "tester", "password": SECRET}, {"id": "dummy", "type": "Dummy"}]
# How soon the Dummy cloud has begun with its VMs.
BEGIN_SECONDS = 3
IMPATIENT = """
from ansible_collections.deeptrain.cluster.plugins.module_utils import _im as im
from ansible_collections.deeptrain.cluster.plugins.module_utils import _im_module as im_module
from ansible_collections.deeptrain.cluster.plugins.modules import {module}

im.Im.agree_seconds = im_module.BEGIN_SECONDS = {seconds}
{module}.main()
"""


class Modules:
    """Runs modules against the server."""

    def __init__(self, server: InfrastructureManager, auth: list[dict] | None = None, seconds: float = BEGIN_SECONDS):
        self.server, self.auth, self.seconds = server, auth or AUTH, seconds

    def start(self, module: str, check: bool = False, **arguments) -> subprocess.Popen:
        given = {"url": self.server.url, "auth": self.auth, "timeout": LIMIT, "poll": 0.2, "wait_timeout": LIMIT, "_ansible_check_mode": check, **arguments}
        if module.endswith("_info"):
            del given["poll"], given["wait_timeout"]
        process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT.format(module=module, seconds=self.seconds)],
            env={**os.environ, "PYTHONPATH": str(PROJECT / ".cache"), "no_proxy": "127.0.0.1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": given}))
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, module: str, check: bool = False, **arguments) -> dict:
        """Return what a module returns; nothing of it may hold the secret."""
        output, errors = self.start(module, check, **arguments).communicate(timeout=2 * LIMIT)
        assert SECRET not in output + errors
        assert output, errors
        return json.loads(output)

    def done(self, module: str, check: bool = False, **arguments) -> dict:
        result = self.run(module, check, **arguments)
        assert not result.get("failed"), result["msg"]
        return result

    def all(self) -> dict[str, str]:
        """Names of all infrastructures by their ids."""
        found = self.done("im_infrastructure_info")["infrastructures"]
        return {item["infrastructure_id"]: item["name"] for item in found}


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> InfrastructureManager:
    made = InfrastructureManager(tmp_path_factory.mktemp("im"))
    made.start()
    yield made
    made.kill(signal.SIGTERM)


@pytest.fixture
def modules(server) -> Modules:
    """Modules on a server that has no infrastructure, before and after."""
    made = Modules(server)
    assert made.all() == {}
    yield made
    for infrastructure in made.all():
        made.done("im_infrastructure", state="absent", infrastructure_id=infrastructure)
    assert made.all() == {}


@pytest.fixture
def serving():
    """Return a context manager within which an HTTP server answers."""
    return im_server.serving


@pytest.fixture
def radl():
    """Return a function that gives a RADL of so many workers."""

    def text(workers: int, name: str = "cluster", context: str = "contextualize ()", network: str = "") -> str:
        system = (
            "system {} ( net_interface.0.connection = 'private' and net_interface.0.dns_name = '{}-#N#' and "
            "disk.0.os.name = 'linux' and disk.0.image.url = 'one://cloud/1' and disk.0.os.credentials.username = 'user' and "
            "disk.0.os.credentials.password = 'word' )\n"
        )
        return (
            f"description {name} ()\nnetwork private ({network})\n{system.format('chief', 'chief')}{system.format('worker', 'worker')}{context}\n"
            f"deploy chief 1\ndeploy worker {workers}\n"
        )

    return text
