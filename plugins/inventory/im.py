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
  - Hosts are the VMs of one infrastructure, or of all, in groups that are named as their RADL systems.
  - A host is named SYSTEM-K, where K counts the VMs of its system from 0 in the order of their ids; of all infrastructures, NAME-SYSTEM-K.
  - Where there is no such infrastructure the inventory is empty, so that the playbook which creates it can use the same inventory.
  - The file is named C(im.yml) or C(im.yaml), or ends in C(.im.yml) or C(.im.yaml).
extends_documentation_fragment:
  - deeptrain.cluster.im.plugin
  - deeptrain.cluster.im
  - constructed
  - inventory_cache
options:
  plugin:
    description: Says that the file is for this plugin.
    type: str
    required: true
    choices: [deeptrain.cluster.im]
  infrastructure_id:
    description: Id of the one infrastructure.
    type: str
  name:
    description: Name of the one infrastructure, which its RADL's C(description) gives it.
    type: str
  address:
    description:
      - Which address is C(ansible_host), where a VM has both.
      - With V(public) a VM that has a private one alone is reached through one that has a public one.
    type: str
    choices: [public, private]
    default: public
  jump_host:
    description:
      - Name of the host through which those without a public address are reached. By default the first that has one.
    type: str
  key_directory:
    description:
      - Directory for the private keys of the VMs and for C(known_hosts), below which each infrastructure has its own, named as its id.
      - The files stay there until you remove them.
    type: path
    default: ~/.ansible/im
  connections:
    description: How many VMs are asked for at a time.
    type: int
    default: 16
notes:
  - What is cached holds no password and no key.
"""

EXAMPLES = r"""
# im.yml, with IM_URL and IM_AUTH_FILE in the environment
plugin: deeptrain.cluster.im
name: deeptrain

---
# All infrastructures, in groups by state too, and those with a GPU's name in one of their own
plugin: deeptrain.cluster.im
url: https://im.example.org:8800
auth_file: ~/.im/auth.dat
keyed_groups:
  - key: im_state
    prefix: state
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.ansible/tmp/im
"""

import os
import shlex
from concurrent.futures import ThreadPoolExecutor

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.display import Display
from ansible_collections.deeptrain.cluster.plugins.module_utils.im import ImError, client

display = Display()

SUFFIXES = ("im.yml", "im.yaml")
SECRETS = ("password", "private_key")


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Hosts and groups from the Infrastructure Manager."""

    NAME = "deeptrain.cluster.im"

    def verify_file(self, path):
        """Return whether the file's name is one of this plugin's."""
        name = os.path.basename(path)
        return super().verify_file(path) and (name in SUFFIXES or name.endswith(tuple(f".{suffix}" for suffix in SUFFIXES)))

    def parse(self, inventory, loader, path, cache=True):
        """Fill the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        self.load_cache_plugin()
        key = self.get_cache_key(path)
        use = self.get_option("cache") and cache
        infrastructures = self._cache.get(key) if use else None
        if infrastructures is None or not self._keys_are_there(infrastructures):
            try:
                infrastructures = self._fetch()
            except ImError as error:
                raise AnsibleParserError(f"{path}: {error}") from None
            self._keep_keys(infrastructures)
            if self.get_option("cache"):
                self._cache[key] = [{**item, "vms": [_without_secrets(vm) for vm in item["vms"]]} for item in infrastructures]
        for item in infrastructures:
            self._add(item, f"{item['name'] or item['id']}-" if len(infrastructures) > 1 else "")

    def _fetch(self):
        """Return the infrastructures, each with its VMs; none where there is none of that id or name."""
        im = client({name: self.get_option(name) for name in ("url", "auth", "auth_file", "validate_certs", "ca_path", "timeout")}, display.warning)
        wanted, name = self.get_option("infrastructure_id"), self.get_option("name")
        there = im.infrastructures()
        ids = [wanted] if wanted in there else [] if wanted else im.find(name) if name else there
        if name and not wanted and len(ids) > 1:
            raise ImError(f"{len(ids)} infrastructures are named {name}: {', '.join(ids)}. Say which one by infrastructure_id")
        found = []
        for infrastructure in ids:
            try:
                found.append(self._fetch_one(im, infrastructure))
            except ImError as error:
                # It may have been destroyed since they were listed.
                if error.code != 404:
                    raise
        return found

    def _fetch_one(self, im, infrastructure):
        states = im.state(infrastructure)["vm_states"]
        with ThreadPoolExecutor(self.get_option("connections")) as pool:
            vms = list(pool.map(lambda vm: im.vm(infrastructure, vm), im.vms(infrastructure)))
        for vm in vms:
            vm["state"] = states.get(vm["id"], vm["state"])
        return {"id": infrastructure, "name": im.name(infrastructure), "vms": vms}

    def _directory(self, infrastructure):
        return os.path.join(os.path.expanduser(self.get_option("key_directory")), infrastructure)

    def _keys_are_there(self, infrastructures):
        """Return whether each VM's key is in its file, and none has a password, since neither is cached."""
        vms = [(item["id"], vm) for item in infrastructures for vm in item["vms"]]
        return all(vm["login"] == "none" or vm["login"] == "key" and os.path.exists(self._key_file(infrastructure, vm)) for infrastructure, vm in vms)

    def _key_file(self, infrastructure, vm):
        return os.path.join(self._directory(infrastructure), f"{vm['id']}.pem")

    def _keep_keys(self, infrastructures):
        """Write the keys to files, and note how each VM is logged in to."""
        for item in infrastructures:
            # For known_hosts too.
            os.makedirs(self._directory(item["id"]), mode=0o700, exist_ok=True)
            for vm in item["vms"]:
                vm["login"] = "key" if vm["private_key"] else "password" if vm["password"] else "none"
                if vm["private_key"]:
                    _write_secretly(self._key_file(item["id"], vm), vm["private_key"].strip() + "\n")

    def _add(self, item, prefix):
        """Add an infrastructure's hosts, their groups and their variables."""
        count, hosts = {}, {}
        for vm in item["vms"]:
            system = vm["system"] or "unknown"
            number = count[system] = count.get(system, -1) + 1
            hosts[f"{prefix}{system}-{number}"] = vm
        jump = self._jump_host(hosts)
        for host, vm in hosts.items():
            group = self.inventory.add_group(self._sanitize_group_name(vm["system"] or "unknown"))
            self.inventory.add_host(host, group)
            variables = {**_facts(item, vm), **self._connection(item, vm, jump)}
            for name, value in variables.items():
                if value is not None:
                    self.inventory.set_variable(host, name, value)
            strict = self.get_option("strict")
            self._set_composite_vars(self.get_option("compose"), variables, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), variables, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), variables, host, strict=strict)

    def _jump_host(self, hosts):
        """Return the VM through which those without a public address are reached, or None."""
        wanted = self.get_option("jump_host")
        if not wanted:
            return next((vm for vm in hosts.values() if vm["public_ip"]), None)
        if hosts and not hosts.get(wanted, {}).get("public_ip"):
            raise AnsibleParserError(f"jump_host is {wanted}: name one of the hosts that have a public address, or leave it out")
        return hosts.get(wanted)

    def _connection(self, item, vm, jump):
        """Return the connection variables of a VM."""
        public = self.get_option("address") == "public"
        address = vm["public_ip"] or vm["private_ip"] if public else vm["private_ip"] or vm["public_ip"]
        known = ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={os.path.join(self._directory(item['id']), 'known_hosts')}"]
        through = jump if public and jump and not vm["public_ip"] else None
        arguments = list(known)
        if through:
            key = ["-i", self._key_file(item["id"], through)] if through["login"] == "key" else []
            who = f"{through['user']}@{through['public_ip']}" if through["user"] else through["public_ip"]
            arguments += ["-o", f"ProxyCommand={shlex.join(['ssh', '-q', *key, *known, '-p', str(through['ssh_port']), '-W', '%h:%p', who])}"]
        return {
            "ansible_host": address,
            "ansible_port": vm["ssh_port"] if address == vm["public_ip"] else 22,
            "ansible_user": vm["user"],
            "ansible_password": vm.get("password") if vm["login"] == "password" else None,
            "ansible_ssh_private_key_file": self._key_file(item["id"], vm) if vm["login"] == "key" else None,
            "ansible_ssh_common_args": shlex.join(arguments),
        }


def _facts(item, vm):
    """Return what is known of a VM, under the names that the Infrastructure Manager's own Ansible has for it."""
    return {
        "IM_NODE_PRIVATE_IP": vm["private_ip"],
        "IM_NODE_PUBLIC_IP": vm["public_ip"],
        "IM_NODE_HOSTNAME": vm["hostname"],
        "IM_NODE_NUM": vm["id"],
        "IM_INFRASTRUCTURE_ID": item["id"],
        "im_name": item["name"],
        "im_system": vm["system"],
        "im_state": vm["state"],
        "im_vm_id": vm["id"],
    }


def _without_secrets(vm):
    return {name: value for name, value in vm.items() if name not in SECRETS}


def _write_secretly(path, text):
    """Replace a file by one that its owner alone can read."""
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, path)
