# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shlex
import stat

import pytest
import yaml
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import inventory_loader
from ansible.template import Templar
from ansible_collections.deeptrain.cluster.plugins.module_utils import _im as client
from ansible_collections.deeptrain.cluster.tests.unit.plugins.im_server import SECRET

AUTH = [{"type": "InfrastructureManager", "username": "user", "password": SECRET}]
KEY = "-----BEGIN KEY-----\nplanted\n-----END KEY-----"


def vm(system, private=None, public=None, ssh_port=22, user="ubuntu", password=None, private_key=KEY):
    """Return the classes of a VM's RADL."""
    networks = [
        {"class": "network", "id": "public", "outbound": "yes", "outports": f"{ssh_port}-22"},
        {"class": "network", "id": "private"},
    ]
    features = {"disk.0.os.credentials.username": user, "disk.0.os.credentials.password": password, "disk.0.os.credentials.private_key": private_key}
    addresses = [(network, address) for network, address in (("private", private), ("public", public)) if address]
    for number, (network, address) in enumerate(addresses):
        features.update({f"net_interface.{number}.connection": network, f"net_interface.{number}.ip": address})
    return [*networks, {"class": "system", "id": system, "state": "running", "net_interface.0.dns_name": f"{system}-a.cluster", **features}]


@pytest.fixture
def infrastructures(im_server):
    """Return a function that sets the server's infrastructures, {id: (name, VMs)}; the text follows each RADL's description."""

    def set_all(found, text=""):
        im_server.existing = {
            key: {"radl": (f"description {name} ()\n" if name else "") + text, "state": None, "vms": {str(number): one for number, one in enumerate(vms)}}
            for key, (name, vms) in found.items()
        }

    return set_all


@pytest.fixture
def read(im_server, infrastructures, tmp_path, monkeypatch):
    """Return a function that gives the inventory that the plugin makes of options, and of the VMs where they are given."""
    monkeypatch.setattr(client.Im, "agree_seconds", 0)

    def call(vms=None, may_use_cache=True, **options):
        if vms is not None:
            infrastructures({"inf-1": ("deep", vms)})
        file = tmp_path / "im.yml"
        given = {"plugin": "deeptrain.cluster.im", "url": im_server.url, "auth": AUTH, "key_directory": str(tmp_path / "keys"), **options}
        file.write_text(yaml.safe_dump(given))
        plugin = inventory_loader.get("deeptrain.cluster.im")
        inventory = InventoryData()
        assert plugin.verify_file(str(file))
        plugin.parse(inventory, DataLoader(), str(file), may_use_cache)
        plugin.update_cache_if_changed()
        inventory.reconcile_inventory()
        return inventory

    return call


def variables(inventory, host):
    return inventory.hosts[host].get_vars()


def options_of(arguments):
    """Return ssh's options as a dictionary."""
    words = shlex.split(arguments)
    return dict(word.split("=", 1) for option, word in zip(words[:-1], words[1:], strict=True) if option == "-o")


@pytest.mark.parametrize(("name", "ours"), [("im.yml", True), ("im.yaml", True), ("gpu.im.yml", True), ("vim.yml", False), ("im.ini", False)])
def test_file_names(tmp_path, name, ours):
    (tmp_path / name).touch()
    assert inventory_loader.get("deeptrain.cluster.im").verify_file(str(tmp_path / name)) is ours


def test_groups_are_systems_in_the_order_of_the_vms(read):
    systems = ["ps", "chief"] + ["worker"] * 12
    inventory = read([vm(system, f"10.0.0.{number}") for number, system in enumerate(systems)], name="deep")
    groups = inventory.get_groups_dict()
    assert groups["ps"] == ["ps-0"]
    assert groups["chief"] == ["chief-0"]
    assert groups["worker"] == [f"worker-{number}" for number in range(12)]
    assert variables(inventory, "worker-11")["IM_NODE_PRIVATE_IP"] == "10.0.0.13"


def test_variables(read, tmp_path):
    inventory = read([vm("chief", "10.0.0.1", "203.0.113.1", ssh_port=2022), vm("ps", None, "203.0.113.2", private_key=None)], name="deep")
    assert variables(inventory, "chief-0").items() >= {
        "IM_NODE_PRIVATE_IP": "10.0.0.1",
        "IM_NODE_PUBLIC_IP": "203.0.113.1",
        "IM_NODE_HOSTNAME": "chief-a",
        "IM_NODE_NUM": "0",
        "IM_INFRASTRUCTURE_ID": "inf-1",
        "im_name": "deep",
        "im_system": "chief",
        "im_state": "configured",
        "im_vm_id": "0",
        "ansible_host": "203.0.113.1",
        "ansible_port": 2022,
        "ansible_user": "ubuntu",
        "ansible_ssh_private_key_file": str(tmp_path / "keys/inf-1/0.pem"),
    }.items()
    ps = variables(inventory, "ps-0")
    # As the Infrastructure Manager has it.
    assert ps["IM_NODE_PRIVATE_IP"] == "203.0.113.2"
    assert not {"ansible_ssh_private_key_file", "ansible_password", "ansible_ssh_retries"} & set(ps)


@pytest.mark.parametrize(
    ("options", "names"), [({"name": "deep"}, ["deep"]), ({"name": "other"}, ["other"]), ({"infrastructure_id": "inf-1"}, ["deep"]), ({}, None)]
)
def test_the_names_of_the_infrastructures(read, options, names):
    inventory = read([vm("chief", "10.0.0.1")], **options)
    assert inventory.groups["all"].get_vars().get("im_inventory_names") == names


def test_address(read):
    vms = [vm("chief", "10.0.0.1", "203.0.113.1", ssh_port=2022), vm("worker", "10.0.0.2"), vm("ps")]
    outside, inside = read(vms, name="deep"), read(vms, name="deep", address="private")
    found = [variables(outside, host) for host in ("chief-0", "worker-0", "ps-0")]
    # One that has no address yet is there too.
    assert [(one.get("ansible_host"), one["ansible_port"]) for one in found] == [("203.0.113.1", 2022), ("10.0.0.2", 22), (None, 22)]
    assert (variables(inside, "chief-0")["ansible_host"], variables(inside, "chief-0")["ansible_port"]) == ("10.0.0.1", 22)
    assert "ProxyCommand" not in variables(inside, "worker-0")["ansible_ssh_common_args"]


def test_jump_host(read, tmp_path):
    vms = [vm("ps", "10.0.0.9"), vm("chief", "10.0.0.1", "203.0.113.1", ssh_port=2022, user="debian"), vm("worker", "10.0.0.2", "203.0.113.2")]
    inventory = read(vms, name="deep")
    assert "ProxyCommand" not in options_of(variables(inventory, "chief-0")["ansible_ssh_common_args"])
    options = options_of(variables(inventory, "ps-0")["ansible_ssh_common_args"])
    assert (options["UserKnownHostsFile"], options["HostKeyAlias"]) == (f'"{tmp_path}/keys/inf-1/known_hosts"', "vm-0")
    command = shlex.split(options["ProxyCommand"])
    assert "HostKeyAlias=vm-1" in command
    key = str(tmp_path / "keys/inf-1/1.pem")
    assert command[-10:] == ["-i", key, "-l", "debian", "-p", "2022", "-W", "[%h]:%p", "--", "203.0.113.1"]
    # Another one by the user's word; not one that is itself behind.
    chosen = options_of(variables(read(vms, name="deep", jump_host="worker-0"), "ps-0")["ansible_ssh_common_args"])
    assert shlex.split(chosen["ProxyCommand"])[-1] == "203.0.113.2"
    with pytest.raises(AnsibleParserError, match=r"jump_host is ps-0.*\(chief-0, worker-0\)"):
        read(vms, name="deep", jump_host="ps-0")


def test_address_that_lets_nobody_in(read, infrastructures):
    vms = [vm("chief", "10.0.0.1", "203.0.113.1"), vm("ps", "10.0.0.2", "203.0.113.2"), vm("worker", None, "203.0.113.3")]
    text = (
        "network public ( outbound = 'yes' )\nnetwork private ()\nsystem ps ( net_interface.0.connection = 'private' )\n"
        "system chief ( net_interface.0.connection = 'public' and net_interface.1.connection = 'private' )\n"
    )
    infrastructures({"inf-1": ("deep", vms)}, text)
    inventory = read(name="deep")
    ps = variables(inventory, "ps-0")
    assert (ps["ansible_host"], ps["IM_NODE_PUBLIC_IP"]) == ("10.0.0.2", "203.0.113.2")
    assert shlex.split(options_of(ps["ansible_ssh_common_args"])["ProxyCommand"])[-1] == "203.0.113.1"
    # It has no other.
    assert variables(inventory, "worker-0")["ansible_host"] == "203.0.113.3"


def test_infrastructures_share_no_connection(read, infrastructures):
    """Two with the same private addresses must not use each other's control sockets."""
    infrastructures({"inf-1": ("one", [vm("ps", "10.0.0.1")]), "inf-2": ("two", [vm("ps", "10.0.0.1")])})
    inventory = read()
    assert len({variables(inventory, host)["ansible_control_path_dir"] for host in ("one-ps-0", "two-ps-0")}) == 2


def test_all_of_them(read, infrastructures):
    infrastructures({"inf-1": ("deep", [vm("ps")]), "inf-2": ("other", [vm("ps")])})
    groups = read().get_groups_dict()
    assert groups["ps"] == ["deep-ps-0", "other-ps-0"]
    # One today keeps its names when there are two tomorrow, and two of one name have two names.
    assert read([vm("ps")]).get_groups_dict()["ps"] == ["deep-ps-0"]
    infrastructures({"inf-1": ("deep", [vm("ps")]), "inf-2": ("deep", [vm("ps")]), "inf-3": (None, [vm("ps")])})
    assert read().get_groups_dict()["ps"] == ["inf-1-ps-0", "inf-2-ps-0", "inf-3-ps-0"]


def test_chosen(read, infrastructures):
    infrastructures({"inf-1": ("deep", [vm("ps")]), "inf-2": ("deep", [vm("worker")])})
    assert list(read(infrastructure_id="inf-2").hosts) == ["worker-0"]
    with pytest.raises(AnsibleParserError, match="2 infrastructures are named deep: inf-1, inf-2. Select one with infrastructure_id"):
        read(name="deep")
    with pytest.raises(AnsibleParserError, match="both given"):
        read(name="deep", infrastructure_id="inf-1")


@pytest.mark.parametrize("options", [{}, {"name": "deep"}, {"infrastructure_id": "inf-1"}])
def test_empty_before_there_is_one(read, tmp_path, options):
    assert not read(**options).hosts
    assert not (tmp_path / "keys").exists()


def test_destroyed_meanwhile(read, infrastructures, im_server):
    infrastructures({"inf-1": ("deep", [vm("ps"), vm("worker"), vm("worker", "10.0.0.3")]), "inf-2": ("other", [vm("ps")])})
    not_found = 404, {"message": "Invalid id", "code": 404}
    im_server.breaks = [("GET /infrastructures/inf-1/vms/1", not_found), ("GET /infrastructures/inf-2/state", not_found)]
    inventory = read()
    assert im_server.breaks == []
    assert list(inventory.hosts) == ["deep-ps-0", "deep-worker-0"]
    assert variables(inventory, "deep-worker-0")["ansible_host"] == "10.0.0.3"


def test_failure(read, im_server):
    im_server.breaks.append(("GET /infrastructures/inf-1/vms/0", (500, b"oops")))
    with pytest.raises(AnsibleParserError, match=rf"im\.yml: {im_server.url} answers GET /infrastructures/inf-1/vms/0 with 500: oops"):
        read([vm("ps")], name="deep")


@pytest.mark.parametrize("key", ["..", "a b", ".ssh", ""])
def test_id_that_is_no_directory(read, im_server, key):
    im_server.breaks.append(("GET /infrastructures", (200, {"uri-list": [{"uri": key}]})))
    with pytest.raises(AnsibleParserError, match="which is not the id of an infrastructure"):
        read()


def test_key_files(read, tmp_path):
    directory = tmp_path / "keys/inf-1"
    directory.mkdir(mode=0o755, parents=True)
    (directory / "0.pem").write_text("old")
    read([vm("ps")], name="deep")
    assert [file.name for file in directory.iterdir()] == ["0.pem"]
    assert (directory / "0.pem").read_text() == KEY + "\n"
    assert stat.S_IMODE((directory / "0.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_key_directory_that_is_none(read, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AnsibleParserError, match="set key_directory"):
        read([vm("ps")], name="deep", key_directory=str(tmp_path / "file"))


def test_passwords(read):
    vms = [vm("ps", password="planted", private_key=None), vm("worker", password="planted")]
    inventory = read(vms, name="deep")
    assert "planted" not in str([variables(inventory, host) for host in inventory.hosts])
    inventory = read(vms, name="deep", passwords=True)
    assert variables(inventory, "ps-0")["ansible_password"] == "planted"
    # A key is better.
    assert "ansible_password" not in variables(inventory, "worker-0")


def test_words_are_no_templates(read):
    inventory = read([vm("ps", user="{{ 6 * 7 }}")], name="deep", compose={"who": "ansible_user"})
    found = variables(inventory, "ps-0")
    templar = Templar(DataLoader(), variables=found)
    assert templar.template(found["ansible_user"]) == "{{ 6 * 7 }}"
    assert templar.template(found["who"]) == "{{ 6 * 7 }}"


def test_constructed(read):
    inventory = read(
        [vm("ps", "10.0.0.1"), vm("worker", "10.0.0.2")],
        name="deep",
        compose={"ansible_user": "im_system ~ '-user'", "gpu": "im_system == 'worker'", "nothing": "missing"},
        groups={"gpus": "gpu", "odd": "missing"},
        keyed_groups=[{"key": "im_state", "prefix": "state"}],
    )
    groups = inventory.get_groups_dict()
    assert (groups["gpus"], groups["state_configured"]) == (["worker-0"], ["ps-0", "worker-0"])
    assert variables(inventory, "ps-0")["ansible_user"] == "ps-user"
    assert "nothing" not in variables(inventory, "ps-0")
    with pytest.raises(AnsibleError, match="missing"):
        read([vm("ps")], name="deep", compose={"nothing": "missing"}, strict=True)


@pytest.fixture
def cached(read, tmp_path):
    """Return read() with a cache in files, and their directory."""
    directory = tmp_path / "cache"

    def call(vms=None, may_use_cache=True, **options):
        given = {"name": "deep", "cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(directory), **options}
        inventory = read(vms, may_use_cache, **given)
        return {host: variables(inventory, host) for host in inventory.hosts}

    return call, directory


def test_cache(cached, tmp_path, im_server):
    call, directory = cached

    def readings():
        return im_server.calls.count("GET /infrastructures")

    first = call([vm("ps", "10.0.0.1", password="planted"), vm("worker", password="planted", private_key=None)])
    assert (call(), readings()) == (first, 1)
    assert "planted" not in "".join(file.read_text() for file in directory.iterdir())
    # Another infrastructure is read; and so are lost keys, and passwords.
    assert (call(name="other"), readings()) == ({}, 2)
    (tmp_path / "keys/inf-1/0.pem").unlink()
    assert (call(), readings()) == (first, 3)
    assert (tmp_path / "keys/inf-1/0.pem").exists()
    assert call(passwords=True)["worker-0"]["ansible_password"] == "planted"
    # As a playbook that reads the inventory again.
    before = readings()
    assert (call(may_use_cache=False), readings()) == (first, before + 1)


def test_empty_is_not_cached(cached):
    call, directory = cached
    assert call() == {}
    assert list(call([vm("ps")])) == ["ps-0"]
