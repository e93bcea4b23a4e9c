# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of role im_cluster: what they hold, and what the Infrastructure Manager says of them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import PROJECT

EXAMPLES = PROJECT / "examples"
# Of examples/NAME.yml: cores of the chief, the parameter server and the workers, and GPUs of a worker.
CLOUDS = {
    "ec2": ("EC2", [2, 2, 4, 4], 1),
    "openstack": ("OpenStack", [2, 2, 4, 4], 1),
    "egi": ("EGI", [2, 2, 8, 8], None),
    "gce": ("GCE", [2, 2, 4, 4], 1),
    # Its connector says no more than what it was asked.
    "azure": ("Azure", [1, 1, 1, 1], None),
    "opennebula": ("OpenNebula", [2, 2, 8, 8], None),
}
JOB = {"hadoop_archive": "https://web.example/hadoop.tar.gz", "deeptrain_data_url": "s3://bucket/data"}
IMAGE = {"image": "aws://eu-central-1/ami-0123456789abcdef0"}


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "ANSIBLE_INVENTORY": str(PROJECT / "inventories/static/hosts.yml"), **more}


def dry_run(cloud: str, *files: Path) -> list[dict]:
    """Estimates of the Infrastructure Manager, one for each file."""
    command = [PROJECT / ".cache/venv-im/bin/python", PROJECT / "tests/im/dry_run.py", cloud, *files]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    estimates = json.loads(done.stdout.splitlines()[-1])
    return [estimates[str(file)]["cloud"]["compute"] for file in files]


class Renderer:
    def __init__(self, directory: Path):
        self.file = directory / "cluster.radl"

    def start(self, variables: dict, **more: str) -> subprocess.CompletedProcess:
        given = {"im_cluster_file": str(self.file), "im_cluster_cloud": "EC2", "im_cluster_node": IMAGE, **variables}
        command = ["ansible-playbook", "playbooks/radl.yml", "--extra-vars", json.dumps(given)]
        return subprocess.run(command, cwd=PROJECT, env=environment(**more), capture_output=True, text=True, check=False)

    def __call__(self, variables: dict, **more: str) -> str:
        done = self.start(variables, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.file.read_text()


@pytest.fixture
def render(tmp_path) -> Renderer:
    return Renderer(tmp_path)


def carried(text: str) -> dict:
    """The variables in a RADL."""
    return yaml.safe_load(text.partition("configure variables (\n@begin\n")[2].partition("\n@end\n")[0])


def test_examples_are_what_the_templates_give(tmp_path):
    subprocess.run([PROJECT / "tools/examples.sh", tmp_path], env=environment(), check=True)
    new = {file.name: file.read_text() for file in tmp_path.iterdir()}
    old = {file.name: file.read_text() for file in EXAMPLES.iterdir() if file.name in new or file.suffix == ".radl"}
    assert old == new, "run tools/examples.sh"


@pytest.mark.parametrize("name", CLOUDS)
def test_dry_run_finds_machines(name):
    cloud, cores, gpus = CLOUDS[name]
    (machines,) = dry_run(cloud, EXAMPLES / f"{name}.radl")
    assert [machine["cpuCores"] for machine in machines] == cores
    assert [machine.get("GPU") for machine in machines] == [None, None, gpus, gpus]
    assert machines[0]["publicIP"] == 1


def test_dry_run_of_existing_hosts():
    assert list(map(len, dry_run("DeployedNode", *(EXAMPLES / f"existing-{number}.radl" for number in range(1, 5))))) == [1, 1, 1, 1]


def test_both_ways_make_the_same_machines():
    whole, machines = ((EXAMPLES / file).read_text() for file in ("ec2.radl", "ec2-push.radl"))
    systems = whole[whole.index("# From outside") : whole.index("configure prepare")].splitlines()
    kept = [line for line in systems if "disk.0.applications" not in line]
    assert [line.removesuffix(" and") for line in kept] == [
        line.removesuffix(" and") for line in machines[machines.index("# From outside") : machines.index("contextualize ()")].splitlines()
    ]


def test_steps_are_the_stages_in_their_order():
    text = (EXAMPLES / "ec2.radl").read_text()
    for word in ("become", "hosts:"):
        assert word not in text.replace("hadoop", "")
    order = ["prepare", "hdfs", "data", "tensorflow_chief", "train", "export", "stop_worker"]
    lines = text.partition("contextualize 604800 (")[2].partition(")")[0].split("\n")
    steps = {line.split()[3]: int(line.split()[5]) for line in lines if line}
    assert [steps[name] for name in order] == list(range(1, len(order) + 1))
    assert steps["tensorflow_ps"] == steps["tensorflow_worker"] == steps["tensorflow_chief"]
    assert steps["stop_ps"] == steps["stop_worker"]


def test_steps_are_playbooks_of_the_oldest_ansible(tmp_path):
    """What the Infrastructure Manager makes of them is read by its ansible-core, which finds the roles and their entry points."""
    command = [PROJECT / ".cache/venv-im/bin/python", PROJECT / "tests/im/playbooks.py", EXAMPLES / "ec2.radl", tmp_path]
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
    plays = sorted(tmp_path.glob("*_task.yml"))
    assert len(plays) == 14
    (play,) = yaml.safe_load((tmp_path / "hdfs_ps_task.yml").read_text())
    assert {name: value for name, value in play.items() if name != "tasks"} == {
        "hosts": "{{IM_HOST}}", "gather_facts": False, "become": True, "vars_files": "variables.yml",
    }  # fmt: skip
    checked = subprocess.run(
        [PROJECT / ".cache/venv-2.16/bin/ansible-playbook", "--syntax-check", "--extra-vars", "IM_HOST=all", *plays],
        env=environment(ANSIBLE_COLLECTIONS_PATH=str(PROJECT / ".cache")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_everything_at_once(render):
    """Values with quotes and lines, a NameNode of its own, further disks, addresses for all."""
    text = render(
        {
            **JOB,
            "im_cluster_mode": "im",
            "im_cluster_name": "my-run.1",
            "im_cluster_cloud_id": "cloud",
            "im_cluster_dedicated_namenode": True,
            "im_cluster_ps_count": 2,
            "im_cluster_worker": {"gpus": 1, "gpu_model": "it's", "disk_gib": 100, "spot": True, "price": 0.5},
            "im_cluster_public_nodes": "all",
            "im_cluster_public_network": "vpc-1.subnet-1",
            "im_cluster_private_key": "-----BEGIN KEY-----\nit's\n-----END KEY-----\n",
            "im_cluster_public_key": "my-key",
            "im_cluster_ssh_sources": ["192.0.2.0/24", "198.51.100.7/32"],
            "im_cluster_variables": {"deeptrain_training_options": {"text": "it's \"x\" @end }"}},
        }
    )
    assert "outports = '192.0.2.0/24-22/tcp,198.51.100.7/32-22/tcp'" in text
    assert "gpu.model = 'it\\'s'" in text
    assert carried(text)["deeptrain_training_options"] == {"text": "it's \"x\" @end }"}
    assert "system hdfs_namenode configure hdfs step 2" in text
    assert [line for line in text.splitlines() if line.startswith("deploy")] == [
        "deploy chief 1 cloud", "deploy ps 2 cloud", "deploy worker 2 cloud", "deploy hdfs_namenode 1 cloud",
    ]  # fmt: skip
    assert oct(render.file.stat().st_mode & 0o777) == "0o600"
    # No machine has that GPU; the other four are there.
    assert len(dry_run("EC2", render.file)[0]) == 4


def test_machine_of_the_size_asked_for(render):
    render({"im_cluster_worker": {"cpus": 3, "memory_gib": 16, "gpus": 1, "disk_gib": 100}, "im_cluster_public_nodes": "all"})
    (machines,) = dry_run("EC2", render.file)
    assert [(machine["cpuCores"], machine.get("GPU")) for machine in machines] == [(2, None), (2, None), (4, 1), (4, 1)]
    assert [machine["publicIP"] for machine in machines] == [1, 1, 1, 1]
    # In the push way, a disk is what the Infrastructure Manager still has to do.
    assert "system worker configure disks step 1" in render.file.read_text()


def test_credentials_are_carried_only_when_let(render):
    secret = {"AWS_ACCESS_KEY_ID": "planted-id", "AWS_SECRET_ACCESS_KEY": "planted-key"}
    given = {**JOB, "im_cluster_mode": "im", "deeptrain_s3_session_token": "planted-token", "autostop_im_credentials": [{"token": "planted-x"}]}
    assert "planted" not in render(given, **secret)
    assert {name: value for name, value in carried(render({**given, "im_cluster_embed_credentials": True}, **secret)).items() if "planted" in str(value)} == {
        "autostop_im_credentials": [{"token": "planted-x"}],
        "deeptrain_s3_access_key_id": "planted-id",
        "deeptrain_s3_secret_access_key": "planted-key",
        "deeptrain_s3_session_token": "planted-token",
    }


@pytest.mark.parametrize("programs", [".venv", ".cache/venv-2.16"])
def test_values_from_a_vault(tmp_path, programs):
    """Each is a secret: it is in the document as it is, and in no message."""
    (tmp_path / "password").write_text("of-the-vault")
    vault = [PROJECT / ".venv/bin/ansible-vault", "encrypt_string", "--vault-password-file", tmp_path / "password", "--name"]
    key = "-----BEGIN KEY-----\nplanted\n-----END KEY-----\n"
    given = {"deeptrain_s3_secret_access_key": "planted: 'one'", "key": key, "word": "planted-word", "proxy": "http://planted:x@proxy:1"}
    texts = [subprocess.run([*vault, name, value], check=True, capture_output=True, text=True).stdout for name, value in given.items()]
    nested = {"deeptrain_training_options": {"api_key": "{{ word }}"}, "autostop_im_credentials": [{"type": "Dummy", "password": "{{ word }}"}]}
    others = {**JOB, "im_cluster_cloud": "EC2", "im_cluster_node": IMAGE, "im_cluster_mode": "im", "im_cluster_embed_credentials": True, **nested}
    # For an option of a role that is a text, ansible-core 2.16 itself refuses a value from a vault that no other variable has.
    others["im_cluster_private_key"] = "{{ key }}"
    variables, file = tmp_path / "variables.yml", tmp_path / "cluster.radl"
    variables.write_text("\n".join([*texts, yaml.safe_dump({**others, "im_cluster_file": str(file)})]))
    command = [PROJECT / programs / "bin/ansible-playbook", "playbooks/radl.yml", "--extra-vars", f"@{variables}", "-vvv"]
    password = ["--vault-password-file", str(tmp_path / "password")]
    env = environment(ANSIBLE_COLLECTIONS_PATH=str(PROJECT / ".cache"))
    done = subprocess.run([*map(str, command), *password], cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "planted" not in done.stdout + done.stderr
    text = file.read_text()
    assert "$ANSIBLE_VAULT" not in text
    assert carried(text)["deeptrain_s3_secret_access_key"] == given["deeptrain_s3_secret_access_key"]
    assert carried(text)["deeptrain_training_options"] == {"api_key": "planted-word"}
    assert carried(text)["autostop_im_credentials"] == [{"type": "Dummy", "password": "planted-word"}]
    assert f"private_key = '{key}'" in text
    check = tmp_path / "check.yml"
    filters = ["{'key': word, 'list': [word, 1]} | deeptrain.cluster.to_cli_args", "{'key': {'a': word}} | deeptrain.cluster.to_cli_args",
               "{'deeptrain_s3_proxy': proxy, 'deeptrain_ssh_sources': [word]} | deeptrain.cluster.variable_errors"]  # fmt: skip
    tasks = [{"ansible.builtin.copy": {"content": f"{{{{ {expression} | to_json }}}}", "dest": f"{tmp_path}/{number}"}, "ignore_errors": True}
             for number, expression in enumerate(filters)]  # fmt: skip
    check.write_text(yaml.safe_dump([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}]))
    command = [PROJECT / programs / "bin/ansible-playbook", str(check), "--extra-vars", f"@{variables}"]
    done = subprocess.run([*map(str, command), *password], cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    assert json.loads((tmp_path / "0").read_text()) == ["--key", "planted-word", "--list", "planted-word,1"], done.stdout
    assert json.loads((tmp_path / "2").read_text()) == []
    assert "option key has a value that is no argument" in " ".join(done.stdout.split())
    assert "planted" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"im_cluster_cloud": "AWS"}, "im_cluster_cloud is 'AWS': use one of EC2, "),
        ({"im_cluster_cloud": ""}, "im_cluster_cloud is '': use one of EC2, "),
        ({"im_cluster_name": "deploy"}, "no word of RADL"),
        ({"im_cluster_ps_count": 0}, "must be at least 1"),
        ({"im_cluster_worker": {"image": "gce://x/y"}}, "'gce://x/y', which is none of EC2: write it as aws://"),
        ({"im_cluster_worker": {"gpu": 1}}, "gpu. Supported parameters include"),
        ({"im_cluster_ssh_sources": ["192.0.2.7"]}, "a single host as 192.0.2.7/32"),
        ({"im_cluster_cloud": "Azure", "im_cluster_node": {}, "im_cluster_ssh_sources": ["192.0.2.0/24", "198.51.100.0/24"]}, "and Azure takes 1"),
        ({"im_cluster_cloud": "GCE", "im_cluster_node": {"spot": True}}, "requests no spot instances of GCE"),
        ({"im_cluster_mode": "im", "hadoop_archive": "/tmp/hadoop.tar.gz"}, "so give an http:// or https:// URL"),
        ({**JOB, "im_cluster_mode": "im", "deeptrain_ports": {"ps": 4000}}, "deeptrain_ports cannot be set in the IM-run way"),
        ({**JOB, "im_cluster_mode": "im", "im_cluster_variables": {"deeptrain_autostop_hour": 12}}, "write deeptrain_autostop_hours"),
        ({**JOB, "im_cluster_mode": "im", "deadline_state_dir": "/x"}, "write deeptrain_state_dir"),
        ({"im_cluster_format": "tosca", "im_cluster_mode": "im", **JOB}, "im_cluster_format tosca has the machines only"),
        ({"im_cluster_cloud": "DeployedNode", "im_cluster_node": {}}, "so write them in an inventory"),
        ({**JOB, "im_cluster_cloud": "DeployedNode", "im_cluster_mode": "im", "im_cluster_node": {}}, "set im_cluster_mode to existing_hosts"),
        ({**JOB, "im_cluster_mode": "existing_hosts", "im_cluster_cloud": "", "im_cluster_node": {}}, "addresses must name each host that exists"),
        ({**JOB, "im_cluster_mode": "existing_hosts", "im_cluster_node": {}}, "creates no machines: leave im_cluster_cloud out"),
    ],
)
def test_bad_input(render, variables, message):
    done = render.start(variables)
    assert done.returncode != 0
    assert message in " ".join(done.stdout.split()), done.stdout
    assert not render.file.exists()
