# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real Infrastructure Manager, spoken to as the documentation has users do it: with nothing but HTTP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
# Seconds: more than a slow machine needs that does other work.
LIMIT = 600
PASSWORD = "of-the-manager-9c1f07"
CREDENTIALS = [
    {"type": "InfrastructureManager", "username": "tester", "password": PASSWORD},
    {"id": "hosts", "type": "DeployedNode"},
    {"id": "dummy", "type": "Dummy"},
]


def free_port(address: str = "127.0.0.1") -> int:
    with socket.create_server((address, 0)) as free:
        return free.getsockname()[1]


class InfrastructureManager:
    """Keeps what it knows in a directory, and so knows it again when it is started again."""

    def __init__(self, directory: Path, address: str = "127.0.0.1", program: str = "tools/im_server/serve.py", **environment: str):
        self.directory, self.address, self.program, self.environment = directory, address, program, environment
        self.port = free_port(address)
        self.url = f"http://{address}:{self.port}"
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [PROJECT / ".cache/venv-im/bin/python", PROJECT / self.program, self.directory, "--quick"]
        listen = ["--address", self.address, "--port", str(self.port)]
        environment = {**os.environ, **self.environment}
        self._process = subprocess.Popen([*command, *listen], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + LIMIT
        while not self.answers():
            assert self._process.poll() is None, f"the Infrastructure Manager ended with {self._process.returncode}"
            assert time.monotonic() < end, "the Infrastructure Manager does not answer"
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            with self._opener.open(f"{self.url}/version", timeout=10):
                return True
        except OSError:
            return False

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(LIMIT)
            self._process = None

    def ask(self, method: str, path: str, body: bytes | None = None) -> dict | str:
        lines = ["; ".join(f"{name} = {value}" for name, value in entry.items()) for entry in CREDENTIALS]
        headers = {"Authorization": r"\n".join(lines), "Accept": "application/json", "Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.url}{path}", body, headers, method=method)
        with self._opener.open(request, timeout=LIMIT) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith("{") else text

    def create(self, radl: bytes) -> Infrastructure:
        return Infrastructure(self, self.ask("POST", "/infrastructures", radl)["uri"].rpartition("/")[2])

    def infrastructures(self) -> list[str]:
        return [item["uri"].rpartition("/")[2] for item in self.ask("GET", "/infrastructures")["uri-list"]]


class Infrastructure:
    """One of its infrastructures."""

    def __init__(self, im: InfrastructureManager, name: str):
        self.im = im
        self.id = name

    def ask(self, method: str, path: str = "", body: bytes | None = None) -> dict | str:
        return self.im.ask(method, f"/infrastructures/{self.id}{path}", body)

    def state(self) -> str:
        return self.ask("GET", "/state")["state"]["state"]

    def words(self) -> str:
        """All that is said of its machines."""
        machines = [item["uri"].rpartition("/")[2] for item in self.ask("GET")["uri-list"]]
        return "\n".join(self.ask("GET", path)["contmsg"] for path in ["/contmsg", *(f"/vms/{machine}/contmsg" for machine in machines)])
