# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nodes, playbooks and S3 of the scenario."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import boto3
import botocore.config
import yaml

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUCKET = "deeptrain"


class Playbook:
    """A running ansible-playbook, both of its outputs pipes, as a program that starts it sees it."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        self.lines: list[tuple[float, str, str]] = []
        self.began = time.monotonic()
        self.seconds = 0.0
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A process group of its own, so that all of it can be killed at once.
            start_new_session=True,
        )
        self._readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("stdout", "stderr")]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        for line in getattr(self._process, name):
            with self._changed:
                self.lines.append((time.monotonic() - self.began, name, line.rstrip("\n")))
                self._changed.notify_all()

    def _read_rest(self) -> None:
        for reader in self._readers:
            reader.join(5)

    def text(self, stream: str | None = None) -> str:
        return "\n".join(line for at, name, line in self.lines if stream in (None, name))

    def seen(self, pattern: str, stream: str | None = None) -> list[float]:
        """When lines with a pattern arrived, in seconds since the start."""
        return [at for at, name, line in list(self.lines) if stream in (None, name) and re.search(pattern, line)]

    def wait_for(self, pattern: str, count: int = 1, stream: str | None = None, seconds: float = 600) -> list[float]:
        """Wait until so many lines with a pattern have arrived, while it runs."""
        end = time.monotonic() + seconds
        with self._changed:
            # Its end wakes nobody, so it is looked for each second.
            while len(self.seen(pattern, stream)) < count and self.running and time.monotonic() < end:
                self._changed.wait(1)
        if not self.running:
            self._read_rest()
        found = self.seen(pattern, stream)
        if len(found) < count:
            self.kill()
            raise AssertionError(f"not seen {count} times: {pattern}\n{self.text()}")
        return found

    def kill(self) -> None:
        """kill -9 of the whole process group."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self, seconds: float = 600) -> Playbook:
        """Wait for its end."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"not done after {seconds} s\n{self.text()}") from None
        self._read_rest()
        self.seconds = time.monotonic() - self.began
        return self

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        return self._process.returncode

    def recap(self) -> dict[str, dict[str, int]]:
        """Counts by host, such as ok, changed, failed."""
        found = {}
        for line in self.text("stdout").rpartition("PLAY RECAP")[2].splitlines():
            match = re.match(r"(\S+)\s+: (ok=.*)", line)
            if match:
                found[match[1]] = {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", match[2])}
        return found

    def changed(self) -> dict[str, int]:
        """Hosts that changed, with how many tasks."""
        return {host: counts["changed"] for host, counts in self.recap().items() if counts["changed"]}

    def succeeded(self) -> Playbook:
        """Itself, after its end and without an error."""
        self.end()
        assert self.status == 0, self.text()
        return self


class Cluster:
    """The nodes by name, and what can be done with them."""

    def __init__(self, state: Path):
        self.state = state
        self.inventory = state / "hosts.yml"
        self.document = yaml.safe_load(self.inventory.read_text())
        self.hosts = self.document["all"]["hosts"]
        self.groups = {name: list(group["hosts"]) for name, group in self.document["all"]["children"].items()}
        self.s3_env = dict(line.split("=", 1) for line in (state / "s3.env").read_text().splitlines())
        self.secret = self.s3_env["AWS_SECRET_ACCESS_KEY"]
        # All but the S3 server and the second cluster's node.
        self.nodes = [host for host in self.hosts if host not in self.groups["s3"] + self.groups.get("varied", [])]
        self.chief = self.groups["chief"][0]
        self.namenode = self.groups["ps"][0]
        self.s3_host = self.groups["s3"][0]
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.s3_env["AWS_ENDPOINT_URL"],
            region_name=self.s3_env["AWS_DEFAULT_REGION"],
            aws_access_key_id=self.s3_env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.secret,
            config=botocore.config.Config(proxies={}),
        )

    def sh(self, host: str, script: str, check: bool = True) -> str:
        """Run a script as root on a node; return what it printed."""
        variables = {**self.document["all"]["vars"], **self.hosts[host]}
        command = [
            "ssh", "-q", "-i", variables["ansible_ssh_private_key_file"], "-p", str(variables["ansible_port"]),
            *shlex.split(variables["ansible_ssh_common_args"]),
            f"{variables['ansible_user']}@{variables['ansible_host']}", "sudo", "bash", "-s",
        ]  # fmt: skip
        done = subprocess.run(command, input=script, capture_output=True, text=True, check=False, timeout=600)
        assert not check or done.returncode == 0, f"{host}: {script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def environment(self, **extra: str) -> dict[str, str]:
        """What a user's shell would have, with stdout buffered as it is by default."""
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED" and not name.startswith(("ANSIBLE_", "AWS_"))}
        addresses = ",".join(host["deeptrain_address"] for host in self.hosts.values())
        no_proxy = f"{kept.get('no_proxy', '')},{addresses}"
        return {
            **kept,
            "ANSIBLE_CONFIG": str(HERE / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.state / "collections"),
            "no_proxy": no_proxy,
            "NO_PROXY": no_proxy,
            **extra,
        }

    def start(self, playbook: str, *options: str, inventory: Path | None = None, program: str = "ansible-playbook", **variables) -> Playbook:
        """Start a playbook of the installed collection, or a file of ours, with further variables."""
        name = str(HERE / playbook) if playbook.endswith(".yml") else f"deeptrain.cluster.{playbook}"
        return Playbook(
            [
                program, name, "--inventory", str(inventory or self.inventory), "--extra-vars", f"@{HERE / 'vars.yml'}",
                "--extra-vars", json.dumps(variables), *options,
            ],
            self.environment(),
        )  # fmt: skip

    def play(self, playbook: str, *options: str, **arguments) -> Playbook:
        """Run a playbook to its end."""
        return self.start(playbook, *options, **arguments).end()

    def with_inventory(self, name: str, change) -> Path:
        """A copy of the inventory after change(document)."""
        document = copy.deepcopy(self.document)
        change(document["all"])
        file = self.state / f"hosts-{name}.yml"
        file.write_text(yaml.safe_dump(document))
        return file

    def restart(self, host: str) -> None:
        """Power a node off in order, and on again."""
        tool = [sys.executable, PROJECT / "demo/nodes.py"]
        name = f"--cluster={os.environ['MOLECULE_CLUSTER']}"

        def off() -> bool:
            listed = subprocess.run([*tool, "list", "--json", name], check=True, capture_output=True, text=True).stdout
            return any(node["name"] == host and node["state"] != "running" for node in json.loads(listed))

        self.sh(host, "systemctl --no-block poweroff", check=False)
        self.wait_until(f"{host} is off", off, pause=3)
        groups = [f"--group={group}={len(hosts)}" for group, hosts in self.groups.items()]
        subprocess.run([*tool, "up", f"--inventory={self.inventory}", *groups, name], check=True, capture_output=True)

    def servers(self) -> dict[str, str]:
        """Every start of a parameter server or a worker that runs, by its node."""
        hosts = [(task, host) for task in ("ps", "worker") for host in self.groups[task]]
        return {host: self.sh(host, f"systemctl show --property InvocationID,ActiveState deeptrain-{task}") for task, host in hosts}

    def unit(self, kind: str, run: str) -> dict[str, str]:
        """Properties of a job's unit on the chief."""
        names = "ActiveState,InvocationID,ExecMainStartTimestamp,NRestarts,User"
        text = self.sh(self.chief, f"systemctl show --property {names} deeptrain-{kind}@{run}.service")
        return dict(line.split("=", 1) for line in text.splitlines())

    def invocations(self, kind: str, run: str) -> set[str]:
        """Every start of a job that the journal knows of."""
        text = self.sh(self.chief, f"journalctl --unit deeptrain-{kind}@{run}.service --output json --output-fields INVOCATION_ID,_SYSTEMD_INVOCATION_ID")
        records = [json.loads(line) for line in text.splitlines()]
        return {record[name] for record in records for name in ("INVOCATION_ID", "_SYSTEMD_INVOCATION_ID") if name in record and record.get("_PID") != "1"}

    def result(self, kind: str, run: str) -> dict:
        """A job's result; empty while it has none."""
        text = self.sh(self.chief, f"cat /var/lib/deeptrain/runs/{run}/{kind}/result.json 2>/dev/null || echo '{{}}'")
        return json.loads(text)

    def objects(self, prefix: str) -> dict[str, int]:
        """Lengths of the objects below a prefix, by their name below it."""
        found = {}
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
            found.update({item["Key"].removeprefix(f"{prefix}/"): item["Size"] for item in page.get("Contents", ())})
        return found

    def get(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def wait_until(self, what: str, condition, seconds: float = 600, pause: float = 1.0) -> None:
        """Wait for a condition; fail with what was waited for."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not after {seconds} s: {what}"
            time.sleep(pause)
