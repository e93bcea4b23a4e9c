# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes on which the real Infrastructure Manager has run the job, from RADL alone.

The tests of the pushed cluster, in tests/verify, look at what they find here too.
"""

from __future__ import annotations

import functools
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
sys.path.append(str(PROJECT / "tests/verify"))

from cluster import Cluster  # noqa: E402

HERE = Path(__file__).resolve().parent
STATE = PROJECT / ".cache/im-run"
NODES = [sys.executable, PROJECT / "demo/nodes.py"]
NAME = "--cluster=dtimrun"
HADOOP = Path(os.environ["DEEPTRAIN_TEST_HDFS_ARCHIVE"])
PASSWORD = "planted-0123456789"
AUTHORIZATION = rf"type = InfrastructureManager; username = tester; password = {PASSWORD}\nid = hosts; type = DeployedNode"
SECONDS = 1500


class InfrastructureManager:
    """As the documentation has users speak to it, with nothing but HTTP."""

    def __init__(self, directory: Path):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        python = PROJECT / ".cache/venv-im/bin/python"
        command = [python, PROJECT / "tools/im_server/serve.py", directory, "--port", str(self.port), "--quick"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.infrastructure = ""

    def ask(self, method: str, path: str, body: bytes | None = None) -> dict | str:
        headers = {"Authorization": AUTHORIZATION, "Accept": "application/json", "Content-Type": "text/plain"}
        request = urllib.request.Request(f"{self.url}{path}", body, headers, method=method)
        with self._opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def wait_until_it_answers(self) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                self.ask("GET", "/infrastructures")
                return
            except OSError:
                assert self._process.poll() is None and time.monotonic() < end, "the Infrastructure Manager does not answer"
                time.sleep(0.2)

    def create(self, radl: Path) -> None:
        self.infrastructure = self.ask("POST", "/infrastructures", radl.read_bytes())["uri"].rpartition("/")[2]

    def of(self, method: str, path: str, radl: Path | None = None) -> dict | str:
        return self.ask(method, f"/infrastructures/{self.infrastructure}{path}", radl and radl.read_bytes())

    def state(self) -> str:
        return self.of("GET", "/state")["state"]["state"]

    def words(self) -> str:
        """All that it says of the machines."""
        machines = [item["uri"].rpartition("/")[2] for item in self.of("GET", "")["uri-list"]]
        return "\n".join(self.of("GET", path)["contmsg"] for path in ["/contmsg", *(f"/vms/{machine}/contmsg" for machine in machines)])

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)


@contextmanager
def web(directory: Path, address: str) -> Iterator[str]:
    """The URL of a web server for a directory."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=directory)
    with http.server.ThreadingHTTPServer((address, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{address}:{server.server_port}"
        server.shutdown()


def down() -> None:
    subprocess.run([*NODES, "down", NAME], check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(STATE, ignore_errors=True)


@pytest.fixture(scope="session")
def nodes() -> Iterator[Cluster]:
    """Nodes with an S3 server and data in it, and nothing else."""
    os.environ.update(MOLECULE_STATE=str(STATE), MOLECULE_PROJECT_DIRECTORY=str(PROJECT), MOLECULE_HADOOP=str(HADOOP))
    # What an earlier run has left.
    down()
    try:
        STATE.mkdir(mode=0o700, parents=True)
        inventory = STATE / "hosts.yml"
        groups = ["ps=1", "chief=1", "worker=2", "s3=1"]
        subprocess.run([*NODES, "up", NAME, f"--inventory={inventory}", *(f"--group={group}" for group in groups)], check=True)
        environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "tests/verify/ansible.cfg")}
        for playbook in ("extensions/molecule/site/prepare.yml", "tests/im_run/ansible_host.yml"):
            subprocess.run(
                ["ansible-playbook", playbook, f"--inventory={inventory}", "--extra-vars=@tests/verify/vars.yml"],
                cwd=PROJECT, env=environment, check=True,
            )  # fmt: skip
        yield Cluster(STATE)
    finally:
        down()


@pytest.fixture(scope="session")
def im(nodes) -> Iterator[InfrastructureManager]:
    """The Infrastructure Manager, which has been given the nodes and the job, and has done what it could."""
    gateway = nodes.sh(nodes.chief, "ip route show default").split()[2]
    (archive,) = STATE.glob("build/*.tar.gz")
    served = STATE / "web"
    served.mkdir()
    for file in (archive, HADOOP):
        (served / file.name).symlink_to(file)
    im = InfrastructureManager(STATE / "im")
    try:
        with web(served, gateway) as url:
            addresses = {group: [nodes.hosts[host]["deeptrain_address"] for host in nodes.groups[group]] for group in ("chief", "ps", "worker")}
            nodes.play(
                "radl",
                im_cluster_cloud="DeployedNode",
                im_cluster_way="im",
                im_cluster_file=str(STATE / "job.radl"),
                im_cluster_node={"user": nodes.document["all"]["vars"]["ansible_user"]},
                im_cluster_private_key=Path(nodes.document["all"]["vars"]["ansible_ssh_private_key_file"]).read_text(),
                im_cluster_collection=f"{url}/{archive.name}",
                im_cluster_carry_credentials=True,
                **{f"im_cluster_{group}": {"addresses": found} for group, found in addresses.items()},
                hadoop_archive=f"{url}/{HADOOP.name}",
                deeptrain_deadline_hours=6,
            ).succeeded()
            im.wait_until_it_answers()
            began = time.monotonic()
            im.create(STATE / "job-1.radl")
            for number in range(2, sum(map(len, addresses.values())) + 1):
                im.of("POST", "?context=false", STATE / f"job-{number}.radl")
            im.of("PUT", "/reconfigure", STATE / "job-start.radl")
            while im.state() in ("pending", "running") and time.monotonic() < began + SECONDS:
                time.sleep(2)
            print(f"{im.state()} {time.monotonic() - began:.0f} s after the first document was sent")
        yield im
    finally:
        im.end()


@pytest.fixture(scope="session")
def cluster(nodes, im) -> Cluster:
    """The nodes when the Infrastructure Manager has done its work, for the tests that a pushed cluster passes too."""
    return nodes
