# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The time at which the machines of a cluster end, unless somebody still watches.

Who watches on a node touches the file ``watched`` there. Each node looks every minute: the newest watch that it
knows of, its own or that which another node has left in HDFS, sets the deadline. In HDFS it is an empty file whose
time of modification is the deadline and whose time of access is that of the watch: one call to the NameNode, which
needs neither DataNodes nor free disk. When HDFS cannot be reached, what the node knows counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deeptrain.job import JobError

SHARED = "deadline"
# Left by the chief when it needs the other nodes no more; its time is that of the deadline it was left at.
EXPORTED = "deadline-exported"
WATCHED, UNTIL = "watched", "until"
IM_SECONDS = 60


@dataclass(frozen=True)
class Deadline:
    """When a cluster ends, and when it was last watched, both in milliseconds since 1970."""

    until: int
    watched: int


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


def replace(path: Path, text: str, like: os.stat_result | None = None) -> None:
    """Replaces a file by another of the same mode and owner, or by root's; in a directory whose owner must not lead root elsewhere by a link."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), like.st_mode & 0o777 if like else 0o644)
            if like:
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


class Local:
    """What a node knows: ``until`` with both times in seconds, the deadline first, and ``watched``, which is touched."""

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)

    def watched(self) -> int | None:
        try:
            return os.lstat(self.directory / WATCHED).st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return None

    def read(self) -> Deadline | None:
        try:
            until, watched = (self.directory / UNTIL).read_text(encoding="ascii").split()
            return Deadline(round(float(until) * 1000), round(float(watched) * 1000))
        except (FileNotFoundError, ValueError):
            return None

    def write(self, deadline: Deadline) -> None:
        if deadline == self.read():
            return
        try:
            replace(self.directory / UNTIL, f"{deadline.until / 1000:.3f} {deadline.watched / 1000:.3f}\n")
        except OSError as error:
            # A full disk, say: what the other nodes know still counts.
            print(f"The deadline cannot be kept here: {error}", file=sys.stderr, flush=True)


class Shared:
    """What all nodes know, in a directory of HDFS."""

    def __init__(self, url: str):
        # Here, so that a node without HDFS can still tell the time.
        from deeptrain.hdfs import Hdfs

        self.hdfs = Hdfs(url)

    def read(self, name: str = SHARED) -> Deadline | None:
        status = self.hdfs.status(name)
        return Deadline(status.modification_time, status.access_time) if status else None

    def write(self, deadline: Deadline, name: str = SHARED) -> None:
        if self.read(name):
            self.hdfs.set_modified(name, deadline.until, deadline.watched)
            return
        # Under its name only when it has its times: a file just made says that the end is now.
        temporary = f".{name}-{socket.gethostname()}"
        self.hdfs.write_stream(temporary, iter(()))
        self.hdfs.set_modified(temporary, deadline.until, deadline.watched)
        self.hdfs.rename(temporary, name)


def look(config: dict) -> Deadline:
    """The deadline as of now; learned from the newest watch, told to the others, and kept on the node."""
    local = Local(config["directory"])
    known, watched = local.read(), local.watched()
    if watched is not None and (known is None or watched > known.watched):
        known = _from(watched, config)
        # At once, in case that HDFS lets us wait.
        local.write(known)
    try:
        shared = Shared(config["hdfs_url"])
        theirs = shared.read()
        if theirs and (known is None or theirs.watched >= known.watched):
            known = theirs
        elif known:
            shared.write(known)
    except (JobError, OSError) as error:
        print(f"The other nodes' deadline is not known: {error}", file=sys.stderr, flush=True)
    known = known or _from(milliseconds(), config)
    local.write(known)
    return known


def _from(watched: int, config: dict) -> Deadline:
    return Deadline(watched + round(1000 * config["seconds"]), watched)


class Renewed(Exception):
    """Somebody watches again."""


def systemctl(*arguments: str) -> str | None:
    """What it printed; None, and said why, when it failed."""
    done = subprocess.run(["systemctl", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}", file=sys.stderr, flush=True)
        return None
    return done.stdout


def at_work(pattern: str) -> bool:
    """Whether a unit runs, or waits to be started again; taken for granted while it cannot be seen."""
    listed = systemctl("list-units", "--plain", "--no-legend", "--state=active,activating,deactivating,reloading", pattern)
    return listed is None or bool(listed.strip())


class End:
    """What a node does when its time is over: all of it within the grace."""

    def __init__(self, config: dict):
        self.config = config
        self.began = time.time()
        self.last = self.began + config["grace_seconds"]
        self.pause = min(10.0, config["interval_seconds"])
        self.deadline = look(config)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def until(self, condition: Callable[[], bool]) -> bool:
        """Waits until the condition is true, and returns whether it is; raises Renewed when it need not be any more."""
        while True:
            self.deadline = look(self.config)
            if self.deadline.until > milliseconds():
                raise Renewed
            if condition():
                return True
            if time.time() >= self.last:
                return False
            time.sleep(self.pause)

    def run(self) -> None:
        """Returns when the machine is to be powered off."""
        self.until(lambda: True)
        if self.config["chief"]:
            self.say("The time is over: stops the training and exports what there is")
            if not self.bring_home():
                self.say("Not all is exported, so the machines are powered off and not destroyed; see the journals of deeptrain-export@*.service")
                self.until(lambda: False)
            else:
                self.tell()
                if self.config.get("im"):
                    self.until(self.destroy)
                    self.until(lambda: False)
        else:
            self.say("The time is over: waits until the chief has exported")
            self.until(self.told)
        if self.config["namenode"]:
            # The others ask here whether the chief has exported.
            self.last = min(self.last, time.time() + 3 * self.pause)
            self.until(lambda: False)

    def bring_home(self) -> bool:
        """Stops what works on the chief, exports what is armed, and returns whether all of that is in S3."""
        systemctl("stop", "--no-block", "deeptrain-train@*.service", "deeptrain-stage@*.service")
        self.until(lambda: not at_work("deeptrain-train@*.service"))
        # What has been exported keeps no credentials.
        runs = sorted(path.name for path in Path(self.config["credentials_dir"], "export").glob("*"))
        if not runs:
            self.say("Nothing is armed for export")
        for run in runs:
            self.allow_checkpoint(run)
            systemctl("reset-failed", f"deeptrain-export@{run}.service")
            systemctl("start", f"deeptrain-export@{run}.service")
        if runs:
            self.until(lambda: not at_work("deeptrain-export@*.service"))
        return all(self.exported(run) for run in runs)

    def export_directory(self, run: str) -> Path:
        return Path(self.config["state_dir"], "runs", run, "export")

    def allow_checkpoint(self, run: str) -> None:
        """Lets the export take the last checkpoint where there is no model."""
        path = self.export_directory(run) / "config.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            document["settings"]["partial"] = True
            replace(path, json.dumps(document, indent=2, sort_keys=True) + "\n", like=os.lstat(path))
        except (OSError, ValueError, LookupError, TypeError) as error:
            self.say(f"{path} cannot be changed: {error!r}")

    def exported(self, run: str) -> bool:
        """Whether the manifest of a run's export was written since, or before by an export that needs no credentials."""
        try:
            result = json.loads((self.export_directory(run) / "result.json").read_text(encoding="utf-8"))
            return "manifest_uri" in result["summary"] and (result["status"] == "succeeded" or result["started"] >= self.began)
        except (OSError, ValueError, LookupError, TypeError):
            return False

    def tell(self) -> None:
        """Lets the other nodes go."""
        with contextlib.suppress(JobError, OSError):
            Shared(self.config["hdfs_url"]).write(self.deadline, EXPORTED)

    def told(self) -> bool:
        """Whether the chief lets this node go."""
        try:
            mark = Shared(self.config["hdfs_url"]).read(EXPORTED)
        except (JobError, OSError):
            return False
        return mark is not None and mark.until == self.deadline.until

    def destroy(self) -> bool:
        """Asks the Infrastructure Manager to destroy the infrastructure, and returns whether it will."""
        im = self.config["im"]
        try:
            header = Path(os.environ["CREDENTIALS_DIRECTORY"], "im").read_text(encoding="latin-1").strip()
            context = None
            if im["url"].startswith("https:"):
                context = ssl.create_default_context(cafile=im["ca_bundle"] or None)
                if not im["validate_certs"]:
                    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            request = urllib.request.Request(
                f"{im['url'].rstrip('/')}/infrastructures/{im['infrastructure_id']}?async=true",
                method="DELETE",
                headers={"Authorization": header, "Accept": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=IM_SECONDS, context=context):
                pass
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return True
            self.say(f"The Infrastructure Manager does not destroy {im['infrastructure_id']}: {error.code} {error.read(500).decode(errors='replace')}")
            return False
        except (OSError, LookupError, ValueError) as error:
            self.say(f"The Infrastructure Manager at {im['url']} does not answer: {error}")
            return False
        self.say(f"The Infrastructure Manager destroys {im['infrastructure_id']}")
        return True


def main(config_file: str, end: bool) -> int:
    """Looks at the clock once, or ends the machine, by the configuration that role deadline wrote."""
    config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    # root, too, is the job's user in HDFS.
    os.environ["HADOOP_USER_NAME"] = config["user"]
    if not end:
        look(config)
        return 0
    try:
        End(config).run()
    except Renewed:
        print("Somebody watches again: the machine goes on", file=sys.stderr, flush=True)
        return 0
    print("Powers off", file=sys.stderr, flush=True)
    return subprocess.run(["systemctl", "--no-block", "poweroff"], check=False).returncode
