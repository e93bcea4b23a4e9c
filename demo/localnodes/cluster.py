# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of nodes: its network, containers, keys and inventory."""

from __future__ import annotations

import ipaddress
import json
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import image, inventory, site
from .host import Failure, Host

LABEL = "deeptrain.cluster"

# Lets our key in, waits for the end of booting, and tells the node's own key.
WELCOME = """
set -e
install -d -o admin -g admin -m 0700 /home/admin/.ssh
install -o admin -g admin -m 0600 /dev/stdin /home/admin/.ssh/authorized_keys
# At first systemd has no bus to be asked on.
timeout 60 sh -c 'until systemctl is-system-running --wait 2>/dev/null | grep -Eqx "running|degraded"; do sleep 0.2; done'
systemctl is-active --quiet ssh
cat /etc/ssh/ssh_host_ed25519_key.pub
"""


@dataclass(frozen=True)
class Node:
    """A node as its container tells it."""

    name: str
    groups: tuple[str, ...]
    address: str
    port: int
    state: str
    container: str


class Cluster:
    """The nodes of one name; all that is known of them is asked of podman."""

    def __init__(self, host: Host, name: str, cache: Path):
        self.host = host
        self.name = name
        self.cache = cache
        self.state = cache / "clusters" / name
        self.key = self.state / "id_ed25519"
        self.known_hosts = self.state / "known_hosts"

    def nodes(self) -> list[Node]:
        """All nodes there are, running or not, in the order in which they were made."""
        found = []
        for container in self._containers():
            labels, ports = container["Labels"], container["Ports"] or [{}]
            found.append(
                Node(
                    name=labels["deeptrain.node"],
                    groups=tuple(labels["deeptrain.groups"].split(",")),
                    address=labels["deeptrain.address"],
                    port=ports[0].get("host_port", 0),
                    state=container["State"],
                    container=container["Names"][0],
                )
            )
        return sorted(found, key=lambda node: ipaddress.ip_address(node.address))

    def up(self, groups: list[tuple[list[str], int]], memory: str | None, file: Path) -> None:
        """Make what is missing, start what is stopped, and write the inventory when all answer."""
        nodes = self.nodes()
        if nodes and not self.key.exists():
            raise Failure(
                f"There is a cluster {self.name} that was not made from this directory: "
                f"take another --cluster, or remove it with `nodes.py down --cluster {self.name}`."
            )
        tag = image.ensure(self.host, self.cache)
        self._make_key()
        self._make_network()
        there = {node.name for node in nodes}
        addresses = self._free_addresses([node.address for node in nodes])
        for names, count in groups:
            for index in range(count):
                node = f"{names[0].replace('_', '-')}-{index}"
                if node not in there:
                    self._run(tag, node, names, next(addresses), memory)
        for node in nodes:
            if node.state != "running":
                self.host.podman("start", node.container)

        nodes = self.nodes()
        with ThreadPoolExecutor(max_workers=8) as pool:
            keys = list(pool.map(self._welcome, nodes))
        self.known_hosts.write_text(
            "".join(f"[127.0.0.1]:{node.port} {key}\n" for node, key in zip(nodes, keys, strict=True)), encoding="ascii"
        )
        inventory.write(file, nodes, self.key, self.known_hosts)
        (self.state / "inventories.json").write_text(
            json.dumps(sorted({*self._inventories(), str(file)})), encoding="utf-8"
        )

    def down(self) -> None:
        """Remove all that `up` made, but for the image."""
        containers = [container["Id"] for container in self._containers()]
        if containers:
            self.host.podman("rm", "--force", "--time", "0", *containers)
        if self._has_network():
            self.host.podman("network", "rm", self.name)
        for file in self._inventories():
            Path(file).unlink(missing_ok=True)
        if self.state.exists():
            shutil.rmtree(self.state)

    def _containers(self) -> list[dict]:
        return self.host.podman_list("ps", "--all", "--filter", f"label={LABEL}={self.name}")

    def _has_network(self) -> bool:
        return bool(self.host.podman_list("network", "ls", "--filter", f"label={LABEL}={self.name}"))

    def _inventories(self) -> list[str]:
        file = self.state / "inventories.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.exists() else []

    def _make_key(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not self.key.exists():
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", str(self.key)], check=True
            )

    def _make_network(self) -> None:
        if not self._has_network():
            self.host.podman(
                "network", "create", "--label", f"{LABEL}={self.name}",
                "--opt", f"mtu={self.host.mtu}", self.name,
            )  # fmt: skip

    def _free_addresses(self, taken: list[str]):
        """Addresses of the cluster's network, given out by us so that they stay after a restart."""
        [network] = json.loads(self.host.podman("network", "inspect", self.name))
        subnet = ipaddress.ip_network(network["subnets"][0]["subnet"])
        start = max([subnet.network_address + 9, *map(ipaddress.ip_address, taken)]) + 1
        for number in range(int(start), int(subnet.broadcast_address)):
            yield str(ipaddress.ip_address(number))
        raise Failure(f"The network {subnet} has no address left: run `nodes.py down --cluster {self.name}`.")

    def _run(self, tag: str, node: str, groups: list[str], address: str, memory: str | None) -> None:
        pip_cache = self.cache / "pip"
        # pip uses a cache of its own user only, which is root on the nodes.
        self.host.root("mkdir", "-p", str(pip_cache))
        self.host.podman(
            "run", "--detach", "--systemd=always",
            "--name", f"{self.name}-{node}", "--hostname", node,
            "--label", f"{LABEL}={self.name}",
            "--label", f"deeptrain.node={node}",
            "--label", f"deeptrain.groups={','.join(groups)}",
            "--label", f"deeptrain.address={address}",
            "--network", f"{self.name}:ip={address},alias={node}",
            "--publish", "127.0.0.1::22",
            # Otherwise /etc/hosts is a mount, which cannot be replaced as a file.
            "--no-hosts",
            # The first for the sandboxes of systemd, the second for a firewall of the node's own.
            "--cap-add", "SYS_ADMIN,NET_ADMIN",
            "--volume", f"{pip_cache}:{site.PIP_CACHE}",
            *(["--memory", memory] if memory else []),
            *self.host.run_options,
            # Mounts must propagate as on a machine, or a service never sees its credentials.
            tag, "sh", "-c", "mount --make-rshared / && exec /sbin/init",
        )  # fmt: skip

    def _welcome(self, node: Node) -> str:
        """Put our key on a node when it has booted; returns the node's own public key."""
        public = self.key.with_suffix(".pub").read_text(encoding="ascii")
        try:
            return self.host.podman("exec", "--interactive", node.container, "sh", "-c", WELCOME, input=public)
        except Failure as failure:
            raise Failure(f"{node.name} does not come up: {failure}") from failure
