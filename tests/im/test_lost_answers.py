# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills of the module or of the Infrastructure Manager after a request was sent and before its answer has come."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import Im
from conftest import AUTH, LIMIT

# As long as the Infrastructure Manager takes to answer, at most.
LONGEST = 0.04
KILLS, SEED = int(os.environ.get("IM_KILLS", "6")), int(os.environ.get("IM_SEED", "1"))


class Between(BaseHTTPRequestHandler):
    """Hands on every call and its answer, but for one: this is cut off at a moment of the test's choice."""

    def hand_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.calls += 1
        cut = self.server.cuts.pop((self.command, self.path.split("?")[0]), None)
        if cut:
            threading.Thread(target=self.ask, args=(body,), daemon=True).start()
            cut()
        else:
            answer = self.ask(body)
            if answer:
                self.send_response(answer[0])
                self.send_header("Content-Length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])
        self.close_connection = True

    def ask(self, body):
        """Return status and body of the server's answer, or None."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=LIMIT)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        return None

    do_GET = do_POST = do_PUT = do_DELETE = hand_on

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def between(modules, serving):
    """Return a server between the modules and the Infrastructure Manager; a test sets what it cuts off."""
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Between)) as made:
        made.cuts, made.calls, made.upstream = {}, 0, modules.server.port
        made.url = f"http://127.0.0.1:{made.server_address[1]}"
        yield made


def cutter(modules, running, victim, delay):
    """Return a function that waits, and then kills the victim, if any."""

    def cut():
        time.sleep(delay)
        if victim == "module":
            running[0].kill()
        elif victim == "server":
            modules.server.kill()
            threading.Thread(target=modules.server.start).start()

    return cut


def end(running, server):
    """Return what the module said, None where it was killed; the server answers again then."""
    output = running.communicate(timeout=2 * LIMIT)[0]
    end = time.monotonic() + LIMIT
    while not server.answers():
        assert time.monotonic() < end, "the Infrastructure Manager does not answer"
        time.sleep(0.1)
    return json.loads(output) if output else None


def test_creation_is_cut_off(modules, between, radl):
    chance, im, seen = random.Random(SEED), Im(modules.server.url, AUTH), Counter()
    for number in range(KILLS):
        name, victim, running = f"kill-{number}", ("server", "module", "answer")[number % 3], []
        between.cuts["POST", "/infrastructures"] = cutter(modules, running, victim, chance.uniform(0, LONGEST))
        running.append(modules.start("im_infrastructure", radl=radl(1, name), url=between.url))
        result = end(running[0], modules.server)
        assert between.cuts == {}
        if result is None:
            outcome = "killed"
        elif result.get("failed"):
            assert "un this again" in result["msg"]
            outcome = "not carried out"
        else:
            assert (result["state"], len(result["vms"])) == ("configured", 2)
            outcome = "found"
        seen[victim, outcome] += 1
        again = modules.done("im_infrastructure", radl=radl(1, name))
        assert len(again["vms"]) == 2
        assert outcome != "found" or not again["changed"]
        # One of each name, and none without: that would be an orphan.
        assert sorted(map(str, map(im.name, im.infrastructures()))) == sorted(f"kill-{of}" for of in range(number + 1)), (victim, outcome)
    print(f"{KILLS} kills: {dict(seen)}")


@pytest.mark.parametrize("victim", ["server", "answer"])
def test_destruction_is_cut_off(modules, between, radl, victim):
    made = modules.done("im_infrastructure", radl=radl(1))
    path = f"/infrastructures/{made['infrastructure_id']}"
    between.cuts["DELETE", path] = cutter(modules, [], victim, 0)
    running = modules.start("im_infrastructure", name="cluster", state="absent", url=between.url, poll=1)
    assert not end(running, modules.server).get("failed")
    assert modules.all() == {}


CHANGES = {
    "destroy": ("DELETE", "", "im_infrastructure", {"name": "cluster", "state": "absent"}),
    "remove": ("DELETE", "/vms/3", "im_infrastructure", {"radl": True, "allow_removal": True}),
    "reconfigure": ("PUT", "/reconfigure", "im_infrastructure", {"name": "cluster", "state": "reconfigured"}),
    "stop": ("PUT", "/stop", "im_infrastructure", {"name": "cluster", "state": "stopped"}),
    "stop a VM": ("PUT", "/vms/1/stop", "im_vm", {"name": "cluster", "vm": "1", "state": "stopped"}),
    "remove a VM": ("DELETE", "/vms/3", "im_vm", {"name": "cluster", "vm": "3", "state": "absent"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_server_is_unavailable_for_longer(modules, between, radl, change):
    """The module has tried more often than it would for an error, when the server comes back."""
    method, path, module, arguments = CHANGES[change]
    made = modules.done("im_infrastructure", radl=radl(3))["infrastructure_id"]

    def serve_again():
        while between.calls < between.seen + 6 and running.poll() is None:
            time.sleep(0.05)
        modules.server.start()

    again = threading.Thread(target=serve_again)

    def cut():
        # The connection ends with this; the module would wait for an answer on it.
        modules.server.kill()
        between.seen = between.calls
        again.start()

    between.cuts[method, f"/infrastructures/{made}{path}"] = cut
    given = {**arguments, "radl": radl(2)} if "radl" in arguments else arguments
    running = modules.start(module, url=between.url, **given)
    result = end(running, modules.server)
    again.join()
    assert between.cuts == {}
    assert not result.get("failed"), result["msg"]
    assert result["changed"]
    there = modules.done("im_infrastructure_info", name="cluster")["infrastructures"]
    states = [vm["state"] for item in there for vm in item["vms"]]
    assert (len(states), states.count("stopped")) == {"destroy": (0, 0), "reconfigure": (4, 0), "stop": (4, 4), "stop a VM": (4, 1)}.get(change, (3, 0))


def test_adding_is_cut_off(modules, between, radl):
    chance, seen = random.Random(SEED), Counter()
    for _number in range(KILLS // 3):
        made = modules.done("im_infrastructure", radl=radl(1))
        between.cuts["POST", f"/infrastructures/{made['infrastructure_id']}"] = cutter(modules, [], "server", chance.uniform(0, 2 * LONGEST))
        result = end(modules.start("im_infrastructure", radl=radl(3), url=between.url), modules.server)
        assert not result.get("failed") or "un this again" in result["msg"] or "is unconfigured (VMs: " in result["msg"]
        again = modules.done("im_infrastructure", radl=radl(3))
        assert (again["infrastructure_id"], again["state"]) == (made["infrastructure_id"], "configured")
        assert [vm["system"] for vm in again["vms"]].count("worker") == 3
        seen["found" if not result.get("failed") else "not carried out", again["diff"]["before"].get("worker")] += 1
        modules.done("im_infrastructure", name="cluster", state="absent")
    print(f"{KILLS // 3} kills: {dict(seen)}")


def test_new_vms_are_counted_when_no_answer_came(modules, between, radl):
    made = modules.done("im_infrastructure", radl=radl(1))
    between.cuts["POST", f"/infrastructures/{made['infrastructure_id']}"] = cutter(modules, [], "answer", 0)
    result = end(modules.start("im_infrastructure", radl=radl(3), url=between.url), modules.server)
    assert [vm["system"] for vm in result["vms"]] == ["chief", "worker", "worker", "worker"]
