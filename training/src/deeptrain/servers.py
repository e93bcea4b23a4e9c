# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers of a training by TF_CONFIG, and whether they answer."""

from __future__ import annotations

import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

ANSWER_SECONDS = 3.0
PARALLEL = 32
# They run the training, and serve nobody.
NO_SERVERS = ("chief", "master", "evaluator")


def split_address(address: str) -> tuple[str, int]:
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def task_address(tf_config: dict) -> tuple[str, int]:
    """Host and port of the task that TF_CONFIG describes."""
    task = tf_config["task"]
    return split_address(tf_config["cluster"][task["type"]][task["index"]])


def answers(address: tuple[str, int], seconds: float = 1.0) -> bool:
    """Whether something listens on the address."""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=seconds):
        return True
    return False


def all_servers(tf_config: dict) -> dict[str, list[str]]:
    """The addresses of all servers by the type of their task."""
    return {kind: addresses for kind, addresses in tf_config.get("cluster", {}).items() if kind not in NO_SERVERS}


def silent(tf_config: dict) -> dict[str, list[str]]:
    """The addresses that do not answer, by the type of their task; empty when all do."""
    found: dict[str, list[str]] = {}
    pairs = [(kind, address) for kind, addresses in all_servers(tf_config).items() for address in addresses]
    with ThreadPoolExecutor(PARALLEL) as pool:
        answered = pool.map(lambda pair: answers(split_address(pair[1]), ANSWER_SECONDS), pairs)
        for (kind, address), answer in zip(pairs, answered, strict=True):
            if not answer:
                found.setdefault(kind, []).append(address)
    return found


def describe(servers: dict[str, list[str]]) -> str:
    """The units of servers, and where they are."""
    return " and ".join(f"deeptrain-{kind} on {', '.join(addresses)}" for kind, addresses in servers.items())


def needed(tf_config: dict, servers: dict[str, list[str]]) -> dict[str, list[str]]:
    """Those of the servers without which no training works: each ps, and the last worker."""
    cluster = tf_config.get("cluster", {})
    return {kind: addresses for kind, addresses in servers.items() if kind != "worker" or len(addresses) == len(cluster[kind])}
