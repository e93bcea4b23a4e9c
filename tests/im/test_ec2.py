# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules and the inventory with the Infrastructure Manager's own EC2 connector, which speaks to a moto server.

Its machines have addresses and states, and nothing runs on them: no SSH, so no contextualization.
"""

from __future__ import annotations

import signal
import subprocess
import time

import boto3
import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils._im_module import BEGIN_SECONDS
from conftest import AUTH, LIMIT, PROJECT, SECRET, Modules
from infrastructure_manager import InfrastructureManager, free_port
from test_examples import Renderer
from test_inventory import PROGRAMS, Inventory

REGION = "eu-central-1"
KEY = {"username": "planted-access-key", "password": SECRET}
SOURCES = ["192.0.2.0/24", "198.51.100.7/32"]


class Cloud:
    """A moto server, as EC2."""

    def __init__(self, url: str):
        self.url = url
        self.client = boto3.client("ec2", endpoint_url=url, region_name=REGION, aws_access_key_id=KEY["username"], aws_secret_access_key=KEY["password"])

    def image(self) -> str:
        """One that the connector takes: with a snapshot. An image that one registers has no type there."""
        images = self.client.describe_images(Filters=[{"Name": "virtualization-type", "Values": ["hvm"]}])["Images"]
        return next(image["ImageId"] for image in images if image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])

    def machines(self, *states: str) -> list[dict]:
        found = self.client.describe_instances(Filters=[{"Name": "instance-state-name", "Values": states or ("running",)}])
        return [machine for reservation in found["Reservations"] for machine in reservation["Instances"]]

    def groups(self) -> dict[str, list[dict]]:
        """Rules of what comes in, by the group's name."""
        return {item["GroupName"]: item["IpPermissions"] for item in self.client.describe_security_groups()["SecurityGroups"]}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    port = free_port()
    with open(tmp_path_factory.mktemp("moto") / "log", "wb") as log:
        process = subprocess.Popen([PROJECT / ".cache/venv-moto/bin/moto_server", "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    made = Cloud(f"http://127.0.0.1:{port}")
    end = time.monotonic() + LIMIT
    while True:
        try:
            made.groups()
            break
        except Exception:
            assert process.poll() is None and time.monotonic() < end, "the moto server does not answer"
            time.sleep(0.2)
    yield made
    process.terminate()
    process.wait(LIMIT)


@pytest.fixture(scope="module")
def ec2(cloud, tmp_path_factory):
    """Return modules of an Infrastructure Manager that has this cloud."""
    server = InfrastructureManager(tmp_path_factory.mktemp("im-ec2"), program="tests/im/serve_ec2.py", AWS_ENDPOINT_URL=cloud.url)
    server.start()
    yield Modules(server, [AUTH[0], {"id": "ec2", "type": "EC2", **KEY}], BEGIN_SECONDS)
    server.kill(signal.SIGTERM)


@pytest.fixture(scope="module")
def radl(cloud, tmp_path_factory):
    """Return a function that gives the RADL of role im_cluster."""
    node = {"image": f"aws://{REGION}/{cloud.image()}", "instance_type": "t3.large", "root_disk_gib": 20}
    worker = {"instance_type": "g4dn.xlarge"}
    text = Renderer(tmp_path_factory.mktemp("radl"))({"im_cluster_node": node, "im_cluster_worker": worker, "im_cluster_ssh_sources": SOURCES})
    return lambda workers: text.replace("deploy worker 2", f"deploy worker {workers}")


@pytest.fixture
def inventory(ec2, tmp_path):
    made = Inventory(tmp_path, ec2.server.url, PROGRAMS["newest"])
    with open(made.environment["IM_AUTH_FILE"], "a", encoding="utf-8") as file:
        file.write(f"id = ec2; type = EC2; username = {KEY['username']}; password = {KEY['password']}\n")
    return made


def systems(result: dict) -> list[str]:
    return [vm["system"] for vm in result["vms"]]


def test_life(ec2, cloud, radl, inventory, tmp_path):
    made = ec2.done("im_infrastructure", radl=radl(2))
    assert (made["state"], systems(made)) == ("configured", ["chief", "ps", "worker", "worker"])
    machines = {machine["PrivateIpAddress"]: machine["PublicIpAddress"] for machine in cloud.machines()}
    assert {vm["private_ip"]: vm["public_ip"] for vm in made["vms"]} == machines
    assert len(machines) == len(set(machines.values())) == 4

    # From outside the chief alone, by SSH, from the named sources.
    rules = {name.partition(made["infrastructure_id"])[2]: of for name, of in cloud.groups().items() if made["infrastructure_id"] in name}
    open_to = [(rule["FromPort"], rule["ToPort"], item["CidrIp"]) for of in rules.values() for rule in of for item in rule["IpRanges"]]
    assert open_to == [(22, 22, source) for source in SOURCES]
    assert set(rules) == {"", "-public", "-private"}
    assert not any(rule["Ipv6Ranges"] or rule["PrefixListIds"] for of in rules.values() for rule in of)

    hosts = {name: variables for group in inventory.groups(name="deeptrain").values() for name, variables in group.items()}
    chief, *others = (hosts[name] for name in ("chief-0", "ps-0", "worker-0", "worker-1"))
    assert chief["ansible_host"] == machines[chief["IM_NODE_PRIVATE_IP"]]
    assert "ProxyCommand" not in chief["ansible_ssh_common_args"]
    for one in others:
        assert one["ansible_host"] == one["IM_NODE_PRIVATE_IP"]
        assert one["IM_NODE_PRIVATE_IP"] in machines
        assert f"-W '\"'\"'[%h]:%p'\"'\"' -- {chief['ansible_host']}" in one["ansible_ssh_common_args"]
    keys = {file: file.read_text() for file in (tmp_path / "keys").rglob("*.pem")}
    assert {str(file) for file in keys} == {one["ansible_ssh_private_key_file"] for one in hosts.values()}
    assert all(file.stat().st_mode & 0o777 == 0o600 and "PRIVATE KEY" in text for file, text in keys.items())
    inside = inventory.groups(name="deeptrain", address="private")
    assert {one["ansible_host"] for group in inside.values() for one in group.values()} == set(machines)

    for count in (3, 1):
        assert ec2.done("im_infrastructure", radl=radl(count), allow_removal=True)["diff"]["after"] == {"chief": 1, "ps": 1, "worker": count}
        assert len(cloud.machines()) == 2 + count
        assert not ec2.done("im_infrastructure", radl=radl(count))["changed"]

    for state, end, there in (("stopped", "stopped", "stopped"), ("started", "configured", "running")):
        result = ec2.done("im_infrastructure", name="deeptrain", state=state)
        assert (result["changed"], result["state"], len(cloud.machines(there))) == (True, end, 3)
        assert not ec2.done("im_infrastructure", name="deeptrain", state=state)["changed"]

    assert ec2.done("im_vm", name="deeptrain", vm="worker-2", state="absent")["changed"]
    assert len(cloud.machines()) == 2
    assert ec2.done("im_infrastructure", name="deeptrain", state="absent")["changed"]
    assert cloud.machines("pending", "running", "stopping", "stopped") == []
    assert list(cloud.groups()) == ["default"]
    assert inventory.groups(name="deeptrain") == {}


def test_machine_that_was_ended_by_hand(ec2, cloud, radl):
    address = ec2.done("im_infrastructure", radl=radl(1))["vms"][2]["private_ip"]
    [worker] = [machine["InstanceId"] for machine in cloud.machines() if machine["PrivateIpAddress"] == address]
    cloud.client.terminate_instances(InstanceIds=[worker])
    end = time.monotonic() + LIMIT
    while ec2.done("im_infrastructure_info", name="deeptrain")["infrastructures"][0]["vms"][2]["state"] != "off":
        assert time.monotonic() < end
        time.sleep(0.5)
    assert "VMs 2 were terminated or stopped in their cloud" in ec2.run("im_infrastructure", radl=radl(1))["msg"]
    # moto, unlike EC2, refuses to end it once more.
    assert "could not be destroyed" in ec2.run("im_infrastructure", name="deeptrain", state="absent")["msg"]
    assert ec2.done("im_infrastructure", name="deeptrain", state="absent", force=True)["changed"]
    assert cloud.machines() == []
