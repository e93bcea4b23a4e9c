#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: job
short_description: Starts, monitors and stops a long job on a node
version_added: 0.1.0
description:
  - A job is an instance of the systemd unit C(deeptrain-KIND@RUN.service) that works in a directory of its own,
    C(STATE_DIR/runs/RUN/KIND). There it finds its configuration and leaves its progress and its result.
  - The job needs no controller. When the controller goes away the job goes on, and the same task attaches to it.
  - Each call, except in check mode, renews the lease of a node on which role P(deeptrain.cluster.autostop#role) has created one.
  - The same run and kind with another configuration is refused with the difference. A job that is not there or has
    failed is started, one that is running is attached to, and one that is done is left as it is.
author: The deeptrain.cluster authors (@deeptrain)
extends_documentation_fragment: deeptrain.cluster._attributes
attributes:
  action:
    description: Runs on the controller, which shows the progress and reconnects when the node was unreachable.
    support: full
  async:
    description: Can be run with C(async).
    support: none
  check_mode:
    details: It refuses what it would refuse otherwise.
  diff_mode:
    details: Shows the change of the configuration.
options:
  kind:
    description: Kind of the job, as in the unit's name.
    type: str
    required: true
  run:
    description: Name of the run, at most 63 of a-z, 0-9, dot, dash and underscore, a letter or digit first.
    type: str
    required: true
  state:
    description:
      - V(started) starts the job or attaches to it, and waits for its end.
      - V(armed) leaves configuration and credentials for something else to start it, such as another unit's success.
        It refuses just as V(started) does.
      - V(stopped) ends it in order and waits until it has ended.
      - V(observed) reads the state and changes nothing. With O(config) it tells in RV(action) what V(started) would do.
    type: str
    choices: [started, armed, stopped, observed]
    default: started
  config:
    description:
      - What is done. It is compared with the configuration of the job that is there. No secrets here.
      - Required with O(state=started) and O(state=armed).
    type: dict
  settings:
    description: How it is done. It may change from one start to the next; a running job keeps its own. No secrets here.
    type: dict
    default: {}
  credentials:
    description:
      - Names of credentials and their content, a dictionary each. Kept in files that root alone reads.
      - They are written when the job is started or armed, and left alone when it is running or done. A job that
        waits for an automatic restart gets those that it lacks.
    type: dict
    default: {}
  overwrite:
    description:
      - Start a failed job again though its configuration is another.
      - With O(recheck) also one that is done, since a job that checks its own work has none to lose.
    type: bool
    default: false
  recheck:
    description:
      - Start a job that is done again, to check its own work. The task has changed something only when the
        job's result says so, so it must wait for it; in check mode a job that is done counts as unchanged.
    type: bool
    default: false
  exclusive:
    description:
      - Refuse to start or arm the job while a job of the same kind of another run is running on the node.
      - Once this one is started, no job of the same kind of another run starts at boot, see O(at_boot).
    type: bool
    default: false
  at_boot:
    description:
      - Start the job at boot, when it was running before, where all values of O(credentials) are empty, so that the job uses
        the machine's role. It is started by systemd alone, until it succeeds or O(state=stopped) stops it.
      - Other credentials are lost in a restart of the node, and so the job is started by the task that waits for it, or by the next one.
    type: bool
    default: false
  user:
    description:
      - User that runs the job and owns its directory. The group is of the same name.
      - The directories above that one are given to root, since whoever owns them could exchange one for a link.
    type: str
    default: deeptrain
  state_dir:
    description: Directory of the runs.
    type: path
    default: /var/lib/deeptrain
  credentials_dir:
    description: Directory of the credentials, C(CREDENTIALS_DIR/RUN/NAME.json), on a file system in memory.
    type: path
    default: /run/deeptrain/credentials
  wait:
    description: Whether V(state=started) waits for the job's end.
    type: bool
    default: true
  timeout:
    description:
      - Seconds to wait for the job's end, after which the task fails. 0 waits without limit.
      - With O(state=started) the job goes on then; with O(state=stopped) it goes on ending, and the unit's own
        C(TimeoutStopSec) kills it.
    type: int
    default: 0
  poll:
    description: Seconds between two polls of the job, at most; the first ones come sooner.
    type: float
    default: 5
  progress_interval:
    description: Seconds between two lines of progress, at least.
    type: float
    default: 5
  unreachable_timeout:
    description: Seconds for which the node may be unreachable while the job is waited for. The job goes on meanwhile.
    type: int
    default: 600
  progress_offset:
    description: Byte of the progress file at which to begin to read, as the last look returned it.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Bring the data from S3 to HDFS
  deeptrain.cluster.job:
    kind: staging
    run: default
    config:
      source: s3://bucket/data
      target: hdfs://ps-0:8020/user/deeptrain/data
    credentials:
      s3: "{{ s3_credentials }}"

- name: See how far the training is
  deeptrain.cluster.job:
    kind: train
    run: default
    state: observed
  register: training

- name: See whether the training could be started as it is configured now
  deeptrain.cluster.job:
    kind: train
    run: default
    state: observed
    config: "{{ training_config }}"
  register: training
  failed_when: training.action == 'refuse'

- name: Stop the training, which saves a checkpoint first
  deeptrain.cluster.job:
    kind: train
    run: default
    state: stopped
"""

RETURN = r"""
job_state:
  description: State of the job, one of V(none), V(running), V(done) and V(failed).
  type: str
  returned: always
  sample: done
action:
  description:
    - What O(state=started) or O(state=armed) came to, or in check mode or with O(state=observed) would come to,
      V(start), V(attach), V(nothing) or V(refuse).
  type: str
  returned: when O(config) was given
  sample: attach
reason:
  description: Why the job failed.
  type: str
  returned: when the job failed
refusal:
  description: Why O(state=started) would refuse, and what to do about it.
  type: str
  returned: with O(state=observed), when RV(action) is V(refuse)
unit:
  description: Name of the unit.
  type: str
  returned: always
  sample: deeptrain-train@default.service
difference:
  description: What differs from the configuration of the job that is there, C(was) and C(is) by its dotted name.
  type: dict
  returned: when O(config) was given
  sample: {"source": {"was": "s3://bucket/a", "is": "s3://bucket/b"}}
progress:
  description: Records of progress since O(progress_offset), only the newest where there are many.
  type: list
  elements: dict
  returned: with O(state=observed)
progress_offset:
  description: Byte at which the next look at the progress begins.
  type: int
  returned: with O(state=observed)
restarts:
  description: How often systemd has started the running job again by itself.
  type: int
  returned: always
boot:
  description: Identifies the boot of the node.
  type: str
  returned: always
unit_state:
  description: The unit's C(ActiveState).
  type: str
  returned: always
  sample: inactive
node_restarts:
  description: How often the task has started the job again since the node was restarted, at most five times an hour.
  type: int
  returned: with O(state=started) and O(wait=true), when the job was running
result:
  description: The job's result document, or nothing as long as it has none.
  type: dict
  returned: always
log:
  description: The end of the journal of a job that failed.
  type: list
  elements: str
  returned: when the job failed
"""

import contextlib
import grp
import json
import os
import pwd
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils import _guarded_files as guarded_files
from ansible_collections.deeptrain.cluster.plugins.module_utils import _locks as locks
from ansible_collections.deeptrain.cluster.plugins.module_utils._job import (
    ARGUMENT_SPEC,
    ATTACH,
    DONE,
    FAILED,
    NONE,
    REFUSE,
    REQUIRED_IF,
    RUNNING,
    START,
    decide,
    differences,
    failure,
    job_state,
    name_errors,
    occupied,
    refusal,
    uses_role,
)

# A look returns at most so much of the progress, its end.
PROGRESS_BYTES = 16384
LOG_LINES = 20
# Where root alone can take it. A start holds it for some seconds.
LOCK = "/run/deeptrain/lock/job"
LOCK_SECONDS = 120
UNITS = "/etc/systemd/system"


def parse(content):
    """Return the document that a file holds; None when it holds none, or none yet."""
    try:
        document = json.loads(content.decode("utf-8")) if content is not None else None
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def boot():
    """Return what identifies the boot of the node; a container shares the kernel's, and has an init of its own."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        kernel = file.read().strip()
    with open("/proc/1/stat", encoding="utf-8", errors="replace") as file:
        return f"{kernel}-{file.read().rpartition(')')[2].split()[19]}"


class Job:
    """One kind of job of one run on this node."""

    def __init__(self, module):
        params = module.params
        self.module = module
        self.params = params
        self.unit = f"deeptrain-{params['kind']}@{params['run']}.service"
        # Of these root owns all but the last, which is the job's user's.
        self.names = ("runs", params["run"], params["kind"])
        self.document = {"config": params["config"], "settings": params["settings"]}
        # What arming leaves is for work that is still to be done.
        self.recheck = params["recheck"] and params["state"] != "armed"

    def path(self, name):
        return os.path.join(self.params["state_dir"], *self.names, name)

    @contextlib.contextmanager
    def directory(self):
        """Open the job's directory; None where there is none yet."""
        with contextlib.ExitStack() as stack:
            try:
                handle = stack.enter_context(guarded_files.directory(self.params["state_dir"], *self.names))
            except FileNotFoundError:
                handle = None
            yield handle

    def read_json(self, name):
        with self.directory() as handle:
            return None if handle is None else parse(guarded_files.read(handle, name))

    def refusal(self, state, difference, others):
        if others:
            return occupied(self.params["kind"], others)
        return refusal(self.params["kind"], self.params["run"], state, difference, self.recheck)

    def others(self):
        """Return the other runs whose job of this kind is running, where there must be none."""
        if not self.params["exclusive"]:
            return []
        pattern = f"deeptrain-{self.params['kind']}@*.service"
        listed = self.systemctl("list-units", "--plain", "--no-legend", "--state=active,activating,deactivating,reloading", pattern)
        units = [line.split()[0] for line in listed.splitlines() if line.strip()]
        return sorted(unit.partition("@")[2][: -len(".service")] for unit in units if unit != self.unit)

    def stored(self):
        return self.read_json("config.json") or {}

    @contextlib.contextmanager
    def alone(self):
        """Keep other controllers from starting or arming a job meanwhile."""
        if self.module.check_mode:
            yield
            return
        if not os.path.isdir(self.params["state_dir"]):
            self.module.fail_json(msg=f"There is no {self.params['state_dir']} on this node: run role deeptrain.cluster.node first")
        os.makedirs(os.path.dirname(LOCK), mode=0o700, exist_ok=True)
        handle = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                locks.acquire(handle, LOCK_SECONDS)
            except TimeoutError:
                self.module.fail_json(
                    msg=f"Another task has held {LOCK} on this node for {LOCK_SECONDS} s: end the process that 'fuser {LOCK}' names, then run this again",
                    unit=self.unit,
                )
            yield
        finally:
            os.close(handle)

    def systemctl(self, *arguments):
        """Run systemctl and fail with its own words."""
        code, output, error = self.module.run_command(["systemctl", *arguments])
        if code != 0:
            self.module.fail_json(msg=f"systemctl {' '.join(arguments)}: {(error or output).strip()}", unit=self.unit)
        return output

    def properties(self):
        names = "LoadState,ActiveState,Result,ExecMainStatus,NRestarts,NeedDaemonReload,UnitFileState"
        output = self.systemctl("show", "--property=" + names, self.unit)
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def look(self):
        """Return the unit's properties, the job's result and its state. The unit comes first: a job writes its result, then ends."""
        unit = self.properties()
        with self.directory() as handle:
            result = None if handle is None else parse(guarded_files.read(handle, "result.json"))
            progressed = handle is not None and "progress.jsonl" in os.listdir(handle)
        state = job_state(unit, result, progressed)
        # A job that ends with the node does so before the connection does; what became of it shows after the restart.
        return unit, result, RUNNING if state in (NONE, FAILED) and self.stopping() else state

    def stopping(self):
        """Return whether the node is shutting down."""
        return self.module.run_command(["systemctl", "is-system-running"])[1].strip() == "stopping"

    def progress(self):
        """Return the newest whole records of progress, and where to go on."""
        offset = self.params["progress_offset"]
        with self.directory() as handle:
            file = None if handle is None else guarded_files.open_regular(handle, "progress.jsonl")
        if file is None:
            return [], 0
        with file:
            size = os.fstat(file.fileno()).st_size
            # A job that was restarted begins a new file.
            offset = max(offset if offset <= size else 0, size - PROGRESS_BYTES)
            file.seek(offset)
            data = file.read(PROGRESS_BYTES)
        data = data[: data.rfind(b"\n") + 1]
        records = []
        for line in data.splitlines():
            with contextlib.suppress(ValueError):  # the rest of a cut line, or what a user's own command wrote there
                records.append(json.loads(line, parse_constant=lambda constant: None))
        return [record for record in records if isinstance(record, dict)], offset + len(data)

    def snapshot(self):
        """Return what the module tells of the job."""
        unit, result, state = self.look()
        told = {"unit": self.unit, "job_state": state, "result": result, "restarts": int(unit.get("NRestarts") or 0)}
        told.update(boot=boot(), unit_state=unit.get("ActiveState", ""))
        if self.params["state"] in ("started", "observed"):
            told["progress"], told["progress_offset"] = self.progress()
        if state == FAILED:
            told["log"] = self.journal()
            told["reason"] = failure(self.unit, unit, result, told["log"])
        return told

    def journal(self):
        self.module.run_command(["journalctl", "--sync"])
        code, output, error = self.module.run_command(
            ["journalctl", "--unit", self.unit, "--lines", str(LOG_LINES), "--output", "cat", "--no-pager", "--quiet"]
        )
        return output.splitlines() if code == 0 else [error.strip()]

    def write_config(self):
        """Write configuration and settings; return whether they were others before."""
        if self.stored() == self.document:
            return False
        if not self.module.check_mode:
            user = self.params["user"]
            try:
                uid, gid = pwd.getpwnam(user).pw_uid, grp.getgrnam(user).gr_gid
            except KeyError:
                self.module.fail_json(msg=f"There is no user and group {user} on this node: run role deeptrain.cluster.node first")
            self.make_directory(uid, gid)
            with self.directory() as handle:
                guarded_files.write(handle, "config.json", json.dumps(self.document, indent=2, sort_keys=True) + "\n", 0o640, (0, gid))
        return True

    def make_directory(self, uid, gid):
        """Make the job's directory, in directories of root's, which belonged to the job's user up to version 0.1."""
        with guarded_files.directory(self.params["state_dir"]) as state_dir:
            guarded_files.own(state_dir, 0o755)
            guarded_files.make_directory(state_dir, "runs", 0o755)
        with guarded_files.directory(self.params["state_dir"], "runs") as runs:
            for name in os.listdir(runs):
                # What is a link or no directory is no run.
                with contextlib.suppress(NotADirectoryError, FileNotFoundError):
                    guarded_files.own_directory(runs, name, 0o755)
            guarded_files.make_directory(runs, self.params["run"], 0o755)
        with guarded_files.directory(self.params["state_dir"], "runs", self.params["run"]) as run:
            guarded_files.make_directory(run, self.params["kind"], 0o755, uid, gid)

    def write_credentials(self, missing=False):
        """Write the credentials for root alone, or only the missing ones; return whether any was another before."""
        changed = False
        base, run = self.params["credentials_dir"], self.params["run"]
        for name, content in self.params["credentials"].items():
            stored = self.stored_credentials(name)
            if stored == content or (missing and stored is not None):
                continue
            changed = True
            if not self.module.check_mode:
                os.makedirs(base, mode=0o700, exist_ok=True)
                with guarded_files.directory(base) as handle:
                    guarded_files.own(handle, 0o700)
                    guarded_files.make_directory(handle, run, 0o700)
                with guarded_files.directory(base, run) as handle:
                    guarded_files.write(handle, name + ".json", json.dumps(content), 0o600)
        return changed

    def write_boot(self, unit):
        """Let a unit that uses the machine's role start at boot, when it was running then; return whether that is new."""
        text = ""
        if self.params["at_boot"] and uses_role(self.params["credentials"]):
            # Nothing is in /run then, and the credentials hold no secret. The unit disables itself when it has succeeded.
            defaults = "".join(f"SetCredential={name}.json:{{}}\n" for name in sorted(self.params["credentials"]))
            text = f"[Service]\n{defaults}ExecStartPre=-+systemctl --no-reload enable %n\n"
        drop_ins = self.unit + ".d"
        try:
            with guarded_files.directory(UNITS, drop_ins) as handle:
                stored = guarded_files.read(handle, "boot.conf") or b""
        except FileNotFoundError:
            stored = b""
        if stored.decode("utf-8") == text:
            return False
        if not self.module.check_mode:
            with guarded_files.directory(UNITS) as handle:
                guarded_files.make_directory(handle, drop_ins, 0o755)
            with guarded_files.directory(UNITS, drop_ins) as handle:
                if text:
                    guarded_files.write(handle, "boot.conf", text, 0o644)
                else:
                    guarded_files.remove(handle, "boot.conf")
            if not text:
                self.disable(unit)
            self.systemctl("daemon-reload")
        return True

    def disable_others(self):
        """Let no other run start at boot beside this one: what has failed is enabled until it is started and succeeds."""
        if not self.params["exclusive"]:
            return
        try:
            enabled = os.listdir(os.path.join(UNITS, "multi-user.target.wants"))
        except FileNotFoundError:
            return
        prefix = f"deeptrain-{self.params['kind']}@"
        for unit in sorted(enabled):
            if unit.startswith(prefix) and unit != self.unit:
                self.systemctl("disable", unit)

    def disable(self, unit):
        """Let the unit not start at boot; return whether it would have."""
        if unit.get("UnitFileState") != "enabled":
            return False
        if not self.module.check_mode:
            self.systemctl("disable", self.unit)
        return True

    def stored_credentials(self, name):
        try:
            with guarded_files.directory(self.params["credentials_dir"], self.params["run"]) as handle:
                return parse(guarded_files.read(handle, name + ".json"))
        except FileNotFoundError:
            return None

    def start(self, state, unit):
        """Start the job; return whether that changed anything."""
        if self.module.check_mode:
            # What a job that checks its own work would change, nobody knows yet.
            return self.write_config() or state != DONE
        if unit.get("LoadState") != "loaded":
            self.module.fail_json(
                msg=f"{self.unit} cannot be started, its unit is {unit.get('LoadState')}: run the role that installs it first",
                unit=self.unit,
            )
        # Before the configuration is replaced, so that nobody takes the old result for the new configuration's.
        with self.directory() as handle:
            for name in ("result.json", "progress.jsonl") if handle is not None else ():
                guarded_files.remove(handle, name)
        changed = self.write_config()
        self.write_credentials()
        self.write_boot(unit)
        self.disable_others()
        if unit.get("NeedDaemonReload") == "yes":
            self.systemctl("daemon-reload")
        if unit.get("ActiveState") == "failed":
            self.systemctl("reset-failed", self.unit)
        code, output, error = self.module.run_command(["systemctl", "start", self.unit])
        if code != 0 and self.look()[2] != FAILED:
            self.module.fail_json(msg=f"{self.unit} did not start: {(error or output).strip()}", unit=self.unit)
        return changed or state != DONE

    def arm(self, unit):
        """Leave what the job needs, for something else to start it; return whether anything changed."""
        return any([self.write_config(), self.write_credentials(), self.write_boot(unit)])

    def stop(self):
        """End the job in order, and for good; return whether it was running or would have started at boot."""
        unit, _result, state = self.look()
        disabled = self.disable(unit)
        if state != RUNNING:
            return disabled
        if not self.module.check_mode:
            began = time.monotonic()
            timeout = self.params["timeout"]
            self.systemctl("stop", "--no-block", self.unit)
            while self.look()[2] == RUNNING:
                if timeout and time.monotonic() - began >= timeout:
                    message = f"{self.unit} was told to end {timeout} s ago and is still ending: wait for it, or give it a longer timeout"
                    self.module.fail_json(msg=message, unit=self.unit)
                time.sleep(0.5)
            # An automatic restart before the stop has enabled it again.
            self.disable(self.properties())
        return True


def renew(module):
    """Renew the node's lease, where role autostop has created one."""
    if not module.check_mode:
        with contextlib.suppress(OSError):
            os.utime(os.path.join(module.params["state_dir"], "autostop", "renewed"), follow_symlinks=False)


def compare(job, state):
    """Return what starting the job comes to, the difference of its configuration, and the other runs that are in its way."""
    # A configuration that nothing has begun to work on binds nobody.
    difference = {} if state == NONE else differences(job.stored().get("config", {}), job.params["config"])
    action = decide(state, not difference, job.params["overwrite"], job.recheck)
    others = job.others() if action == START else []
    return REFUSE if others else action, difference, others


def ensure(job):
    """Start or arm the job, attach to it or refuse; return the module's result."""
    module = job.module
    with job.alone():
        unit, _result, state = job.look()
        before = job.stored()
        action, difference, others = compare(job, state)
        if action == REFUSE:
            module.fail_json(
                msg=job.refusal(state, difference, others),
                action=action,
                difference=difference,
                unit=job.unit,
                job_state=state,
            )
        changed = False
        if action == START:
            changed = job.start(state, unit) if module.params["state"] == "started" else job.arm(unit)
        elif action == ATTACH and unit.get("ActiveState") == "activating":
            changed = job.write_credentials(missing=True)
    told = {"changed": changed, "action": action, "difference": difference}
    if action == START and before != job.document:
        told["diff"] = {
            "before": before,
            "after": job.document,
            "before_header": job.path("config.json"),
            "after_header": job.path("config.json"),
        }
    return told


def tell(job):
    """Do what the module is asked, and return its result."""
    module = job.module
    state = module.params["state"]
    if state in ("started", "armed"):
        told = ensure(job)
    else:
        told = {"changed": state == "stopped" and job.stop()}
    told.update(job.snapshot())
    if state == "observed" and module.params["config"] is not None:
        told["action"], told["difference"], others = compare(job, told["job_state"])
        if told["action"] == REFUSE:
            told["refusal"] = job.refusal(told["job_state"], told["difference"], others)
    return told


def main():
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True)
    for message in name_errors(module.params):
        module.fail_json(msg=message)
    job = Job(module)
    renew(module)
    try:
        told = tell(job)
    except OSError as error:
        module.fail_json(msg=f"{job.unit}: {error}", unit=job.unit)
    if module.params["state"] == "started" and told["job_state"] == FAILED and not module.check_mode:
        module.fail_json(msg=told["reason"], **told)
    module.exit_json(**told)


if __name__ == "__main__":
    main()
