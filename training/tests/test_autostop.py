# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a cluster ends, and what is done then; systemd alone is played."""

from __future__ import annotations

import http.server
import json
import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import deeptrain.hdfs
from deeptrain import autostop, cli
from deeptrain.autostop import End, Lease, Local, Renewed, Shared, poll
from deeptrain.hdfs import Unavailable
from deeptrain.kinds import units

STAGING = units("staging")
HOUR = 3600
DAYS = 10 * 24 * HOUR * 1000
# The same on all nodes, as HDFS has told them.
LONG_AGO = autostop.milliseconds() - DAYS


class Memory:
    """HDFS's part, in memory; away when it is told so."""

    files: dict = {}
    runs: set = set()
    away = False

    def __init__(self, url):
        if Memory.away:
            raise Unavailable("away")

    def read(self, name=autostop.SHARED):
        return Memory.files.get(name)

    def write(self, value, name=autostop.SHARED):
        Memory.files[name] = value

    def saved(self):
        return Memory.runs


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.setattr(autostop, "Shared", Memory)
    monkeypatch.setattr(Memory, "files", {})
    monkeypatch.setattr(Memory, "runs", set())
    monkeypatch.setattr(Memory, "away", False)
    return Memory


class Clock:
    """The clock of a node's end, on which its pauses alone take time."""

    now = 0.0

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    played = Clock()
    monkeypatch.setattr(autostop, "time", SimpleNamespace(time=time.time, time_ns=time.time_ns, monotonic=lambda: played.now, sleep=played.sleep))
    return played


@pytest.fixture
def node(tmp_path, memory):
    """Makes a node's configuration."""

    def make(name="chief", **values):
        directory = tmp_path / name
        (directory / "autostop").mkdir(parents=True)
        return {
            "seconds": HOUR,
            "max_seconds": 100 * HOUR,
            "grace_seconds": 1,
            "interval_seconds": 0.05,
            "user": "deeptrain",
            "directory": str(directory / "autostop"),
            "state_dir": str(directory),
            "hdfs_url": "hdfs://nowhere/user/deeptrain",
            "chief": name == "chief",
            "namenode": False,
            "im": {},
            **values,
        }

    return make


def renew(config, milliseconds):
    path = os.path.join(config["directory"], autostop.RENEWED)
    with open(path, "a", encoding="ascii"):
        os.utime(path, ns=(0, milliseconds * 1_000_000))


def test_a_renewal_on_one_node_reaches_all(node):
    chief, worker = node("chief"), node("worker")
    renew(worker, 1_000_000)
    renew(chief, 2_000_123)
    assert poll(worker) == Lease(1_000_000 + HOUR * 1000, 1_000_000)
    assert poll(chief) == poll(worker) == Lease(2_000_123 + HOUR * 1000, 2_000_123)
    assert Local(worker["directory"]).read() == poll(chief)
    # Any node's will do, and an older one does not count.
    renew(worker, 3_000_000)
    renew(chief, 2_500_000)
    assert poll(worker) == poll(chief) == Lease(3_000_000 + HOUR * 1000, 3_000_000)


def test_a_newer_renewal_may_shorten(node):
    chief, worker = node("chief"), node("worker")
    renew(worker, 1_000_000)
    poll(worker)
    renew(chief, 1_000_001)
    assert poll({**chief, "seconds": 60}) == poll(worker) == Lease(1_060_001, 1_000_001)


def test_without_hdfs_what_the_node_knows_counts(node, memory):
    chief, worker = node("chief"), node("worker")
    renew(chief, 5_000_000)
    poll(chief)
    poll(worker)
    memory.away = True
    renew(chief, 6_000_000)
    assert poll(chief).renewed == 6_000_000
    assert poll(worker).renewed == 5_000_000
    memory.away = False
    assert poll(worker).renewed == 5_000_000
    assert poll(chief) == poll(worker) == Lease(6_000_000 + HOUR * 1000, 6_000_000)


def test_a_lease_that_was_never_renewed(node):
    before = autostop.milliseconds()
    assert before <= poll(node()).expires - HOUR * 1000 <= autostop.milliseconds()


def test_what_hdfs_has_lost_is_told_again(node, memory):
    chief = node()
    renew(chief, 5_000_000)
    known = poll(chief)
    memory.files.clear()
    assert poll(chief) == memory.files[autostop.SHARED] == known


@pytest.mark.parametrize("text", ["", "soon", "1 2 3"])
def test_a_damaged_file_is_no_end(node, text):
    chief = node()
    (Local(chief["directory"]).directory / autostop.LEASE).write_text(text)
    assert poll(chief).expires > autostop.milliseconds()


def test_in_hdfs_it_is_one_file_with_its_times(hdfs, monkeypatch):
    hdfs.mkdirs()
    shared = Shared(hdfs.url)
    assert shared.read() is None
    for value in (Lease(1_800_000_000_123, 1_790_000_000_456), Lease(1_700_000_000_000, 1_790_000_000_457)):
        shared.write(value)
        assert shared.read() == value
    assert list(hdfs.files()) == [autostop.SHARED]


def test_a_full_disk_does_not_end_the_machine(node, monkeypatch, capsys):
    config = node()

    def full(*_arguments, **_directories):
        raise OSError(28, "No space left on device")

    renew(config, autostop.milliseconds())
    monkeypatch.setattr("os.replace", full)
    assert poll(config).expires > autostop.milliseconds()
    assert set(os.listdir(config["directory"])) == {autostop.RENEWED, autostop.HDFS}
    assert "cannot be written on this node" in capsys.readouterr().err


@pytest.mark.parametrize("failed, is_running", [(True, True), (False, False)])
def test_an_unknown_unit_counts_as_running(monkeypatch, failed, is_running):
    monkeypatch.setattr(autostop, "systemctl", lambda *_arguments: None if failed else "")
    assert autostop.is_running("deeptrain-train@*.service") is is_running


class Systemd:
    """Units that end after a few polls, and what was requested of them."""

    def __init__(self, polls=2):
        self.calls, self.polls, self.starts = [], polls, []
        # Done once, at the first poll after a request.
        self.meanwhile = []
        # Pattern -> the units that run.
        self.running = {autostop.TRAIN: ["deeptrain-train@first.service"]}

    def __call__(self, *arguments):
        self.calls.append(" ".join(arguments))
        if arguments[0] == "start":
            for action in self.starts:
                action()
        if arguments[0] == "list-units":
            while self.requests() and self.meanwhile:
                self.meanwhile.pop()()
            self.polls -= 1
            return "".join(f"{unit} loaded active\n" for unit in self.running.get(arguments[-1], ["deeptrain-staging@first.service"])) if self.polls > 0 else ""
        return ""

    def requests(self):
        return [call for call in self.calls if not call.startswith("list-units")]


@pytest.fixture
def systemd(monkeypatch):
    played = Systemd()
    monkeypatch.setattr(autostop, "systemctl", played)
    return played


def over(config):
    renew(config, LONG_AGO)
    return config


def document(node, run, kind, name, **content):
    directory = os.path.join(node["state_dir"], "runs", run, kind)
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, name), "w", encoding="ascii") as file:
        json.dump(content, file)


def armed(config, run="first"):
    """Leaves an armed export, and returns what writes its result."""
    document(config, run, "export", "config.json", config={}, settings={"events_url": "x"})

    def result(status="succeeded", **summary):
        document(config, run, "export", "result.json", status=status, started=time.time(), summary=summary)

    return result


def trained(config, run="first", finished=0.0, status="succeeded"):
    """Leaves a training that has ended, and its model."""
    document(config, run, "train", "config.json", config={})
    document(config, run, "train", "result.json", status=status, started=0, finished=finished, summary={})
    document(config, run, "train/export", "metrics.json")


def test_the_chief_brings_home_and_lets_the_others_go(node, systemd, memory, clock):
    chief, worker = over(node("chief")), over(node("worker", grace_seconds=60))
    result = armed(chief)
    systemd.starts = [lambda: result("failed", manifest_uri="s3://b/m", complete=False)]
    End(chief).run()
    with open(os.path.join(chief["state_dir"], "runs", "first", "export", "config.json"), encoding="ascii") as file:
        assert json.load(file)["settings"] == {"events_url": "x", "partial": True}
    assert systemd.requests() == [
        "stop --no-block deeptrain-train@*.service deeptrain-staging@*.service",
        "reset-failed deeptrain-export@first.service",
        "start deeptrain-export@first.service",
    ]
    began = clock.now
    End(worker).run()
    assert clock.now == began


def test_a_failed_export_keeps_the_nodes_on_for_the_grace(node, systemd, memory, clock):
    chief = over(node())
    memory.runs = {"first"}
    result = armed(chief)
    result("failed", manifest_uri="s3://b/of-an-earlier-end")
    systemd.starts = [lambda: result("failed")]
    End(chief).run()
    assert 1 <= clock.now < 1.1
    assert autostop.EXPORTED not in memory.files


def test_an_export_without_end(node, systemd):
    chief = over(node())
    armed(chief)
    systemd.polls = 1_000_000
    End(chief).run()


def test_an_old_mark_ends_no_node(node, memory, clock):
    worker = over(node("worker"))
    memory.files[autostop.EXPORTED] = Lease(1, 1)
    End(worker).run()
    assert clock.now >= 1


def test_without_hdfs_the_grace_counts(node, memory):
    memory.away = True
    End(over(node("worker", namenode=True))).run()


def test_a_renewal_in_the_grace_period(node, systemd):
    chief = over(node("chief", grace_seconds=60))
    armed(chief)
    systemd.polls = 1_000_000
    systemd.meanwhile = [lambda: renew(chief, autostop.milliseconds())]
    with pytest.raises(Renewed):
        End(chief).run()


def test_nothing_ends_too_early(node, systemd):
    with pytest.raises(Renewed):
        End(node()).run()
    assert systemd.calls == []


EXPORTED = {"manifest_uri": "s3://b/m", "complete": True}


def ended(config):
    """Whether the chief let the others end, and the infrastructure be destroyed, within the grace."""
    End(config).run()
    return autostop.EXPORTED in Memory.files


def test_a_reboot_takes_the_credentials_and_destroys_nothing(node, systemd, memory, capsys):
    chief = over(node())
    armed(chief)
    document(chief, "first", "train", "config.json", config={})
    memory.runs = {"first"}
    # Without its credentials the unit of the export fails before it begins.
    assert not ended(chief)
    assert "start deeptrain-export@first.service" in systemd.requests()
    assert "Not exported: first" in capsys.readouterr().err


@pytest.mark.parametrize("on_disk", [True, False])
def test_checkpoints_without_an_armed_export_are_not_lost(node, systemd, memory, on_disk):
    chief = over(node())
    memory.runs = {"first"}
    if on_disk:
        document(chief, "first", "train", "config.json", config={})
    assert not ended(chief)


def test_a_model_without_an_armed_export_is_not_lost(node, systemd):
    chief = over(node())
    trained(chief)
    assert not ended(chief)


def test_where_nothing_was_trained_nothing_is_lost(node, systemd, memory):
    memory.away = True
    assert End(over(node())).export_all()


def test_an_hdfs_that_answers_no_more_may_hold_checkpoints(node, systemd, memory):
    chief = over(node())
    poll(chief)
    memory.away = True
    assert not End(chief).export_all()


def test_an_abandoned_first_try_does_not_keep_an_exported_cluster(node, systemd, memory):
    chief = over(node("chief", grace_seconds=60))
    armed(chief, "typo")("failed")
    document(chief, "typo", "train", "config.json", config={})
    trained(chief, "good")
    armed(chief, "good")(**EXPORTED)
    memory.runs = {"good"}
    assert ended(chief)
    assert "start deeptrain-export@good.service" not in systemd.requests()


@pytest.mark.parametrize(
    ("train", "summary"),
    [
        ({"finished": time.time() + HOUR}, EXPORTED),
        ({"status": "failed"}, EXPORTED),
        ({}, {**EXPORTED, "complete": False}),
        ({}, {"complete": True}),
    ],
    ids=["trained since", "not done", "partial", "without manifest"],
)
def test_an_export_of_less_than_the_last_training_does_not_count(node, systemd, train, summary):
    chief = over(node())
    trained(chief, **train)
    armed(chief)(**summary)
    assert not ended(chief)


def test_an_export_from_before_the_clock_was_set_back_does_not_count(node, systemd, memory):
    chief = over(node("chief", grace_seconds=60))
    trained(chief, status="failed")
    armed(chief)
    summary = {"manifest_uri": "s3://b/m", "complete": False}
    document(chief, "first", "export", "result.json", status="failed", started=time.time() + 24 * HOUR, summary=summary)
    memory.runs = {"first"}
    assert not ended(chief)


def test_nested_json_of_the_job_breaks_no_end(node, systemd, memory):
    chief = over(node("chief", grace_seconds=60))
    trained(chief)
    armed(chief)
    (Path(chief["state_dir"]) / "runs/first/export/result.json").write_text("[" * 30_000)
    assert not ended(chief)


def test_no_call_takes_the_cancelling_of_the_end_for_its_own_error(hdfs, monkeypatch):
    def cancelled(*arguments, **options):
        raise Renewed

    monkeypatch.setattr(deeptrain.hdfs, "with_timeout", cancelled)
    with pytest.raises(Renewed):
        hdfs.files()


def test_a_checkpoint_that_was_exported_before_a_reboot_counts(node, systemd, memory):
    chief = over(node("chief", grace_seconds=60))
    trained(chief, status="failed")
    armed(chief)("failed", manifest_uri="s3://b/m", complete=False)
    memory.runs = {"first"}
    assert ended(chief)


def test_the_job_user_leads_root_nowhere(node, systemd, memory, tmp_path):
    chief = over(node())
    memory.runs = {"first"}
    outside = tmp_path / "outside.json"
    outside.write_text('{"settings": {}}')
    armed(chief)
    leaf = os.path.join(chief["state_dir"], "runs", "first", "export")
    os.remove(f"{leaf}/config.json")
    os.symlink(outside, f"{leaf}/config.json")
    os.mkfifo(f"{leaf}/result.json")
    assert not ended(chief)
    assert outside.read_text() == '{"settings": {}}'
    os.remove(f"{leaf}/config.json")
    os.remove(f"{leaf}/result.json")
    os.rmdir(leaf)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "config.json").write_text('{"settings": {}}')
    os.symlink(tmp_path / "elsewhere", leaf)
    assert not ended(chief)
    assert (tmp_path / "elsewhere" / "config.json").read_text() == '{"settings": {}}'


def unexported(node, capsys):
    """What `deeptrain unexported` returns and prints."""
    status = cli.main(["unexported", "--state-dir", node["state_dir"], "--hdfs-url", node["hdfs_url"], "--user", node["user"]])
    output = capsys.readouterr()
    return status, json.loads(output.out) if status == 0 else output.err


def test_any_run_that_would_be_lost_with_the_machines_is_listed(node, systemd, memory, capsys, monkeypatch):
    monkeypatch.setenv("HADOOP_USER_NAME", "")
    chief = node()
    memory.runs = {"lost", "good", "foreign"}
    systemd.running = {autostop.TRAIN: ["deeptrain-train@running.service"], STAGING: [], autostop.EXPORT: []}
    systemd.polls = 1000
    trained(chief, "good")
    armed(chief, "good")(**EXPORTED)
    trained(chief, "lost")
    armed(chief, "lost")("failed")
    document(chief, "typo", "train", "config.json", config={})
    status, found = unexported(chief, capsys)
    assert status == 0 and sorted(found) == ["foreign", "lost", "running"]
    assert found["lost"] == "has a model or checkpoints that are not in S3" and found["running"] == "has a running job"
    memory.away = True
    status, said = unexported(chief, capsys)
    assert status == 1 and "not known" in said
    memory.away = False
    monkeypatch.setattr(autostop, "systemctl", lambda *arguments: None)
    assert unexported(chief, capsys)[0] == 1


def test_renewals_reach_no_further_than_the_maximum(node):
    chief = node(max_seconds=2 * HOUR)
    armed_at = autostop.milliseconds() - 3600_000
    path = os.path.join(chief["directory"], autostop.ARMED)
    with open(path, "w", encoding="ascii"):
        os.utime(path, ns=(0, armed_at * 1_000_000))
    for later in (0.5, 1.5, 1.9):
        renew(chief, armed_at + round(later * HOUR * 1000))
        assert poll(chief).expires == armed_at + min(later + 1, 2) * HOUR * 1000
    # Another run of the role begins anew; and the maximum does not shorten the first lease.
    os.utime(path, ns=(0, (armed_at + HOUR * 1000) * 1_000_000))
    renew(chief, armed_at + round(1.95 * HOUR * 1000))
    assert poll(chief).expires == armed_at + round(2.95 * HOUR * 1000)
    renew(chief, armed_at + round(1.96 * HOUR * 1000))
    assert poll({**chief, "max_seconds": 1}).expires == armed_at + 2 * HOUR * 1000


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_renewal_in_the_grace_resumes_the_training(node, systemd, tmp_path, monkeypatch, cancelled):
    config = over(node("chief", grace_seconds=60))
    armed(config)
    trained(config, "second")
    systemd.polls = 1_000_000
    systemd.running[autostop.TRAIN] = ["deeptrain-train@first.service", "deeptrain-train@second.service"]
    systemd.running[STAGING] = ["deeptrain-staging@first.service"]
    path = tmp_path / "autostop.json"
    path.write_text(json.dumps(config))

    def interrupt():
        if cancelled:
            signal.raise_signal(signal.SIGTERM)
        else:
            renew(config, autostop.milliseconds())

    systemd.meanwhile = [interrupt]
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert autostop.main(str(path), end=True) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    # What succeeded meanwhile is not done again.
    assert systemd.requests() == [
        "stop --no-block deeptrain-train@*.service deeptrain-staging@*.service",
        "stop --no-block deeptrain-export@first.service",
        "start --no-block deeptrain-train@first.service",
        "start --no-block deeptrain-staging@first.service",
    ]


def test_what_runs_have_saved_in_hdfs(hdfs):
    hdfs.mkdirs("runs/empty/checkpoints")
    for path in ("first/checkpoints/checkpoint", "weights/weights.h5", "deep/my/events/x", "a-file/events"):
        hdfs.write_bytes(f"runs/{path}", b"x")
    for path in ("events/e", "run.json", "run.json.part", "_SUCCESS", "_RUNNING", "_own/x"):
        hdfs.write_bytes(f"runs/second/{path}", b"x")
    assert Shared(hdfs.url).saved() == {"first", "weights", "deep", "a-file"}


class Played:
    """An Infrastructure Manager that gives the answers it was told to a method, the last one for ever, and keeps the requests."""

    def __init__(self):
        self.requests, self.headers = [], set()
        self.answers = {"/state": [(200, {"state": {"state": "configured"}})], "": [(200, {"uri-list": []})], "DELETE": [(200, {})]}

    def answer(self, method, path):
        self.requests.append(f"{method} {path}")
        given = self.answers["DELETE" if method == "DELETE" else "/state" if path.endswith("/state") else ""]
        return given.pop(0) if len(given) > 1 else given[0]


@pytest.fixture
def manager():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, document = played.answer(self.command, self.path)
            played.headers.add(self.headers["Authorization"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

        do_DELETE = do_GET

        def log_message(self, *arguments):
            pass

    played = Played()
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    played.url = f"http://127.0.0.1:{server.server_port}/im/"
    yield played
    server.shutdown()


@pytest.fixture
def managed(node, manager, tmp_path):
    """Makes a chief whose infrastructure the manager has."""

    def make(**values):
        path = tmp_path / "im"
        path.write_text("type = InfrastructureManager; token = hidden\n")
        im = {"url": manager.url, "infrastructure_id": "abc", "validate_certs": True, "ca_bundle": "", "authorization": str(path)}
        return over(node(im={**im, **values}))

    return make


GONE, RUNNING, DELETING = (404, {}), (200, {"state": {"state": "running"}}), (200, {"state": {"state": "deleting"}})
STATE, LIST, DELETE = "GET /im/infrastructures/abc/state", "GET /im/infrastructures", "DELETE /im/infrastructures/abc?async=true"


@pytest.mark.parametrize(
    ("states", "deletions", "requests"),
    [
        ([RUNNING, DELETING, GONE], [200], [STATE, DELETE, STATE, STATE, LIST]),
        ([RUNNING, GONE], [503, 401, 200], [STATE, DELETE, STATE, LIST]),
        # Accepted, and failed later.
        ([RUNNING, DELETING, RUNNING, DELETING, GONE], [200], [STATE, DELETE, STATE, STATE, DELETE, STATE, STATE, LIST]),
        ([RUNNING, RUNNING, RUNNING, GONE], [503, 401, 200], [STATE, DELETE] * 3 + [STATE, LIST]),
        ([GONE], [200], [STATE, LIST]),
    ],
)
def test_the_infrastructure_is_destroyed(managed, systemd, manager, clock, states, deletions, requests):
    manager.answers["/state"] = states
    manager.answers["DELETE"] = [(status, {}) for status in deletions]
    End({**managed(), "grace_seconds": 60}).run()
    assert clock.now < 30
    assert manager.requests == requests
    assert manager.headers == {"type = InfrastructureManager; token = hidden"}


@pytest.mark.parametrize("listed", [(404, {}), (200, {"other": "server"}), (200, {"uri-list": [{"uri": "http://im/infrastructures/abc"}]}), (401, {})])
def test_a_404_alone_is_no_destruction(managed, systemd, manager, listed):
    manager.answers["/state"], manager.answers[""] = [GONE], [listed]
    chief = managed()
    assert not End(chief).destroy()
    # Within the grace it is tried again, and the machine is powered off in any case.
    End(chief).run()
    assert DELETE not in manager.requests
    assert manager.requests.count(LIST) > 2


@pytest.mark.parametrize(
    ("state", "status", "words"),
    [
        (RUNNING, 0, ""),
        ((401, {}), 2, "autostop_im_url, _infrastructure_id and _credentials"),
        ((403, {}), 2, "refuses abc (403"),
        (GONE, 2, "has no infrastructure abc"),
        ((503, {}), 1, "refuses abc (503"),
        ((200, []), 2, "does not answer as an Infrastructure Manager"),
    ],
)
def test_arming_checks_the_authorization(managed, manager, tmp_path, capsys, state, status, words):
    manager.answers["/state"] = [state]
    path = tmp_path / "autostop.json"
    path.write_text(json.dumps(managed()))
    assert autostop.main(str(path), end=False, check=True) == status
    assert words in (said := capsys.readouterr().err)
    assert "hidden" not in said


def test_a_manager_that_is_away_keeps_nothing_alive(managed, systemd, capsys):
    End(managed(url="http://127.0.0.1:9")).run()
    assert "does not answer" in (said := capsys.readouterr().err)
    assert "hidden" not in said


def test_the_command(node, systemd, tmp_path, monkeypatch):
    monkeypatch.delenv("HADOOP_USER_NAME", raising=False)
    config = node()
    path = tmp_path / "autostop.json"
    path.write_text(json.dumps(config))
    assert autostop.main(str(path), end=False) == 0
    assert Local(config["directory"]).read().expires > autostop.milliseconds()
    assert autostop.main(str(path), end=True) == 0
    monkeypatch.delenv("HADOOP_USER_NAME")
