# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""deploy.yml and destroy.yml against the real Infrastructure Manager."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import Im
from conftest import AUTH, PROJECT, SECRET
from infrastructure_manager import free_port

CLUSTER = {"im_cluster_cloud": "Dummy", "im_cluster_cloud_id": "dummy", "im_cluster_node": {"image": "mock0://linux.for.ev.er/image1"}}
EXISTING = {
    "im_cluster_mode": "existing_hosts",
    "im_cluster_cloud_id": "hosts",
    "im_cluster_node": {"user": "admin"},
    "im_cluster_chief": {"addresses": ["127.0.0.11"]},
    "im_cluster_ps": {"addresses": ["127.0.0.12"]},
    "im_cluster_worker": {"addresses": ["127.0.0.13", "127.0.0.14"]},
    # Nobody is there, so that the stages fail at once.
    "im_cluster_private_key": f"-----BEGIN KEY-----\n{SECRET}\n-----END KEY-----\n",
    "hadoop_archive": "https://web.example/hadoop.tar.gz",
}


class Playbook:
    """Runs playbooks with the inventory that deploy.yml fills."""

    def __init__(self, server, directory):
        self.directory = directory
        auth = "\n".join("; ".join(f"{key} = {value}" for key, value in entry.items()) for entry in [*AUTH, {"id": "hosts", "type": "DeployedNode"}])
        self.environment = {
            **os.environ, "HOME": str(directory), "IM_URL": server.url, "IM_AUTH": auth, "no_proxy": "127.0.0.1",
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
        }  # fmt: skip

    def __call__(self, name: str, *options: str, inventory: str = "inventories/im", **variables) -> tuple[int, int, str]:
        """Status, number of changes on the controller, and what was printed."""
        command = ["ansible-playbook", name, "--inventory", inventory, "--extra-vars", json.dumps(variables), "-vvv", "--diff", *options]
        done = subprocess.run(command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, check=False)
        text = done.stdout + done.stderr
        assert SECRET not in text
        changed = re.search(r"localhost +: ok=\d+ +changed=(\d+)", text)
        return done.returncode, int(changed[1]) if changed else 0, text


@pytest.fixture
def playbook(server, modules, tmp_path) -> Playbook:
    """On a server that has no infrastructure, before and after."""
    return Playbook(server, tmp_path)


def machines(modules) -> list[str]:
    found = modules.done("im_infrastructure_info", name="deeptrain")["infrastructures"]
    return [vm["system"] for item in found for vm in item["vms"]]


def test_deploy_and_destroy(playbook, modules):
    assert playbook("playbooks/deploy.yml", "--check", **CLUSTER)[0] == 0
    assert machines(modules) == []
    assert playbook("playbooks/deploy.yml", **CLUSTER)[:2] == (0, 1)
    assert machines(modules) == ["chief", "ps", "worker", "worker"]
    assert playbook("playbooks/deploy.yml", **CLUSTER)[:2] == (0, 0)
    assert playbook("playbooks/deploy.yml", im_cluster_worker_count=3, **CLUSTER)[:2] == (0, 1)
    # The number of workers is forgotten.
    status, changed, text = playbook("playbooks/deploy.yml", **CLUSTER)
    assert (status, changed) == (2, 0)
    assert "has 3 worker and not 2" in text and "im_cluster_allow_removal" in text
    assert machines(modules) == ["chief", "ps", "worker", "worker", "worker"]
    # The machines, and the directory of their keys.
    assert playbook("playbooks/destroy.yml", **CLUSTER)[:2] == (0, 2)
    assert machines(modules) == []
    assert playbook("playbooks/destroy.yml", **CLUSTER)[:2] == (0, 0)


class Chief:
    """A local chief's systemctl and deeptrain; the Dummy cloud's own chief does not answer."""

    def __init__(self, playbook, directory):
        self.systemctl, self.deeptrain = directory / "bin/systemctl", directory / "home/venv/bin/deeptrain"
        self.jobs, self.unexported = directory / "jobs", directory / "unexported"
        for program, output in ((self.systemctl, self.jobs), (self.deeptrain, self.unexported)):
            program.parent.mkdir(parents=True)
            program.write_text(f"#!/bin/sh\ncat {output}\n")
            program.chmod(0o755)
        self.jobs.write_text("")
        self.unexported.write_text("{}")
        self.variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "deeptrain_home": str(directory / "home")}
        # In the Dummy cloud all have one address.
        self.inventory = directory / "inventory"
        shutil.copytree(PROJECT / "inventories/im", self.inventory)
        (self.inventory / "host_vars").mkdir()
        for number, host in enumerate(("ps-0", "chief-0", "worker-0", "worker-1"), start=1):
            (self.inventory / f"host_vars/{host}.yml").write_text(f"deeptrain_address: 127.0.0.{number}\n")
        playbook.environment["PATH"] = f"{self.systemctl.parent}:{os.environ['PATH']}"


@pytest.fixture
def chief(playbook, tmp_path) -> Chief:
    return Chief(playbook, tmp_path)


SMALLER = {**CLUSTER, "im_cluster_worker_count": 1, "im_cluster_allow_removal": True}


def test_removal_while_a_job_runs(playbook, modules, chief):
    chief.jobs.write_text("deeptrain-train@default.service loaded active running Job train\n")
    assert playbook("playbooks/deploy.yml", **CLUSTER)[:2] == (0, 1)
    # No machine is too many.
    assert playbook("playbooks/deploy.yml", ansible_port=1, ansible_host="127.0.0.1", **{**SMALLER, "im_cluster_worker_count": 2})[:2] == (0, 0)
    # Nobody listens there.
    status, changed, text = playbook("playbooks/deploy.yml", ansible_port=1, ansible_host="127.0.0.1", **SMALLER)
    assert status != 0 and changed == 0
    status, changed, text = playbook("playbooks/deploy.yml", **SMALLER, **chief.variables)
    assert (status, changed) == (2, 0)
    assert "chief-0 has running jobs (deeptrain-train@default.service)" in text
    chief.jobs.unlink()
    status, changed, text = playbook("playbooks/deploy.yml", **SMALLER, **chief.variables)
    assert (status, changed) == (2, 0) and "chief-0 cannot be asked for running jobs" in text
    chief.jobs.write_text("")
    status, changed, text = playbook("playbooks/deploy.yml", inventory="localhost,", **SMALLER, **chief.variables)
    assert (status, changed) == (2, 0) and "the inventory has no chief" in text
    assert machines(modules) == ["chief", "ps", "worker", "worker"]
    assert playbook("playbooks/deploy.yml", inventory=str(chief.inventory), **SMALLER, **chief.variables)[:2] == (0, 1)
    assert machines(modules) == ["chief", "ps", "worker"]


class NameNode(BaseHTTPRequestHandler):
    """Knows the DataNode of worker-1 by the server's `state`."""

    def do_GET(self):
        node = {"xferaddr": "127.0.0.4:9866", "adminState": self.server.state, "lastContact": 0}
        bean = {"LiveNodes": json.dumps({"worker-1:9866": node}), "DeadNodes": "{}", "DecomNodes": "{}", "NumberOfMissingBlocks": 0}
        body = json.dumps({"beans": [{**bean, "Safemode": "", "PendingReconstructionBlocks": 0}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Say nothing."""


def test_removal_of_copies_of_what_is_not_in_s3(playbook, modules, chief, serving):
    assert playbook("playbooks/deploy.yml", **CLUSTER)[:2] == (0, 1)
    chief.unexported.write_text("no JSON")
    arguments = {"inventory": str(chief.inventory), "deeptrain_hdfs_http_port": free_port(), **SMALLER, **chief.variables}
    status, changed, text = playbook("playbooks/deploy.yml", **arguments)
    assert (status, changed) == (2, 0) and "chief-0 cannot list the runs that are not in S3" in " ".join(text.split())
    chief.unexported.write_text('{"mine": "has a model or checkpoints that are not in S3"}')
    with serving(HTTPServer(("127.0.0.1", arguments["deeptrain_hdfs_http_port"]), NameNode)) as namenode:
        namenode.state = "In Service"
        status, changed, text = playbook("playbooks/deploy.yml", **arguments)
        said = " ".join(text.split())
        assert (status, changed) == (2, 0) and "chief-0 has runs that are not complete: mine has a model" in said
        assert "decommission the DataNodes of worker-1:" in said
        assert machines(modules) == ["chief", "ps", "worker", "worker"]
        # HDFS needs it no more.
        namenode.state = "Decommissioned"
        assert playbook("playbooks/deploy.yml", **arguments)[:2] == (0, 1)
    assert machines(modules) == ["chief", "ps", "worker"]


def test_destroy_of_one_of_a_name(playbook, modules):
    assert playbook("playbooks/deploy.yml", **CLUSTER)[:2] == (0, 1)
    [made] = modules.all()
    im = Im(playbook.environment["IM_URL"], AUTH)
    for _number in range(2):
        im.create(im.radl(made))
    # The inventory plugin would wait for those who created them to agree on one, each time.
    arguments = {"inventory": "inventories/static/hosts.yml", **CLUSTER}
    status, changed, text = playbook("playbooks/destroy.yml", **arguments)
    assert status == 2 and "3 infrastructures are named deeptrain" in text
    others = [one for one in modules.all() if one != made]
    assert playbook("playbooks/destroy.yml", im_cluster_infrastructure_id=others[0], **arguments)[0] == 0
    assert sorted(modules.all()) == sorted([made, others[1]])
    status, changed, text = playbook("playbooks/destroy.yml", im_cluster_destroy_all=True, **arguments)
    assert status == 0, text
    assert modules.all() == {}, text


def test_nothing_is_done_without_a_cloud(playbook):
    playbook.environment["IM_URL"] = "http://127.0.0.1:9"
    for name in ("deploy", "destroy"):
        command = ["ansible-playbook", f"playbooks/{name}.yml", "--inventory", "inventories/static/hosts.yml"]
        subprocess.run(command, cwd=PROJECT, env=playbook.environment, check=True, capture_output=True)


def test_later_plays_have_the_new_hosts(playbook, tmp_path):
    file = tmp_path / "site.yml"
    file.write_text(
        f"""
- ansible.builtin.import_playbook: {PROJECT}/playbooks/deploy.yml
- hosts: "{{{{ groups | deeptrain.cluster.cluster_hosts('worker') }}}}"
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: here is {{{{ inventory_hostname }}}} with {{{{ IM_NODE_PRIVATE_IP }}}}
- ansible.builtin.import_playbook: {PROJECT}/playbooks/destroy.yml
  when: deeptrain_destroy_after_export | default(false) | bool
"""
    )
    status, changed, text = playbook(str(file), **CLUSTER)
    assert (status, changed) == (0, 1)
    assert "here is worker-0 with 10.0.0.1" in text and "here is worker-1 with 10.0.0.1" in text
    keys = tmp_path / ".ansible/im"
    assert len(list(keys.iterdir())) == 1
    assert playbook(str(file), deeptrain_destroy_after_export=True, **CLUSTER)[:2] == (0, 2)
    assert list(keys.iterdir()) == []


def test_existing_hosts_are_handed_over_one_by_one(playbook, modules):
    for _attempt in range(2):
        status, changed, text = playbook("playbooks/deploy.yml", **EXISTING)
        assert status != 0 and "is unconfigured" in text
        (infrastructure,) = modules.done("im_infrastructure_info", name="deeptrain")["infrastructures"]
        assert [(vm["system"], vm["public_ip"]) for vm in infrastructure["vms"]] == [
            ("chief", "127.0.0.11"), ("ps", "127.0.0.12"), ("worker", "127.0.0.13"), ("worker", "127.0.0.14"),
        ]  # fmt: skip
        assert "configure export" in infrastructure["radl"]
    assert playbook("playbooks/destroy.yml", **EXISTING)[0] == 0
    assert machines(modules) == []
