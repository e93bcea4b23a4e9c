# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make, list and remove clusters of nodes on this machine.

A node is a podman container with systemd and sshd, which Ansible cannot tell
from a machine of its own. Several clusters can live side by side.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from pathlib import Path

from localnodes import image
from localnodes.cluster import Cluster
from localnodes.host import Failure, Host

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "nodes"


def group(text: str) -> tuple[list[str], int]:
    """Group names and the number of nodes out of NAME[,NAME…]=COUNT."""
    names, separator, count = text.partition("=")
    if not re.fullmatch(r"[a-z][a-z0-9_]*(,[a-z][a-z0-9_]*)*", names) or not count.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not like worker=2 or ps,hdfs_namenode=1")
    return names.split(","), int(count)


def name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: only small letters, digits and hyphens, at most 31")
    return text


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)

    up = commands.add_parser("up", help="make or start what is missing, and write the inventory")
    up.add_argument("--inventory", type=Path, required=True, metavar="FILE")
    up.add_argument(
        "--group", type=group, action="append", required=True, dest="groups", metavar="NAME[,NAME…]=COUNT",
        help="nodes to have, called NAME-0, NAME-1, … after their first group",
    )  # fmt: skip
    up.add_argument("--memory", metavar="SIZE", help="limit of each new node, such as 4g; none by default")

    commands.add_parser("needs", help="name the Debian packages that this machine lacks")

    show = commands.add_parser("list", help="show the nodes")
    show.add_argument("--json", action="store_true")

    down = commands.add_parser("down", help="remove nodes, network, keys and inventory")
    down.add_argument(
        "--everything", action="store_true",
        help="all clusters of this directory, the image, and what was downloaded for them",
    )  # fmt: skip

    for command in (up, show, down):
        command.add_argument("--cluster", type=name, default="deeptrain", metavar="NAME")
    return parser.parse_args()


def show(cluster: Cluster, as_json: bool) -> None:
    nodes = cluster.nodes()
    if as_json:
        print(json.dumps([dataclasses.asdict(node) for node in nodes], indent=2))
        return
    for node in nodes:
        print(f"{node.name:<12} {','.join(node.groups):<20} {node.address:<15} port {node.port}  {node.state}")


def main() -> None:
    options = arguments()
    host = Host()
    if options.command == "needs":
        print(*host.missing_packages())
        return
    cluster = Cluster(host, options.cluster, CACHE)
    if options.command == "up":
        host.check()
        cluster.up(options.groups, options.memory, options.inventory.resolve())
        show(cluster, as_json=False)
    elif options.command == "list":
        show(cluster, options.json)
    elif options.everything:
        for state in CACHE.glob("clusters/*"):
            Cluster(host, state.name, CACHE).down()
        image.remove(host, CACHE)
    else:
        cluster.down()


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"nodes.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
