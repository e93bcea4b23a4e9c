# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machines end when their lease expires, and the model is in S3 all the same. Runs last, since it takes the nodes down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import secrets_on_nodes
from cluster import PROJECT
from infrastructure_manager import CREDENTIALS, PASSWORD, InfrastructureManager
from test_model import HERE, elsewhere

# More than can be done while the test lasts.
JOB = {"deeptrain_run": "ended", "deeptrain_training_options": {"train_steps": 100000, "train_batch_size": 32, "checkpoint_steps": 50}}
STEP = r"train \w+: [1-9][0-9]*/[0-9]+ steps"
# Long enough for a busy machine to go from one renewal to the next.
HOURS = 0.05
# Other tests' runs that were never exported would keep the machines.
FORGET = """cd /
hdfs() { runuser --user hdfs -- hdfs "$@" </dev/null; }
hdfs dfsadmin -safemode wait
hdfs dfs -ls -C /user/deeptrain/runs | grep --invert-match '/ended$' | xargs --no-run-if-empty runuser --user hdfs -- hdfs dfs -rm -r -f -skipTrash
find /var/lib/deeptrain/runs -mindepth 1 -maxdepth 1 ! -name ended -exec rm --recursive {} +
"""
# The timer of version 0.1.0, armed.
FORMER = """cd /etc/systemd/system
printf '[Timer]\\nOnBootSec=9000000\\n[Install]\\nWantedBy=timers.target\\n' >deeptrain-deadline.timer
printf '[Service]\\nExecStart=/bin/false\\n' >deeptrain-deadline.service
printf '[Service]\\nExecStart=/bin/sleep 1000000\\n' >deeptrain-deadline-end.service
systemctl daemon-reload
systemctl enable --now deeptrain-deadline.timer
systemctl start deeptrain-deadline-end.service
"""
RADL = b"""
description machines ()
network net ()
system node ( net_interface.0.connection = 'net' and disk.0.os.name = 'linux' and disk.0.image.url = 'mock0://linux.for.ev.er/image1' and
disk.0.os.credentials.username = 'user' and disk.0.os.credentials.password = 'word' )
contextualize ()
deploy node 1 dummy
"""


@pytest.fixture(scope="module")
def im(cluster, tmp_path_factory) -> Iterator[InfrastructureManager]:
    """An Infrastructure Manager that the nodes reach."""
    made = InfrastructureManager(tmp_path_factory.mktemp("im"), cluster.sh(cluster.chief, "ip route show default").split()[2])
    made.start()
    yield made
    made.kill()


def autostop(im: InfrastructureManager, infrastructure: str, hours: float, grace: int) -> dict:
    return {
        "deeptrain_autostop_hours": hours,
        "autostop_interval_seconds": 10,
        "autostop_grace_seconds": grace,
        "autostop_im_url": im.url,
        "autostop_im_infrastructure_id": infrastructure,
        "autostop_im_credentials": CREDENTIALS,
    }


def nodes_tool(cluster, *arguments: str) -> str:
    command = [sys.executable, PROJECT / "demo/nodes.py", *arguments, f"--cluster={os.environ['MOLECULE_CLUSTER']}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def running(cluster) -> set[str]:
    """The nodes of the topology that are on."""
    return {node["name"] for node in json.loads(nodes_tool(cluster, "list", "--json")) if node["state"] == "running"} & set(cluster.nodes)


def wait_until_off(cluster) -> float:
    """Seconds until no node is on."""
    began = time.monotonic()
    cluster.wait_until("all nodes are off", lambda: not running(cluster), pause=5)
    return time.monotonic() - began


def expiry(cluster) -> float:
    return float(cluster.sh(cluster.chief, "cut -d' ' -f1 /var/lib/deeptrain/autostop/lease"))


def test_model_is_in_s3_and_no_node_alive_without_controller_and_manager(cluster, im):
    infrastructure = im.create(RADL)
    cluster.play("autostop", **autostop(im, infrastructure.id, HOURS, 300)).succeeded()
    for node in cluster.nodes:
        assert secrets_on_nodes.find(cluster, node, PASSWORD) == []
    controller = cluster.start("train", **JOB)
    try:
        controller.wait_for(STEP, 2, "stderr")
        first = expiry(cluster)
        cluster.wait_until("who waits for the training renews the lease", lambda: expiry(cluster) > first)
    finally:
        controller.kill()
        im.kill()
    assert running(cluster) == set(cluster.nodes)
    print(f"all nodes are off {wait_until_off(cluster):.0f} s after the last renewal, the lease being {HOURS * 3600:.0f} s")

    manifest = json.loads(cluster.get("models/ended/manifest.json"))
    assert manifest["complete"] is False
    assert any(entry["path"].startswith("checkpoint/ckpt-") for entry in manifest["files"])
    assert elsewhere(cluster, HERE / "predict.py", manifest["model_uri"])["shape"] == [3, 10]
    im.start()
    assert im.infrastructures() == [infrastructure.id]


def up(cluster) -> None:
    groups = [f"--group={group}={len(hosts)}" for group, hosts in cluster.groups.items()]
    nodes_tool(cluster, "up", f"--inventory={cluster.inventory}", *groups)


def test_a_node_on_which_all_else_fails_ends(cluster):
    up(cluster)
    node = cluster.groups["worker"][-1]
    nothing = {"deeptrain_home": "/opt/none", "node_python": "/opt/none/python"}
    run = cluster.play("autostop", "--limit", node, deeptrain_autostop_hours=0.005, autostop_interval_seconds=5, autostop_grace_seconds=60, **nothing)
    assert run.status != 0
    cluster.wait_until("the node is off", lambda: node not in running(cluster), pause=5)
    assert running(cluster) == set(cluster.nodes) - {node}


def test_autostop_without_hours_keeps_the_lease(cluster):
    up(cluster)
    # Its lease of the test before is over, and a busy machine may not renew it within the grace.
    cluster.sh(cluster.groups["worker"][-1], "systemctl disable --now deeptrain-autostop.timer")
    cluster.sh(cluster.chief, FORMER)
    refused = cluster.play("autostop")
    assert refused.status != 0 and "set deeptrain_autostop_hours, to 0 for no autostop" in refused.text()
    refused = cluster.play("host.yml", "--limit", cluster.chief, verify_role="node", verify_entry="main")
    assert refused.status != 0 and "run autostop.yml with deeptrain_autostop_hours first" in " ".join(refused.text().split())
    cluster.play("autostop", deeptrain_autostop_hours=1, autostop_interval_seconds=10).succeeded()
    assert cluster.sh(cluster.chief, "pgrep -f 'sleep 1000000' || true") == ""
    assert cluster.sh(cluster.chief, "systemctl is-active deeptrain-deadline.timer || ls /etc/systemd/system | grep deadline || true").strip() == "inactive"
    # Renewed by each controller that waits, armed by the role alone: the maximum counts from then.
    renewed = "cd /var/lib/deeptrain/autostop; stat --format=%Y armed renewed"
    before = list(map(int, cluster.sh(cluster.chief, renewed).split()))
    cluster.play("autostop").succeeded()
    assert cluster.sh(cluster.chief, "systemctl is-active deeptrain-autostop.timer").strip() == "active"
    after = list(map(int, cluster.sh(cluster.chief, renewed).split()))
    assert after[0] > before[0] and after[1] > before[1]
    # The job's user can write nothing there.
    assert cluster.sh(cluster.chief, "stat --format=%U /var/lib/deeptrain/autostop /var/lib/deeptrain/autostop/*").split() == ["root"] * 5
    cluster.play("autostop", deeptrain_autostop_hours=0).succeeded()
    assert cluster.sh(cluster.chief, "systemctl is-active deeptrain-autostop.timer || true").strip() == "inactive"


def test_manager_destroys_the_machines(cluster, im):
    (infrastructure,) = im.infrastructures()
    other = im.create(RADL.replace(b"machines", b"others"))
    refused = cluster.play("autostop", **autostop(im, "another", 1, 60))
    assert refused.status != 0
    assert "has no infrastructure another" in refused.text()
    assert secrets_on_nodes.find(cluster, cluster.chief, PASSWORD) == []
    cluster.sh(cluster.chief, FORGET)
    cluster.play("autostop", **autostop(im, infrastructure, HOURS / 5, 60)).succeeded()
    cluster.wait_until("the Infrastructure Manager has destroyed them", lambda: infrastructure not in im.infrastructures())
    assert im.infrastructures() == [other.id]
    # These are none that it could take away.
    print(f"all nodes are off {wait_until_off(cluster):.0f} s after they were destroyed")
