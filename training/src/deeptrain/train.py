# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the chief's training command as a job.

The command is anybody's. Around it: the environment of the contract, a watch on
its progress, copies of the last checkpoint to S3, and the mark of success.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from deeptrain import checkpoint, s3
from deeptrain.command import resolved
from deeptrain.export import read_metrics
from deeptrain.hdfs import Hdfs
from deeptrain.job import EXIT_BAD_INPUT, BadInput, Job, JobError, Outcome, Stopped

SUCCESS = "_SUCCESS"
# What a command gets to save a checkpoint when it is told to end.
STOP_SECONDS = 240


def task_environment(config: dict) -> dict[str, str]:
    """The whole environment of a training command, by ``run``, ``tf_config``, ``data_url``, ``model_url``, ``cache_dir``,
    and, of the chief alone, ``export_dir`` and ``progress_file``."""
    environment = {name: value for name, value in os.environ.items() if name != "CREDENTIALS_DIRECTORY"}
    environment.update({str(name): str(value) for name, value in config.get("environment", {}).items()})
    environment.update(
        TF_CONFIG=json.dumps(config["tf_config"]),
        DEEPTRAIN_RUN=config["run"],
        DEEPTRAIN_DATA_URL=config["data_url"],
        DEEPTRAIN_MODEL_URL=config["model_url"],
        DEEPTRAIN_CACHE_DIR=config["cache_dir"],
    )
    for name in ("export_dir", "progress_file"):
        if config.get(name):
            environment[f"DEEPTRAIN_{name.upper()}"] = str(config[name])
    return environment


class CheckpointCopier:
    """Copies the last checkpoint from HDFS to S3 every so often, its index last. A copy that fails is tried again."""

    def __init__(self, job: Job, model: Hdfs):
        self.url = job.settings.get("checkpoint_url", "")
        self.seconds = 60.0 * float(job.settings.get("checkpoint_minutes", 10))
        self.directory = Hdfs(f"{model.url}/{checkpoint.DIRECTORY}")
        if self.url:
            self.s3 = job.settings["s3"]
            self.bucket, self.prefix = s3.split_url(self.url, "deeptrain_export_url")
            self.client = s3.connect(self.s3, job.credentials("s3"))
        self._copied = None
        self._ended = threading.Event()

    def start(self) -> None:
        if self.url and self.seconds > 0:
            threading.Thread(target=self._work, daemon=True).start()

    def end(self) -> None:
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(self.seconds):
            try:
                self.copy()
            except (JobError, OSError) as error:
                # A checkpoint may be replaced by a newer one meanwhile.
                print(f"The checkpoint is not copied to S3 this time: {error}", file=sys.stderr, flush=True)

    def copy(self) -> str | None:
        """Copies the last checkpoint if it is another than last time; returns its name."""
        found = checkpoint.find(self.directory)
        if found is None or found[0] == self._copied:
            return None
        name, index, files = found
        with tempfile.TemporaryDirectory() as scratch, s3.explained(self.url, "deeptrain_export_url", self.s3):
            for path in files:
                local = Path(scratch, path)
                self.directory.download(path, local)
                s3.upload(self.client, local, self.bucket, f"{self.prefix}/{path}")
                local.unlink()
            self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{checkpoint.INDEX}", Body=index)
            for item in s3.list_objects(self.client, self.bucket, self.prefix):
                if item.key.rsplit("/", 1)[-1] not in [*files, checkpoint.INDEX]:
                    self.client.delete_object(Bucket=self.bucket, Key=item.key)
        self._copied = name
        return name


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _end(process: subprocess.Popen, seconds: float) -> int:
    """Tells the command to end, and ends it when it has not."""
    os.killpg(process.pid, signal.SIGTERM)
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def describe_servers(tf_config: dict) -> str:
    """The units that a training needs, and where they are."""
    cluster = tf_config.get("cluster", {})
    return " and ".join(f"deeptrain-{kind} on {', '.join(cluster.get(kind, ['its hosts']))}" for kind in ("ps", "worker"))


def supervise(job: Job, command: list[str], environment: dict[str, str], patience: float, servers: str) -> None:
    """Runs the command until it has succeeded; raises what else became of it.

    ``patience`` is the time without progress, in seconds, after which it is ended;
    ``servers`` tells people where to look then.
    """
    try:
        process = subprocess.Popen(resolved(command), env=environment, start_new_session=True)
    except OSError as error:
        raise BadInput(f"The training command cannot be run ({error}): check deeptrain_command, {command}") from error
    size, moved = _size(job.progress_file), time.monotonic()
    while True:
        try:
            status = process.wait(0.5)
            break
        except subprocess.TimeoutExpired:
            pass
        if job.stop.is_set():
            _end(process, STOP_SECONDS)
            raise Stopped
        if _size(job.progress_file) != size:
            size, moved = _size(job.progress_file), time.monotonic()
        elif time.monotonic() - moved > patience:
            _end(process, 10)
            raise JobError(f"The training made no progress for {patience:.0f} s: see that {servers} run, then run train.yml")
    if job.stop.is_set():
        raise Stopped
    if status == EXIT_BAD_INPUT:
        raise BadInput("The training command refused its input: the unit's journal says what to change (deeptrain_training, deeptrain_command)")
    if status != 0:
        raise JobError(f"The training command ended with status {status}: the unit's journal says why; run train.yml and it goes on from the last checkpoint")


def train(job: Job) -> Outcome:
    """Trains, by the job's ``command``, ``data_url`` and ``model_url``."""
    settings = job.settings
    model = Hdfs(job.config["model_url"])
    export_dir = Path(settings["export_dir"])
    export_dir.mkdir(parents=True, exist_ok=True)
    Path(settings["cache_dir"]).mkdir(parents=True, exist_ok=True)
    model.mkdirs()
    model.delete(SUCCESS)
    environment = task_environment({**settings, **job.config, "progress_file": job.progress_file})
    copier = CheckpointCopier(job, model)
    copier.start()
    try:
        supervise(job, job.config["command"], environment, float(settings.get("no_progress_seconds", 900)), describe_servers(settings["tf_config"]))
    finally:
        copier.end()
    if not any(export_dir.iterdir()):
        raise BadInput(f"The training command left nothing in DEEPTRAIN_EXPORT_DIR ({export_dir}): it must leave there what is to be exported")
    summary = read_metrics(export_dir)
    model.write_bytes(SUCCESS, b"")
    return Outcome(summary=summary)
