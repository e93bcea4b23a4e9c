# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What site.yml does when it loses hosts, on every ansible-core: no stage on fewer hosts, and no machine destroyed without a verified export."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import AUTH, LIMIT, PROJECT, Modules
from infrastructure_manager import free_port
from stages import SITE

CORES = {"oldest": PROJECT / ".cache/venv-2.16/bin", "current": Path(sys.executable).parent, "newest": PROJECT / ".cache/venv-newest/bin"}
NODES = {"chief": ["chief-0"], "ps": ["ps-0"], "worker": ["worker-0"]}
ALL = [host for hosts in NODES.values() for host in hosts]
CLUSTER = {
    "im_cluster_cloud": "Dummy",
    "im_cluster_cloud_id": "dummy",
    "im_cluster_worker_count": 1,
    "im_cluster_node": {"image": "mock0://linux.for.ev.er/image1"},
    "deeptrain_destroy_after_export": True,
    "deeptrain_validate_remote": False,
    "deeptrain_data_url": "s3://bucket/data",
    "deeptrain_export_url": "s3://bucket/models",
    "deeptrain_s3_access_key_id": "key",
    "deeptrain_s3_secret_access_key": "word",
    "hadoop_archive": "/dev/null",
    "hadoop_archive_checksum": "sha256:" + 64 * "0",
}
# The code of the nodes; what HDFS holds is played.
DEEPTRAIN = """#!{python}
import os, sys

sys.path.insert(0, "{source}")
from deeptrain import autostop, cli

autostop.Shared.__init__ = lambda self, url: None
autostop.Shared.saved = lambda self: set(os.environ["SAVED"].split())
sys.exit(cli.main())
"""
# Those that work on the nodes, and the export at the end.
STAGES = SITE[SITE.index("preflight") : SITE.index("verify")]
# A node on this machine; its connection is lost once one file exists, and made at the second try when another does.
LOSE = """
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local, DOCUMENTATION
import os


class Connection(Local):
    def exec_command(self, *arguments, **options):
        if os.path.exists(os.environ["LOST"]):
            raise AnsibleConnectionFailure("the node is lost")
        if os.path.exists(os.environ["STARTING"]):
            os.unlink(os.environ["STARTING"])
            raise AnsibleConnectionFailure("the node is starting")
        return super().exec_command(*arguments, **options)
"""
SYSTEMCTL = """#!/bin/sh
case $1 in
    show) printf 'LoadState=loaded\\nActiveState=%s\\nResult=success\\nNRestarts=0\\n' "$(cat "$STATE")" ;;
    list-units) for pattern; do :; done; [ ! -e "$JOBS" ] || grep "^${pattern%%@*}@" "$JOBS" || : ;;
    start) echo active >"$STATE"; : >"$LOST" ;;
esac
"""


class Site:
    """Runs playbooks of one ansible-core on nodes that are this machine, or dead."""

    def __init__(self, server, directory: Path, programs: Path):
        self.directory, self.programs = directory, programs
        (directory / "loses.py").write_text(LOSE)
        (directory / "systemctl").write_text(SYSTEMCTL)
        (directory / "systemctl").chmod(0o755)
        (directory / "state").write_text("inactive")
        program = directory / "home/venv/bin/deeptrain"
        program.parent.mkdir(parents=True)
        program.write_text(DEEPTRAIN.format(python=sys.executable, source=PROJECT / "training/src"))
        program.chmod(0o755)
        self.lost = directory / "lost"
        auth = "\n".join("; ".join(f"{key} = {value}" for key, value in entry.items()) for entry in AUTH)
        self.environment = {
            **os.environ, "HOME": str(directory), "IM_URL": server.url, "IM_AUTH": auth, "no_proxy": "127.0.0.1",
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_CONNECTION_PLUGINS": str(directory),
            "PATH": f"{directory}:{os.environ['PATH']}", "STATE": str(directory / "state"), "LOST": str(self.lost), "STARTING": str(directory / "starting"),
            "JOBS": str(directory / "jobs"), "SAVED": "",
        }  # fmt: skip

    def inventory(self, dead=(), losing=()) -> Path:
        """Return an inventory file of the nodes, to be given after that of the Infrastructure Manager, or alone."""
        port = free_port()

        def variables(index, host):
            known = {"deeptrain_address": f"10.0.0.{index + 1}", "ansible_become": False, "ansible_python_interpreter": sys.executable}
            if host in dead:
                return {**known, "ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": port, "ansible_ssh_common_args": ""}
            # So much disk keeps the stages from changing this machine.
            return {**known, "ansible_connection": "loses" if host in losing else "local", "preflight_min_disk_mib": 10**9}

        nodes = {host: variables(index, host) for index, host in enumerate(ALL)}
        file = self.directory / "hosts.yml"
        file.write_text(yaml.safe_dump({group: {"hosts": {host: nodes[host] for host in hosts}} for group, hosts in NODES.items()}))
        return file

    def run(self, playbook: Path, *inventories, **variables) -> subprocess.CompletedProcess:
        command = [self.programs / "ansible-playbook", playbook]
        for inventory in inventories:
            command += ["--inventory", inventory]
        command += [
            "--extra-vars",
            json.dumps({**CLUSTER, "deeptrain_state_dir": str(self.directory), "deeptrain_home": str(self.directory / "home"), **variables}),
        ]
        return subprocess.run(command, cwd=PROJECT, env=self.environment, capture_output=True, text=True, check=False, timeout=3 * LIMIT)

    def playbook(self, plays: list[dict]) -> Path:
        file = self.directory / "test.yml"
        file.write_text(yaml.safe_dump(plays))
        return file

    def ending(self, *, exporting: bool = False) -> Path:
        """Return a playbook that ends as site.yml does, after a play in which the chief waits for the export."""
        wait = {
            "name": "Export", "hosts": "chief", "gather_facts": False, "any_errors_fatal": True,
            "tasks": [{"deeptrain.cluster.job": {
                "kind": "export", "run": "default", "config": {}, "state_dir": str(self.directory), "credentials_dir": str(self.directory / "credentials"),
                "user": "root", "unreachable_timeout": 1}}],
        }  # fmt: skip
        site = yaml.safe_load((PROJECT / "playbooks/site.yml").read_text())
        last = [{**play, "ansible.builtin.import_playbook": str(PROJECT / "playbooks" / play["ansible.builtin.import_playbook"])} for play in site[-2:]]
        return self.playbook([*([wait] if exporting else []), *last])

    def export(self, complete: bool = True, status: str = "succeeded", **changes) -> None:
        """Leave an export's job as it is on the chief."""
        job = self.directory / "runs/default/export"
        job.mkdir(parents=True)
        config = {
            "run": "default", "source": f"{self.directory}/runs/default/train/export", "target": "s3://bucket/models/default",
            "s3": {"endpoint_url": "", "region": "us-east-1", "addressing_style": "auto", "ca_bundle": "", "proxy": ""},
        }  # fmt: skip
        (job / "config.json").write_text(json.dumps({"config": {**config, **changes}, "settings": {}}))
        result = {"status": status, "summary": {"complete": complete}, "started": 0, "finished": 1}
        (job / "result.json").write_text(json.dumps(result))


@pytest.fixture(params=CORES)
def site(request, server, tmp_path) -> Site:
    if not (CORES[request.param] / "ansible-playbook").exists():
        pytest.skip("no Python 3.12 or later for the newest ansible-core")
    return Site(server, tmp_path, CORES[request.param])


@pytest.fixture(scope="module")
def machines(server):
    """Return a function that returns the number of clusters, which is one again before each test."""
    made = Modules(server)
    assert made.all() == {}
    yield lambda: len(made.all())
    made.done("im_infrastructure", state="absent", name="deeptrain")


@pytest.fixture
def deployed(machines, site):
    """Return that function when the cluster is deployed."""
    if machines() == 0:
        done = site.run(PROJECT / "playbooks/deploy.yml", "inventories/im", "inventories/im", site.inventory())
        assert done.returncode == 0, done.stdout + done.stderr
    assert machines() == 1
    return machines


@pytest.mark.parametrize("dead", [["worker-0"], ["chief-0"], ALL], ids=["worker", "chief", "all"])
def test_machines_are_kept_when_a_host_is_unreachable(site, deployed, dead):
    done = site.run(PROJECT / "playbooks/site.yml", "inventories/im", site.inventory(dead), deeptrain_connect_timeout=1)
    assert done.returncode != 0 and "timed out waiting for ping" in done.stdout, done.stdout + done.stderr
    assert deployed() == 1


def test_machines_are_kept_when_the_chief_is_lost_during_the_export(site, deployed):
    done = site.run(site.ending(exporting=True), "inventories/im", site.inventory(losing=["chief-0"]))
    assert done.returncode != 0 and "unreachable=1" in done.stdout, done.stdout + done.stderr
    assert deployed() == 1


@pytest.mark.parametrize("site", ["current"], indirect=True)
@pytest.mark.parametrize(
    ("export", "reason"),
    [
        (None, "its job is none"),
        ({"status": "failed"}, "its job is failed"),
        ({"complete": False}, "only what an unfinished training left"),
        ({"target": "s3://bucket/others/default"}, "with another configuration"),
    ],
    ids=["none", "failed", "partial", "other"],
)
def test_machines_are_kept_without_a_complete_export(site, deployed, export, reason):
    if export is not None:
        site.export(**export)
    done = site.run(site.ending(), "inventories/im", site.inventory())
    assert done.returncode != 0 and reason in " ".join(done.stdout.split()), done.stdout + done.stderr
    assert deployed() == 1


def test_machines_are_destroyed_only_by_a_run_that_verified_the_export(site, deployed):
    site.export()
    # The chief is lost before its export is verified, and then its play has no host.
    plays = yaml.safe_load(site.ending().read_text())
    first = {"hosts": "chief:worker", "gather_facts": False, "tasks": [{"ansible.builtin.command": "true"}]}
    done = site.run(site.playbook([first, *plays]), "inventories/im", site.inventory(dead=["chief-0"]))
    assert done.returncode != 0 and "The machines are kept" in done.stdout, done.stdout
    assert deployed() == 1
    done = site.run(site.ending(), "inventories/im", site.inventory())
    assert done.returncode == 0, done.stdout + done.stderr
    assert deployed() == 0


@pytest.mark.parametrize("site", ["current"], indirect=True)
def test_machines_are_kept_for_another_run(site, deployed):
    site.export()
    site.environment["SAVED"] = "earlier"
    kept = site.run(site.ending(), "inventories/im", site.inventory())
    assert kept.returncode != 0 and "earlier has a model or checkpoints that are not in S3" in " ".join(kept.stdout.split()), kept.stdout
    site.environment["SAVED"] = ""
    (site.directory / "jobs").write_text("deeptrain-export@other.service loaded active running\n")
    busy = site.run(site.ending(), "inventories/im", site.inventory())
    assert busy.returncode != 0 and "other has a running job" in " ".join(busy.stdout.split()), busy.stdout
    assert deployed() == 1


@pytest.mark.parametrize("site", ["current"], indirect=True)
def test_the_verified_infrastructure_is_destroyed_whatever_its_name(site, server, deployed, radl):
    site.export()
    other = Modules(server)
    other.done("im_infrastructure", radl=radl(1, name="other"))
    try:
        # Before that: an inventory of several clusters.
        several = site.directory / "several.im.yml"
        several.write_text("plugin: deeptrain.cluster.im\n")
        mixed = site.run(PROJECT / "playbooks/deploy.yml", several)
        assert mixed.returncode != 0 and "its machines run without autostop" in " ".join(mixed.stdout.split()), mixed.stdout
        done = site.run(site.ending(), "inventories/im", site.inventory(), im_cluster_name="other")
        assert done.returncode == 0, done.stdout + done.stderr
        assert list(other.all().values()) == ["other"]
    finally:
        other.done("im_infrastructure", state="absent", name="other")


@pytest.mark.parametrize("site", ["current"], indirect=True)
def test_a_failed_deployment_has_a_lease(site, deployed):
    renewal = site.directory / "autostop/renewed"
    renewal.parent.mkdir()
    renewal.touch()
    os.utime(renewal, (0, 0))
    wrong = {"im_cluster_ssh_sources": ["nowhere"]}
    alone = site.run(PROJECT / "playbooks/deploy.yml", "inventories/im", site.inventory(), **wrong)
    said = " ".join(alone.stdout.split())
    assert alone.returncode != 0 and "im_cluster_ssh_sources is" in said and "3 machines run, and new ones have no lease" in said, alone.stdout
    assert renewal.stat().st_mtime == 0
    done = site.run(PROJECT / "playbooks/site.yml", "inventories/im", site.inventory(dead=["worker-0"]), deeptrain_connect_timeout=1, **wrong)
    said = " ".join(done.stdout.split())
    assert done.returncode != 0 and "Fix the cause and rerun" in said and said.rfind("im_cluster_ssh_sources is") > said.find("PLAY [Arm autostop]"), (
        done.stdout
    )
    assert renewal.stat().st_mtime > 0 and "Check the cluster's shape, its nodes" not in said
    assert deployed() == 1


def plays(stage: str) -> list[dict]:
    return yaml.safe_load((PROJECT / f"playbooks/{stage}.yml").read_text())


def complete(play: dict) -> list[dict]:
    """Return the tasks of a play that require all hosts."""
    tasks = [*play.get("pre_tasks", []), *play.get("tasks", [])]
    return [{"ansible.builtin.import_tasks": str(PROJECT / "playbooks/tasks/complete.yml")} for task in tasks if "tasks/complete.yml" in task.values()]


def skeleton(stage: str) -> list[dict]:
    """Return the plays of a stage with a command in place of their roles, beside what requires all hosts."""
    work = {"ansible.builtin.command": "true"}
    return [{**play, "roles": [], "pre_tasks": [], "tasks": complete(play) or [work], "become": False} for play in plays(stage)]


def test_training_does_not_start_when_a_worker_is_lost(site):
    train = skeleton("train")
    (workers,) = (index for index, play in enumerate(train) if play["name"] == "Start the workers")
    lose = {"ansible.builtin.file": {"path": str(site.lost), "state": "touch"}, "delegate_to": "localhost"}
    train.insert(workers, {"name": "Lose a worker", "hosts": "ps", "gather_facts": False, "tasks": [lose]})
    done = site.run(site.playbook(train), site.inventory(losing=["worker-0"]))
    assert done.returncode != 0 and "[worker-0]: UNREACHABLE!" in done.stdout, done.stdout
    assert done.stdout.count("PLAY [") == workers + 2, done.stdout


def test_a_stage_refuses_what_an_earlier_play_lost(site):
    first = {"hosts": "all:!localhost", "gather_facts": False, "tasks": [{"ansible.builtin.command": "true"}]}
    done = site.run(site.playbook([first, *skeleton("train")]), site.inventory(dead=["worker-0"]))
    assert done.returncode != 0 and "worker-0 failed or was unreachable earlier" in " ".join(done.stdout.split()), done.stdout
    assert done.stdout.count("changed: [") == 2, done.stdout


def test_all_stages_end_the_run_for_a_lost_host():
    for stage in (*STAGES, "stop", "verify"):
        for play in plays(stage):
            assert (play["any_errors_fatal"], play["max_fail_percentage"]) == (True, 99), f"{stage}: {play['name']}"
    for stage in STAGES[:-1]:
        assert complete(plays(stage)[0]), stage


def test_a_starting_node_is_waited_for(site):
    (site.directory / "starting").touch()
    done = site.run(PROJECT / "playbooks/connect.yml", site.inventory(losing=["worker-0"]))
    assert done.returncode == 0 and not (site.directory / "starting").exists(), done.stdout
    imported = [play["ansible.builtin.import_playbook"] for play in plays("site")]
    assert imported[imported.index("deploy.yml") + 1] == "connect.yml"


@pytest.mark.parametrize("site", ["current"], indirect=True)
def test_cloud_init_is_waited_for(site):
    play = {
        "hosts": "chief",
        "gather_facts": False,
        "tasks": [{"ansible.builtin.include_role": {"name": "deeptrain.cluster.node", "tasks_from": "cloud_init"}}],
    }
    program = site.directory / "cloud-init"
    for text, seconds, code in ("exit 1", LIMIT, 0), ("sleep 100", 1, 2):
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        done = site.run(site.playbook([play]), site.inventory(), node_cloud_init_timeout=seconds)
        assert done.returncode == code, done.stdout
    assert "has not finished within 1 s" in " ".join(done.stdout.split())


@pytest.mark.parametrize("site", ["oldest", "current"], indirect=True)
def test_jobs_of_other_runs_are_named(site):
    tasks = [{"ansible.builtin.import_tasks": str(PROJECT / "playbooks/tasks/other_jobs.yml")}]
    look = site.playbook([{"hosts": "chief", "gather_facts": False, "tasks": tasks}])
    (site.directory / "jobs").write_text("".join(f"deeptrain-train@{run}.service loaded active running\n" for run in ("mine", "not-mine")))
    # The node's systemctl lists the units of one kind.
    (site.directory / "systemctl").write_text('#!/bin/sh\ncat "$JOBS"\n')
    done = site.run(look, site.inventory(), deeptrain_run="mine")
    assert done.returncode == 0, done.stdout
    said = " ".join(done.stdout.split())
    assert "deeptrain-train@not-mine.service runs" in said and "deeptrain_run=not-mine" in said and "@mine.service" not in said, done.stdout
    (site.directory / "jobs").write_text("deeptrain-train@mine.service loaded active running\n")
    assert "set its name" not in site.run(look, site.inventory(), deeptrain_run="mine").stdout
