# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules against the real Infrastructure Manager."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import Im, ImError
from conftest import AUTH, LIMIT, SECRET, Modules

# The Infrastructure Manager tries for minutes to reach a VM that the Dummy cloud only pretends to have.
ENDLESS = {"context": "", "network": " outbound = 'yes' "}

OTHER = [{"type": "InfrastructureManager", "username": "other", "password": SECRET}, AUTH[1]]


def counts(result: dict) -> dict[str, int]:
    found = {}
    for vm in result["vms"]:
        found[vm["system"]] = found.get(vm["system"], 0) + 1
    return found


def test_twice_is_once(modules, radl):
    first = modules.done("im_infrastructure", radl=radl(2))
    assert first["changed"]
    assert (first["name"], first["state"], counts(first)) == ("cluster", "configured", {"chief": 1, "worker": 2})
    assert {"password", "private_key"}.isdisjoint(first["vms"][0])
    second = modules.done("im_infrastructure", radl=radl(2))
    assert not second["changed"]
    assert second["infrastructure_id"] == first["infrastructure_id"]
    by_id = modules.done("im_infrastructure", infrastructure_id=first["infrastructure_id"], secrets=True)
    assert not by_id["changed"]
    assert by_id["vms"][0]["password"]


def test_tosca_twice_is_once(modules):
    text = (
        "tosca_definitions_version: tosca_simple_yaml_1_0\nmetadata: {infra_name: from-tosca}\n"
        "topology_template: {node_templates: {node: {type: tosca.nodes.Compute}}}\n"
    )
    first = modules.done("im_infrastructure", tosca=text)
    assert (first["changed"], first["name"], first["state"], counts(first)) == (True, "from-tosca", "configured", {"node": 1})
    assert not modules.done("im_infrastructure", tosca=text)["changed"]
    wrong = modules.run("im_infrastructure", tosca=text.replace("tosca.nodes.Compute", "Computer").replace("from-tosca", "other"))
    assert '"Computer"' in wrong["msg"]
    assert len(wrong["msg"]) < 1000


def test_number_of_vms_follows_the_radl(modules, radl):
    modules.done("im_infrastructure", radl=radl(2))
    more = modules.done("im_infrastructure", radl=radl(3))
    assert more["diff"] == {"before": {"chief": 1, "worker": 2}, "after": {"chief": 1, "worker": 3}}
    assert counts(more) == {"chief": 1, "worker": 3}
    less = modules.done("im_infrastructure", radl=radl(1), allow_removal=True, remove=["worker-2"])
    assert less["diff"] == {"before": {"chief": 1, "worker": 3}, "after": {"chief": 1, "worker": 1}}
    # worker-2 by the user's word, and the newest.
    assert [vm["hostname"] for vm in less["vms"]] == ["chief-0", "worker-1"]


def test_absent_twice(modules, radl):
    modules.done("im_infrastructure", radl=radl(1))
    gone = modules.done("im_infrastructure", name="cluster", state="absent")
    assert (gone["changed"], gone["state"]) == (True, "absent")
    again = modules.done("im_infrastructure", name="cluster", state="absent")
    assert (again["changed"], again["state"]) == (False, "absent")


def test_check_mode_changes_nothing(modules, radl):
    would = modules.done("im_infrastructure", check=True, radl=radl(2))
    assert would["changed"]
    assert len(would["estimate"]["dummy"]["compute"]) == 3
    assert modules.all() == {}
    made = modules.done("im_infrastructure", radl=radl(2))
    before = modules.done("im_infrastructure_info", name="cluster")
    for state, arguments in {"present": {"radl": radl(4)}, "absent": {}, "stopped": {}, "reconfigured": {}}.items():
        assert modules.done("im_infrastructure", check=True, infrastructure_id=made["infrastructure_id"], state=state, **arguments)["changed"]
    assert modules.done("im_vm", check=True, name="cluster", vm="worker-1", state="absent")["changed"]
    assert modules.done("im_infrastructure_info", name="cluster") == before


def test_stopped_and_started(modules, radl):
    modules.done("im_infrastructure", radl=radl(1))
    for state, end in (("stopped", "stopped"), ("started", "configured")):
        changed = modules.done("im_infrastructure", name="cluster", state=state)
        assert (changed["changed"], changed["state"]) == (True, end)
        assert not modules.done("im_infrastructure", name="cluster", state=state)["changed"]
    assert modules.done("im_infrastructure", name="cluster", state="reconfigured")["changed"]


def test_one_vm(modules, radl):
    modules.done("im_infrastructure", radl=radl(2))
    stopped = modules.done("im_vm", name="cluster", vm="worker-1", state="stopped")
    assert (stopped["changed"], stopped["vm"]["state"], stopped["vm"]["id"]) == (True, "stopped", "1")
    assert not modules.done("im_vm", name="cluster", vm="1", state="stopped")["changed"]
    assert modules.done("im_vm", name="cluster", vm="1")["changed"]
    assert modules.done("im_vm", name="cluster", vm="1", state="rebooted")["changed"]
    for changed in (True, False):
        resized = modules.done("im_vm", name="cluster", vm="1", state="resized", radl="system worker ( cpu.count = 2 and memory.size >= 2g )")
        assert resized["changed"] is changed
    assert modules.done("im_vm", name="cluster", vm="worker-2", state="absent")["changed"]
    assert not modules.done("im_vm", name="cluster", vm="worker-2", state="absent")["changed"]
    assert "has no VM worker-2" in modules.run("im_vm", name="cluster", vm="worker-2")["msg"]
    info = modules.done("im_infrastructure_info", name="cluster")["infrastructures"][0]
    assert counts(info) == {"chief": 1, "worker": 1}
    assert "password = '********'" in info["radl"]
    assert "'word'" not in info["radl"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"radl": "description x ()\nsystem a ()\n"}, "deploys nothing"),
        ({"radl": "system a ()\ndeploy a 1\n"}, "has no name: set name"),
        ({"radl": "description x ()\ndeploy a 1\n", "name": "y"}, "give both the same name"),
        ({"radl": "description x ()\nsystem a (\n  deploy a 1\n"}, "'deploy' in line 3, column 3"),
        ({"name": "x"}, "give radl, radl_file or tosca to create it"),
        ({"radl": "description x ()\nsystem a ()\ndeploy a 1\n", "infrastructure_id": "nowhere"}, "there is no infrastructure nowhere"),
        ({"name": "x", "state": "started"}, "there is no infrastructure x"),
        ({"radl_file": "/does/not/exist"}, "cannot read radl_file"),
    ],
)
def test_bad_input(modules, arguments, words):
    result = modules.run("im_infrastructure", **arguments)
    assert result["failed"]
    assert words in result["msg"]
    assert modules.all() == {}


def test_refusals_of_the_real_one(modules, radl):
    made = modules.done("im_infrastructure", radl=radl(1))["infrastructure_id"]
    im, other, nobody = (Im(modules.server.url, auth) for auth in (AUTH, OTHER, AUTH))
    nobody._header = "Basic dGVzdGVyOnRlc3Rlcg=="
    for code, words, call in (
        (400, "Error Creating Inf.", lambda: im.create("deploy nothing 1")),
        (401, "See the entry of type InfrastructureManager in auth", nobody.infrastructures),
        (403, "It belongs to another user", lambda: other.state(made)),
        (404, "It does not exist, or no longer", lambda: im.state("nowhere")),
        (415, "Unsupported", lambda: im.create(radl(1), "text/csv")),
        (422, "path.prop: Input should be", lambda: im._call("GET", f"/infrastructures/{made}/nothing")),
    ):
        with pytest.raises(ImError, match=words) as caught:
            call()
        assert caught.value.code == code
    for arguments in ({"radl": radl(1)}, {"state": "absent"}):
        result = Modules(modules.server, OTHER).run("im_infrastructure", infrastructure_id=made, **arguments)
        assert "there is no infrastructure" in result.get("msg", "") or (result["changed"], result["state"]) == (False, "absent")
    assert list(modules.all()) == [made]


def test_auth_file(modules, tmp_path):
    file = tmp_path / "auth.dat"
    file.write_text(f"type = InfrastructureManager; username = tester; password = {SECRET}\n")
    file.chmod(0o644)
    result = modules.done("im_infrastructure_info", auth=None, auth_file=str(file))
    assert any(f"other users can read auth_file {file}" in str(warning) for warning in result["warnings"])
    file.chmod(0o600)
    assert "warnings" not in modules.done("im_infrastructure_info", auth=None, auth_file=str(file))
    file.write_text(f"type = InfrastructureManager; username = tester; password = {SECRET}\nid = one; password = {SECRET}\n")
    assert "line 2 of the auth file has no type" in modules.run("im_infrastructure_info", auth=None, auth_file=str(file))["msg"]


def test_two_of_one_name(modules, radl):
    ids = {modules.done("im_infrastructure", radl=radl(1, "one"))["infrastructure_id"]}
    # Another client creates a second one.
    ids.add(Im(modules.server.url, AUTH).create(radl(1, "one")))
    result = modules.run("im_infrastructure", radl=radl(1, "one"))
    assert result["failed"]
    assert "2 infrastructures are named one" in result["msg"]
    assert all(infrastructure in result["msg"] for infrastructure in ids)


def test_failure_says_why(modules, radl):
    # No VM has an address outside, so that none can be the Infrastructure Manager's Ansible master.
    result = modules.run("im_infrastructure", radl=radl(1, context=""))
    assert result["failed"]
    assert f"infrastructure {result['infrastructure_id']} is unconfigured (VMs: 0 unconfigured, 1 unconfigured)" in result["msg"]
    assert "No master VM found" in result["msg"]


@pytest.mark.parametrize(("on_timeout", "left"), [("keep", 1), ("destroy", 0)])
def test_what_is_not_ready_in_time_is_not_lost(modules, radl, on_timeout, left):
    result = modules.run("im_infrastructure", radl=radl(1, **ENDLESS), wait_timeout=2, on_timeout=on_timeout)
    assert result["failed"]
    assert result["infrastructure_id"] in result["msg"]
    assert "after 2 s" in result["msg"]
    end = time.monotonic() + LIMIT
    while len(modules.all()) != left and time.monotonic() < end:
        time.sleep(0.2)
    assert len(modules.all()) == left


@pytest.fixture
def waiting(modules, radl, tmp_path):
    """Return a module that waits for an infrastructure, and a function that waits until it says some words."""
    progress = tmp_path / "progress"
    module = modules.start("im_infrastructure", radl=radl(1, **ENDLESS), unavailable_timeout=0, progress_file=str(progress))

    def until_said(words: str):
        while not (progress.exists() and words in progress.read_text()):
            assert module.poll() is None, module.communicate()
            time.sleep(0.1)

    # Before it has its VMs it would be made again.
    until_said("is running")
    yield module, until_said
    module.kill()


def test_restart_while_waiting(modules, waiting):
    module, until_said = waiting
    modules.server.kill()
    until_said("is in an unknown state")
    modules.server.start()
    [infrastructure] = modules.all()
    # The Infrastructure Manager gives up what it was doing, and says so.
    assert f"infrastructure {infrastructure} is unconfigured" in json.loads(module.communicate(timeout=LIMIT)[0])["msg"]


def test_infrastructure_that_vanishes(modules, waiting):
    module = waiting[0]
    [infrastructure] = modules.all()
    modules.done("im_infrastructure", state="absent", infrastructure_id=infrastructure)
    assert f"infrastructure {infrastructure} was destroyed during the wait for it" in json.loads(module.communicate(timeout=LIMIT)[0])["msg"]
