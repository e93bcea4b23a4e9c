# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where shards go: an S3 prefix, or a directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from shards import Failure


class Directory:
    """A local directory."""

    def __init__(self, path: str):
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failure(f"{path} cannot be made a directory: {error.strerror}") from error

    def digests(self) -> dict[str, str]:
        """The MD5 of each file by its name."""
        found = {}
        for path in self.path.iterdir():
            if path.is_file():
                with path.open("rb") as file:
                    found[path.name] = hashlib.file_digest(file, "md5").hexdigest()
        return found

    def put(self, name: str, content: bytes) -> None:
        """Write a file, which appears under its name when it is complete."""
        partial = self.path / f".{name}.partial"
        partial.write_bytes(content)
        os.replace(partial, self.path / name)

    def remove(self, name: str) -> None:
        (self.path / name).unlink()


class S3:
    """A prefix in an S3 bucket; endpoint, region and credentials come from the environment (AWS_*)."""

    def __init__(self, url: str):
        # Slow to import, and needed here only.
        import boto3

        self.url = url.rstrip("/")
        self.bucket, self.prefix = (self.url.removeprefix("s3://").split("/", 1) + [""])[:2]
        if not self.bucket or not self.prefix:
            raise Failure(f"{url!r} is not like s3://BUCKET/PREFIX")
        try:
            self.client = boto3.client("s3")
        except Exception as error:  # boto3 has several bases for a wrong endpoint, profile or region
            raise Failure(f"S3 cannot be used ({error}): check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION") from error

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise Failure(
                f"{self.url} at {self.client.meta.endpoint_url}: {error}; check the bucket, AWS_ENDPOINT_URL, "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error

    def digests(self) -> dict[str, str]:
        """The ETag of each object by its name; it is the MD5 where the object was put in one piece."""
        with self._explained():
            return {
                item["Key"].removeprefix(f"{self.prefix}/"): item["ETag"].strip('"')
                for page in self.client.get_paginator("list_objects_v2").paginate(
                    Bucket=self.bucket, Prefix=f"{self.prefix}/"
                )
                for item in page.get("Contents", ())
            }

    def put(self, name: str, content: bytes) -> None:
        with self._explained():
            self.client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=content)

    def get(self, name: str) -> bytes:
        with self._explained():
            return self.client.get_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")["Body"].read()

    def remove(self, name: str) -> None:
        with self._explained():
            self.client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}")


def store(where: str) -> S3 | Directory:
    """The store of an s3:// URL or of a directory's path."""
    return S3(where) if where.startswith("s3://") else Directory(where)
