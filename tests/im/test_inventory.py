# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin, with ansible-inventory: of the real Infrastructure Manager, and of answers in its form."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import LIMIT, PROJECT, SECRET
from im_server import ImServer

# ansible-core as it is today, and the oldest.
PROGRAMS = {"newest": Path(sys.executable).parent, "oldest": PROJECT / ".cache/venv-2.16/bin"}
KEY = "-----BEGIN KEY-----\nplanted-key\n-----END KEY-----"
NETWORKS = [{"class": "network", "id": "public", "outbound": "yes", "outports": "22/tcp"}, {"class": "network", "id": "private"}]


class Inventory:
    """Runs ansible-inventory on a file of its own."""

    def __init__(self, directory: Path, url: str, programs: Path):
        self.directory, self.programs = directory, programs
        auth = directory / "auth.dat"
        auth.write_text(f"type = InfrastructureManager; username = tester; password = {SECRET}\nid = dummy; type = Dummy\n")
        auth.chmod(0o600)
        self.environment = {
            **os.environ,
            "IM_URL": url,
            "IM_AUTH_FILE": str(auth),
            "no_proxy": "127.0.0.1",
            "HOME": str(directory),
            "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache"),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        }

    def program(self, name: str, *arguments) -> subprocess.CompletedProcess:
        command = [str(self.programs / name), *map(str, arguments)]
        return subprocess.run(command, env=self.environment, cwd=self.directory, capture_output=True, text=True, check=False, timeout=LIMIT)

    def list(self, source: Path) -> subprocess.CompletedProcess:
        return self.program("ansible-inventory", "-i", source, "--list", "--output", self.directory / "list.json", "-vvv")

    def source(self, **options) -> Path:
        file = self.directory / "test.im.yml"
        file.write_text(yaml.safe_dump({"plugin": "deeptrain.cluster.im", "key_directory": str(self.directory / "keys"), **options}))
        return file

    def groups(self, source: Path | None = None, **options) -> dict[str, dict]:
        """Return the hosts of each group, with their variables; no secret may be among what is printed."""
        done = self.list(source or self.source(**options))
        assert done.returncode == 0, done.stderr
        text = (self.directory / "list.json").read_text()
        for secret in (SECRET, "planted-key"):
            assert secret not in done.stdout + done.stderr + text
        found = json.loads(text, object_hook=lambda item: item.get("__ansible_unsafe", item))
        variables = found.pop("_meta")["hostvars"]
        return {name: {host: variables[host] for host in group["hosts"]} for name, group in found.items() if group.get("hosts")}


@pytest.fixture(params=PROGRAMS)
def programs(request) -> Path:
    return PROGRAMS[request.param]


@pytest.fixture
def served(tmp_path, programs, serving):
    """Return a server, and an inventory of it."""
    with serving(ImServer()) as server:
        server.secret = SECRET
        yield server, Inventory(tmp_path, server.url, programs)


def infrastructure(vms: list[list[dict]]) -> dict[str, dict]:
    """Return one infrastructure for the server."""
    return {"1": {"radl": "description deeptrain ()\n", "state": None, "vms": {str(number): vm for number, vm in enumerate(vms)}}}


def vm(system: str, private: str, public: str | None = None) -> list[dict]:
    """Return the classes of a VM's RADL."""
    found = {"class": "system", "id": system, "state": "configured", "net_interface.0.connection": "private", "net_interface.0.ip": private}
    if public:
        found.update({"net_interface.1.connection": "public", "net_interface.1.ip": public})
    return [*NETWORKS, {**found, "disk.0.os.credentials.username": "ubuntu", "disk.0.os.credentials.private_key": KEY}]


def test_real_one(modules, radl, tmp_path, programs):
    inventory = Inventory(tmp_path, modules.server.url, programs)
    assert inventory.groups(name="cluster") == {}
    modules.done("im_infrastructure", radl=radl(2))
    groups = inventory.groups(name="cluster", keyed_groups=[{"key": "im_state", "prefix": "state"}])
    assert {name: list(hosts) for name, hosts in groups.items()} == {
        "chief": ["chief-0"],
        "worker": ["worker-0", "worker-1"],
        "state_configured": ["chief-0", "worker-0", "worker-1"],
    }
    last = groups["worker"]["worker-1"]
    assert (last["IM_NODE_NUM"], last["IM_NODE_HOSTNAME"], last["IM_NODE_PRIVATE_IP"]) == ("2", "worker-2", "10.0.0.1")
    assert inventory.groups(name="another") == {}
    modules.done("im_infrastructure", radl=radl(1, "second"))
    assert list(inventory.groups()["chief"]) == ["cluster-chief-0", "second-chief-0"]
    one = inventory.groups(infrastructure_id=last["IM_INFRASTRUCTURE_ID"])
    assert list(one["worker"]) == ["worker-0", "worker-1"]


def test_inventory_of_the_collection(served):
    """The directory inventories/im, empty before deploy, and then as the filter topology wants it."""
    server, inventory = served
    source = PROJECT / "inventories/im"
    assert inventory.groups(source) == {}
    systems = ["ps", "chief"] + ["worker"] * 11
    server.existing = infrastructure([vm(system, f"10.0.0.{number + 1}", "203.0.113.1" if number == 1 else None) for number, system in enumerate(systems)])
    groups = inventory.groups(source)
    assert {name: len(hosts) for name, hosts in groups.items()} == {"ps": 1, "chief": 1, "worker": 11}
    assert "-- 203.0.113.1" in groups["ps"]["ps-0"]["ansible_ssh_common_args"]
    message = {"msg": "{{ (groups | deeptrain.cluster.topology(hostvars)).cluster.worker[10] }} {{ im_cluster_name }}"}
    done = inventory.program("ansible", "-i", source, "chief", "-m", "ansible.builtin.debug", "-a", json.dumps(message))
    assert "10.0.0.13:2224 deeptrain" in done.stdout, done.stderr


def test_cache_holds_no_secret(served, tmp_path):
    server, inventory = served
    server.existing = infrastructure([vm("chief", "10.0.0.1", "203.0.113.1")])
    options = {"name": "deeptrain", "cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    first = inventory.groups(**options)
    calls = len(server.calls)
    assert inventory.groups(**options) == first
    assert len(server.calls) == calls
    [cached] = (tmp_path / "cache").iterdir()
    assert "planted" not in cached.read_text()
    # Without its key the cache alone does not do.
    Path(first["chief"]["chief-0"]["ansible_ssh_private_key_file"]).unlink()
    assert inventory.groups(**options) == first
    assert len(server.calls) > calls


def test_password_in_a_vault(served):
    server, inventory = served
    server.existing = infrastructure([vm("chief", "10.0.0.1")])
    word = inventory.directory / "word"
    word.write_text("vault")
    inventory.environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(word)
    secret = inventory.program("ansible-vault", "encrypt_string", SECRET).stdout
    source = inventory.directory / "im.yml"
    source.write_text(f"plugin: deeptrain.cluster.im\nauth:\n  - type: InfrastructureManager\n    username: tester\n    password: {secret}")
    assert list(inventory.groups(source)["chief"]) == ["deeptrain-chief-0"]


def test_thousand(served):
    server, inventory = served
    source = inventory.source(name="deeptrain")

    def list_some(workers: int) -> float:
        """Return the processor time of the listing, which other work on the machine does not change."""
        systems = ["ps"] * 10 + ["chief"] + ["worker"] * workers
        vms = [vm(system, f"10.0.{number // 256}.{number % 256}") for number, system in enumerate(systems)]
        vms[10] = vm("chief", "10.0.0.10", "203.0.113.1")
        server.existing = infrastructure(vms)
        server.calls.clear()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = inventory.list(source)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    hundred, thousand = list_some(89), list_some(989)
    print(f"100 VMs in {hundred:.1f} s of processor time, 1,000 in {thousand:.1f} s with {len(server.calls)} requests")
    # Each VM is asked for once, and takes no longer than in a smaller infrastructure.
    assert len(server.calls) < 1010
    assert thousand < 10 * hundred
    groups = inventory.groups(source)
    assert {name: len(hosts) for name, hosts in groups.items()} == {"ps": 10, "chief": 1, "worker": 989}
    assert [groups["worker"][f"worker-{number}"]["IM_NODE_NUM"] for number in range(989)] == [str(number + 11) for number in range(989)]
    assert groups["worker"]["worker-988"]["ansible_host"] == "10.0.3.231"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://127.0.0.1:1"}, "make sure that the Infrastructure Manager runs there"),
        ({"url": "nowhere"}, "url is 'nowhere'"),
        ({"auth": [{"type": "Dummy"}]}, "no entry of type InfrastructureManager"),
        ({"auth": [{"type": "InfrastructureManager", "username": "tester", "password": "another"}]}, "See the entry of type InfrastructureManager"),
        ({"address": "both"}, "address"),
    ],
)
def test_bad_input(served, options, words):
    inventory = served[1]
    done = inventory.list(inventory.source(**options))
    assert done.returncode != 0
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
