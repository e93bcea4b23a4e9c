# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may happen to the controller and to its connection while a job runs.

The inventory is JOB_INVENTORY, as in runme.sh. JOB_PAUSE and JOB_RESUME, where they are set, are commands that stop
the whole node for a while and let it go on; JOB_RESTART is one that restarts it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time

# Seconds: more than a slow machine needs that does other work.
LIMIT = 600


class Watch:
    """A controller: ansible-playbook, with its output piped and PYTHONUNBUFFERED unset."""

    def __init__(self, run, steps, **variables):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        variables = [f"{name}={value}" for name, value in {"run": run, "steps": steps, **variables}.items()]
        self.process = subprocess.Popen(
            ["ansible-playbook", "-i", os.environ["JOB_INVENTORY"], "watch.yml"] + [word for text in variables for word in ("-e", text)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.out, self.lines = "", []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_out, self._read_lines)]
        for reader in self._readers:
            reader.start()

    def _read_out(self):
        self.out = self.process.stdout.read()

    def _read_lines(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            print(f"    {line}", end="", flush=True)

    def wait_for(self, pattern):
        """Wait for a line of progress."""
        end = time.monotonic() + LIMIT
        while True:
            reading = self._readers[1].is_alive()
            if any(re.search(pattern, line) for line in list(self.lines)):
                return
            assert reading and time.monotonic() < end, f"no line {pattern}"
            time.sleep(0.1)

    def end(self):
        """Wait for the controller's end; return the job's result, or None when the task failed."""
        self.process.wait(LIMIT)
        for reader in self._readers:
            reader.join()
        found = re.search(r"RESULT (\{.*?\}\})", self.out.replace("\\", "").replace("\n", " "))
        return json.loads(re.sub(r" +", " ", found.group(1))) if found else None

    def kill(self):
        """Kill the controller with all its processes, as the loss of its machine does."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.end()


def on_node(argument, module="ansible.builtin.shell"):
    """Run a shell command, or another module, on the node as root."""
    subprocess.run(
        ["ansible", "chief[0]", "-i", os.environ["JOB_INVENTORY"], "--become", "-m", module, "-a", argument],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def go_on(run):
    """Let a job go on that has halted."""
    on_node(f"touch /var/lib/deeptrain-test/runs/{run}/test/go-on")


def wait_for_connection():
    """Wait until the node accepts connections again."""
    on_node("timeout=600", module="ansible.builtin.wait_for_connection")


def test_progress_arrives_while_the_job_runs():
    """Lines come while the job runs, and not oftener than asked."""
    began = time.monotonic()
    watch = Watch("progress", 24, halt=12)
    # From a buffer none would come before the job's end.
    watch.wait_for("12/24 steps")
    go_on("progress")
    result = watch.end()
    seconds = time.monotonic() - began
    assert result["changed"] and result["summary"]["steps"] == 24, result
    lines = [line for line in watch.lines if "steps/s" in line]
    # One every 3 s; the first and the last one may come at any time.
    assert 2 <= len(lines) <= seconds / 3 + 2, watch.lines
    assert re.fullmatch(r"\S+ test progress: count \d+/24 steps [\d.]+ % [\d.]+ steps/s loss [\d.e-]+ ETA \d+s", watch.lines[1]), watch.lines


def test_two_controllers():
    """A second controller attaches, and both see the end of the one job."""
    first = Watch("two", 12, halt=4)
    first.wait_for("test two: started")
    second = Watch("two", 12, halt=4)
    second.wait_for("test two: attached")
    go_on("two")
    one, two = first.end(), second.end()
    assert one.pop("changed") and not two.pop("changed")
    assert one == two and one["summary"]["first_step"] == 0, (one, two)


def test_controller_is_killed():
    """The job goes on without a controller, and the next one attaches."""
    first = Watch("killed", 12, halt=4)
    first.wait_for("steps/s")
    first.kill()
    second = Watch("killed", 12, halt=4)
    second.wait_for("test killed: attached")
    go_on("killed")
    result = second.end()
    assert not result["changed"] and result["summary"]["first_step"] == 0 and result["summary"]["steps"] == 12, result


def test_connection_is_lost():
    """The node refuses all connections for a while: the task waits, and sees the end."""
    watch = Watch("lost", 12, halt=4)
    watch.wait_for("steps/s")
    on_node("systemd-run --on-active=1 sh -c 'systemctl stop ssh.socket ssh.service; pkill -x sshd; sleep 20; systemctl start ssh.service'")
    watch.wait_for("test lost: cannot be polled")
    watch.wait_for("test lost: polled again")
    go_on("lost")
    result = watch.end()
    assert result["changed"] and result["summary"]["first_step"] == 0, result


def test_connection_is_lost_for_too_long():
    """The task gives up, says that the job goes on, and can attach again."""
    watch = Watch("given-up", 12, patience=5, halt=4)
    watch.wait_for("steps/s")
    on_node("systemd-run --on-active=1 sh -c 'systemctl stop ssh.socket ssh.service; pkill -x sshd; sleep 45; systemctl start ssh.service'")
    assert watch.end() is None
    assert watch.process.returncode == 4, "not unreachable"
    assert "It continues: rerun this to attach to it" in " ".join(watch.out.split()), watch.out
    wait_for_connection()
    again = Watch("given-up", 12, halt=4)
    again.wait_for("test given-up: attached")
    go_on("given-up")
    assert again.end()["summary"]["first_step"] == 0


def test_node_stands_still():
    """The node is paused for 20 s: the task goes on with it."""
    watch = Watch("paused", 12, halt=4)
    watch.wait_for("steps/s")
    subprocess.run(os.environ["JOB_PAUSE"], shell=True, check=True)
    time.sleep(20)
    subprocess.run(os.environ["JOB_RESUME"], shell=True, check=True)
    go_on("paused")
    result = watch.end()
    assert result["changed"] and result["summary"]["first_step"] == 0, result


def test_node_is_restarted():
    """The node is restarted: the task starts the job again with the credentials that it holds, and sees the end."""
    watch = Watch("restarted", 12, halt=4)
    watch.wait_for("steps/s")
    subprocess.run(os.environ["JOB_RESTART"], shell=True, check=True)
    watch.wait_for("test restarted: the node was restarted")
    go_on("restarted")
    result = watch.end()
    assert result["changed"] and result["summary"]["first_step"] > 0 and result["summary"]["steps"] == 12, result


def test_node_is_restarted_with_its_role():
    """The node is restarted with no controller: a job with the role of the machine starts by itself."""
    watch = Watch("boot", 12, secret="", at_boot="true", halt=4)
    watch.wait_for("steps/s")
    watch.kill()
    subprocess.run(os.environ["JOB_RESTART"], shell=True, check=True)
    again = Watch("boot", 12, secret="", at_boot="true", halt=4)
    again.wait_for("test boot: attached")
    go_on("boot")
    result = again.end()
    assert not result["changed"] and result["summary"]["first_step"] > 0, result


NEEDED = {"test_node_stands_still": "JOB_PAUSE", "test_node_is_restarted": "JOB_RESTART", "test_node_is_restarted_with_its_role": "JOB_RESTART"}

if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_") and (name not in NEEDED or NEEDED[name] in os.environ):
            print(f"{name}: {test.__doc__}", flush=True)
            test()
