# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a cluster ends, and what is done then; systemd alone is played."""

from __future__ import annotations

import http.server
import json
import os
import secrets
import threading
import time

import pytest

from deeptrain import deadline
from deeptrain.deadline import Deadline, End, Local, Renewed, Shared, look
from deeptrain.hdfs import Unavailable

HOUR = 3600
DAYS = 10 * 24 * HOUR * 1000
# The same on all nodes, as HDFS has told them.
LONG_AGO = deadline.milliseconds() - DAYS


class Memory:
    """HDFS's part, in memory; away when it is told so."""

    files: dict = {}
    away = False

    def __init__(self, url):
        if Memory.away:
            raise Unavailable("away")

    def read(self, name=deadline.SHARED):
        return Memory.files.get(name)

    def write(self, value, name=deadline.SHARED):
        Memory.files[name] = value


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(deadline, "Shared", Memory)
    monkeypatch.setattr(Memory, "files", {})
    monkeypatch.setattr(Memory, "away", False)
    return Memory


@pytest.fixture
def node(tmp_path, memory):
    """Makes a node's configuration."""

    def make(name="chief", **values):
        directory = tmp_path / name
        (directory / "deadline").mkdir(parents=True)
        return {
            "seconds": HOUR,
            "grace_seconds": 1,
            "interval_seconds": 0.05,
            "user": "deeptrain",
            "directory": str(directory / "deadline"),
            "state_dir": str(directory),
            "credentials_dir": str(directory / "credentials"),
            "hdfs_url": "hdfs://nowhere/user/deeptrain",
            "chief": name == "chief",
            "namenode": False,
            "im": {},
            **values,
        }

    return make


def watch(config, milliseconds):
    path = os.path.join(config["directory"], deadline.WATCHED)
    with open(path, "a", encoding="ascii"):
        os.utime(path, ns=(0, milliseconds * 1_000_000))


def test_a_watch_on_one_node_reaches_all(node):
    chief, worker = node("chief"), node("worker")
    watch(worker, 1_000_000)
    watch(chief, 2_000_123)
    assert look(worker) == Deadline(1_000_000 + HOUR * 1000, 1_000_000)
    assert look(chief) == look(worker) == Deadline(2_000_123 + HOUR * 1000, 2_000_123)
    assert Local(worker["directory"]).read() == look(chief)
    # Any node's will do, and an older one does not count.
    watch(worker, 3_000_000)
    watch(chief, 2_500_000)
    assert look(worker) == look(chief) == Deadline(3_000_000 + HOUR * 1000, 3_000_000)


def test_a_newer_watch_may_shorten(node):
    chief, worker = node("chief"), node("worker")
    watch(worker, 1_000_000)
    look(worker)
    watch(chief, 1_000_001)
    assert look({**chief, "seconds": 60}) == look(worker) == Deadline(1_060_001, 1_000_001)


def test_without_hdfs_what_the_node_knows_counts(node, memory):
    chief, worker = node("chief"), node("worker")
    watch(chief, 5_000_000)
    look(chief)
    look(worker)
    memory.away = True
    watch(chief, 6_000_000)
    assert look(chief).watched == 6_000_000
    assert look(worker).watched == 5_000_000
    memory.away = False
    assert look(worker).watched == 5_000_000
    assert look(chief) == look(worker) == Deadline(6_000_000 + HOUR * 1000, 6_000_000)


def test_nobody_has_ever_watched(node):
    now = deadline.milliseconds()
    assert 0 <= look(node()).until - HOUR * 1000 - now < 10_000


def test_what_hdfs_has_lost_is_told_again(node, memory):
    chief = node()
    watch(chief, 5_000_000)
    known = look(chief)
    memory.files.clear()
    assert look(chief) == memory.files[deadline.SHARED] == known


@pytest.mark.parametrize("text", ["", "soon", "1 2 3"])
def test_a_damaged_file_is_no_end(node, text):
    chief = node()
    (Local(chief["directory"]).directory / deadline.UNTIL).write_text(text)
    assert look(chief).until > deadline.milliseconds()


def test_in_hdfs_it_is_one_file_with_its_times(hdfs, monkeypatch):
    hdfs.mkdirs()
    shared = Shared(hdfs.url)
    assert shared.read() is None
    for value in (Deadline(1_800_000_000_123, 1_790_000_000_456), Deadline(1_700_000_000_000, 1_790_000_000_457)):
        shared.write(value)
        assert shared.read() == value
    assert list(hdfs.files()) == [deadline.SHARED]


def test_a_full_disk_does_not_end_the_machine(node, monkeypatch, capsys):
    config = node()

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    watch(config, deadline.milliseconds())
    monkeypatch.setattr("os.replace", full)
    assert look(config).until > deadline.milliseconds()
    assert os.listdir(config["directory"]) == [deadline.WATCHED]
    assert "cannot be kept here" in capsys.readouterr().err


@pytest.mark.parametrize("failed, at_work", [(True, True), (False, False)])
def test_what_cannot_be_seen_is_at_work(monkeypatch, failed, at_work):
    monkeypatch.setattr(deadline, "systemctl", lambda *_arguments: None if failed else "")
    assert deadline.at_work("deeptrain-train@*.service") is at_work


class Systemd:
    """Units that end after a few looks, and what was asked of them."""

    def __init__(self, looks=2):
        self.calls, self.looks, self.starts = [], looks, []

    def __call__(self, *arguments):
        self.calls.append(" ".join(arguments))
        if arguments[0] == "start":
            for action in self.starts:
                action()
        if arguments[0] == "list-units":
            self.looks -= 1
            return "unit loaded active\n" if self.looks > 0 else ""
        return ""


@pytest.fixture
def systemd(monkeypatch):
    played = Systemd()
    monkeypatch.setattr(deadline, "systemctl", played)
    return played


def over(config):
    watch(config, LONG_AGO)
    return config


def armed(config, run="first"):
    """Leaves an armed export, and returns what writes its result."""
    directory = os.path.join(config["state_dir"], "runs", run, "export")
    os.makedirs(directory)
    os.makedirs(os.path.join(config["credentials_dir"], "export", run))
    with open(os.path.join(directory, "config.json"), "w", encoding="ascii") as file:
        json.dump({"config": {}, "settings": {"events_url": "x"}}, file)

    def result(status="succeeded", **summary):
        with open(os.path.join(directory, "result.json"), "w", encoding="ascii") as file:
            json.dump({"status": status, "started": time.time(), "summary": summary}, file)

    return result


def test_the_chief_brings_home_and_lets_the_others_go(node, systemd, memory):
    chief, worker = over(node("chief")), over(node("worker", grace_seconds=60))
    result = armed(chief)
    systemd.starts = [lambda: result("failed", manifest_uri="s3://b/m", complete=False)]
    End(chief).run()
    with open(os.path.join(chief["state_dir"], "runs", "first", "export", "config.json"), encoding="ascii") as file:
        assert json.load(file)["settings"] == {"events_url": "x", "partial": True}
    asked = [call for call in systemd.calls if not call.startswith("list-units")]
    assert asked == [
        "stop --no-block deeptrain-train@*.service deeptrain-stage@*.service",
        "reset-failed deeptrain-export@first.service",
        "start deeptrain-export@first.service",
    ]
    began = time.monotonic()
    End(worker).run()
    assert time.monotonic() - began < 5


def test_a_failed_export_lets_nobody_go_before_the_grace(node, systemd, memory):
    chief = over(node())
    result = armed(chief)
    result("failed", manifest_uri="s3://b/of-an-earlier-deadline")
    systemd.starts = [lambda: result("failed")]
    began = time.monotonic()
    End(chief).run()
    assert 1 <= time.monotonic() - began < 5
    assert deadline.EXPORTED not in memory.files


def test_an_export_without_end(node, systemd):
    chief = over(node())
    armed(chief)
    systemd.looks = 1_000_000
    End(chief).run()


def test_an_old_mark_lets_nobody_go(node, memory):
    worker = over(node("worker"))
    memory.files[deadline.EXPORTED] = Deadline(1, 1)
    began = time.monotonic()
    End(worker).run()
    assert time.monotonic() - began >= 1


def test_without_hdfs_the_grace_counts(node, memory):
    memory.away = True
    End(over(node("worker", namenode=True))).run()


def test_a_watch_in_the_grace(node, systemd):
    chief = over(node("chief", grace_seconds=60))
    armed(chief)
    systemd.looks = 1_000_000
    timer = threading.Timer(0.5, lambda: watch(chief, deadline.milliseconds()))
    timer.start()
    with pytest.raises(Renewed):
        End(chief).run()


def test_nothing_ends_too_early(node, systemd):
    with pytest.raises(Renewed):
        End(node()).run()
    assert systemd.calls == []


@pytest.fixture
def manager():
    """An Infrastructure Manager that gives the answers it was told, and keeps what it was asked."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_DELETE(self):
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.end_headers()
            self.wfile.write(b'{"message": "its own words"}')

        def log_message(self, *arguments):
            pass

    asked, answers = [], [200]
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked, answers
    server.shutdown()


@pytest.mark.parametrize(("given", "calls"), [([200], 1), ([503, 401, 200], 3), ([404], 1)])
def test_the_infrastructure_is_destroyed(node, systemd, manager, tmp_path, monkeypatch, given, calls):
    url, asked, answers = manager
    answers[:] = given
    secret = secrets.token_hex(8)
    (tmp_path / "im").write_text(f"type = InfrastructureManager; token = {secret}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    chief = over(node(im={"url": url + "/", "infrastructure_id": "abc", "validate_certs": True, "ca_bundle": ""}))
    End(chief).run()
    assert asked == [("/infrastructures/abc?async=true", f"type = InfrastructureManager; token = {secret}")] * calls


def test_a_manager_that_is_away_keeps_nothing_alive(node, systemd, tmp_path, monkeypatch, capsys):
    (tmp_path / "im").write_text("token = secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    chief = over(node(im={"url": "http://127.0.0.1:9", "infrastructure_id": "abc", "validate_certs": True, "ca_bundle": ""}))
    End(chief).run()
    assert "does not answer" in (said := capsys.readouterr().err)
    assert "secret" not in said


def test_the_command(node, systemd, tmp_path, monkeypatch):
    monkeypatch.delenv("HADOOP_USER_NAME", raising=False)
    config = node()
    path = tmp_path / "deadline.json"
    path.write_text(json.dumps(config))
    assert deadline.main(str(path), end=False) == 0
    assert Local(config["directory"]).read().until > deadline.milliseconds()
    assert deadline.main(str(path), end=True) == 0
    monkeypatch.delenv("HADOOP_USER_NAME")
