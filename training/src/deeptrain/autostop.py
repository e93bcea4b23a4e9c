# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease of a cluster's machines: they end when it expires.

A controller renews the lease by touching the file ``renewed`` on a node. Each node polls every minute: the newest
renewal that it knows of, its own or one that another node has shared through HDFS, sets the time of expiry. In HDFS the
lease is an empty file whose modification time is the expiry and whose access time is that of the renewal: one call to
the NameNode, which needs neither DataNodes nor free disk. While HDFS is unreachable, what the node knows counts.

Renewals reach no further than a maximum after role autostop was last run, so the machines end even if a controller waits forever.

Only root writes to the directory of all this. The jobs' directories belong to the job's user: what is read or written
there as root follows no link and waits for nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from deeptrain import documents
from deeptrain.job import BadInput, JobError
from deeptrain.kinds import STAGES, units

SHARED = "autostop-lease"
# Written by the chief when it no longer needs the other nodes, with the expiry of the lease at that time.
EXPORTED = "autostop-exported"
RUNS = "runs"
# `armed` is touched by each run of role autostop, `hdfs` is made when HDFS has answered for the first time.
RENEWED, LEASE, ARMED, HDFS = "renewed", "lease", "armed", "hdfs"
TRAIN, EXPORT = units("train"), units("export")
# What the end stops, the last stage first; the export is what it waits for.
STOPPED = [units(kind) for kind in reversed(STAGES) if kind != "export"]
IM_SECONDS = 60
# More than any document of a job.
DOCUMENT_BYTES = 1 << 20


@dataclass(frozen=True)
class Lease:
    """When a cluster ends, and when it was last renewed, both in milliseconds since 1970."""

    expires: int
    renewed: int


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


@contextlib.contextmanager
def open_directory(*path: str | os.PathLike) -> Iterator[int]:
    """A directory, reached from the first one given through the names after it; none of these may be a link."""
    handle = os.open(path[0], os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in path[1:]:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
            os.close(handle)
            handle = inner
        yield handle
    finally:
        os.close(handle)


def read_document(directory: int, name: str) -> tuple[dict, os.stat_result]:
    """A JSON object in a directory, and its file's status; an error where it is a link, a pipe or too long."""
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is no regular file")
        content = file.read(DOCUMENT_BYTES + 1)
    if len(content) > DOCUMENT_BYTES:
        raise ValueError("is too long")
    document = documents.parse(content)
    if not isinstance(document, dict):
        raise ValueError("is no JSON object")
    return document, status


def replace(directory: int, name: str, text: str, like: os.stat_result | None = None) -> None:
    """Replaces a file in a directory by another of the same mode and owner, or by root's."""
    temporary = f".{name}.{secrets.token_hex(8)}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=directory), "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), like.st_mode & 0o777 if like else 0o644)
            if like:
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
        os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=directory)
        raise


class Local:
    """What a node knows: ``lease`` with both times in seconds, the expiry first, and files whose modification times count."""

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory)

    def time(self, name: str) -> int | None:
        """When a file was touched, in milliseconds."""
        try:
            return os.lstat(self.directory / name).st_mtime_ns // 1_000_000
        except FileNotFoundError:
            return None

    def read(self) -> Lease | None:
        try:
            expires, renewed = (self.directory / LEASE).read_text(encoding="ascii").split()
            return Lease(round(float(expires) * 1000), round(float(renewed) * 1000))
        except (FileNotFoundError, ValueError):
            return None

    def write(self, lease: Lease) -> None:
        if lease == self.read():
            return
        try:
            with open_directory(self.directory) as directory:
                replace(directory, LEASE, f"{lease.expires / 1000:.3f} {lease.renewed / 1000:.3f}\n")
        except OSError as error:
            # A full disk, say: what the other nodes know still counts.
            print(f"The lease cannot be written on this node: {error}", file=sys.stderr, flush=True)

    def saw_hdfs(self) -> None:
        with contextlib.suppress(OSError):
            (self.directory / HDFS).touch()


class Shared:
    """What all nodes know, in a directory of HDFS."""

    def __init__(self, url: str):
        # Imported here, so that the lease works where HDFS's client cannot be imported.
        from deeptrain.hdfs import Hdfs

        self.hdfs = Hdfs(url)

    def read(self, name: str = SHARED) -> Lease | None:
        status = self.hdfs.status(name)
        return Lease(status.modification_time, status.access_time) if status else None

    def write(self, lease: Lease, name: str = SHARED) -> None:
        if self.read(name):
            self.hdfs.set_modified(name, lease.expires, lease.renewed)
            return
        # Renamed only when it has its times: a new file's own times mean that the lease expires now.
        temporary = f".{name}-{socket.gethostname()}"
        self.hdfs.write_stream(temporary, iter(()))
        self.hdfs.set_modified(temporary, lease.expires, lease.renewed)
        self.hdfs.rename(temporary, name)

    def saved(self) -> set[str]:
        """The runs that have saved checkpoints or other files."""
        from deeptrain.checkpoint import is_saved
        from deeptrain.hdfs import Hdfs

        paths = (path.partition("/") for path, _status in Hdfs(f"{self.hdfs.url}/{RUNS}").list_files())
        return {run for run, _slash, path in paths if path and is_saved(path)}


def poll(config: dict) -> Lease:
    """The lease as of now, by the newest renewal; shared with the other nodes, and written on this one."""
    local = Local(config["directory"])
    known, renewed = local.read(), local.time(RENEWED)
    if renewed is not None and (known is None or renewed > known.renewed):
        known = _from(renewed, config)
        # At once, in case HDFS is slow to answer.
        local.write(known)
    try:
        shared = Shared(config["hdfs_url"])
        theirs = shared.read()
        local.saw_hdfs()
        if theirs and (known is None or theirs.renewed >= known.renewed):
            known = theirs
        elif known:
            shared.write(known)
    except (ImportError, JobError, OSError) as error:
        print(f"The other nodes' lease is not known: {error}", file=sys.stderr, flush=True)
    known = known or _from(milliseconds(), config)
    local.write(known)
    return known


def _from(renewed: int, config: dict) -> Lease:
    """The lease after a renewal: some hours later, within the maximum after role autostop was last run."""
    expires, armed = renewed + round(1000 * config["seconds"]), Local(config["directory"]).time(ARMED)
    if armed is not None:
        expires = min(expires, armed + round(1000 * max(config["seconds"], config["max_seconds"])))
    return Lease(expires, renewed)


class Renewed(BaseException):
    """The lease was renewed, or the end was cancelled, which is raised within any call: nothing is to take it for an error of that."""


def systemctl(*arguments: str) -> str | None:
    """What it printed; None, and said why, when it failed."""
    done = subprocess.run(["systemctl", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"systemctl {' '.join(arguments)}: {done.stderr.strip()}", file=sys.stderr, flush=True)
        return None
    return done.stdout


def running_units(pattern: str) -> list[str] | None:
    """The units that run, or wait for a restart; None while that is unknown."""
    listed = systemctl("list-units", "--plain", "--no-legend", "--state=active,activating,deactivating,reloading", pattern)
    return None if listed is None else [line.split()[0] for line in listed.splitlines() if line.strip()]


def is_running(pattern: str) -> bool:
    """Whether a unit runs, or waits for a restart; assumed while it is unknown."""
    return running_units(pattern) != []


class Manager:
    """The Infrastructure Manager, for one infrastructure."""

    def __init__(self, im: dict):
        self.im, self.id = im, im["infrastructure_id"]

    def ask(self, method: str, path: str) -> dict | None:
        """What it answers to a request, a JSON object or nothing."""
        header = Path(self.im["authorization"]).read_text(encoding="latin-1").strip()
        context = None
        if self.im["url"].startswith("https:"):
            context = ssl.create_default_context(cafile=self.im["ca_bundle"] or None)
            if not self.im["validate_certs"]:
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(
            f"{self.im['url'].rstrip('/')}/infrastructures{path}", method=method, headers={"Authorization": header, "Accept": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=IM_SECONDS, context=context) as answer:
            return json.load(answer) if method == "GET" else None

    def state(self) -> str | None:
        """The infrastructure's state; None when it does not exist.

        A 404 alone does not say so: another server, or a wrong path, gives it, too. Its own list has to be without it.
        """
        try:
            return self.ask("GET", f"/{self.id}/state")["state"]["state"]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
        if self.id in [item["uri"].rstrip("/").rpartition("/")[2] for item in self.ask("GET", "")["uri-list"]]:
            raise ValueError(f"it lists {self.id}, but does not have its state")
        return None

    def destroy(self) -> bool:
        """Has the infrastructure destroyed, and returns whether it is: to be called until then.

        A deletion that was accepted can fail, after which the state is no more `deleting`, and the next call requests another.
        """
        state = self.state()
        if state not in (None, "deleting"):
            self.ask("DELETE", f"/{self.id}?async=true")
        return state is None

    @contextlib.contextmanager
    def as_job_errors(self) -> Iterator[None]:
        """Raises JobError with the reason, and BadInput when a retry cannot help."""
        where = f"The Infrastructure Manager at {self.im['url']}"
        try:
            yield
        except urllib.error.HTTPError as error:
            refused = BadInput if error.code in (400, 401, 403, 404) else JobError
            said = f"{error.code} {error.read(500).decode(errors='replace')}"
            raise refused(f"{where} refuses {self.id} ({said}): check autostop_im_url, _infrastructure_id and _credentials") from error
        except OSError as error:
            raise JobError(f"{where} does not answer: {error}") from error
        except (LookupError, TypeError, ValueError) as error:
            raise BadInput(f"{where} does not answer as an Infrastructure Manager ({error!r}): check autostop_im_url, its path too") from error

    def check(self) -> None:
        """Raises JobError unless it has the infrastructure and accepts the authorization for it."""
        with self.as_job_errors():
            if self.state() is None:
                raise BadInput(f"The Infrastructure Manager at {self.im['url']} has no infrastructure {self.id} of this authorization")


class Runs:
    """The runs of a cluster as its chief has them, and what of them is in S3."""

    # When the end of the machines began; never, but for that end itself.
    began = float("inf")

    def __init__(self, config: dict):
        self.config = config

    def runs(self) -> list[str]:
        """The runs on this node for which a training or an export was configured."""
        try:
            names = os.listdir(Path(self.config["state_dir"], RUNS))
        except FileNotFoundError:
            return []
        return sorted(name for name in names if self.has(name, "train") or self.has(name, "export"))

    def leaf(self, run: str, *path: str) -> contextlib.AbstractContextManager[int]:
        return open_directory(self.config["state_dir"], RUNS, run, *path)

    def has(self, run: str, kind: str) -> bool:
        """Whether a job of a run was configured; assumed where its directory cannot be read."""
        try:
            with self.leaf(run, kind) as directory:
                os.stat("config.json", dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def result(self, run: str, kind: str) -> dict:
        """The result of a job's last start; empty when it has none."""
        try:
            with self.leaf(run, kind) as directory:
                return read_document(directory, "result.json")[0]
        except (OSError, ValueError):
            return {}

    def exported(self, run: str) -> bool:
        """Whether a run is in S3, verified: exported by this end, or since its training's last end, and completely if that was a success."""
        export, train = self.result(run, "export"), self.result(run, "train")
        try:
            summary = export["summary"]
            if "manifest_uri" not in summary:
                return False
            if export["started"] > time.time():
                # The clock was set back since; the training may have saved more.
                return False
            if export["started"] >= self.began:
                return True
            done = train["status"] == "succeeded"
            same = summary["complete"] is done and (export["status"] == "succeeded" or not done)
            return same and train["finished"] <= export["started"]
        except (LookupError, TypeError):
            return False

    def has_model(self, run: str) -> bool:
        """Whether a training has left anything for export; assumed where that cannot be read."""
        try:
            with self.leaf(run, "train", "export") as directory:
                return bool(os.listdir(directory))
        except FileNotFoundError:
            return False
        except OSError:
            return True

    def unexported(self, saved: Iterable[str]) -> list[str]:
        """The runs of which a model or what they saved is not in S3, with those that have saved anything in HDFS."""
        return [run for run in sorted({*self.runs(), *saved}) if (run in saved or self.has_model(run)) and not self.exported(run)]

    def busy(self) -> list[str]:
        """The runs of which a stage's job runs; an error while that is unknown."""
        found = [running_units(units(kind)) for kind in STAGES]
        if None in found:
            raise JobError("systemd does not list the running jobs")
        return sorted({unit.removesuffix(".service").split("@", 1)[1] for listed in found for unit in listed or []})


class End(Runs):
    """What a node does when the lease has expired: all of it within the grace."""

    def __init__(self, config: dict):
        super().__init__(config)
        self.began = time.time()
        self.last = time.monotonic() + config["grace_seconds"]
        self.pause = min(10.0, config["interval_seconds"])
        self.stopped: list[str] = []
        self.lease = poll(config)

    def log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def until(self, condition: Callable[[], bool]) -> bool:
        """Waits until the condition is true, and returns whether it is; raises Renewed when it need not be any more."""
        while True:
            self.lease = poll(self.config)
            if self.lease.expires > milliseconds():
                raise Renewed
            if condition():
                return True
            if time.monotonic() >= self.last:
                return False
            time.sleep(self.pause)

    def run(self) -> None:
        """Returns when the machine is to be powered off; after Renewed the jobs that were stopped run again."""
        try:
            self._run()
        except Renewed:
            self.resume()
            raise

    def _run(self) -> None:
        self.until(lambda: True)
        if self.config["chief"]:
            self.log("The lease has expired: stops the training and exports the models and checkpoints")
            if not self.export_all():
                self.log("Not all is exported, so the machines are powered off and not destroyed; see the journals of deeptrain-export@*.service")
                self.until(lambda: False)
            else:
                self.release()
                if self.config.get("im"):
                    self.until(self.destroy)
        else:
            self.log("The lease has expired: waits until the chief has exported")
            self.until(self.released)
        if self.config["namenode"]:
            # The others ask here whether the chief has exported.
            self.last = min(self.last, time.monotonic() + 3 * self.pause)
            self.until(lambda: False)

    def export_all(self) -> bool:
        """Stops the jobs on the chief, exports what is armed, and returns whether every model and checkpoint is in S3."""
        self.stopped = [unit for pattern in STOPPED for unit in running_units(pattern) or []]
        systemctl("stop", "--no-block", *STOPPED)
        self.until(lambda: not is_running(TRAIN))
        # By what is on the disk: a reboot takes the credentials, and with them the export, not what is to be exported.
        pending = [run for run in self.runs() if self.has(run, "export") and not self.exported(run)]
        for run in pending:
            self.allow_checkpoint(run)
            systemctl("reset-failed", f"deeptrain-export@{run}.service")
            systemctl("start", f"deeptrain-export@{run}.service")
        if pending:
            self.until(lambda: not is_running(EXPORT))
        return self.all_exported()

    def resume(self) -> None:
        """Starts the jobs that were stopped and are not done."""
        for unit in self.stopped:
            kind, run = unit.removeprefix("deeptrain-").removesuffix(".service").split("@", 1)
            if self.result(run, kind).get("status") == "succeeded":
                continue
            if kind == "train":
                # Of a checkpoint: it would keep the model's export from being started.
                systemctl("stop", "--no-block", f"deeptrain-export@{run}.service")
            systemctl("start", "--no-block", unit)

    def allow_checkpoint(self, run: str) -> None:
        """Lets the export take what the training has saved where there is no model."""
        try:
            with self.leaf(run, "export") as directory:
                document, status = read_document(directory, "config.json")
                document["settings"]["partial"] = True
                replace(directory, "config.json", json.dumps(document, indent=2, sort_keys=True) + "\n", like=status)
        except (OSError, ValueError, LookupError, TypeError) as error:
            self.log(f"The configuration of the export of {run} cannot be changed: {error!r}")

    def all_exported(self) -> bool:
        """Whether no model and no checkpoint would be lost with the machines."""
        runs, saved = self.runs(), set()

        def asked() -> bool:
            try:
                saved.update(Shared(self.config["hdfs_url"]).saved())
            except (ImportError, JobError, OSError) as error:
                self.log(f"The checkpoints in HDFS are not known: {error}")
                return False
            return True

        # Where HDFS has never answered and nothing was trained, none was built.
        if (runs or Local(self.config["directory"]).time(HDFS) is not None) and not self.until(asked):
            return False
        left = self.unexported(saved)
        if left:
            self.log(f"Not exported: {', '.join(left)}")
        return not left

    def release(self) -> None:
        """Lets the other nodes end."""
        with contextlib.suppress(ImportError, JobError, OSError):
            Shared(self.config["hdfs_url"]).write(self.lease, EXPORTED)

    def released(self) -> bool:
        """Whether the chief lets this node end."""
        try:
            mark = Shared(self.config["hdfs_url"]).read(EXPORTED)
        except (ImportError, JobError, OSError):
            return False
        return mark is not None and mark.expires == self.lease.expires

    def destroy(self) -> bool:
        """Has the Infrastructure Manager destroy the infrastructure, and returns whether it did."""
        manager = Manager(self.config["im"])
        try:
            with manager.as_job_errors():
                destroyed = manager.destroy()
        except JobError as error:
            self.log(str(error))
            return False
        self.log(f"The Infrastructure Manager {'has destroyed' if destroyed else 'destroys'} {manager.id}")
        return destroyed


def main(config_file: str, end: bool, check: bool = False) -> int:
    """Polls the lease once, ends the machine, or checks the access to the Infrastructure Manager, by role autostop's configuration."""
    config = documents.parse(Path(config_file).read_text(encoding="utf-8"))
    # root, too, is the job's user in HDFS.
    os.environ["HADOOP_USER_NAME"] = config["user"]
    if check:
        return check_manager(config)
    if not end:
        poll(config)
        return 0

    def cancel(number: int, frame: object) -> None:
        raise Renewed

    # Stopped by hand, or because autostop is removed: the training must not stay stopped.
    signal.signal(signal.SIGTERM, cancel)
    try:
        End(config).run()
    except Renewed:
        print("The lease was renewed, or the end was cancelled: the machine stays on", file=sys.stderr, flush=True)
        return 0
    print("Powers off", file=sys.stderr, flush=True)
    return subprocess.run(["systemctl", "--no-block", "poweroff"], check=False).returncode


def unexported(state_dir: str, hdfs_url: str, user: str) -> int:
    """Prints as JSON why each run would be lost, or interrupted, with the machines; returns 1 while that is unknown."""
    os.environ["HADOOP_USER_NAME"] = user
    runs = Runs({"state_dir": state_dir})
    try:
        # The running jobs first: one that ends meanwhile is seen by its results.
        busy = runs.busy()
        left = runs.unexported(Shared(hdfs_url).saved())
    except (ImportError, JobError, OSError) as error:
        print(f"What is not exported is not known: {error}", file=sys.stderr, flush=True)
        return 1
    print(json.dumps({**dict.fromkeys(left, "has a model or checkpoints that are not in S3"), **dict.fromkeys(busy, "has a running job")}))
    return 0


def check_manager(config: dict) -> int:
    """Says why the chief could not have its infrastructure destroyed; returns 2 where a retry cannot help."""
    try:
        Manager(config["im"]).check()
    except JobError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_status
    return 0
