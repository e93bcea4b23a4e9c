# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fake of the Infrastructure Manager's server for the tests of plugins."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# In the authorization; no answer of a plugin may contain it.
SECRET = "not-to-be-seen"
# Answers in place of those to calls that are carried out all the same: none, and one of a proxy.
LOST = None, b""
WEB_PAGE = 200, b"<html>Welcome</html>"

DEPLOY = re.compile(r"^deploy (?P<system>\S+) (?P<count>[0-9]+)", re.MULTILINE)


@contextmanager
def serving(server):
    """Run an HTTP server in a thread."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers one call."""

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        code, content, *headers = self.server.answer(self.command, self.path, body, dict(self.headers))
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        if code is None:
            # Hangs up, after what there is of an answer.
            self.wfile.write(data)
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(code)
        for name, value in dict(*headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def log_message(self, *arguments):
        """Log nothing."""


class ImServer(ThreadingHTTPServer):
    """Answers as the real server does, on loopback.

    `existing` holds the infrastructures by id: `radl`, `state` (None for the server's), `vms` (the system of each by id, or the classes of its
    RADL), `vm_states` and `creation` (what the server knows of the creation of its VMs). An answer is a status, a body and optionally headers;
    `reply` takes the place of all answers, and an item of `breaks` that of the next answer to a call, such as GET /infrastructures/ID/state.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        # The calls, with ID in the place of an infrastructure's, and as they came: method, path with query, and headers.
        self.calls, self.requests = [], []
        self.breaks, self.reply, self.secret = [], None, ""
        self.existing, self.created = {}, 0
        self.state, self.estimate = "configured", {"dummy": {"compute": [{"cpuCores": 1}]}}

    def count(self, what):
        """Return how often an infrastructure was asked for something of it."""
        return self.calls.count(f"GET /infrastructures/ID/{what}")

    def act(self, *steps):
        """Take steps beside the test: wait until one is true, take the next, and so on."""

        def take():
            for condition, action in zip(steps[::2], steps[1::2], strict=True):
                while not condition():
                    time.sleep(0.01)
                action()

        threading.Thread(target=take, daemon=True).start()

    def create(self, radl):
        """Create an infrastructure, and return its id."""
        self.created += 1
        self.existing[f"i{self.created}"] = {"radl": radl, "vms": {}, "state": None}
        self.deploy(f"i{self.created}", radl)
        return f"i{self.created}"

    def deploy(self, infrastructure, radl):
        """Add the VMs that a RADL deploys."""
        vms = self.existing[infrastructure]["vms"]
        for match in DEPLOY.finditer(radl):
            for _number in range(int(match["count"])):
                vms[str(len(vms))] = match["system"]

    def answer(self, method, target, body, headers):
        """Return the answer to a call, the test's or the real server's."""
        path, _mark, query = target.partition("?")
        call = f"{method} {re.sub('/i[0-9]+', '/ID', path)}"
        self.calls.append(call)
        self.requests.append((method, target, headers))
        if self.reply:
            return self.reply
        if self.secret not in headers.get("Authorization", ""):
            return 401, {"message": "Invalid credentials", "code": 401}
        broken = next((item for item in self.breaks if item[0] in (call, f"{method} {path}")), None)
        if broken:
            self.breaks.remove(broken)
            if broken[1] not in (LOST, WEB_PAGE):
                return broken[1]
        answer = self.respond(method, path.strip("/").split("/"), body, query)
        return broken[1] if broken else answer

    def respond(self, method, path, body, query):
        """Carry out a call, and return the answer."""
        base = f"{self.url}/infrastructures"
        if len(path) == 1:
            if method == "GET":
                return 200, {"uri-list": [{"uri": f"{base}/{infrastructure}"} for infrastructure in self.existing]}
            if "dry_run" in query:
                return 200, self.estimate
            return 200, {"uri": f"{base}/{self.create(body)}"}
        if path[1] not in self.existing:
            return 404, {"message": "Invalid infrastructure ID or access not granted.", "code": 404}
        one = self.existing[path[1]]
        if len(path) == 2:
            if method == "DELETE":
                del self.existing[path[1]]
                return 200, b""
            if method == "POST":
                self.deploy(path[1], body)
            return 200, {"uri-list": [{"uri": f"{base}/{path[1]}/vms/{vm}"} for vm in one["vms"]]}
        state = one["state"] or self.state
        if method == "GET" and path[2] == "vms":
            return 200, {"radl": vm_classes(path[3], one["vms"][path[3]])}
        if method == "DELETE":
            for vm in path[3].split(","):
                del one["vms"][vm]
        if path[2] == "state":
            return 200, {"state": {"state": state, "vm_states": {**dict.fromkeys(one["vms"], state), **one.get("vm_states", {})}}}
        creation = {"creating": False, "configured": True, **one.get("creation", {})}
        data = {"vm_list": [{"im_id": int(vm), "destroy": False, **creation} for vm in one["vms"]]}
        values = {
            "data": json.dumps(data),
            "radl": one["radl"],
            "contmsg": f"the log has {SECRET} and vm-password",
            "outputs": {"out": {"token": "vm-password"}},
        }
        return 200, {path[2]: values.get(path[2])}


def vm_classes(vm, system):
    """Return the classes of a VM's RADL from its system's name, or as they are given."""
    if not isinstance(system, str):
        return system
    sizes = {"cpu.count": 1, "memory.size": 2 * 10**9}
    return [{"class": "system", "id": system, **sizes, "net_interface.0.dns_name": f"worker-{vm}", "disk.0.os.credentials.new.password": "vm-password"}]
