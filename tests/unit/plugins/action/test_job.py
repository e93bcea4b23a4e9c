# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools
import signal
import threading
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.play_context import PlayContext
from ansible.playbook.task import Task
from ansible_collections.deeptrain.cluster.plugins.action import job

ARGUMENTS = {"kind": "train", "run": "default", "config": {"steps": 5}, "credentials": {"s3": {"key": "secret"}}}
UNIT = "deeptrain-train@default.service"


def running(done=None, offset=0, **more):
    """Return the state of a running job."""
    progress = [] if done is None else [{"phase": "train", "done": done, "total": 10, "unit": "steps"}]
    state = {"unit": UNIT, "job_state": "running", "changed": False, "result": None, "restarts": 0, "boot": "1", "unit_state": "active"}
    return {**state, "progress": progress, "progress_offset": offset, **more}


def ended(done=10, changed=True, **more):
    """Return the state of a job that is done."""
    result = {"status": "succeeded", "changed": changed, "started": 100.5, "finished": 178.0}
    return running(done, job_state="done", result=result, **more)


def started(**more):
    """Return the module's result when it has started a job."""
    return running(action="start", **{"changed": True, "invocation": {"module_args": {}}, **more})


class Controller:
    """The action plugin, with modules that return states, or raise them, one after another, and a clock of its own."""

    def __init__(self, monkeypatch, check_mode=False, **arguments):
        self.now = 0.0
        self.calls, self.lines, self.resets = [], [], []
        monkeypatch.setattr(job, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))
        monkeypatch.setattr(job, "display", SimpleNamespace(display=self.display))
        task = Task()
        task.args = {**ARGUMENTS, **arguments}
        task.check_mode = check_mode
        self.connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/gone"), reset=lambda: self.resets.append(self.now))
        self.action = job.ActionModule(task, self.connection, PlayContext(), DataLoader(), None, None)
        # As the plugin loader does.
        self.action._load_name = "deeptrain.cluster.job"
        monkeypatch.setattr(self.action, "_execute_module", self.execute)

    def sleep(self, seconds):
        """Let time pass."""
        self.now += seconds

    def display(self, text, stderr):
        """Note a line."""
        assert stderr and text.startswith("node train default: ")
        self.lines.append((self.now, text[len("node train default: ") :]))

    def execute(self, module_name, module_args, task_vars):
        """Return the next state."""
        assert module_name == ("deeptrain.cluster.job_info" if "renew_lease" in module_args else "deeptrain.cluster.job")
        self.calls.append(module_args)
        state = next(self.states)
        if callable(state):
            state = state()
        if isinstance(state, Exception):
            raise state
        return state

    def run(self, *states):
        """Run the action; all states are used up."""
        self.states = iter(states)
        result = self.action.run(task_vars={"inventory_hostname": "node"})
        assert next(self.states, None) is None
        return result

    def text(self):
        """Return the lines that were shown."""
        return [text for _now, text in self.lines]


@pytest.fixture
def controller(monkeypatch):
    """Return a function that makes a controller."""
    return lambda **arguments: Controller(monkeypatch, **arguments)


def test_it_waits_for_the_end_and_shows_the_progress(controller):
    task = controller()
    result = task.run(started(diff={"before": {}}), running(1, 20), running(2, 40), ended(offset=60))
    assert result["changed"] and result["job_state"] == "done" and result["result"]["status"] == "succeeded"
    assert result["diff"] == {"before": {}} and result["invocation"] == {"module_args": {}}
    assert "progress" not in result and "progress_offset" not in result
    assert task.text() == ["started", "1/10 steps 10.0 %", "10/10 steps 100.0 %", "done in 1m17s"]
    # The first call sends all, the polls neither configuration nor credentials. Each renews the lease.
    assert task.calls[0] == ARGUMENTS
    assert task.calls[1:] == [{"kind": "train", "run": "default", "renew_lease": True, "progress_offset": offset} for offset in (0, 20, 40)]


def test_a_line_comes_at_most_every_few_seconds(controller):
    task = controller(progress_interval=10, poll=2)
    task.run(started(), *[running(number % 10, number) for number in range(30)], running(9, 30, restarts=1), ended(offset=40))
    times = [now for now, text in task.lines if "steps" in text]
    assert 4 <= len(times) <= 8 and all(b - a >= 10 for a, b in itertools.pairwise(times[:-1]))


def test_the_newest_record_is_shown_when_its_time_has_come(controller):
    task = controller(progress_interval=5, poll=1)
    task.run(started(), running(1, 1), running(2, 2), *[running(None, 2) for _look in range(8)], ended(None))
    assert task.text() == ["started", "1/10 steps 10.0 %", "2/10 steps 20.0 %", "done in 1m17s"]


def test_the_pauses_grow_to_what_was_asked(controller):
    task = controller(poll=3)
    times = []

    def state():
        times.append(task.now)
        return running()

    task.run(started(), *[state] * 30, ended())
    pauses = [b - a for a, b in itertools.pairwise([0, *times])]
    assert pauses[:5] == [0.5] * 5 and max(pauses) == pytest.approx(3) and pauses[-1] == pytest.approx(3)
    assert all(pause <= max(0.5, 0.2 * now) + 0.001 for pause, now in zip(pauses, times, strict=True))


def test_attaching_changes_nothing(controller):
    task = controller()
    result = task.run(running(3, action="attach"), ended())
    assert not result["changed"] and task.text()[:2] == ["attached to the running job", "3/10 steps 30.0 %"]


def test_what_is_done_needs_one_call_and_no_words(controller):
    task = controller()
    result = task.run(ended(action="nothing", changed=True) | {"changed": False})
    assert not result["changed"] and task.lines == []


@pytest.mark.parametrize("changed", [False, True])
@pytest.mark.parametrize("states", [1, 2])
def test_a_recheck_has_changed_what_its_result_says(controller, changed, states):
    first = [ended(changed=changed) | {"action": "start", "changed": False}] if states == 1 else [started(), ended(changed=changed)]
    assert controller(recheck=True).run(*first)["changed"] is changed


def test_a_failed_job_fails_the_task(controller):
    failed = running(7, job_state="failed", reason="no space: make some", log=["a"], result={"error": "no space: make some"})
    result = controller().run(started(), failed)
    assert result["failed"] and result["msg"] == "no space: make some" and result["changed"] and result["log"] == ["a"]


def test_a_refusal_is_the_result(controller):
    refused = {"failed": True, "msg": "no", "action": "refuse", "job_state": "running", "difference": {"a": {}}, "unit": UNIT}
    assert controller().run(refused) == refused


@pytest.mark.parametrize("arguments", [{"check_mode": True}, {"wait": False}, {"wait": "no"}])
def test_what_does_not_wait(controller, arguments):
    task = controller(**arguments)
    result = task.run(started())
    assert result["job_state"] == "running" and result["changed"] and task.lines == []


@pytest.mark.parametrize("state", ["armed", "stopped"])
def test_other_states_are_the_modules(controller, state):
    returned = running(3, 10)
    assert controller(state=state).run(returned) == returned


def test_the_playbook_has_ended(controller, monkeypatch):
    parents = iter([100, 100, 1])
    monkeypatch.setattr("os.getppid", lambda: next(parents))
    result = controller(poll=0.5).run(started(), running())
    assert result["failed"] and result["msg"] == f"the playbook that waited for {UNIT} has ended"


def test_the_time_is_up_and_the_job_goes_on(controller):
    result = controller(timeout=2, poll=0.5).run(started(), running(), running(), running(), running())
    assert result["failed"] and result["changed"] and result["job_state"] == "running"
    assert result["msg"] == f"{UNIT} is not done after 2 s, and continues: rerun this to attach to it"


@pytest.mark.parametrize(
    "lost",
    [
        AnsibleConnectionFailure("no route"),
        # So says core 2.16 of a node that stands still.
        AnsibleError("Timeout waiting for privilege escalation prompt"),
        {"unreachable": True, "msg": "no route"},
        {"failed": True, "msg": "MODULE FAILURE\nSee stdout"},
    ],
)
def test_a_lost_node_is_retried(controller, lost):
    task = controller()
    result = task.run(started(), running(1, 20), lost, lost, lost, running(5, 50), ended())
    assert result["changed"] and result["job_state"] == "done" and not result.get("failed")
    assert len(task.resets) == 3 and task.connection._shell.tmpdir is None
    assert task.text()[2].startswith("cannot be polled, and continues; retrying for 10m00s (")
    assert task.text()[3] == "polled again after 15s"
    assert {call["progress_offset"] for call in task.calls[2:6]} == {20}


def test_a_connection_that_cannot_be_reset_is_tried_all_the_same(controller):
    task = controller()

    def refuse():
        raise AnsibleError("no")

    task.connection.reset = refuse
    assert task.run(started(), AnsibleConnectionFailure("no route"), ended())["job_state"] == "done"


def test_a_node_that_is_lost_for_too_long(controller):
    task = controller(unreachable_timeout=12)
    result = task.run(started(), *[AnsibleConnectionFailure("no route")] * 4)
    assert result["unreachable"] and result["changed"] and task.now == 15.5
    assert result["msg"] == "The job could not be polled for 12 s (no route). It continues: rerun this to attach to it"


def test_a_poll_that_never_ends_is_given_up(controller, monkeypatch):
    monkeypatch.setattr(job, "ANSWER_SECONDS", 1)
    task = controller()
    before = signal.getsignal(signal.SIGALRM)
    result = task.run(started(), lambda: threading.Event().wait(30), ended())
    assert result["job_state"] == "done" and "no answer within 1 s" in task.text()[1]
    assert signal.getsignal(signal.SIGALRM) == before and signal.alarm(0) == 0


def test_the_first_call_is_not_retried(controller):
    with pytest.raises(AnsibleConnectionFailure):
        controller().run(AnsibleConnectionFailure("no route"))


def test_an_automatic_restart_is_reported(controller):
    task = controller()
    task.run(started(), running(1, 20, restarts=1), running(1, 20, restarts=1), ended())
    assert task.text()[2] == "ended before its work was done, and systemd restarted it (1)"
    assert len([text for text in task.text() if "systemd" in text]) == 1


def interrupted(boot, **more):
    """Return the state of a job that ended with its node."""
    return running(job_state="failed", unit_state="inactive", boot=boot, reason="it was stopped, or the node was restarted", log=[], **more)


def test_a_restart_of_the_node_is_survived(controller):
    task = controller()
    lost = AnsibleConnectionFailure("no route")
    again = started(changed=False, boot="2")
    result = task.run(running(3, 30, action="attach"), lost, lost, interrupted("2"), again, running(5, 10, boot="2"), ended(boot="2"))
    assert result["job_state"] == "done" and result["changed"] and result["node_restarts"] == 1 and not result.get("failed")
    assert "the node was restarted, which ended the job; restarting it (1)" in task.text()
    # With all that it needs, its credentials among them.
    assert task.calls[4] == ARGUMENTS and task.calls[5]["renew_lease"]


def test_a_restart_of_the_node_before_the_first_progress_is_survived(controller):
    task = controller()
    result = task.run(started(), {**interrupted("2"), "job_state": "none"}, started(boot="2"), ended(boot="2"))
    assert result["job_state"] == "done" and result["node_restarts"] == 1 and not result.get("failed")


def test_a_job_that_ends_without_a_trace_has_failed(controller):
    result = controller().run(started(), {**interrupted("1"), "job_state": "none"})
    assert result["failed"] and result["msg"] == f"{UNIT} ended without progress and without a result: read its journal on node, and run this again"


def test_a_node_that_is_lost_while_the_job_is_started_again(controller):
    task = controller()
    result = task.run(started(), interrupted("2"), AnsibleConnectionFailure("no route"), started(boot="2"), ended(boot="2"))
    assert result["job_state"] == "done" and task.calls[2] == task.calls[3] == ARGUMENTS


@pytest.mark.parametrize("state", [interrupted("1"), {**interrupted("2"), "unit_state": "failed"}])
def test_what_was_stopped_or_has_failed_is_not_started_again(controller, state):
    task = controller()
    result = task.run(started(), state)
    assert result["failed"] and result["node_restarts"] == 0 and len(task.calls) == 2


def test_a_node_that_restarts_too_often(controller):
    task = controller()
    states = [state for boot in "23456" for state in (interrupted(boot), started(boot=boot))]
    result = task.run(started(), *states, interrupted("7"))
    assert result["failed"] and result["node_restarts"] == 5 and result["msg"] == "it was stopped, or the node was restarted"


def test_restarts_of_the_node_over_days(controller):
    task = controller()
    states = [state for boot in "23456789" for state in (interrupted(boot), lambda boot=boot: (task.sleep(1000), started(boot=boot))[1])]
    assert task.run(started(), *states, ended(boot="9"))["node_restarts"] == 8


def test_a_job_that_is_refused_after_a_restart_of_the_node(controller):
    refused = {"failed": True, "msg": "no", "action": "refuse", "job_state": "none", "unit": UNIT}
    result = controller().run(started(), interrupted("2"), refused)
    assert result["failed"] and result["msg"] == "no" and result["job_state"] == "none"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"polls": 3}, "polls"), ({"poll": "often"}, "poll"), ({"state": "absent"}, "absent"), ({"state": "observed"}, "observed"), ({"config": None}, "config")],
)
def test_arguments_are_checked_first(controller, arguments, message):
    task = controller(**arguments)
    if arguments == {"config": None}:
        del task.action._task.args["config"]
    with pytest.raises(AnsibleError, match=message):
        task.run()
    assert task.calls == []
