#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: job
short_description: Starts, watches and stops a long job on a node
version_added: 0.1.0
description:
  - A job is an instance of the systemd unit C(deeptrain-KIND@RUN.service) that works in a directory of its own,
    C(STATE_DIR/runs/RUN/KIND). There it finds its configuration and leaves its progress and its result.
  - The job needs no controller. When the controller goes away the job goes on, and the same task attaches to it.
  - The same run and kind with another configuration is refused with the difference.
author:
  - The deeptrain.cluster authors
attributes:
  action:
    description: Runs on the controller, which shows the progress and reconnects when the node was unreachable.
    support: full
  async:
    description: Can be run with C(async).
    support: none
  check_mode:
    description: Changes nothing, and refuses just as it would otherwise.
    support: full
  diff_mode:
    description: Shows the change of the configuration.
    support: full
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
      - V(stopped) ends it in order and waits until it has ended.
      - V(observed) looks and changes nothing.
    type: str
    choices: [started, armed, stopped, observed]
    default: started
  config:
    description: What is done. It is compared with the configuration of the job that is there. No secrets here.
    type: dict
    default: {}
  settings:
    description: How it is done. It may change from one start to the next. No secrets here.
    type: dict
    default: {}
  credentials:
    description: Names of credentials and their content, a dictionary each. Kept in files that root alone reads.
    type: dict
    default: {}
  overwrite:
    description: Start a failed job again though its configuration is another.
    type: bool
    default: false
  recheck:
    description:
      - Start a job that is done again, to check its own work. The task has changed something only when the
        job's result says so.
    type: bool
    default: false
  user:
    description: User that runs the job and owns its directory. The group is of the same name.
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
    description: Seconds to wait for the job's end, after which the task fails and the job goes on. 0 waits without limit.
    type: int
    default: 0
  poll:
    description: Seconds between two looks at the job.
    type: float
    default: 2
  unreachable_timeout:
    description: Seconds for which the node may be unreachable while the job is waited for.
    type: int
    default: 600
  progress_offset:
    description: Byte of the progress file at which to begin to read.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Bring the data from S3 to HDFS
  deeptrain.cluster.job:
    kind: stage
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
unit:
  description: Name of the unit.
  type: str
  returned: always
  sample: deeptrain-train@default.service
difference:
  description: What differs from the configuration of the job that is there, C(was) and C(is) by name.
  type: dict
  returned: when O(config) was given
  sample: {"source": {"was": "s3://bucket/a", "is": "s3://bucket/b"}}
progress:
  description: Records of progress since O(progress_offset).
  type: list
  elements: dict
  returned: always
progress_offset:
  description: Byte at which the next look at the progress begins.
  type: int
  returned: always
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

import grp
import json
import os
import pwd
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils.job import (
    DONE,
    FAILED,
    KIND_NAME,
    NONE,
    RUN_NAME,
    RUNNING,
    Refused,
    decide,
    describe,
    differences,
    job_state,
)

# A look at a long job returns at most so much of its progress.
PROGRESS_BYTES = 65536
LOG_LINES = 20


def read_json(path):
    """Return the document in a file; None when there is none, or none yet."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (FileNotFoundError, ValueError):
        return None


def write_file(path, text, mode, uid, gid):
    """Write a file in one step; nobody ever sees a half, or a mode that is too wide."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            os.fchown(handle, uid, gid)
            os.fchmod(handle, mode)
            file.write(text)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def make_directory(path, mode, uid, gid):
    """Make a directory, with its parents, and give it mode and owner."""
    os.makedirs(path, exist_ok=True)
    os.chmod(path, mode)
    os.chown(path, uid, gid)


class Job:
    """One kind of job of one run on this node."""

    def __init__(self, module):
        params = module.params
        self.module = module
        self.unit = "deeptrain-%s@%s.service" % (params["kind"], params["run"])
        self.directory = os.path.join(params["state_dir"], "runs", params["run"], params["kind"])
        self.credentials_directory = os.path.join(params["credentials_dir"], params["run"])
        self.config = params["config"]
        self.document = {"config": params["config"], "settings": params["settings"]}

    def path(self, name):
        return os.path.join(self.directory, name)

    def systemctl(self, *arguments):
        """Run systemctl and fail with its own words."""
        code, output, error = self.module.run_command(["systemctl", *arguments])
        if code != 0:
            self.module.fail_json(
                msg="systemctl %s: %s" % (" ".join(arguments), (error or output).strip()), unit=self.unit, log=self.journal()
            )
        return output

    def properties(self):
        output = self.systemctl("show", "--property=LoadState,ActiveState,SubState,Result,ExecMainStatus,NeedDaemonReload", self.unit)
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def look(self):
        """Return the job's state and its stored document. The unit is asked first: a job writes its result, then ends."""
        unit = self.properties()
        state = job_state(unit, read_json(self.path("result.json")), os.path.exists(self.path("progress.jsonl")))
        return state, read_json(self.path("config.json")), unit

    def progress(self):
        """Return whole new records of progress, and where to go on."""
        offset = self.module.params["progress_offset"]
        try:
            with open(self.path("progress.jsonl"), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                # A job that was started again begins its file anew.
                file.seek(offset if offset <= size else 0)
                offset = file.tell()
                data = file.read(PROGRESS_BYTES)
        except FileNotFoundError:
            return [], 0
        data = data[: data.rfind(b"\n") + 1]
        records = []
        for line in data.splitlines():
            try:
                records.append(json.loads(line))
            except ValueError:
                continue  # what a user's own command wrote there
        return [record for record in records if isinstance(record, dict)], offset + len(data)

    def snapshot(self):
        """Return what the module tells of the job."""
        state, stored, unit = self.look()
        records, offset = self.progress()
        told = {
            "unit": self.unit,
            "job_state": state,
            "progress": records,
            "progress_offset": offset,
            "result": read_json(self.path("result.json")),
        }
        if self.config and stored is not None:
            told["difference"] = differences(stored.get("config"), self.config)
        if state == FAILED:
            told["log"] = self.journal()
            told["msg"] = self.why(unit, told["result"], told["log"])
        return told

    def journal(self):
        code, output, _error = self.module.run_command(
            ["journalctl", "--unit", self.unit, "--lines", str(LOG_LINES), "--output", "cat", "--no-pager"]
        )
        return output.splitlines() if code == 0 else []

    def why(self, unit, result, log):
        """Return in one line why the job failed."""
        if result is not None and result.get("error"):
            return "%s: %s" % (self.unit, result["error"])
        return "%s ended without a result (%s, status %s): %s" % (
            self.unit,
            unit.get("Result"),
            unit.get("ExecMainStatus"),
            " | ".join(log[-5:]) or "its journal is empty",
        )

    def credential_files(self):
        return {
            os.path.join(self.credentials_directory, name + ".json"): json.dumps(content, sort_keys=True)
            for name, content in self.module.params["credentials"].items()
        }

    def write_credentials(self):
        """Write the credentials for root alone; return whether any was another before."""
        changed = False
        for path, text in self.credential_files().items():
            try:
                with open(path, encoding="utf-8") as file:
                    if file.read() == text:
                        continue
            except FileNotFoundError:
                pass
            changed = True
            if not self.module.check_mode:
                parent = os.path.dirname(self.module.params["credentials_dir"].rstrip("/"))
                for directory in (parent, self.module.params["credentials_dir"], self.credentials_directory):
                    if not os.path.isdir(directory) or directory != parent:
                        make_directory(directory, 0o700, 0, 0)
                write_file(path, text, 0o600, 0, 0)
        return changed

    def write_config(self):
        """Write configuration and settings; return whether they were others before."""
        if read_json(self.path("config.json")) == self.document:
            return False
        if not self.module.check_mode:
            try:
                uid = pwd.getpwnam(self.module.params["user"]).pw_uid
                gid = grp.getgrnam(self.module.params["user"]).gr_gid
            except KeyError:
                self.module.fail_json(
                    msg="There is no user and group %s on this node: run role deeptrain.cluster.runtime first" % self.module.params["user"]
                )
            make_directory(os.path.dirname(self.directory), 0o755, uid, gid)
            make_directory(self.directory, 0o755, uid, gid)
            write_file(self.path("config.json"), json.dumps(self.document, indent=2, sort_keys=True) + "\n", 0o640, 0, gid)
        return True

    def forget_last(self):
        """Remove what an earlier start left, so that it is not taken for this one's."""
        for name in ("result.json", "progress.jsonl"):
            if os.path.exists(self.path(name)):
                os.unlink(self.path(name))


def start(job, state, unit, action):
    """Start the job when that is the action; return whether the task changed anything."""
    module = job.module
    if action != "start":
        return False
    if unit.get("LoadState") != "loaded":
        if module.check_mode:
            return True  # the unit would be installed by now
        module.fail_json(msg="%s is not installed on this node: run its role first" % job.unit, unit=job.unit)
    recheck = state == DONE
    job.write_config()
    job.write_credentials()
    if not module.check_mode:
        job.forget_last()
        if unit.get("NeedDaemonReload") == "yes":
            job.systemctl("daemon-reload")
        if unit.get("ActiveState") == "failed":
            job.systemctl("reset-failed", job.unit)
        job.systemctl("start", job.unit)
    # Whether a job that checks its own work changed anything, its result tells.
    return not recheck


def arm(job, state, action):
    """Leave what the job needs, for something else to start it; return whether anything changed."""
    if action != "start" or state == FAILED and read_json(job.path("config.json")) == job.document:
        # A failed job is not started here, but has what it needs for the next time.
        return job.write_credentials() if state == FAILED else False
    config = job.write_config()
    credentials = job.write_credentials()
    if state == FAILED and not job.module.check_mode:
        job.forget_last()
    return config or credentials


def stop(job, state):
    if state != RUNNING:
        return False
    if not job.module.check_mode:
        # Returns when the job has ended; the unit's TimeoutStopSec bounds it.
        job.systemctl("stop", job.unit)
    return True


def main():
    module = AnsibleModule(
        argument_spec=dict(
            kind=dict(type="str", required=True),
            run=dict(type="str", required=True),
            state=dict(type="str", choices=["started", "armed", "stopped", "observed"], default="started"),
            config=dict(type="dict", default={}),
            settings=dict(type="dict", default={}),
            credentials=dict(type="dict", default={}, no_log=True),
            overwrite=dict(type="bool", default=False),
            recheck=dict(type="bool", default=False),
            user=dict(type="str", default="deeptrain"),
            state_dir=dict(type="path", default="/var/lib/deeptrain"),
            credentials_dir=dict(type="path", default="/run/deeptrain/credentials"),
            wait=dict(type="bool", default=True),
            timeout=dict(type="int", default=0),
            poll=dict(type="float", default=2),
            unreachable_timeout=dict(type="int", default=600),
            progress_offset=dict(type="int", default=0, no_log=False),
        ),
        supports_check_mode=True,
    )
    params = module.params
    if not RUN_NAME.fullmatch(params["run"]):
        module.fail_json(
            msg="deeptrain_run is '%s': use at most 63 of a-z, 0-9, dot, dash and underscore, a letter or digit first" % params["run"]
        )
    if not KIND_NAME.fullmatch(params["kind"]):
        module.fail_json(msg="kind is '%s': use lower case letters, digits and dashes" % params["kind"])

    job = Job(module)
    state, stored, unit = job.look()
    difference = differences(stored.get("config"), job.config) if stored and job.config else {}
    changed = False
    # A configuration that nothing has begun to work on binds nobody.
    before = stored if stored is not None and state != NONE else {}

    if params["state"] in ("started", "armed"):
        try:
            action = decide(state, difference, params["overwrite"], params["recheck"])
        except Refused as refusal:
            module.fail_json(
                msg="Job %s of run %s is %s" % (params["kind"], params["run"], refusal), difference=difference, unit=job.unit, job_state=state
            )
        if params["state"] == "started":
            changed = start(job, state, unit, action)
        else:
            changed = arm(job, state, action)
    elif params["state"] == "stopped":
        changed = stop(job, state)

    told = job.snapshot()
    if changed and params["state"] in ("started", "armed"):
        told["diff"] = {"before": before, "after": job.document, "before_header": job.unit, "after_header": job.unit}
    message = told.pop("msg", None)
    if message and params["state"] == "started" and not module.check_mode:
        module.fail_json(msg=message, changed=changed, **told)
    if message:
        told["reason"] = message
    if difference and params["state"] == "observed":
        told["reason"] = describe(difference)
    module.exit_json(changed=changed, **told)


if __name__ == "__main__":
    main()
