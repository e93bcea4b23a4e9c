# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin, with ansible-inventory: of the real Infrastructure Manager, and of answers in its form."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, SECRET

KEY = "-----BEGIN KEY-----\nplanted-key\n-----END KEY-----"
NETWORKS = [{"class": "network", "id": "public", "outbound": "yes", "outports": "22/tcp"}, {"class": "network", "id": "private"}]


class Inventory:
    """Runs ansible-inventory on a file of its own."""

    def __init__(self, directory: Path, url: str):
        self.directory, self.url = directory, url
        auth = directory / "auth.dat"
        auth.write_text(f"type = InfrastructureManager; username = tester; password = {SECRET}\nid = dummy; type = Dummy\n")
        auth.chmod(0o600)

    def run(self, **options) -> subprocess.CompletedProcess:
        file = self.directory / "test.im.yml"
        document = {"plugin": "deeptrain.cluster.im", "key_directory": str(self.directory / "keys"), **options}
        file.write_text(yaml.safe_dump(document))
        environment = {
            **os.environ,
            "IM_URL": self.url,
            "IM_AUTH_FILE": str(self.directory / "auth.dat"),
            "no_proxy": "127.0.0.1",
            "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache"),
            "ANSIBLE_INVENTORY_ENABLED": "deeptrain.cluster.im",
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true",
        }
        command = [Path(sys.executable).with_name("ansible-inventory"), "-i", str(file), "--list", "--yaml", "-vvv"]
        return subprocess.run(command, env=environment, cwd=self.directory, capture_output=True, text=True, check=False, timeout=120)

    def groups(self, **options) -> dict[str, dict]:
        """Return the hosts of each group, with their variables."""
        done = self.run(**options)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
        if "all:" not in done.stdout:
            return {}
        document = yaml.safe_load(done.stdout[done.stdout.index("all:") :])
        hosts = {}
        for group in document["all"]["children"].values():
            for host, variables in (group or {}).get("hosts", {}).items():
                hosts.setdefault(host, {}).update(variables or {})
        return {name: {host: hosts[host] for host in (group or {}).get("hosts", {})} for name, group in document["all"]["children"].items()}


class Handler(BaseHTTPRequestHandler):
    """Answers as the Infrastructure Manager does, with the VMs that the server was given."""

    def do_GET(self):
        vms = self.server.vms
        parts = self.path.strip("/").split("/")
        self.server.asked += 1
        if parts == ["infrastructures"]:
            answer = {"uri-list": [{"uri": "http://im/infrastructures/1"}] if vms else []}
        elif len(parts) == 2:
            answer = {"uri-list": [{"uri": f"http://im/infrastructures/1/vms/{vm}"} for vm in vms]}
        elif parts[2] == "state":
            answer = {"state": {"state": "configured", "vm_states": dict.fromkeys(vms, "configured")}}
        elif parts[2] == "radl":
            answer = {"radl": "description large ()\n"}
        else:
            answer = {"radl": [*NETWORKS, {"class": "system", **vms[parts[3]]}]}
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def served(tmp_path):
    """Return a function that serves VMs and returns an inventory of them; and the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.vms, server.asked = {}, 0
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server, Inventory(tmp_path, f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join()


def vm(system: str, private: str, public: str | None = None, **more) -> dict:
    found = {"id": system, "state": "configured", "net_interface.0.connection": "private", "net_interface.0.ip": private}
    if public:
        found.update({"net_interface.1.connection": "public", "net_interface.1.ip": public})
    return {**found, "disk.0.os.credentials.username": "ubuntu", "disk.0.os.credentials.private_key": KEY, **more}


def test_real_one(modules, radl, tmp_path):
    inventory = Inventory(tmp_path, modules.server.url)
    assert inventory.groups(name="cluster") == {}
    modules.done("im_infrastructure", radl=radl(2))
    groups = inventory.groups(name="cluster", keyed_groups=[{"key": "im_state", "prefix": "state"}])
    assert {name: list(hosts) for name, hosts in groups.items()} == {
        "chief": ["chief-0"],
        "worker": ["worker-0", "worker-1"],
        "state_configured": ["chief-0", "worker-0", "worker-1"],
    }
    assert groups["worker"]["worker-1"]["IM_NODE_NUM"] == "2"
    assert inventory.groups(name="another") == {}
    # Of all infrastructures.
    modules.done("im_infrastructure", radl=radl(1, "second"))
    assert sorted(inventory.groups()["chief"]) == ["cluster-chief-0", "second-chief-0"]


def test_connection(served):
    server, inventory = served
    server.vms = {"0": vm("chief", "10.0.0.1", "203.0.113.1"), "1": vm("worker", "10.0.0.2")}
    groups = inventory.groups(name="large", compose={"gpu": "im_system == 'worker'"})
    chief, worker = groups["chief"]["chief-0"], groups["worker"]["worker-0"]
    assert (chief["ansible_host"], chief["ansible_user"], chief["IM_NODE_PRIVATE_IP"]) == ("203.0.113.1", "ubuntu", "10.0.0.1")
    assert "ProxyCommand" not in chief["ansible_ssh_common_args"]
    assert worker["ansible_host"] == "10.0.0.2"
    assert worker["gpu"] is True
    for part in ("-W %h:%p", "ubuntu@203.0.113.1", chief["ansible_ssh_private_key_file"]):
        assert part in worker["ansible_ssh_common_args"]
    key = Path(worker["ansible_ssh_private_key_file"])
    assert key.read_text() == KEY + "\n"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    inside = inventory.groups(name="large", address="private")
    assert inside["chief"]["chief-0"]["ansible_host"] == "10.0.0.1"
    assert "ProxyCommand" not in inside["worker"]["worker-0"]["ansible_ssh_common_args"]
    refused = inventory.run(name="large", jump_host="worker-0")
    assert refused.returncode != 0
    assert "jump_host is worker-0" in refused.stderr


def test_cache_holds_no_secret(served, tmp_path):
    server, inventory = served
    server.vms = {"0": vm("chief", "10.0.0.1", "203.0.113.1")}
    options = {"name": "large", "cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache")}
    first = inventory.groups(**options)
    asked = server.asked
    assert inventory.groups(**options) == first
    assert server.asked == asked
    [cached] = (tmp_path / "cache").iterdir()
    assert "planted" not in cached.read_text()
    # Without its key the cache alone does not do.
    Path(first["chief"]["chief-0"]["ansible_ssh_private_key_file"]).unlink()
    assert inventory.groups(**options) == first
    assert server.asked > asked


def test_thousand(served):
    server, inventory = served
    systems = ["ps"] * 10 + ["chief"] + ["worker"] * 989
    server.vms = {str(number): vm(system, f"10.0.{number // 256}.{number % 256}") for number, system in enumerate(systems)}
    began = time.monotonic()
    groups = inventory.groups(name="large", address="private")
    seconds = time.monotonic() - began
    print(f"1,000 VMs in {seconds:.1f} s")
    assert {name: len(hosts) for name, hosts in groups.items()} == {"ps": 10, "chief": 1, "worker": 989}
    assert groups["worker"]["worker-988"]["ansible_host"] == "10.0.3.231"
    assert seconds < 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://127.0.0.1:1"}, "see that the Infrastructure Manager runs there"),
        ({"url": "nowhere"}, "url is 'nowhere'"),
        ({"auth": [{"type": "Dummy"}]}, "no entry of type InfrastructureManager"),
    ],
)
def test_bad_input(served, options, words):
    done = served[1].run(**options)
    assert done.returncode != 0
    assert words in " ".join(done.stderr.split())
