# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3, with errors that say which variable to look at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import botocore.config
import botocore.exceptions

from deeptrain.job import BadInput, JobError

_CREDENTIALS = "deeptrain_s3_access_key_id and deeptrain_s3_secret_access_key (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
# The last one is versitygw's own.
_WRONG_CREDENTIALS = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "ExpiredToken",
    "AuthorizationHeaderMalformed",
    "XAdminUserNotFound",
)


@dataclass(frozen=True)
class Object:
    """An object of a listing: its key, its length in bytes, its ETag with quotes, its last change in seconds since 1970."""

    key: str
    length: int
    etag: str
    modified: int


def connect(s3: dict, credentials: dict, connections: int = 16):
    """A boto3 client from ``endpoint_url``, ``region``, ``addressing_style`` and ``ca_bundle``, each of them optional.

    Without credentials boto3 looks for its own: a profile, or the machine's role.
    """
    # An empty string is a variable left out; boto3 wants None there.
    given = {name: value for name, value in credentials.items() if value}
    try:
        return _client(s3, given, connections)
    except ValueError as error:
        raise BadInput(f"S3 cannot be used ({error}): check deeptrain_s3_endpoint_url, http://HOST:PORT or https://HOST") from error


def _client(s3: dict, given: dict, connections: int):
    return boto3.session.Session().client(
        "s3",
        endpoint_url=s3.get("endpoint_url") or None,
        region_name=s3.get("region") or None,
        verify=s3.get("ca_bundle") or None,
        config=botocore.config.Config(
            s3={"addressing_style": s3.get("addressing_style") or "auto"},
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=connections,
            # Every object is verified by its digest here; servers other than AWS do not all know the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **given,
    )


def split_url(url: str, variable: str) -> tuple[str, str]:
    """Bucket and prefix, without slashes at its ends, of ``s3://BUCKET/PREFIX``."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket or not prefix.strip("/"):
        raise BadInput(f"{variable} is '{url}': write s3://BUCKET/PREFIX")
    return bucket, prefix.strip("/")


@contextlib.contextmanager
def explained(url: str, variable: str, s3: dict) -> Iterator[None]:
    """Turns boto3's errors into one sentence that names the variable to mend."""
    endpoint = s3.get("endpoint_url") or "AWS"
    try:
        yield
    except botocore.exceptions.SSLError as error:
        raise BadInput(f"S3 at {endpoint} has a certificate that is not trusted ({error}): set deeptrain_s3_ca_bundle to its authority's PEM file") from error
    except (
        botocore.exceptions.EndpointConnectionError,
        botocore.exceptions.ConnectTimeoutError,
        botocore.exceptions.ConnectionClosedError,
        botocore.exceptions.ReadTimeoutError,
        botocore.exceptions.ProxyConnectionError,
    ) as error:
        raise JobError(f"S3 at {endpoint} does not answer ({error}): check deeptrain_s3_endpoint_url") from error
    except botocore.exceptions.NoCredentialsError as error:
        raise BadInput(f"There are no S3 credentials: set {_CREDENTIALS}, or give the machine a role") from error
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise BadInput(f"S3 at {endpoint} cannot be used ({error}): check deeptrain_s3_endpoint_url and deeptrain_s3_region") from error
    except botocore.exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = f"S3 at {endpoint} says {code or status}"
        if code == "NoSuchBucket":
            raise BadInput(f"{said}: the bucket of {variable}, {url}, is not there") from error
        if code in _WRONG_CREDENTIALS:
            raise BadInput(f"{said}: check {_CREDENTIALS}, and deeptrain_s3_region") from error
        if code in ("AccessDenied", "AllAccessDisabled") or status == 403:
            raise BadInput(f"{said} for {url}: check {_CREDENTIALS}, and what they may do with {variable}") from error
        if code in ("PermanentRedirect", "IllegalLocationConstraintException", "301") or status == 301:
            raise BadInput(f"{said}: the bucket of {variable} is in another region, check deeptrain_s3_region") from error
        raise JobError(f"{said} for {url} ({error}): check {variable} and deeptrain_s3_endpoint_url") from error


def list_objects(client, bucket: str, prefix: str) -> list[Object]:
    """All objects below a prefix, by key; names that end with a slash stand for directories and are left out."""
    found = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                found.append(Object(item["Key"], item["Size"], item["ETag"], int(item["LastModified"].timestamp())))
    return sorted(found, key=lambda item: item.key)
