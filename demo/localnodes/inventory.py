# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a cluster of local nodes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

HEAD = "# Written by demo/nodes.py; changes are lost.\n---\n"


def write(file: Path, nodes: list, key: Path, known_hosts: Path) -> None:
    """Write the inventory of `nodes` as YAML."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(render(nodes, key, known_hosts), encoding="utf-8")


def render(nodes: list, key: Path, known_hosts: Path) -> str:
    lines = [
        "all:",
        "  vars:",
        "    ansible_host: 127.0.0.1",
        "    ansible_user: admin",
        "    ansible_become: true",
        "    ansible_python_interpreter: /usr/bin/python3",
        f"    ansible_ssh_private_key_file: {json.dumps(str(key))}",
        f"    ansible_ssh_common_args: {json.dumps(_ssh_options(known_hosts))}",
        "  hosts:",
    ]
    for node in nodes:
        lines += [
            f"    {node.name}:",
            f"      ansible_port: {node.port}",
            f"      deeptrain_address: {node.address}",
        ]
    lines.append("  children:")
    for group in dict.fromkeys(group for node in nodes for group in node.groups):
        lines += [f"    {group}:", "      hosts:"]
        lines += [f"        {node.name}: {{}}" for node in nodes if group in node.groups]
    return HEAD + "\n".join(lines) + "\n"


def _ssh_options(known_hosts: Path) -> str:
    # ssh itself splits the value of this option at blanks, hence the quotes within.
    return "-o StrictHostKeyChecking=yes -o " + shlex.quote(f'UserKnownHostsFile="{known_hosts}"')
