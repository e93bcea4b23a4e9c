# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tries every TCP port of some addresses, and tells which answer, be it with a refusal. Runs on a node, with its Python alone."""

from __future__ import annotations

import contextlib
import errno
import json
import resource
import select
import socket
import sys
import time

SECONDS = 1.0


def answering(address: str) -> dict[int, str]:
    """Ports that answer, and how."""
    family, _kind, _protocol, _name, target = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)[0]
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    at_once = min(files - 100, 30000)
    # Until its link address is known, most of what is sent to a neighbour is dropped.
    with contextlib.suppress(OSError):
        socket.create_connection((address, 22), 5).close()
    found, waiting, todo = {}, {}, iter(range(1, 65536))
    poll = select.epoll()
    port = next(todo, None)
    while port or waiting:
        while port and len(waiting) < at_once:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            status = sock.connect_ex((target[0], port, *target[2:]))
            if status == errno.EINPROGRESS:
                poll.register(sock, select.EPOLLOUT)
                waiting[sock.fileno()] = (sock, port, time.monotonic() + SECONDS)
            else:
                found[port] = errno.errorcode.get(status, "open")
                sock.close()
            port = next(todo, None)
        for handle, _events in poll.poll(0.1):
            sock, tried, _end = waiting.pop(handle)
            status = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            found[tried] = errno.errorcode.get(status, "open")
            sock.close()
        now = time.monotonic()
        # In the order in which they were begun.
        for handle in list(waiting):
            if waiting[handle][2] > now:
                break
            waiting.pop(handle)[0].close()
    return found


print(json.dumps({address: answering(address) for address in sys.argv[1:]}))
