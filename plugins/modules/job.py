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
    C(STATE_DIR/runs/RUN/KIND). It reads its configuration there and writes its progress and its result.
  - The job does not depend on the controller. It continues when the controller ends, and running the same task again attaches to it.
  - Each call and each poll, except in check mode, renews the lease of a node on which role P(deeptrain.cluster.autostop#role) has created one.
    M(deeptrain.cluster.job_info) renews none.
  - The same run and kind with another configuration is refused with the difference. A missing or failed job is started,
    a running one is attached to, and a finished one is left unchanged.
author: The deeptrain.cluster authors (@deeptrain)
extends_documentation_fragment:
  - deeptrain.cluster._attributes
  - deeptrain.cluster._job
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
  state:
    description:
      - V(started) starts the job or attaches to it, and waits for its end. In check mode it returns in RV(action) what it would do.
      - V(armed) writes configuration and credentials, so that something else can start the job, such as another unit's success.
        It refuses just as V(started) does.
      - V(stopped) stops the job in order and waits until it has ended.
    type: str
    choices: [started, armed, stopped]
    default: started
  config:
    description:
      - The work of the job. It is compared with the configuration of the existing job. Must not contain secrets.
      - Required with O(state=started) and O(state=armed).
  settings:
    description: How the work is done. They may change between starts; a running job keeps its own. Must not contain secrets.
    type: dict
    default: {}
  credentials:
    description:
      - Names of credentials and their content, a dictionary each. They are stored in files that only root can read.
      - They are written when the job is started or armed, and left unchanged when it is running or finished. A job that
        waits for an automatic restart gets the missing ones.
    type: dict
    default: {}
  recheck:
    description:
      - Whether to rerun a finished job, so that it verifies its own output. The task is changed only if the job's result
        says so, so it must wait for the end. In check mode a finished job counts as unchanged.
  exclusive:
    description:
      - Whether the job is refused while a job of the same kind of another run is running on the node.
      - Once this one is started, no job of the same kind of another run starts at boot, see O(at_boot).
  at_boot:
    description:
      - Whether the job is started at boot if it was running before. This applies only if all values of O(credentials) are empty, so that
        the job uses the machine's role. systemd starts it until it succeeds or O(state=stopped) stops it.
      - Other credentials are lost in a restart of the node. The job is then started by the task that waits for it, or by the next one.
    type: bool
    default: false
  user:
    description:
      - User that runs the job and owns its directory. The group has the same name.
      - The directories above it are given to root, since their owner could replace one by a link.
    type: str
    default: deeptrain
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
      - With O(state=started) the job continues then. With O(state=stopped) it continues to end, and the unit's C(TimeoutStopSec)
        kills it.
    type: int
    default: 0
  poll:
    description: Seconds between two polls of the job, at most. The first ones come sooner.
    type: float
    default: 5
  progress_interval:
    description: Seconds between two lines of progress, at least.
    type: float
    default: 5
  unreachable_timeout:
    description: Seconds for which the node may be unreachable while the task waits. The job continues meanwhile.
    type: int
    default: 600
seealso:
  - module: deeptrain.cluster.job_info
"""

EXAMPLES = r"""
- name: Stage the data from S3 to HDFS
  deeptrain.cluster.job:
    kind: staging
    run: default
    config:
      source: s3://bucket/data
      target: hdfs://ps-0:8020/user/deeptrain/data
    credentials:
      s3: "{{ s3_credentials }}"

- name: Refuse a training that could not be started with this configuration
  deeptrain.cluster.job:
    kind: train
    run: default
    config: "{{ training_config }}"
  check_mode: true

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
  description: What O(state=started) or O(state=armed) did, or in check mode would do, V(start), V(attach), V(nothing) or V(refuse).
  type: str
  returned: when O(config) was given
  sample: attach
reason:
  description: Why the job failed.
  type: str
  returned: when the job failed
unit:
  description: Name of the unit.
  type: str
  returned: always
  sample: deeptrain-train@default.service
difference:
  description: Difference from the configuration of the existing job, C(was) and C(is) by its dotted name.
  type: dict
  returned: when O(config) was given
  sample: {"source": {"was": "s3://bucket/a", "is": "s3://bucket/b"}}
restarts:
  description: Number of times systemd has restarted the running job.
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
  description: Number of times the task has started the job again after a restart of the node, at most five an hour.
  type: int
  returned: with O(state=started) and O(wait=true), when the job was running
result:
  description: The job's result document, or nothing as long as it has none.
  type: dict
  returned: always
log:
  description: End of the journal of a failed job.
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
    REFUSE,
    REQUIRED_IF,
    RUNNING,
    START,
    name_errors,
    uses_role,
)
from ansible_collections.deeptrain.cluster.plugins.module_utils._job_reader import JobReader, parse, renew_lease

# Where root alone can take it. A start holds it for some seconds.
LOCK = "/run/deeptrain/lock/job"
LOCK_SECONDS = 120
UNITS = "/etc/systemd/system"


class Job(JobReader):
    """A job that is started, armed and stopped."""

    def __init__(self, module):
        super().__init__(module)
        params = module.params
        self.config_file = os.path.join(params["state_dir"], *self.names, "config.json")
        self.document = {"config": params["config"], "settings": params["settings"]}
        # What arming leaves is for work that is still to be done.
        self.recheck = params["recheck"] and params["state"] != "armed"

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
            # What a job that verifies its own output would change is unknown.
            return self.write_config() or state != DONE
        if unit.get("LoadState") != "loaded":
            self.module.fail_json(
                msg=f"{self.unit} cannot be started, its unit is {unit.get('LoadState')}: run the role that installs it first",
                unit=self.unit,
            )
        # Before the configuration is replaced, so that the old result is not taken for that of the new one.
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
        if code != 0 and self.poll()[2] != FAILED:
            self.module.fail_json(msg=f"{self.unit} did not start: {(error or output).strip()}", unit=self.unit)
        return changed or state != DONE

    def arm(self, unit):
        """Leave what the job needs, for something else to start it; return whether anything changed."""
        return any([self.write_config(), self.write_credentials(), self.write_boot(unit)])

    def stop(self):
        """End the job in order, and for good; return whether it was running or would have started at boot."""
        unit, _result, state = self.poll()
        disabled = self.disable(unit)
        if state != RUNNING:
            return disabled
        if not self.module.check_mode:
            began = time.monotonic()
            timeout = self.params["timeout"]
            self.systemctl("stop", "--no-block", self.unit)
            while self.poll()[2] == RUNNING:
                if timeout and time.monotonic() - began >= timeout:
                    message = f"{self.unit} was signalled to end {timeout} s ago and is still ending: wait for it, or set a longer timeout"
                    self.module.fail_json(msg=message, unit=self.unit)
                time.sleep(0.5)
            # An automatic restart before the stop has enabled it again.
            self.disable(self.properties())
        return True


def ensure(job):
    """Start or arm the job, attach to it or refuse; return the module's result."""
    module = job.module
    with job.alone():
        unit, _result, state = job.poll()
        before = job.stored()
        action, difference, reason = job.compare(state)
        if action == REFUSE:
            module.fail_json(msg=reason, action=action, difference=difference, unit=job.unit, job_state=state)
        changed = False
        if action == START:
            changed = job.start(state, unit) if module.params["state"] == "started" else job.arm(unit)
        elif action == ATTACH and unit.get("ActiveState") == "activating":
            changed = job.write_credentials(missing=True)
    result = {"changed": changed, "action": action, "difference": difference}
    if action == START and before != job.document:
        result["diff"] = {
            "before": before,
            "after": job.document,
            "before_header": job.config_file,
            "after_header": job.config_file,
        }
    return result


def apply(job):
    """Start, arm or stop the job; return the module's result."""
    state = job.params["state"]
    result = {"changed": job.stop()} if state == "stopped" else ensure(job)
    result.update(job.snapshot())
    if state == "started":
        # For the action plugin, which polls from there.
        result["progress"], result["progress_offset"] = job.progress()
    return result


def main():
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True)
    for message in name_errors(module.params):
        module.fail_json(msg=message)
    job = Job(module)
    renew_lease(module)
    try:
        result = apply(job)
    except OSError as error:
        module.fail_json(msg=f"{job.unit}: {error}", unit=job.unit)
    if module.params["state"] == "started" and result["job_state"] == FAILED and not module.check_mode:
        module.fail_json(msg=result["reason"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
