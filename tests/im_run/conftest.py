# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes on which the real Infrastructure Manager has run the job, from RADL alone.

The tests of the pushed cluster, in tests/verify, look at what they find here too.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
sys.path.append(str(PROJECT / "tests/verify"))

from cluster import Cluster  # noqa: E402
from infrastructure_manager import Infrastructure, InfrastructureManager  # noqa: E402

HERE = Path(__file__).resolve().parent
STATE = PROJECT / ".cache/im-run"
NODES = [sys.executable, PROJECT / "demo/nodes.py"]
NAME = "--cluster=dtimrun"
HADOOP = Path(os.environ["DEEPTRAIN_TEST_HDFS_ARCHIVE"])
SECONDS = 1500


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
        for playbook in ("extensions/molecule/default/prepare.yml", "tests/im_run/ansible_host.yml"):
            subprocess.run(
                ["ansible-playbook", playbook, f"--inventory={inventory}", "--extra-vars=@tests/verify/vars.yml"],
                cwd=PROJECT, env=environment, check=True,
            )  # fmt: skip
        yield Cluster(STATE)
    finally:
        down()


@pytest.fixture(scope="session")
def infrastructure(nodes) -> Iterator[Infrastructure]:
    """The nodes as the Infrastructure Manager has them, which has been given the job and has done what it could."""
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
                im_cluster_mode="existing_hosts",
                im_cluster_file=str(STATE / "job.radl"),
                im_cluster_node={"user": nodes.document["all"]["vars"]["ansible_user"]},
                im_cluster_private_key=Path(nodes.document["all"]["vars"]["ansible_ssh_private_key_file"]).read_text(),
                im_cluster_collection=f"{url}/{archive.name}",
                im_cluster_embed_credentials=True,
                **{f"im_cluster_{group}": {"addresses": found} for group, found in addresses.items()},
                hadoop_archive=f"{url}/{HADOOP.name}",
                hadoop_archive_checksum=f"sha256:{Path(f'{HADOOP}.sha256').read_text().split()[0]}",
                deeptrain_autostop_hours=6,
            ).succeeded()
            im.start()
            began = time.monotonic()
            infrastructure = im.create((STATE / "job-1.radl").read_bytes())
            for number in range(2, sum(map(len, addresses.values())) + 1):
                infrastructure.ask("POST", "?context=false", (STATE / f"job-{number}.radl").read_bytes())
            infrastructure.ask("PUT", "/reconfigure", (STATE / "job-start.radl").read_bytes())
            while infrastructure.state() in ("pending", "running") and time.monotonic() < began + SECONDS:
                time.sleep(2)
            print(f"{infrastructure.state()} {time.monotonic() - began:.0f} s after the first document was sent")
        yield infrastructure
    finally:
        im.kill(signal.SIGTERM)


@pytest.fixture(scope="session")
def cluster(nodes, infrastructure) -> Cluster:
    """The nodes when the Infrastructure Manager has done its work, for the tests that a pushed cluster passes too."""
    return nodes
