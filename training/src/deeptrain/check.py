# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the source can be read and the target written, before anything depends on it."""

from __future__ import annotations

from pathlib import Path

from deeptrain import s3
from deeptrain.archive import Archive
from deeptrain.identity import Identity, read_identity
from deeptrain.job import BadInput, Job, Outcome
from deeptrain.resnet import options
from deeptrain.staging import list_source

PROBE = ".deeptrain-probe"


def probe(client, url: str, settings: dict) -> None:
    """Puts, reads, lists and removes an object below an S3 URL, as the export does."""
    bucket, prefix = s3.split_url(url, "deeptrain_export_url")
    key = f"{prefix}/{PROBE}"
    with s3.as_job_errors(url, "deeptrain_export_url", settings):
        client.put_object(Bucket=bucket, Key=key, Body=b"")
        client.get_object(Bucket=bucket, Key=key)["Body"].close()
        s3.list_objects(client, bucket, prefix)
        client.delete_object(Bucket=bucket, Key=key)


def check_options(command: list[str]) -> None:
    """Raises BadInput for options that the collection's own program refuses; those of another program are not known."""
    if command[1:3] == ["-m", options.PROGRAM]:
        # The units give it the directories.
        try:
            options.parse(["--data-dir=.", "--job-dir=.", *command[3:]])
        except SystemExit as error:
            raise BadInput("deeptrain_training_options has help, which trains nothing: leave it out") from error


def check(job: Job) -> Outcome:
    """Checks the options of the job's ``command`` and S3: lists its ``source``, reads there, and writes below its ``export``.

    A run's name that S3 has for another command is refused. The data's manifest is not known yet: the training compares that, too.
    """
    check_options(job.settings.get("command", []))
    settings = job.config["s3"]
    # A user waits for the answer, not a node that is booting.
    client = s3.connect(settings, job.credentials("s3"), wait=False)
    source = job.config["source"]
    objects = list(list_source(client, source, settings).values())
    with s3.as_job_errors(source, "deeptrain_data_url", settings):
        bucket = s3.split_url(source, "deeptrain_data_url")[0]
        client.get_object(Bucket=bucket, Key=objects[0].key)["Body"].close()
    if job.settings.get("command") and not job.settings.get("replace"):
        known = read_identity(Path(job.settings["training_dir"])) if job.settings.get("training_dir") else Identity()
        identity = Identity({"command": job.settings["command"]}, known.training_id)
        Archive(job.config["export"], settings, job.credentials("s3"), job.stop, wait=False).refuse_foreign(identity)
    probe(client, job.config["export"], settings)
    return Outcome(changed=False, summary={"objects": len(objects), "bytes": sum(item.length for item in objects)})
