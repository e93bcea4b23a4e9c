# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the training command of a parameter server or a worker.

systemd is told that the service is ready when the task's port answers, so that
whoever starts the unit knows when it can be used, or that it cannot.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

from deeptrain.command import resolved
from deeptrain.train import task_environment

POLL_SECONDS = 0.2


def task_address(tf_config: dict) -> tuple[str, int]:
    """Host and port of the task that TF_CONFIG describes."""
    task = tf_config["task"]
    host, port = tf_config["cluster"][task["type"]][task["index"]].rsplit(":", 1)
    return host.strip("[]"), int(port)


def answers(address: tuple[str, int]) -> bool:
    """Whether something listens on the address."""
    with contextlib.suppress(OSError), socket.create_connection(address, timeout=1):
        return True
    return False


def notify(state: str) -> None:
    """Tells systemd a state, as sd_notify(3) does; nothing outside a unit."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        # An abstract name is written with "@" for its leading zero byte.
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.sendall(state.encode())


def serve(command: list[str], environment: dict[str, str], address: tuple[str, int]) -> int:
    """Runs the command, forwards SIGTERM to it, and returns its exit status (128 + signal when killed)."""
    process = subprocess.Popen(resolved(command), env=environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: process.send_signal(received))
    while process.poll() is None and not answers(address):
        time.sleep(POLL_SECONDS)
    if process.poll() is None:
        notify(f"READY=1\nSTATUS=Answers on {address[0]}:{address[1]}")
    status = process.wait()
    return status if status >= 0 else 128 - status


def main(config_file: str) -> int:
    """Reads the server's configuration, as role tensorflow writes it, and serves."""
    with open(config_file, encoding="utf-8") as file:
        config = json.load(file)
    environment = task_environment(config)
    environment.pop("NOTIFY_SOCKET", None)
    os.makedirs(config["cache_dir"], exist_ok=True)
    address = task_address(config["tf_config"])
    if answers(address):
        print(
            f"Another process listens on {address[0]}:{address[1]} already: end it, or give the task another port in deeptrain_ports",
            file=sys.stderr,
        )
        return 2
    return serve(config["command"], environment, address)
