# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the training command of a parameter server or a worker.

systemd is told that the service is ready when the task's port answers, so that
whoever starts the unit knows when it can be used, or that it cannot.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from deeptrain import caches
from deeptrain.activity import local_files
from deeptrain.process import Command
from deeptrain.servers import answers, task_address
from deeptrain.train import task_environment

POLL_SECONDS = 0.2
# While a server fills its cache, systemd grants it so much more time to start, checked so often.
EXTENSION_SECONDS, FILES_SECONDS = 120, 15.0


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
    """Runs the command, passes SIGTERM on to it once, and returns its exit status (128 + signal when killed)."""
    server = Command(command, environment)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, frame: server.terminate())
    process = server.process
    cache, listed = None, time.monotonic()
    while process.poll() is None and not answers(address):
        time.sleep(POLL_SECONDS)
        if "DEEPTRAIN_CACHE_DIR" in environment and time.monotonic() - listed > FILES_SECONDS:
            files = local_files([Path(environment["DEEPTRAIN_CACHE_DIR"])])
            if files != cache:
                notify(f"EXTEND_TIMEOUT_USEC={EXTENSION_SECONDS * 1_000_000}\nSTATUS=Fills its cache")
            cache, listed = files, time.monotonic()
    if process.poll() is None:
        notify(f"READY=1\nSTATUS=Answers on {address[0]}:{address[1]}")
    process.wait()
    status = server.kill()
    return status if status >= 0 else 128 - status


def main(config_file: str) -> int:
    """Reads the server's configuration, as role tensorflow writes it, and serves."""
    with open(config_file, encoding="utf-8") as file:
        config = json.load(file)
    environment = task_environment(config)
    environment.pop("NOTIFY_SOCKET", None)
    caches.use(Path(config["cache_dir"]))
    caches.remove_stale(Path(config["cache_dir"]), config["model_url"])
    address = task_address(config["tf_config"])
    if answers(address):
        print(
            f"Another process listens on {address[0]}:{address[1]} already: end it, or give the task another port in deeptrain_ports",
            file=sys.stderr,
        )
        return 2
    return serve(config["command"], environment, address)
