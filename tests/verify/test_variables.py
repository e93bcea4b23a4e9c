# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A second cluster, of one node, with other values of the roles' variables: each has its effect, and restarts what reads it."""

from __future__ import annotations

import json

import pytest
import yaml
from cluster import HERE, Cluster, Playbook

VALUES = yaml.safe_load((HERE / "varied.yml").read_text())
STATE = f"{VALUES['deeptrain_state_dir']}/runs/{VALUES['deeptrain_run']}"


class Varied:
    """The second cluster."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster
        self.host = cluster.groups["varied"][0]

        def change(document: dict) -> None:
            document["children"] = {name: {"hosts": {self.host: {}}} for name in ("ps", "chief", "worker")}
            document["hosts"] = {self.host: document["hosts"][self.host]}

        self.inventory = cluster.with_inventory("varied", change)

    def play(self, playbook: str, *options: str, **variables) -> Playbook:
        return self.cluster.play(playbook, *options, inventory=self.inventory, **{**VALUES, **variables})

    def sh(self, script: str, check: bool = True) -> str:
        return self.cluster.sh(self.host, script, check).strip()

    def text(self, path: str) -> str:
        return self.sh(f"cat {path}")

    def document(self, path: str) -> dict:
        return json.loads(self.text(path))

    def started(self, daemon: str) -> str:
        """What changes with each start of a daemon."""
        return self.sh(f"systemctl show --property InvocationID --value hadoop-{daemon}")


@pytest.fixture(scope="module")
def varied(cluster) -> Varied:
    made = Varied(cluster)
    made.play("site").succeeded()
    return made


def test_node(varied):
    assert varied.sh("getent passwd trainer storage deeptrain hdfs | cut -d: -f1").split() == ["trainer", "storage"]
    assert varied.sh("stat --format=%U /srv/deeptrain/cache").split() == ["trainer"]
    assert varied.sh("ls -d /opt/deeptrain /var/lib/deeptrain /var/cache/deeptrain /var/lib/hadoop", check=False) == ""
    python = "/srv/deeptrain/program/venv/bin/python"
    assert varied.sh(f"{python} -c 'import six, wheel; print(six.__name__, wheel.__name__)'") == "six wheel"
    assert "/usr/bin/python3.11 -m venv" in varied.text("/srv/deeptrain/program/venv/pyvenv.cfg")
    assert "deeptrain" not in varied.text("/etc/hosts")


def test_hdfs(varied):
    for directory in VALUES["hadoop_name_dirs"] + VALUES["hadoop_data_dirs"]:
        assert "clusterID=varied" in varied.text(f"{directory}/current/VERSION").splitlines()
        assert varied.sh(f"stat --format=%U:%G {directory}") == "storage:stores"
    processes = varied.sh("ps -u storage -o args=").splitlines()
    for heap, name in (("300m", "namenode"), ("210m", "datanode")):
        assert [line for line in processes if f"-Xmx{heap}" in line.split() and f"-Dvaried={name}" in line.split()], processes
    configured = {key: varied.sh(f"hdfs getconf -confKey {key}") for key in ("io.file.buffer.size", "dfs.datanode.max.transfer.threads", "fs.defaultFS")}
    assert configured == {"io.file.buffer.size": "65536", "dfs.datanode.max.transfer.threads": "5000", "fs.defaultFS": configured["fs.defaultFS"]}
    assert configured["fs.defaultFS"].endswith(":8120")
    listening = varied.sh("ss --listening --numeric --tcp --no-header")
    assert all(f":{port} " in listening for port in (8120, 9970)) and not any(f":{port} " in listening for port in (8020, 9870))
    blocks = varied.sh("hdfs dfs -find /user/trainer/elsewhere -name '*train*' | head -n 1 | xargs hdfs dfs -stat %o")
    assert blocks == str(VALUES["hadoop_block_size"])
    assert "log4j.logger.org.apache.hadoop.varied=ERROR" in varied.text("/etc/hadoop/log4j.properties").replace(" ", "")


def test_firewall(varied):
    rules = varied.sh("nft list table inet deeptrain")
    assert "2222" in rules
    assert "udp dport 9999" in rules and "192.0.2.0/24" in rules


def test_training(varied):
    train = varied.document(f"{STATE}/train/config.json")
    assert varied.document(f"{STATE}/train/result.json")["summary"]["train_steps"] == 20
    assert [train["settings"][name] for name in ("checkpoint_minutes", "no_progress_seconds")] == [5, 1000]
    assert train["config"]["data_url"].endswith(VALUES["deeptrain_data_dir"])
    task = json.loads(train["settings"]["tf_config"]) if isinstance(train["settings"]["tf_config"], str) else train["settings"]["tf_config"]
    assert {name: hosts[0].rpartition(":")[2] for name, hosts in task["cluster"].items()} == {"chief": "3222", "ps": "3223", "worker": "3224"}
    for unit in ("deeptrain-ps", "deeptrain-worker", "deeptrain-train@varied"):
        said = f"varied: {unit.removeprefix('deeptrain-').partition('@')[0].replace('train', 'chief')}"
        assert said in varied.sh(f"journalctl --unit {unit} --output cat").splitlines()
    assert varied.document(f"{STATE}/staging/config.json")["settings"]["parallel"] == 2
    for task in ("ps", "worker"):
        assert varied.sh(f"systemctl show --property TimeoutStartUSec --value deeptrain-{task}") == "13min 20s"
    assert "manifest.json" in varied.cluster.objects("models/varied")


def test_autostop(varied):
    document = varied.document("/etc/deeptrain/autostop.json")
    names = ("seconds", "max_seconds", "grace_seconds", "interval_seconds")
    assert [document[name] for name in names] == [24 * 3600, 48 * 3600, 800, 50]
    assert "50s" in varied.sh("systemctl show --property TimersMonotonic deeptrain-autostop.timer")


# Changed variables, each step with those before it, and the daemons that read them.
CHANGES = [
    ({"hadoop_block_size": 4194304, "hadoop_namenode_heap_mib": 310, "hadoop_namenode_java_options": ["-Dvaried=again"]}, ["namenode"]),
    (
        {
            "hadoop_hdfs_site": {"dfs.datanode.max.transfer.threads": 5001},
            "hadoop_datanode_heap_mib": 220,
            "hadoop_datanode_java_options": ["-Dvaried=again"],
        },
        ["datanode"],
    ),
    ({"hadoop_hdfs_site": {"dfs.datanode.max.transfer.threads": 5001, "dfs.client.socket-timeout": 71000}}, []),
    ({"hadoop_core_site": {"io.file.buffer.size": 131072}, "hadoop_java_home": "/opt/jdk"}, ["namenode", "datanode"]),
]


def test_a_change_restarts_the_daemons_that_read_it(varied):
    varied.sh("ln -sfn \"$(dirname $(dirname $(readlink -f $(ls -d /usr/lib/jvm/*/bin/java | head -n 1))))\" /opt/jdk")
    changed: dict = {}
    for change, restarted in CHANGES:
        changed |= change
        before = {daemon: varied.started(daemon) for daemon in ("namenode", "datanode")}
        run = varied.play("host.yml", verify_role="hadoop", verify_entry="main", **changed).succeeded()
        assert run.changed() != {}
        assert [daemon for daemon in before if varied.started(daemon) != before[daemon]] == restarted, change
    assert varied.sh("hdfs getconf -confKey dfs.client.socket-timeout") == "71000"
    assert "/opt/jdk" in varied.sh("systemctl show --property Environment hadoop-namenode; ps -u storage -o args=")


def test_bounds(varied):
    """Variables that refuse or give up."""
    refused = varied.play("host.yml", verify_role="hadoop", verify_entry="main", hadoop_min_free_disk_gib=1000000, hadoop_data_dirs=["/srv/hdfs/other"])
    assert refused.status != 0 and "needs 1000000" in " ".join(refused.text().split())
    varied.sh("systemctl stop hadoop-namenode")
    late = varied.play("host.yml", verify_role="hadoop", verify_entry="ready", hadoop_ready_timeout=3)
    varied.sh("systemctl start hadoop-namenode")
    assert late.status != 0 and "after 3 s" in " ".join(late.text().split())
