# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two controllers that create a cluster of one name at once: each has seen that there is none before the other creates its own."""

from __future__ import annotations

import json
import random
import threading
import time

import pytest
from conftest import LIMIT
from test_lost_answers import KILLS, LONGEST, SEED, Between, ThreadingHTTPServer, end

ROUNDS = max(3, KILLS // 2)


class Meeting(Between):
    """Calls what a test has set for the first and for the second of two calls of a kind, before it is handed on and before its answer is."""

    number = None

    def hand_on(self):
        if (self.command, self.path.split("?")[0]) == self.server.meets and "dry_run" not in self.path:
            with self.server.lock:
                self.number = self.server.met
                self.server.met += 1
            if self.number < 2:
                self.server.before[self.number]()
                if self.server.victims[self.number]:
                    self.server.cuts[self.server.meets] = self.server.victims[self.number]
        super().hand_on()

    do_GET = do_POST = do_PUT = do_DELETE = hand_on

    def ask(self, body):
        answer = super().ask(body)
        if self.number is not None and self.number < 2:
            self.server.after[self.number]()
        return answer


def nothing():
    """Do nothing."""


@pytest.fixture
def meeting(modules, serving):
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Meeting)) as made:
        made.cuts, made.calls, made.upstream = {}, 0, modules.server.port
        made.lock, made.met, made.meets = threading.Lock(), 0, ("POST", "/infrastructures")
        made.before, made.after, made.victims = [nothing] * 2, [nothing] * 2, [None, None]
        made.running = []
        made.url = f"http://127.0.0.1:{made.server_address[1]}"
        yield made


def two(modules, meeting, *texts, **arguments):
    """Start two controllers, the second when the first has sent its call."""
    meeting.met, meeting.running = 0, []
    for number, text in enumerate(texts):
        running = modules.start("im_infrastructure", url=meeting.url, radl=text, **arguments)
        meeting.running.append(running)
        while meeting.met <= number:
            assert running.poll() is None, running.communicate()
            time.sleep(0.02)
    return meeting.running


def test_they_agree_on_one(modules, meeting, radl):
    chance = random.Random(SEED)
    for number in range(ROUNDS):
        barrier, delays = threading.Barrier(2), [chance.uniform(0, LONGEST) for _number in range(2)]
        meeting.before = [lambda barrier=barrier, delay=delay: (barrier.wait(LIMIT), time.sleep(delay)) for delay in delays]
        results = [end(running, modules.server) for running in two(modules, meeting, radl(2), radl(2), wait=number % 3 != 2)]
        assert not any(result.get("failed") for result in results), [result.get("msg") for result in results]
        [kept] = modules.all()
        assert [result["infrastructure_id"] for result in results] == [kept, kept]
        assert sorted(result["changed"] for result in results) == [False, True]
        assert len(modules.done("im_infrastructure", radl=radl(2))["vms"]) == 3
        modules.done("im_infrastructure", name="cluster", state="absent")


@pytest.fixture
def ordered(meeting):
    """Both infrastructures exist before a controller has its answer, and the first one's is the older one."""
    both, meeting.made = threading.Barrier(2), [threading.Event(), threading.Event()]
    meeting.before = [lambda: both.wait(LIMIT), lambda: (both.wait(LIMIT), meeting.made[0].wait(LIMIT))]
    meeting.after = [lambda: (meeting.made[0].set(), meeting.made[1].wait(LIMIT)), meeting.made[1].set]
    return meeting


def test_they_want_different_numbers(modules, ordered, radl):
    smaller, larger = (end(one, modules.server) for one in two(modules, ordered, radl(1), radl(3)))
    [kept] = modules.all()
    assert larger["infrastructure_id"] == smaller["infrastructure_id"] == kept
    assert larger["diff"] == {"before": {"chief": 1, "worker": 1}, "after": {"chief": 1, "worker": 3}}
    assert len(modules.done("im_infrastructure", radl=radl(3))["vms"]) == 4


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("how", ["controller", "answer"])
def test_one_is_lost_after_its_creation(modules, ordered, radl, place, how):
    def cut():
        # The creation is handed on beside this.
        ordered.made[1].wait(LIMIT)
        if how == "controller":
            ordered.running[place].kill()

    ordered.victims[place] = cut
    results = [one.communicate(timeout=2 * LIMIT)[0] for one in two(modules, ordered, radl(2), radl(2))]
    results = [json.loads(output) if output else None for output in results]
    assert [result is None for result in results] == [how == "controller" and number == place for number in range(2)]
    [kept] = modules.all()
    for result in filter(None, results):
        assert not result.get("failed"), result["msg"]
        assert result["infrastructure_id"] == kept
    assert len(modules.done("im_infrastructure", radl=radl(2))["vms"]) == 3


def test_they_add_machines_at_once(modules, meeting, radl):
    made = modules.done("im_infrastructure", radl=radl(1))["infrastructure_id"]
    barrier = threading.Barrier(2)
    meeting.meets, meeting.before = ("POST", f"/infrastructures/{made}"), [lambda: barrier.wait(LIMIT)] * 2
    results = [end(one, modules.server) for one in two(modules, meeting, radl(4), radl(4))]
    assert not any(result.get("failed") for result in results), [result.get("msg") for result in results]
    assert [vm["system"] for vm in modules.done("im_infrastructure", radl=radl(4))["vms"]].count("worker") == 4
