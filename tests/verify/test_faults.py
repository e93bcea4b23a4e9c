# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Controllers that die, a training that is stopped, and what is seen on the nodes while they work."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from secrets_on_nodes import find, plant

# Long enough to be caught in the middle.
TRAINING = {"train_steps": 1000, "train_batch_size": 32, "checkpoint_steps": 100}
STEP = r"train \w+: [1-9][0-9]*/[0-9]+ steps"


def signal_training(cluster, name: str, check: bool = True) -> None:
    """Signals the training command, not what runs it and marks the run in HDFS."""
    cluster.sh(cluster.chief, f"pkill -{name} -u deeptrain -f deeptrain.resnet", check=check)


@pytest.fixture(scope="module")
def abandoned(cluster) -> Iterator[str]:
    """The name of a run whose controller was killed in the middle of the training, after its progress was seen.

    The training is halted, since on a fast machine it would be done before the first tests are.
    """
    run = "abandoned"
    controller = cluster.start("train", deeptrain_run=run, deeptrain_training_options=TRAINING)
    seen = controller.wait_for(STEP, 2, "stderr")
    print(f"steps seen after {seen} s")
    assert seen[1] - seen[0] > 1, "the lines came all at once"
    assert controller.running
    controller.kill()
    signal_training(cluster, "STOP")
    assert cluster.unit("train", run)["ActiveState"] == "active"
    yield run
    signal_training(cluster, "CONT", check=False)


def test_nothing_runs_as_root(cluster, abandoned):
    ours = re.compile(r"deeptrain|tensorflow|java|hadoop")
    for node in cluster.nodes:
        listing = cluster.sh(node, "ps -eo pid=,user:32=,args= | grep -v 'grep\\|ps -eo'")
        users = {(args, user) for pid, user, args in (line.split(None, 2) for line in listing.splitlines()) if ours.search(args)}
        assert {user for args, user in users} == {"hdfs", "deeptrain"}, (node, users)
        assert any("deeptrain.resnet" in args for args, user in users), (node, users)
        assert any("DataNode" in args for args, user in users), (node, users)


def test_secret_is_nowhere_on_the_nodes(cluster, abandoned):
    needle = "planted-0123456789abcdef0123456789abcdef"
    with plant(cluster, cluster.chief, needle) as places:
        assert find(cluster, cluster.chief, needle) == places
    for host in cluster.nodes:
        assert find(cluster, host, cluster.secret) == []
    # The S3 server has its own, as its user alone can see.
    assert find(cluster, cluster.s3_host, cluster.secret) == ["environ versitygw"]


def test_another_run_is_refused_while_one_trains(cluster, abandoned):
    arguments = {"deeptrain_run": abandoned, "deeptrain_training_options": TRAINING}
    other = {**arguments, "deeptrain_run": "other"}
    try:
        before = cluster.unit("train", abandoned), cluster.servers()
        refused = cluster.play("train", **other)
        said = " ".join(refused.text().split())
        assert refused.status != 0 and f"run {abandoned} is running" in said and f"deeptrain_run={abandoned}" in said
        assert refused.changed() == {}
        # Under the Infrastructure Manager a server's host does not see the chief.
        for role in ("tensorflow_ps", "tensorflow_worker"):
            host = cluster.groups[role.rpartition("_")[2]][0]
            refused = cluster.play("host.yml", "--limit", host, verify_role=role, verify_entry="serve", **other)
            assert refused.status != 0 and f"serves run {abandoned}, which is training" in " ".join(refused.text().split())
            # As the last thing before the chief starts.
            task = {"verify_role": "tensorflow", "verify_entry": "verify"}
            cluster.play("host.yml", "--limit", host, **task, **arguments).succeeded()
            refused = cluster.play("host.yml", "--limit", host, **task, **other)
            assert refused.status != 0 and f"serves run {abandoned}, which was started" in " ".join(refused.text().split())
            # Another configuration of the same run waits for the next start.
            changed = {f"{role}_environment": {"CHANGED": "1"}}
            cluster.play("host.yml", "--limit", host, verify_role=role, verify_entry="serve", **arguments, **changed).succeeded()
        cluster.play("stop", **other).succeeded()
        assert (cluster.unit("train", abandoned), cluster.servers()) == before
    finally:
        signal_training(cluster, "CONT")


def test_units_signal_the_job_alone(cluster, abandoned):
    for host, unit in ((cluster.chief, f"deeptrain-train@{abandoned}"), (cluster.namenode, "deeptrain-ps")):
        assert cluster.sh(host, f"systemctl show --property KillMode --value {unit}").strip() == "mixed"


def test_model_arrives_without_a_controller(cluster, abandoned):
    manifest = f"models/{abandoned}"
    cluster.wait_until("the model is in S3", lambda: "manifest.json" in cluster.objects(manifest), 600)
    assert json.loads(cluster.get(f"{manifest}/manifest.json"))["metrics"]["train_steps"] == TRAINING["train_steps"]
    cluster.wait_until("the export has ended", lambda: cluster.unit("export", abandoned)["ActiveState"] == "inactive")
    assert cluster.result("export", abandoned)["status"] == "succeeded"
    # What has succeeded keeps no credentials.
    assert cluster.sh(cluster.chief, f"find /run/deeptrain/credentials -path '*/{abandoned}/*' -type f") == ""
    assert len(cluster.invocations("train", abandoned)) == 1
    for kind in ("train", "export"):
        users = cluster.sh(cluster.chief, f"journalctl --unit deeptrain-{kind}@{abandoned}.service --output json --output-fields _UID,_PID")
        assert "0" not in {record["_UID"] for record in map(json.loads, users.splitlines()) if record["_PID"] != "1"}


def test_training_is_attached_to_stopped_and_gone_on_with(cluster):
    run = "interrupted"
    training = {**TRAINING, "train_steps": 600}
    arguments = {"deeptrain_run": run, "deeptrain_training_options": training}
    first = cluster.start("train", **arguments)
    first.wait_for(STEP, 1, "stderr")
    # On a fast machine it would be done before the stages ahead of it are.
    cluster.sh(cluster.chief, f"systemctl kill --signal STOP deeptrain-train@{run}")
    first.kill()
    before = cluster.unit("train", run)
    assert before["ActiveState"] == "active"

    try:
        second = cluster.start("site", **arguments)
        second.wait_for(f"train {run}: attached to the running job", 1, "stderr")
    finally:
        cluster.sh(cluster.chief, f"systemctl kill --signal CONT deeptrain-train@{run}")
    second.wait_for(STEP, 1, "stderr")
    assert cluster.unit("train", run) == before

    cluster.play("stop", **arguments).succeeded()
    second.end()
    assert second.status != 0
    assert "stopped" in second.text()
    index = cluster.sh(cluster.chief, f"runuser --user deeptrain -- hdfs dfs -cat /user/deeptrain/runs/{run}/checkpoints/checkpoint")
    step = int(re.search(r'^model_checkpoint_path: ".*-(\d+)"', index, re.MULTILINE)[1])
    assert 0 < step < training["train_steps"]
    for node in cluster.nodes:
        assert "deeptrain.resnet" not in cluster.sh(node, "ps -eo args=")

    cluster.play("site", **arguments).succeeded()
    journal = cluster.sh(cluster.chief, f"journalctl --unit deeptrain-train@{run}.service --output cat")
    assert re.findall(r"Goes on from step (\d+)", journal) == [str(step)]
    assert cluster.result("train", run)["summary"]["train_steps"] == training["train_steps"]
    assert len(cluster.invocations("train", run)) == 2
    assert "manifest.json" in cluster.objects(f"models/{run}")


def test_restarts_of_the_chief(cluster):
    """With no controller the training waits for the next one; a controller that waits for it starts it again."""
    run = "restarted"
    # So many that the controller sees some of them on a fast machine, too.
    training = {**TRAINING, "train_steps": 1200, "checkpoint_steps": 50}
    arguments = {"deeptrain_run": run, "deeptrain_training_options": training}
    after_a_checkpoint = r"train \w+: ([5-9][0-9]|[1-9][0-9]{2,})/[0-9]+ steps"
    first = cluster.start("train", **arguments)
    first.wait_for(after_a_checkpoint, 1, "stderr")
    first.kill()
    cluster.restart(cluster.chief)
    # Its credentials are lost, and it does not run with others.
    assert cluster.unit("train", run)["ActiveState"] == "inactive"

    second = cluster.start("train", **arguments)
    second.wait_for(STEP, 1, "stderr")
    cluster.restart(cluster.chief)
    second.wait_for(f"train {run}: the node was restarted, which ended the job", 1, "stderr")
    second.succeeded()
    journal = cluster.sh(cluster.chief, f"journalctl --unit deeptrain-train@{run}.service --output cat")
    assert max(int(step) for step in re.findall(r"from step (\d+)", journal)) >= 50
    assert cluster.result("train", run)["summary"]["train_steps"] == training["train_steps"]
    cluster.wait_until("the model is in S3", lambda: "manifest.json" in cluster.objects(f"models/{run}"), 600)
    assert json.loads(cluster.get(f"models/{run}/manifest.json"))["complete"] is True


def test_staging_is_attached_to(cluster):
    # Random data, enough for the server to be halted in the middle.
    names, length = [f"part-{number}" for number in range(4)], 64 * 1024 * 1024
    for name in names:
        with open("/dev/urandom", "rb") as source:
            cluster.s3.put_object(Bucket="deeptrain", Key=f"bulk/{name}", Body=source.read(length))
    run = "bulk"
    arguments = {
        "deeptrain_run": run,
        "deeptrain_data_url": "s3://deeptrain/bulk",
        "deeptrain_data_dir": "/user/deeptrain/bulk",
        "data_staging_parallel": 1,
    }
    first = cluster.start("data", **arguments)
    progress = f"/var/lib/deeptrain/runs/{run}/staging/progress.jsonl"
    # The job at once, and then the server alone: a job that stands still for long loses its connections to HDFS.
    cluster.sh(cluster.chief, f"timeout 500 sh -c 'until grep -qs copy {progress}; do sleep 0.05; done'; systemctl kill --signal STOP deeptrain-staging@{run}")
    cluster.sh(cluster.s3_host, "systemctl kill --signal STOP versitygw")
    cluster.sh(cluster.chief, f"systemctl kill --signal CONT deeptrain-staging@{run}")
    try:
        first.kill()
        before = cluster.unit("staging", run)
        assert before["ActiveState"] == "active"
        assert cluster.result("staging", run) == {}
        second = cluster.start("data", **arguments)
        second.wait_for(f"staging {run}: attached to the running job", 1, "stderr")
        assert cluster.unit("staging", run) == before
    finally:
        cluster.sh(cluster.s3_host, "systemctl kill --signal CONT versitygw")
    second.succeeded()
    assert cluster.result("staging", run)["summary"]["copied_objects"] == len(names)
    assert len(cluster.invocations("staging", run)) == 1
    again = cluster.play("data", **arguments).succeeded()
    assert again.changed() == {}
    assert cluster.result("staging", run)["summary"]["copied_objects"] == 0
