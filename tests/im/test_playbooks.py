# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""deploy.yml and destroy.yml against the real Infrastructure Manager."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils.im import Im
from conftest import AUTH, PROJECT, SECRET

CLUSTER = {"im_cluster_cloud": "Dummy", "im_cluster_cloud_id": "dummy", "im_cluster_node": {"image": "mock0://linux.for.ev.er/image1"}}
EXISTING = {
    "im_cluster_cloud": "DeployedNode",
    "im_cluster_cloud_id": "hosts",
    "im_cluster_way": "im",
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


def test_removal_while_a_job_runs(playbook, modules, tmp_path):
    """The chief's systemctl is a program of the test; the Dummy cloud's own chief does not answer."""
    smaller = {**CLUSTER, "im_cluster_worker_count": 1, "im_cluster_allow_removal": True}
    program, jobs = tmp_path / "bin/systemctl", tmp_path / "jobs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {jobs}\n")
    program.chmod(0o755)
    jobs.write_text("deeptrain-train@default.service loaded active running Job train\n")
    playbook.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    assert playbook("playbooks/deploy.yml", **CLUSTER)[:2] == (0, 1)
    # No machine is too many.
    assert playbook("playbooks/deploy.yml", ansible_port=1, ansible_host="127.0.0.1", **{**smaller, "im_cluster_worker_count": 2})[:2] == (0, 0)
    # Nobody listens there.
    status, changed, text = playbook("playbooks/deploy.yml", ansible_port=1, ansible_host="127.0.0.1", **smaller)
    assert status != 0 and changed == 0
    chief = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    status, changed, text = playbook("playbooks/deploy.yml", **smaller, **chief)
    assert (status, changed) == (2, 0)
    assert "chief-0 has running jobs (deeptrain-train@default.service)" in text
    program.write_text("#!/bin/sh\nexit 1\n")
    status, changed, text = playbook("playbooks/deploy.yml", **smaller, **chief)
    assert (status, changed) == (2, 0) and "chief-0 cannot be asked for running jobs" in text
    program.write_text(f"#!/bin/sh\ncat {jobs}\n")
    status, changed, text = playbook("playbooks/deploy.yml", inventory="localhost,", **smaller, **chief)
    assert (status, changed) == (2, 0) and "the inventory has no chief" in text
    assert machines(modules) == ["chief", "ps", "worker", "worker"]
    jobs.write_text("")
    assert playbook("playbooks/deploy.yml", **smaller, **chief)[:2] == (0, 1)
    assert machines(modules) == ["chief", "ps", "worker"]


def test_destroy_of_one_of_a_name(playbook, modules):
    assert playbook("playbooks/deploy.yml", **CLUSTER)[:2] == (0, 1)
    [made] = modules.all()
    im = Im(playbook.environment["IM_URL"], AUTH)
    for _number in range(2):
        im.create(im.radl(made))
    status, changed, text = playbook("playbooks/destroy.yml", **CLUSTER)
    assert status == 2 and "3 infrastructures are named deeptrain" in text
    others = [one for one in modules.all() if one != made]
    assert playbook("playbooks/destroy.yml", im_cluster_infrastructure_id=others[0], **CLUSTER)[0] == 0
    assert sorted(modules.all()) == sorted([made, others[1]])
    assert playbook("playbooks/destroy.yml", im_cluster_destroy_all=True, **CLUSTER)[0] == 0
    assert modules.all() == {}


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
  when: deeptrain_transient | default(false) | bool
"""
    )
    status, changed, text = playbook(str(file), **CLUSTER)
    assert (status, changed) == (0, 1)
    assert "here is worker-0 with 10.0.0.1" in text and "here is worker-1 with 10.0.0.1" in text
    keys = tmp_path / ".ansible/im"
    assert len(list(keys.iterdir())) == 1
    assert playbook(str(file), deeptrain_transient=True, **CLUSTER)[:2] == (0, 2)
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
