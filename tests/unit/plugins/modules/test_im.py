# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of the Infrastructure Manager against a server that answers as the real one does, or breaks an answer."""

from __future__ import annotations

import json
import socket
import time

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils import _im as client
from ansible_collections.deeptrain.cluster.plugins.module_utils import _im_module as im_module
from ansible_collections.deeptrain.cluster.plugins.modules import (
    im_infrastructure,
    im_infrastructure_info,
    im_vm,
)
from ansible_collections.deeptrain.cluster.tests.unit.plugins.im_server import LOST, SECRET, WEB_PAGE

AUTH = [{"type": "InfrastructureManager", "username": "user", "password": SECRET}]
SYSTEM = "system worker ( disk.0.os.credentials.username = 'user' and disk.0.os.credentials.password = 'vm-password' )\n"
RADL = f"description cluster ()\n{SYSTEM}deploy worker 2\n"
TOSCA = "tosca_definitions_version: tosca_simple_yaml_1_0\nmetadata: {infra_name: cluster}\ntopology_template: {}\n"


@pytest.fixture
def server(monkeypatch, im_server):
    """Return the server, with short waits."""
    monkeypatch.setattr(im_infrastructure, "OUTCOME_SECONDS", 0.5)
    monkeypatch.setattr(im_infrastructure, "FAILED_SECONDS", 0.1)
    monkeypatch.setattr(im_infrastructure, "ABSENCE_SECONDS", 0.07)
    monkeypatch.setattr(im_vm, "OUTCOME_SECONDS", 0.5)
    monkeypatch.setattr(im_module, "BEGIN_SECONDS", 0.2)
    monkeypatch.setattr(im_module, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(client.Im, "agree_seconds", 0.5)
    monkeypatch.setattr(client, "_NAME_PAUSES", (0.05, 0.05, 0))
    return im_server


@pytest.fixture
def run(server, run_module):
    """Return a function that runs a module against the server; no secret may come back."""

    def call(module, check_mode=False, **arguments):
        given = {"url": server.url, "auth": AUTH, "timeout": 60, "unavailable_timeout": 1, **arguments}
        if module is not im_infrastructure_info:
            given = {"poll": 0.02, "wait_timeout": 600, **given}
        result = run_module(module, check_mode, **given)
        assert SECRET not in json.dumps(result)
        assert "vm-password" not in json.dumps(result) or arguments.get("secrets")
        return result

    return call


def test_created_once(server, run):
    first = run(im_infrastructure, radl=RADL)
    assert (first["changed"], first["state"], first["diff"]["after"]) == (True, "configured", {"worker": 2})
    assert first["contmsg"] == "the log has ******** and ********"
    assert not run(im_infrastructure, radl=RADL)["changed"]
    assert server.created == 1
    assert run(im_infrastructure, radl=RADL, secrets=True)["vms"][0]["password"] == "vm-password"


@pytest.mark.parametrize("reply", [LOST, WEB_PAGE, (200, b'{"uri": "http'), (200, b'{"uri": 1}')])
def test_creation_without_an_answer(server, run, reply):
    # A creation that the server carried out is found, another one can be retried.
    server.breaks.append(("POST /infrastructures", reply))
    result = run(im_infrastructure, radl=RADL)
    if reply in (LOST, WEB_PAGE):
        assert not result.get("failed")
    else:
        assert "There is no infrastructure cluster now: run this again" in result["msg"]
    assert not run(im_infrastructure, radl=RADL).get("failed")
    assert server.created == 1


def test_creation_whose_outcome_stays_unknown(server, run):
    server.breaks += [("POST /infrastructures", LOST)] + [("GET /infrastructures", LOST)] * 100
    # The first lists are read before the creation.
    server.breaks.insert(0, ("GET /infrastructures", (200, {"uri-list": []})))
    server.breaks.insert(0, ("GET /infrastructures", (200, {"uri-list": []})))
    server.breaks.insert(0, ("GET /infrastructures", (200, {"uri-list": []})))
    assert "Its outcome is unknown" in run(im_infrastructure, radl=RADL)["msg"]


def test_waits_for_the_name_of_a_new_infrastructure(server, run):
    made = server.create(RADL)
    # Another controller's creation, before the infrastructure has its name.
    server.breaks += [("GET /infrastructures/ID/radl", (200, {"radl": ""}))] * 2
    result = run(im_infrastructure, radl=RADL)
    assert (result["changed"], result["infrastructure_id"], server.created) == (False, made, 1)


def test_interrupted_creation_without_a_name_is_removed(server, run):
    def half(method, path, body, query):
        if (method, path) == ("POST", ["infrastructures"]):
            server.existing[f"i{server.created}"] = {"radl": "", "vms": {}, "state": "pending"}
            return 200, b""
        return respond(method, path, body, query)

    respond, server.respond = server.respond, half
    server.breaks.append(("POST /infrastructures", LOST))
    assert "run this again" in run(im_infrastructure, radl=RADL)["msg"]
    assert server.existing == {}


def beside_creation(server, action):
    """Run an action in place of the server's creation of an infrastructure, after the module has found none."""

    def respond(method, path, body, query):
        if (method, path, "dry_run" in query) == ("POST", ["infrastructures"], False):
            server.respond = whole
            return action(lambda: whole(method, path, body, query))
        return whole(method, path, body, query)

    whole, server.respond = server.respond, respond


def test_another_controller_was_earlier(server, run):
    beside_creation(server, lambda create: (server.create(RADL), create())[1])
    result = run(im_infrastructure, radl=RADL.replace("worker 2", "worker 3"))
    assert (result["infrastructure_id"], list(server.existing)) == ("i1", ["i1"])
    assert result["diff"] == {"before": {"worker": 2}, "after": {"worker": 3}}


def test_another_controller_was_later_and_ended(server, run):
    beside_creation(server, lambda create: (create(), server.create(RADL))[0])
    result = run(im_infrastructure, radl=RADL)
    assert (result["changed"], result["infrastructure_id"], list(server.existing)) == (True, "i1", ["i1"])


def test_on_timeout_keeps_the_infrastructure_of_another_controller(server, run):
    """It was not created by this task."""
    server.state = "running"
    beside_creation(server, lambda create: (server.create(RADL), create())[1])
    result = run(im_infrastructure, radl=RADL, wait_timeout=1, on_timeout="destroy")
    assert "i1 is running" in result["msg"]
    assert list(server.existing) == ["i1"]


def test_failed_deletion_is_not_another_controllers_infrastructure(server, run):
    old = server.create(RADL)
    server.existing[old]["state"] = "deleting"

    def create(whole):
        server.existing[old]["state"] = "failed"
        return whole()

    beside_creation(server, create)
    result = run(im_infrastructure, radl=RADL)
    assert (result["infrastructure_id"], list(server.existing)) == ("i2", ["i1", "i2"])


def test_creation_time_is_in_the_id():
    """The server gave the first id first, although it is the greater text."""
    ids = ["fffffff0-e99f-11f1-94a9-02fc00000001", "00000001-e9a0-11f1-94a9-02fc00000001"]
    assert sorted(reversed(ids), key=client._creation_time) == ids


@pytest.mark.parametrize("check_mode", [False, True])
def test_nothing_is_removed_without_allow_removal(server, run, check_mode):
    made = server.create(RADL)
    result = run(im_infrastructure, check_mode, radl=f"{RADL}system chief ()\ndeploy chief 1\n".replace("worker 2", "worker 1"), remove=["1"])
    assert "infrastructure i1 has 2 worker and not 1: VMs 1 would be removed" in result["msg"]
    assert "allow_removal" in result["msg"]
    # Nothing is added either.
    assert list(server.existing[made]["vms"]) == ["0", "1"]


def test_destroy_all(server, run):
    for name in ("cluster", "cluster", "other"):
        server.create(RADL.replace("cluster", name))
    assert "2 infrastructures are named cluster: i1, i2" in run(im_infrastructure, name="cluster", state="absent")["msg"]
    assert "another state than absent" in run(im_infrastructure, radl=RADL, destroy_all=True)["msg"]
    result = run(im_infrastructure, name="cluster", state="absent", destroy_all=True)
    assert (result["changed"], result["infrastructure_ids"], list(server.existing)) == (True, ["i1", "i2"], ["i3"])


# VMs that the server is creating, and those whose creation was interrupted by a restart of the server.
CREATING = {"creating": True, "configured": None}
ORPHANED = {"creating": True, "configured": False}


@pytest.mark.parametrize("vms", [{}, {"0": "worker"}])
def test_infrastructure_with_orphaned_vms_only_is_created_again(server, run, vms):
    made = server.create(RADL)
    server.existing[made].update(vms=vms, creation=ORPHANED, state="pending")
    result = run(im_infrastructure, radl=RADL)
    assert (result["changed"], result["infrastructure_id"], list(server.existing)) == (True, "i2", ["i2"])


def test_orphaned_vms_are_replaced(server, run):
    made = server.create(RADL)
    half = server.respond

    def respond(method, path, body, query):
        code, answer = half(method, path, body, query)
        if path[2:] == ["data"]:
            data = json.loads(answer["data"])
            data["vm_list"][1].update(ORPHANED)
            answer = {"data": json.dumps(data)}
        if method == "DELETE":
            server.respond = half
        return code, answer

    server.respond = respond
    result = run(im_infrastructure, radl=RADL)
    assert (result["infrastructure_id"], result["diff"]) == (made, {"before": {"worker": 1}, "after": {"worker": 2}})
    assert server.calls.index("DELETE /infrastructures/ID/vms/1") < server.calls.index("POST /infrastructures/ID")


def test_infrastructure_of_an_id_is_not_replaced(server, run):
    made = server.create(RADL)
    server.existing[made].update(vms={}, state="pending")
    result = run(im_infrastructure, radl=RADL, infrastructure_id=made)
    assert "infrastructure i1 has no VMs, and the server creates none: destroy it" in result["msg"]
    assert list(server.existing) == [made]


def test_vms_are_not_counted_while_they_are_being_created(server, run):
    made = server.create(RADL)
    there, vms = server.existing[made], server.existing[made]["vms"]
    there.update(vms={"0": "worker"}, creation=CREATING, state="pending")
    assert "VMs of infrastructure i1 are still being created after 1 s" in run(im_infrastructure, radl=RADL, wait_timeout=1)["msg"]
    assert not run(im_infrastructure, radl=RADL, wait=False)["changed"]
    polls = server.count("data")
    server.act(lambda: server.count("data") > polls + 2, lambda: there.update(vms=vms, creation={}, state=None))
    result = run(im_infrastructure, radl=RADL, wait_timeout=600)
    assert (result["changed"], result["state"], len(result["vms"])) == (False, "configured", 2)


def test_waits_for_a_creation_that_begins(server, run):
    made = server.create(RADL)
    vms = server.existing[made]["vms"]
    server.existing[made].update(vms={}, state="pending")

    def refuse(method, path, body, query):
        if method == "DELETE":
            server.existing[made].update(vms=vms, state=None)
            return 409, {"message": "Busy", "code": 409}
        return respond(method, path, body, query)

    respond, server.respond = server.respond, refuse
    result = run(im_infrastructure, radl=RADL)
    assert (result["infrastructure_id"], result["state"], len(result["vms"])) == (made, "configured", 2)


def test_creation_of_vms_is_interrupted(server, run):
    server.state = "pending"
    deploy, server.deploy = server.deploy, lambda *arguments: None

    def next_one(infrastructure, radl):
        server.state = "configured"
        deploy(infrastructure, radl)

    destroyed = server.respond

    def respond(method, path, body, query):
        server.deploy = next_one if method == "DELETE" else server.deploy
        return destroyed(method, path, body, query)

    server.respond = respond
    result = run(im_infrastructure, radl=RADL, wait_timeout=600)
    assert (result["infrastructure_id"], result["state"], list(server.existing)) == ("i2", "configured", ["i2"])


def test_creation_of_vms_is_interrupted_each_time(server, run):
    server.state = "pending"
    server.deploy = lambda *arguments: None
    result = run(im_infrastructure, radl=RADL, wait_timeout=600)
    assert "is pending: the Infrastructure Manager was interrupted while it created its VMs. Run this again" in result["msg"]
    assert (result["infrastructure_id"], list(server.existing)) == ("i3", ["i3"])


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (400, {"message": f"Error: bad {SECRET}", "code": 400}, "Error: bad ********"),
        (401, {"message": "Invalid credentials", "code": 401}, "Invalid credentials"),
        (403, {"message": "Not granted", "code": 403}, "belongs to another user"),
        (409, {"message": "Busy", "code": 409}, "Busy"),
        (415, {"message": "Unsupported Media Type", "code": 415}, "Unsupported Media Type"),
        (422, {"detail": [{"loc": ["query"], "msg": "bad"}]}, "query: bad"),
        (500, b"oops", "oops"),
        (503, b"<html>", "a web page"),
    ],
)
@pytest.mark.parametrize("call", ["GET /infrastructures", "POST /infrastructures"])
def test_refusals_are_one_clear_failure(server, run, call, code, body, words):
    server.breaks.append((call, (code, body)))
    result = run(im_infrastructure, radl=RADL)
    assert result["failed"]
    assert words in result["msg"]
    assert result["code"] == code
    assert server.existing == {}


EVERY_MODULE = [
    (im_infrastructure, {"radl": RADL}),
    (im_infrastructure, {"name": "cluster", "state": "absent"}),
    (im_infrastructure_info, {"name": "cluster"}),
    (im_infrastructure_info, {}),
    (im_vm, {"name": "cluster", "vm": "0"}),
]


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((400, {"message": "Error: bad", "code": 400}), "Error: bad"),
        ((401, {"message": "Invalid credentials", "code": 401}), "Invalid credentials"),
        ((403, {"message": "Access not granted", "code": 403}), "Access not granted"),
        ((404, {"message": "Invalid infrastructure ID", "code": 404}), "Invalid infrastructure ID"),
        ((422, {"detail": [{"loc": ["query"], "msg": "bad"}]}), "query: bad"),
        ((500, b"oops"), "oops"),
        ((502, b"<html>"), "a web page"),
        (WEB_PAGE, "its answer is no JSON"),
        ((200, b'{"uri-list": [{"u'), "its answer is no JSON"),
        (LOST, "no answer from"),
    ],
)
@pytest.mark.parametrize(("module", "arguments"), EVERY_MODULE)
def test_every_module_fails_clearly(server, run, module, arguments, reply, words):
    made = server.create(RADL)
    server.breaks.append(("GET /infrastructures", reply))
    assert words in run(module, **arguments)["msg"]
    assert list(server.existing) == [made]


@pytest.mark.parametrize(("module", "arguments"), EVERY_MODULE)
def test_every_module_without_a_server(server, run, module, arguments):
    assert "set ca_path to the authority" in run(module, url=server.url.replace("http:", "https:"), **arguments)["msg"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "(timed out): make sure that the Infrastructure Manager runs there" in run(module, url=url, **{**arguments, "timeout": 1})["msg"]
    assert "Connection refused" in run(module, url=url, **arguments)["msg"]


@pytest.mark.parametrize("reply", [(500, b"oops"), (502, b"<html>"), WEB_PAGE, (200, b'{"state": {"sta'), LOST])
@pytest.mark.parametrize("call", ["state", "data"])
def test_wait_continues_after_a_transient_error(server, run, reply, call):
    made = server.create(RADL)
    server.existing[made]["state"] = "pending"
    server.act(
        # It asks for the state a few times before it waits, too.
        lambda: server.count("state") > 5,
        lambda: server.breaks.extend([(f"GET /infrastructures/ID/{call}", reply)] * 3),
        lambda: not server.breaks,
        lambda: server.existing[made].update(state=None),
    )
    result = run(im_infrastructure, radl=RADL, wait_timeout=600)
    assert (result.get("state"), server.created) == ("configured", 1), result
    assert server.breaks == []


@pytest.mark.parametrize(
    ("code", "words"), [(400, "oops"), (401, "See the entry of type InfrastructureManager"), (403, "belongs to another user"), (409, "and retry")]
)
@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("POST /infrastructures/ID", {"radl": RADL.replace("worker 2", "worker 3")}),
        ("DELETE /infrastructures/ID/vms/1", {"radl": RADL.replace("worker 2", "worker 1"), "allow_removal": True}),
        ("PUT /infrastructures/ID/stop", {"name": "cluster", "state": "stopped"}),
        ("PUT /infrastructures/ID/reconfigure", {"name": "cluster", "state": "reconfigured"}),
        ("DELETE /infrastructures/ID", {"name": "cluster", "state": "absent"}),
    ],
)
def test_refusal_of_a_change(server, run, call, arguments, code, words):
    made = server.create(RADL)
    server.breaks += [(call, (code, {"message": "oops", "code": code}))] * 100
    result = run(im_infrastructure, wait_timeout=1, **arguments)
    assert "oops" in result["msg"] and words in result["msg"]
    assert (result["infrastructure_id"], len(server.existing[made]["vms"])) == (made, 2)


@pytest.mark.parametrize("text", ["description cluster ()\n", f"description cluster ()\n{SYSTEM}", f"description cluster ()\n{SYSTEM}deploy worker 0\n"])
def test_radl_without_deploy_removes_nothing(server, run, text):
    made = server.create(RADL)
    assert "deploys nothing" in run(im_infrastructure, radl=text)["msg"]
    assert len(server.existing[made]["vms"]) == 2


def test_playbooks_in_a_radl_deploy_nothing(server, run):
    text = f"description cluster ()\n{SYSTEM}configure worker (\n@begin\n---\n- shell: |\n    deploy worker 7\n@end\n)\ndeploy worker 1\n# deploy worker 3\n"
    assert run(im_infrastructure, radl=text)["diff"]["after"] == {"worker": 1}


def test_allow_removal(server, run):
    made = server.create(RADL.replace("worker 2", "worker 4"))
    arguments = {"radl": RADL, "allow_removal": True, "remove": ["worker-1"]}
    assert run(im_infrastructure, True, **arguments)["removed"] == ["1", "3"]
    result = run(im_infrastructure, **arguments)
    assert result["removed"] == ["1", "3"] and result["diff"] == {"before": {"worker": 4}, "after": {"worker": 2}}
    assert list(server.existing[made]["vms"]) == ["0", "2"]


def test_added_vms_without_an_answer(server, run):
    made = server.create(RADL)
    server.breaks.append(("POST /infrastructures/ID", LOST))
    assert run(im_infrastructure, radl=RADL.replace("worker 2", "worker 3"))["changed"]
    assert len(server.existing[made]["vms"]) == 3
    server.breaks.append(("POST /infrastructures/ID", (500, b"oops")))
    assert "oops" in run(im_infrastructure, radl=RADL.replace("worker 2", "worker 4"))["msg"]


@pytest.mark.parametrize("state", ["unknown", "running", "something new"])
@pytest.mark.parametrize(("on_timeout", "left", "words"), [("keep", 1, "and continues"), ("destroy", 0, "and is destroyed")])
def test_timeout(server, run, state, on_timeout, left, words):
    server.state = state
    result = run(im_infrastructure, radl=RADL, wait_timeout=1, on_timeout=on_timeout)
    assert result["failed"]
    assert f"infrastructure i1 is {state} (VMs: 2 {state}), not configured after 1 s, {words}" in result["msg"]
    assert (result["infrastructure_id"], len(server.existing)) == ("i1", left)


@pytest.mark.parametrize("state", ["failed", "unconfigured"])
def test_failed_infrastructure_is_kept(server, run, state):
    server.state = state
    result = run(im_infrastructure, radl=RADL, on_timeout="destroy")
    assert f"infrastructure i1 is {state} (VMs: 0 {state}, 1 {state}). The end of its contextualization log: the log has ********" in result["msg"]
    assert (result["infrastructure_id"], len(server.existing)) == ("i1", 1)


@pytest.mark.parametrize("state", ["configured", "off"])
def test_terminated_vm(server, run, state):
    made = server.create(RADL)
    server.existing[made].update(state=state, vm_states={"1": "off"})
    result = run(im_infrastructure, radl=RADL)
    assert f"infrastructure i1 is {state} (VMs: 0 {state}, 1 off). VMs " in result["msg"]
    assert "1 were terminated or stopped in their cloud: start them, or remove them with im_vm" in result["msg"]


def test_progress(server, run, tmp_path):
    pending = {"state": "pending", "vm_states": {}}
    running = {"state": "running", "vm_states": {"0": "configured", "1": "running", "2": "running"}}
    server.breaks += [("GET /infrastructures/ID/state", (200, {"state": state})) for state in (pending, pending, running, running)]
    assert run(im_infrastructure, radl=RADL, progress_file=str(tmp_path / "progress"))["changed"]
    assert (tmp_path / "progress").read_text().splitlines() == [
        "infrastructure i1 is pending (VMs: none yet)",
        "infrastructure i1 is running (VMs: 1 configured, 2 running)",
        "infrastructure i1 is configured (VMs: 2 configured)",
    ]


def test_infrastructure_is_destroyed_during_the_wait(server, run):
    server.state = "pending"
    server.act(lambda: server.count("state") > 5, server.existing.clear)
    result = run(im_infrastructure, radl=RADL)
    assert "infrastructure i1 was destroyed during the wait for it" in result["msg"]
    assert result["infrastructure_id"] == "i1"


def test_absent(server, run):
    server.create(RADL)
    # The server refuses it while VMs are being added, and a proxy may not answer.
    server.breaks += [("DELETE /infrastructures/ID", (409, {"message": "Busy", "code": 409})), ("DELETE /infrastructures/ID", (502, b""))]
    assert run(im_infrastructure, name="cluster", state="absent", check_mode=True)["changed"]
    assert len(server.breaks) == 2
    gone = run(im_infrastructure, name="cluster", state="absent")
    assert (gone["changed"], gone["state"], server.existing) == (True, "absent", {})
    assert not run(im_infrastructure, name="cluster", state="absent")["changed"]


@pytest.mark.parametrize("arguments", [{"name": "cluster"}, {"name": "cluster", "destroy_all": True}, {"infrastructure_id": "i1"}])
def test_absent_waits_for_an_earlier_deletion(server, run, arguments):
    server.create(RADL)
    server.existing["i1"]["state"] = "deleting"
    server.act(lambda: server.count("state") > 5, server.existing.clear)
    gone = run(im_infrastructure, state="absent", **arguments)
    assert (gone["changed"], gone["state"], gone["infrastructure_ids"], server.existing) == (False, "absent", ["i1"], {})
    assert not any(call.startswith("DELETE") for call in server.calls)


def test_absent_retries_a_failed_deletion(server, run):
    server.create(RADL)
    server.create(RADL)
    server.existing["i1"]["state"] = "deleting"
    server.act(lambda: server.count("state") > 5, lambda: server.existing["i1"].update(state="failed"))
    # The other one of its name is destroyed too.
    gone = run(im_infrastructure, name="cluster", state="absent")
    assert (gone["changed"], gone["state"], server.existing) == (True, "absent", {})


def saved_again(server, times):
    """Let the server list destroyed infrastructures again, so many times: another of its threads saves an older copy after the deletion."""
    respond = server.respond
    copies, lists = {}, []

    def respond_late(method, path, body, query):
        if method == "DELETE" and len(path) == 2 and path[1] in server.existing and len(lists) < times:
            copies[path[1]] = server.existing[path[1]]
        answer = respond(method, path, body, query)
        if method == "GET" and len(path) == 1 and copies and not set(copies) & set(server.existing):
            # It was missing from this list, and is in the next one.
            lists.append(answer)
            server.existing.update(copies)
            copies.clear()
        return answer

    server.respond = respond_late


def test_absent_destroys_what_is_listed_again(server, run):
    server.create(RADL)
    saved_again(server, 1)
    result = run(im_infrastructure, name="cluster", state="absent")
    assert (result["changed"], result["state"], server.existing) == (True, "absent", {})
    assert server.calls.count("DELETE /infrastructures/ID") == 2


def test_absent_fails_when_it_is_listed_again_each_time(server, run):
    server.create(RADL)
    saved_again(server, 100)
    result = run(im_infrastructure, name="cluster", state="absent")
    assert "infrastructure i1 could not be destroyed and is configured" in result["msg"]
    assert server.calls.count("DELETE /infrastructures/ID") == im_infrastructure.TRIES


def test_absent_pauses_once_for_all(server, run, monkeypatch):
    for _number in range(3):
        server.create(RADL)
    pauses, sleep = [], time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (pauses.append(seconds), sleep(seconds)))
    result = run(im_infrastructure, name="cluster", state="absent", destroy_all=True)
    assert (result["infrastructure_ids"], server.existing) == (["i1", "i2", "i3"], {})
    assert pauses.count(im_infrastructure.ABSENCE_SECONDS) == 1


@pytest.mark.parametrize("wait", [True, False])
def test_absent_fails_when_the_infrastructure_still_exists(server, run, wait):
    server.create(RADL)
    server.breaks += [("DELETE /infrastructures/ID", (500, b"oops"))] * 3
    assert "oops" in run(im_infrastructure, name="cluster", state="absent", wait=wait)["msg"]
    # The server accepted the call, and could not carry it out.
    server.breaks = [("DELETE /infrastructures/ID", (200, b" "))] * 3
    result = run(im_infrastructure, name="cluster", state="absent")
    assert "could not be destroyed and is configured" in result["msg"]


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        (TOSCA.replace("metadata: {infra_name: cluster}\n", ""), {"name": "x"}, "give its metadata an 'infra_name: x'"),
        (TOSCA, {"name": "x"}, "name is x, and the document is named cluster"),
        ("a: [", {"name": "x"}, "is no YAML"),
        ("text", {"name": "x"}, "has no topology_template"),
    ],
)
def test_tosca_without_the_right_name(server, run, text, arguments, words):
    assert words in run(im_infrastructure, tosca=text, **arguments)["msg"]
    assert server.existing == {}


def test_info(server, run):
    server.create(RADL)
    server.create(
        "description other ()\nconfigure x (\n@begin\n- vars:\n    s3_secret_key: vm-password\n    key_token: |\n      vm-password\n      two\n@end\n)\n"
    )
    everything = run(im_infrastructure_info)["infrastructures"]
    assert [item["name"] for item in everything] == ["cluster", "other"]
    [one] = run(im_infrastructure_info, name="cluster")["infrastructures"]
    assert one["radl"] == RADL.replace("'vm-password'", "'********'")
    assert one["outputs"] == {"out": {"token": "********"}}
    [other] = run(im_infrastructure_info, name="other")["infrastructures"]
    assert "two" not in other["radl"]
    assert run(im_infrastructure_info, name="nobody")["infrastructures"] == []


def test_two_of_one_name(server, run):
    server.create(RADL)
    server.create(RADL)
    for module, arguments in ((im_infrastructure, {"radl": RADL}), (im_infrastructure_info, {"name": "cluster"}), (im_vm, {"name": "cluster", "vm": "0"})):
        assert "2 infrastructures are named cluster: i1, i2. Select one with infrastructure_id" in run(module, **arguments)["msg"]


def test_vm(server, run):
    made = server.create(RADL)
    assert not run(im_vm, name="cluster", vm="worker-1")["changed"]
    assert not run(im_vm, name="cluster", vm="1", state="resized", radl="system worker ( cpu.count >= 1 and memory.size = 2g )")["changed"]
    assert run(im_vm, name="cluster", vm="1", state="resized", radl="system worker ( cpu.count = 2 and memory.size = 2g )")["changed"]
    server.breaks.append(("DELETE /infrastructures/ID/vms/1", LOST))
    assert run(im_vm, name="cluster", vm="worker-1", state="absent")["changed"]
    assert list(server.existing[made]["vms"]) == ["0"]
    assert not run(im_vm, name="cluster", vm="worker-1", state="absent")["changed"]
    result = run(im_vm, name="cluster", vm="0", state="stopped", wait_timeout=1)
    assert "VM 0 of infrastructure i1 is configured, and did not become stopped within 1 s" in result["msg"]
    server.breaks.append(("PUT /infrastructures/ID/vms/0/reboot", (500, b"oops")))
    assert "oops" in run(im_vm, name="cluster", vm="0", state="rebooted")["msg"]
