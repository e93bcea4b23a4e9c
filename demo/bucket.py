# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make an S3 bucket unless it is there; print created or present.

The endpoint is a node's, so no proxy is used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import boto3
import botocore.config
import botocore.exceptions


def ensure(client, bucket: str) -> str:
    """What was done for the bucket to be there, ``created`` or ``present``."""
    if any(found["Name"] == bucket for found in client.list_buckets()["Buckets"]):
        return "present"
    client.create_bucket(Bucket=bucket)
    return "created"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("env_file", type=Path, help="AWS_*=VALUE lines: credentials, region, endpoint")
    parser.add_argument("bucket")
    options = parser.parse_args()
    env = dict(line.split("=", 1) for line in options.env_file.read_text(encoding="utf-8").splitlines())
    client = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        region_name=env["AWS_DEFAULT_REGION"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        config=botocore.config.Config(proxies={}, connect_timeout=5),
    )
    try:
        print(ensure(client, options.bucket))
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        sys.exit(f"bucket.py: bucket {options.bucket!r} at {env['AWS_ENDPOINT_URL']}: {error}")


if __name__ == "__main__":
    main()
