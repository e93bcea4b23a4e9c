# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the source can be read and the target written, before anything depends on it."""

from __future__ import annotations

from deeptrain import s3
from deeptrain.job import BadInput, Job, Outcome

PROBE = ".deeptrain-probe"


def probe(client, url: str, settings: dict) -> None:
    """Puts an object below an S3 URL and removes it."""
    bucket, prefix = s3.split_url(url, "deeptrain_export_url")
    with s3.explained(url, "deeptrain_export_url", settings):
        client.put_object(Bucket=bucket, Key=f"{prefix}/{PROBE}", Body=b"")
        client.delete_object(Bucket=bucket, Key=f"{prefix}/{PROBE}")


def check(job: Job) -> Outcome:
    """Lists the job's ``source`` and writes below its ``export``."""
    settings = job.config["s3"]
    client = s3.connect(settings, job.credentials("s3"))
    bucket, prefix = s3.split_url(job.config["source"], "deeptrain_data_url")
    with s3.explained(job.config["source"], "deeptrain_data_url", settings):
        objects = s3.list_objects(client, bucket, prefix)
    if not objects:
        raise BadInput(f"There is no object under {job.config['source']}: check deeptrain_data_url, or put the data there")
    probe(client, job.config["export"], settings)
    return Outcome(changed=False, summary={"objects": len(objects), "bytes": sum(item.length for item in objects)})
