# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventory plugin deeptrain.cluster.im."""

from __future__ import annotations

DOCUMENTATION = r"""
name: im
short_description: VMs of the Infrastructure Manager
version_added: 0.1.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - The hosts are the VMs of one or all infrastructures. The groups are their RADL systems.
  - A host is named SYSTEM-K, where K counts the VMs of its system from 0 in the order of their ids. Without O(infrastructure_id) and O(name) its
    name is NAME-SYSTEM-K, with the name of the infrastructure, or its id if several have the same name.
  - The inventory is empty if the infrastructure does not exist, so that the playbook that creates it can use the same inventory.
  - The file is named C(im.yml) or C(im.yaml), or ends in C(.im.yml) or C(.im.yaml).
  - Host variables are C(IM_NODE_PRIVATE_IP), C(IM_NODE_PUBLIC_IP), C(IM_NODE_HOSTNAME), C(IM_NODE_NUM) and C(IM_INFRASTRUCTURE_ID), as in the
    Infrastructure Manager's own Ansible, and C(im_name) (the name of the infrastructure), C(im_system), C(im_state) and C(im_vm_id).
  - With O(infrastructure_id) or O(name) all hosts have C(im_inventory_names), the names of the infrastructures in the inventory. The O(name) is
    among them even if the infrastructure does not exist yet.
extends_documentation_fragment:
  - deeptrain.cluster._im.plugin
  - deeptrain.cluster._im
  - constructed
  - inventory_cache
options:
  plugin:
    description: Name of this plugin.
    type: str
    required: true
    choices: [deeptrain.cluster.im]
  infrastructure_id:
    description: Id of the infrastructure. The default is all infrastructures. Excludes O(name).
    type: str
  name:
    description: >-
      Name of the infrastructure, which is in the C(description) of its RADL. The default is all infrastructures. Excludes O(infrastructure_id).
    type: str
  address:
    description:
      - Which address of a VM with both is its C(ansible_host).
      - With V(public) a VM without an interface in a public network of the RADL is reached through a jump host, even if the cloud gave it a
        public address.
    type: str
    choices: [public, private]
    default: public
  jump_host:
    description:
      - VM through which those without a public address are reached, as SYSTEM-K such as V(chief-0). The default is the first one with a public
        address.
    type: str
  key_directory:
    description:
      - Directory of the private keys of the VMs and of C(known_hosts). Each infrastructure has a subdirectory with its id as the name, which only
        its owner can read.
      - The files can be removed when the infrastructure is destroyed. The playbook C(deeptrain.cluster.destroy) removes them.
    type: path
    default: ~/.ansible/im
  passwords:
    description:
      - Whether C(ansible_password) of a VM without a key is set to its password, which is then visible in its host variables.
    type: bool
    default: false
  connections:
    description: Maximum number of concurrent calls.
    type: int
    default: 16
notes:
  - The cache contains no passwords and keys. The cache is not used when the file of a key is missing, or a
    password is needed for O(passwords).
  - An empty inventory is not cached.
  - Each infrastructure has its own SSH control sockets, since the private addresses of two infrastructures may be the same.
"""

EXAMPLES = r"""
# im.yml, with the environment variables IM_URL and IM_AUTH_FILE
plugin: deeptrain.cluster.im
name: deeptrain

---
# All infrastructures, also in groups by name and by state, with a cache
plugin: deeptrain.cluster.im
url: https://im.example.org:8800
auth_file: ~/.im/auth.dat
keyed_groups:
  - key: im_name
    prefix: im
  - key: im_state
    prefix: state
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.ansible/tmp/im
"""

import hashlib
import os
import re
import shlex
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.display import Display
from ansible.utils.unsafe_proxy import wrap_var
from ansible_collections.deeptrain.cluster.plugins.module_utils import _guarded_files as guarded_files
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import ImError, NotFound, client, radl_name, radl_public_systems

display = Display()

SUFFIXES = ("im.yml", "im.yaml")
CLIENT = ("url", "auth", "auth_file", "validate_certs", "ca_path", "timeout", "unavailable_timeout")
NAMES = "im_inventory_names"
SECRETS = ("password", "private_key")
# Part of the cache's keys, so that entries of an earlier version with other values are not used.
CACHE_FORMAT = "2"
# The sshd of a jump host refuses some of many concurrent connections.
RETRIES = 3


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Hosts and groups from the Infrastructure Manager."""

    NAME = "deeptrain.cluster.im"

    def verify_file(self, path):
        """Return whether the file's name is one for this plugin."""
        name = os.path.basename(path)
        return super().verify_file(path) and (name in SUFFIXES or name.endswith(tuple(f".{suffix}" for suffix in SUFFIXES)))

    def parse(self, inventory, loader, path, cache=True):
        """Add the hosts, groups and variables to the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            infrastructures = self._infrastructures(path, cache)
            self._publish_names(infrastructures)
            names = Counter(item["name"] for item in infrastructures)
            for item in infrastructures:
                self._add(item, "" if self._selects_one() else f"{item['name'] if names[item['name']] == 1 else item['id']}-")
        except ImError as error:
            raise AnsibleParserError(f"{path}: {error}") from None
        except OSError as error:
            raise AnsibleParserError(f"{path}: cannot write keys ({error}): set key_directory to a directory that you can write to") from None

    def _infrastructures(self, path, may_use_cache):
        """Return the infrastructures, each with its VMs, from the cache or the server."""
        self.load_cache_plugin()
        caching = self.get_option("cache")
        # Another infrastructure in the same file has another cache entry.
        key = self.get_cache_key(" ".join([CACHE_FORMAT, path, *(self.get_option(name) or "" for name in ("url", "infrastructure_id", "name"))]))
        found = self._cache.get(key) if caching and may_use_cache else None
        if not found or not all(self._has_login(item, vm) for item in found for vm in item["vms"]):
            found = self._fetch()
            for item in found:
                self._write_keys(item)
            if caching:
                self._cache[key] = [{**item, "vms": [_without_secrets(vm) for vm in item["vms"]]} for item in found]
        return found

    def _fetch(self):
        """Return the infrastructures, each with its VMs, from the server; none if none of that id or name exists."""
        im = client({name: self.get_option(name) for name in CLIENT}, display.warning)
        with ThreadPoolExecutor(max(1, self.get_option("connections"))) as pool:
            found = [item for item in pool.map(lambda infrastructure: _if_exists(_head, im, infrastructure), self._chosen(im)) if item]
            ids = [(item, vm) for item in found for vm in item.pop("vm_ids")]
            for item, vm in pool.map(lambda pair: (pair[0], _if_exists(im.vm, pair[0]["id"], pair[1])), ids):
                if vm:
                    # On EC2 all VMs have a public address, and SSH is reachable only if the RADL gives the VM a public network.
                    reachable = vm["system"] in item["public"] or not item["public"] or not vm["private_ip"]
                    # The states in the infrastructure's state are newer.
                    state = item["states"].get(vm["id"], vm["state"])
                    item["vms"].append({**vm, "state": state, "reachable_ip": vm["public_ip"] if reachable else None})
        # The Infrastructure Manager lists them in no particular order.
        return sorted(found, key=lambda item: (item["name"], item["id"]))

    def _chosen(self, im):
        """Return the ids of the infrastructures that the options select."""
        wanted, name = self.get_option("infrastructure_id"), self.get_option("name")
        if wanted and name:
            raise ImError("infrastructure_id and name are both given: leave one of them out")
        found = list(filter(None, [im.find_one(name)])) if name else im.infrastructures()
        for infrastructure in found:
            # It becomes the name of a directory.
            if not re.fullmatch(r"\w[\w.-]*", infrastructure):
                raise ImError(
                    f"{im.url} lists {infrastructure!r}, which is not the id of an infrastructure: set url to the Infrastructure Manager's REST address"
                )
        return [infrastructure for infrastructure in found if wanted in (None, "", infrastructure)]

    def _publish_names(self, infrastructures):
        """Publish the names of the clusters whose machines this inventory has, or will have, for the playbooks."""
        if self._selects_one():
            names = [self.get_option("name")] if self.get_option("name") else [item["name"] for item in infrastructures]
            # Another source may have published other names.
            known = self.inventory.groups["all"].get_vars().get(NAMES, [])
            self.inventory.set_variable("all", NAMES, [*known, *map(_untemplated, names)])

    def _selects_one(self):
        return bool(self.get_option("infrastructure_id") or self.get_option("name"))

    def _directory(self, item):
        return os.path.join(self.get_option("key_directory"), item["id"])

    def _key_file(self, item, vm):
        return os.path.join(self._directory(item), f"{vm['id']}.pem")

    def _has_login(self, item, vm):
        """Return whether the login of a cached VM works without its key or password, which are not cached."""
        if vm["login"] == "key":
            return os.path.exists(self._key_file(item, vm))
        return vm["login"] == "none" or not self.get_option("passwords")

    def _write_keys(self, item):
        """Write an infrastructure's keys to files, and set the kind of login of each VM."""
        directory = self._directory(item)
        os.makedirs(directory, mode=0o700, exist_ok=True)
        os.chmod(directory, 0o700)
        for vm in item["vms"]:
            vm["login"] = "key" if vm["private_key"] else "password" if vm["password"] else "none"
            if vm["private_key"]:
                guarded_files.write_own(self._key_file(item, vm), vm["private_key"].strip() + "\n")

    def _add(self, item, prefix):
        """Add an infrastructure's hosts, their groups and their variables."""
        count, hosts = Counter(), {}
        for vm in item["vms"]:
            system = _system(vm)
            hosts[f"{system}-{count[system]}"] = vm
            count[system] += 1
        jump = self._jump_host(hosts)
        strict = self.get_option("strict")
        for name, vm in hosts.items():
            host = prefix + name
            self.inventory.add_host(host, self.inventory.add_group(_system(vm)))
            for variable, value in {**_facts(item, vm), **self._connection(item, vm, jump)}.items():
                if value is not None:
                    self.inventory.set_variable(host, variable, _untemplated(value))
            self._set_composite_vars(self.get_option("compose"), self.inventory.get_host(host).get_vars(), host, strict)
            variables = self.inventory.get_host(host).get_vars()
            self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict, fetch_hostvars=False)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict, fetch_hostvars=False)

    def _jump_host(self, hosts):
        """Return the VM through which those without a public address are reached; None if all have one, or none."""
        if self.get_option("address") == "private" or all(vm["reachable_ip"] for vm in hosts.values()):
            return None
        wanted = self.get_option("jump_host")
        if not wanted:
            return next((vm for vm in hosts.values() if vm["reachable_ip"]), None)
        if not hosts.get(wanted, {}).get("reachable_ip"):
            others = ", ".join(host for host, vm in hosts.items() if vm["reachable_ip"]) or "there is none"
            raise ImError(f"jump_host is {wanted}, which has no public address: set it to one that has ({others}), or leave it out")
        return hosts[wanted]

    def _connection(self, item, vm, jump):
        """Return the connection variables of a VM."""
        private_first = self.get_option("address") == "private"
        address = (vm["private_ip"] or vm["reachable_ip"]) if private_first else (vm["reachable_ip"] or vm["private_ip"])
        # Per infrastructure, and short: the path of a socket is limited to some 100 characters.
        sockets = os.path.expanduser(f"~/.ansible/cp/{hashlib.sha256(item['id'].encode()).hexdigest()[:8]}")
        through = jump if address != vm["reachable_ip"] else None
        arguments = self._ssh_options(item, vm)
        if through:
            # All VMs share one connection to the jump host.
            shared = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", f'ControlPath="{sockets}/jump"', "-o", "ServerAliveInterval=15"]
            key = ["-i", self._key_file(item, through)] if through["login"] == "key" else []
            user = ["-l", through["user"]] if through["user"] else []
            forward = ["-p", str(through["ssh_port"]), "-W", "[%h]:%p", "--", through["reachable_ip"]]
            command = shlex.join(["ssh", "-q", *self._ssh_options(item, through), *shared, *key, *user, *forward])
            arguments += ["-o", f"ProxyCommand={command}"]
        return {
            "ansible_host": address,
            "ansible_port": vm["ssh_port"] if address == vm["reachable_ip"] else 22,
            "ansible_user": vm["user"],
            "ansible_password": vm["password"] if vm["login"] == "password" and self.get_option("passwords") else None,
            "ansible_ssh_private_key_file": self._key_file(item, vm) if vm["login"] == "key" else None,
            "ansible_ssh_common_args": shlex.join(arguments),
            "ansible_control_path_dir": sockets,
            "ansible_ssh_retries": RETRIES if through else None,
        }

    def _ssh_options(self, item, vm):
        """Return the options of ssh for a VM.

        Its first host key is accepted, and required later. It is stored under the VM's id, since another VM may get its address.
        """
        known = os.path.join(self._directory(item), "known_hosts")
        only = ["-o", "IdentitiesOnly=yes"] if vm["login"] == "key" else []
        return ["-o", "StrictHostKeyChecking=accept-new", "-o", f'UserKnownHostsFile="{known}"', "-o", f"HostKeyAlias=vm-{vm['id']}", *only]


def _if_exists(call, *arguments):
    """Return the result of a call; None if the infrastructure or VM was destroyed since it was listed."""
    try:
        return call(*arguments)
    except NotFound:
        return None


def _head(im, infrastructure):
    """Return an infrastructure with the ids of its VMs, which are not read yet."""
    states = im.state(infrastructure)["vm_states"]
    radl = im.radl(infrastructure)
    return {
        "id": infrastructure,
        "name": radl_name(radl) or infrastructure,
        "states": states,
        "public": sorted(radl_public_systems(radl)),
        "vm_ids": im.vms(infrastructure),
        "vms": [],
    }


def _system(vm):
    return vm["system"] or "unknown"


def _facts(item, vm):
    """Return the variables that describe a VM, with the names that the Infrastructure Manager's own Ansible uses."""
    return {
        "IM_NODE_PRIVATE_IP": vm["private_ip"] or vm["public_ip"],
        "IM_NODE_PUBLIC_IP": vm["public_ip"],
        "IM_NODE_HOSTNAME": (vm["hostname"] or "").partition(".")[0] or None,
        "IM_NODE_NUM": vm["id"],
        "IM_INFRASTRUCTURE_ID": item["id"],
        "im_name": item["name"],
        "im_system": vm["system"],
        "im_state": vm["state"],
        "im_vm_id": vm["id"],
    }


def _without_secrets(vm):
    return {name: value for name, value in vm.items() if name not in SECRETS}


def _untemplated(value):
    """Return a value marked as unsafe, since it comes from the server: Ansible does not evaluate templates in it."""
    return wrap_var(value) if isinstance(value, str) and "{" in value else value
