# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A search for secrets in all that the modules and the inventory say and leave, at -vvv."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from conftest import LIMIT, PROJECT, SECRET

# In each secret here, and in nothing else.
MARK = b"planted"
KEY = "-----BEGIN KEY-----\nplanted-key-0123456789\nplanted-line-0123456789\n-----END KEY-----"
# One for each of the ways in which a value has to be quoted.
CLOUDS = [
    {"id": "dummy", "type": "Dummy"},
    {"id": "one", "type": "OpenStack", "host": "https://keystone.example.org:5000", "username": "u", "password": "planted;it's", "tenant": "t"},
    {"id": "two", "type": "GCE", "username": "u", "password": KEY, "project": "p"},
]
AUTH = [{"type": "InfrastructureManager", "username": "tester", "password": SECRET}, *CLOUDS]
RADL = f"""description cluster ()
network private ()
system worker (
  net_interface.0.connection = 'private' and net_interface.0.dns_name = 'worker-#N#' and
  disk.0.os.name = 'linux' and disk.0.image.url = 'one://cloud/1' and disk.0.os.credentials.username = 'user' and
  disk.0.os.credentials.password = 'planted-word-0123' and disk.0.os.credentials.private_key = '{KEY}'
)
configure store (
@begin
- vars:
    deeptrain_s3_secret_access_key: planted-s3-0123456789
    autostop_im_credentials: {{password: "planted-im-0123456789"}}
@end
)
contextualize ()
deploy worker 1
"""
NO_YAML = RADL.replace('0123456789"}', "0123456789").replace("cluster", "third")
NO_RADL = RADL.replace("and disk.0.os.credentials.private_key =", "disk.0.os.credentials.private_key").replace("cluster", "third")
UNCONFIGURED = RADL.replace("contextualize ()", "").replace("cluster", "other")
TASKS = [
    ({"im_infrastructure": {"radl": "{{ radl }}"}, "check_mode": True}, True),
    ({"im_infrastructure": {"radl": "{{ radl }}"}}, True),
    ({"im_infrastructure": {"radl": "{{ radl | replace('worker 1', 'worker 2') }}"}}, True),
    ({"im_infrastructure": {"radl": "{{ no_radl }}"}}, False),
    ({"im_infrastructure": {"radl": "{{ unconfigured }}"}}, False),
    ({"im_infrastructure": {"radl": "{{ radl }}", "no_option": 1}}, False),
    ({"im_infrastructure": {"radl": "{{ radl }}", "url": "http://127.0.0.1:1"}}, False),
    ({"im_infrastructure_info": {}}, True),
    ({"im_infrastructure_info": {"name": "cluster"}}, True),
    ({"im_vm": {"name": "cluster", "vm": "0", "state": "rebooted"}}, True),
    ({"im_vm": {"name": "cluster", "vm": "1", "state": "resized", "radl": "{{ radl.partition('configure')[0] }}"}}, False),
    ({"im_vm": {"name": "cluster", "vm": "nothing"}}, False),
    ({"im_infrastructure": {"name": "cluster", "state": "reconfigured", "radl": "{{ radl }}"}}, True),
]


class Place:
    """Where programs run: a home, a directory for what is temporary, and one for what holds secrets by its purpose."""

    def __init__(self, directory: Path, url: str):
        self.directory, self.said = directory, {}
        for name in ("home", "temporary", "given"):
            (directory / name).mkdir(mode=0o700)
        auth = directory / "given/auth.json"
        auth.write_text(json.dumps(AUTH))
        auth.chmod(0o600)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("IM_")},
            "IM_URL": url, "HOME": str(directory / "home"), "TMPDIR": str(directory / "temporary"), "no_proxy": "127.0.0.1",
            "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(PROJECT / ".cache"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable, "ANSIBLE_LOG_PATH": str(directory / "ansible.log"),
        }  # fmt: skip

    def run(self, name: str, *command: str, **environment: str) -> int:
        """Run a program; keep what it says, and the command lines that were seen meanwhile."""
        with subprocess.Popen(
            command, cwd=PROJECT, env={**self.environment, **environment}, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            lines, looked, ended = set(), threading.Event(), threading.Event()
            watcher = threading.Thread(target=watch, args=(lines, looked, ended))
            watcher.start()
            # Its input ends when its own command line was seen.
            looked.wait()
            self.said[name] = process.communicate(timeout=3 * LIMIT)[0]
            ended.set()
            watcher.join()
        self.said[f"command lines of {name}"] = b"\n".join(lines)
        return process.returncode

    def found(self, *more: Path) -> set[str]:
        """Where a secret is, but for what was given."""
        files = [file for file in self.directory.rglob("*") if file.is_file() and self.directory / "given" not in file.parents]
        places = {**self.said, **{file.name: file.read_bytes() for file in [*files, *more]}}
        return {name for name, text in places.items() if MARK in text}


def watch(lines: set[bytes], looked: threading.Event, ended: threading.Event) -> None:
    """Collect all command lines of this machine."""
    while not ended.wait(0.05):
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                lines.add((process / "cmdline").read_bytes())
        looked.set()


@pytest.fixture
def place(modules, tmp_path) -> Place:
    return Place(tmp_path, modules.server.url)


def play(place: Place, name: str, tasks: list, connection: dict, **environment: str) -> None:
    """Run tasks that succeed or fail as said; the RADLs and the authorization are variables."""
    variables = place.directory / "given/variables.yml"
    variables.write_text(yaml.safe_dump({"auth": AUTH, "radl": RADL, "no_yaml": NO_YAML, "no_radl": NO_RADL, "unconfigured": UNCONFIGURED}))
    given = {f"deeptrain.cluster.{module}": connection for module in ("im_infrastructure", "im_infrastructure_info", "im_vm")}
    listed = []
    for number, (task, good) in enumerate(tasks):
        [module] = [key for key in task if key.startswith("im_")]
        keys = {key: value for key, value in task.items() if key != module}
        options = {"poll": 0.2, "wait_timeout": LIMIT, **task[module]} if module != "im_infrastructure_info" else task[module]
        expect = f"done is {'succeeded' if good else 'failed'}"
        listed.append({"name": f"Task {number}", f"deeptrain.cluster.{module}": options, "register": "done", "ignore_errors": True, **keys})
        listed.append({"name": f"Look at task {number}", "ansible.builtin.assert": {"that": expect}})
    file = place.directory / f"{name}.yml"
    file.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "module_defaults": given, "tasks": listed}]))
    command = ["ansible-playbook", "-i", "localhost,", "-c", "local", "-vvv", "--diff", "-e", f"@{variables}", str(file)]
    status = place.run(name, *command, **environment)
    assert status == 0, place.said[name].decode()[-3000:]


def inventory(place: Place, **options) -> str:
    file = place.directory / "test.im.yml"
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(place.directory / "cache")}
    keys = str(place.directory / "given/keys")
    file.write_text(yaml.safe_dump({"plugin": "deeptrain.cluster.im", "key_directory": keys, **cache, **options}))
    return str(file)


def test_nothing_is_said_or_left(place, modules):
    file = str(place.directory / "given/auth.json")
    play(place, "modules", TASKS, {"auth": "{{ auth }}"})
    for name, environment in (("file", {"IM_AUTH_FILE": file}), ("environment", {"IM_AUTH": json.dumps(AUTH)})):
        source = inventory(place, name="cluster")
        for options in (["--list"], ["--graph", "--vars"], ["--list", "--export"]):
            said = f"inventory {' '.join(options)} with {name}"
            assert place.run(said, "ansible-inventory", "-i", source, "-vvv", *options, **environment) == 0, place.said[said]
        play(place, f"modules with {name}", [({"im_infrastructure": {"radl": "{{ radl }}", "allow_removal": True}}, True)], {}, **environment)
    for options in ({"url": "http://127.0.0.1:1"}, {"jump_host": "nobody-0", "name": "cluster"}, {"auth": [{"type": "One", "password": SECRET}]}):
        said = f"inventory with {', '.join(options)}"
        if "auth" in options:
            place.environment.pop("IM_AUTH_FILE", None)
        place.run(said, "ansible-inventory", "-i", inventory(place, **options), "--list", "-vvv", IM_AUTH_FILE=file)
    assert list((place.directory / "given/keys").rglob("*.pem"))
    assert place.found(modules.server.directory / "im.log") == {"test.im.yml"}
    # The server's own log has a line that it does not understand; ours have not.
    play(place, "modules of no YAML", [({"im_infrastructure": {"radl": "{{ no_yaml }}"}}, False)], {}, IM_AUTH=json.dumps(AUTH))
    assert b"Invalid YAML code" in place.said["modules of no YAML"]
    assert place.found() == {"test.im.yml"}


def test_the_search_finds_what_is_there(place, modules):
    """Each place of the search, with a secret that somebody asked for or put there."""
    asked = [({"im_infrastructure": {"radl": "{{ radl }}"}}, True), ({"im_infrastructure_info": {"name": "cluster", "secrets": True}}, True)]
    play(place, "modules", asked, {"auth": "{{ auth }}"})
    file = str(place.directory / "given/auth.json")
    place.run("inventory", "ansible-inventory", "-i", inventory(place, compose={"said": f"'{SECRET}'"}), "--list", IM_AUTH_FILE=file)
    place.run("cat", "sh", "-c", "cat; true", SECRET)
    (place.directory / "home/left").write_text(SECRET)
    assert place.found(modules.server.directory / "im.db") == {
        "modules", "ansible.log", "inventory", "test.im.yml", "command lines of cat", "left", "im.db",
    }  # fmt: skip
