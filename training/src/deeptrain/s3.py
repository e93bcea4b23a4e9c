# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3, with errors that say which variable to look at."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import boto3
import boto3.exceptions
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
_CHANGED = ("PreconditionFailed", "412", "NoSuchKey", "404")
_CHUNK_BYTES = 4 * 1024 * 1024
# How often an object is asked for without getting any further; boto3 repeats each of these by itself, too.
_TRIES = 5
# The ETag of an object that was put in one piece is the MD5 of its content, unless one of these encrypts it.
_MD5 = re.compile(r'"([0-9a-f]{32})"')
_NO_MD5_ENCRYPTION = ("aws:kms", "aws:kms:dsse")


# What becomes of a connection.
_BROKEN = (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError, botocore.exceptions.IncompleteReadError)


class Changed(Exception):
    """An object is not what it was when it was listed."""


@dataclass(frozen=True)
class Object:
    """An object of a listing: its key, its length in bytes, its ETag with quotes, its last change in seconds since 1970."""

    key: str
    length: int
    etag: str
    modified: int


def connect(s3: dict, credentials: dict, connections: int = 16):
    """A boto3 client from ``endpoint_url``, ``region``, ``addressing_style``, ``ca_bundle`` and ``proxy``, each of them optional.

    Without credentials boto3 looks for its own: a profile, or the machine's role.
    """
    # An empty string is a variable left out; boto3 wants None there.
    given = {name: value for name, value in credentials.items() if value}
    try:
        return _client(s3, given, connections)
    except botocore.exceptions.PartialCredentialsError as error:
        raise BadInput(f"S3 cannot be used ({error}): set both {_CREDENTIALS}") from error
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise BadInput(
            f"S3 cannot be used ({error}): check deeptrain_s3_endpoint_url (http://HOST:PORT or https://HOST),"
            " deeptrain_s3_region and deeptrain_s3_addressing_style"
        ) from error


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
            proxies={"http": s3["proxy"], "https": s3["proxy"]} if s3.get("proxy") else None,
            # Every object is verified by its digest here; servers other than AWS do not all know the newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
        **given,
    )


def split_url(url: str, variable: str) -> tuple[str, str]:
    """Bucket and prefix, without slashes at its ends, of ``s3://BUCKET/PREFIX``."""
    bucket, prefix = f"{url.removeprefix('s3://')}/".split("/", 1)
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
        if "WRONG_VERSION_NUMBER" in str(error):
            raise BadInput(f"S3 at {endpoint} speaks no TLS: write http:// in deeptrain_s3_endpoint_url") from error
        raise BadInput(f"S3 at {endpoint} has a certificate that is not trusted ({error}): set deeptrain_s3_ca_bundle to its authority's PEM file") from error
    except botocore.exceptions.ProxyConnectionError as error:
        raise JobError(f"The proxy for S3 does not answer ({error}): check deeptrain_s3_proxy") from error
    except _BROKEN as error:
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
        if code == "InvalidObjectState":
            raise BadInput(f"{said}: an object of {variable}, {url}, is archived, restore it first") from error
        if code in _WRONG_CREDENTIALS:
            raise BadInput(f"{said}: check {_CREDENTIALS}, and deeptrain_s3_region") from error
        if code in ("AccessDenied", "AllAccessDisabled") or status == 403:
            raise BadInput(f"{said} for {url}: check {_CREDENTIALS}, and what they may do with {variable}") from error
        if code in ("PermanentRedirect", "IllegalLocationConstraintException", "301") or status == 301:
            raise BadInput(f"{said}: the bucket of {variable} is in another region, check deeptrain_s3_region") from error
        raise JobError(f"{said} for {url} ({error}): check {variable} and deeptrain_s3_endpoint_url") from error


def list_objects(client, bucket: str, prefix: str) -> list[Object]:
    """All objects below a prefix, by key; empty ones whose names end with a slash stand for directories and are left out."""
    found = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
        for item in page.get("Contents", ()):
            if item["Size"] or not item["Key"].endswith("/"):
                found.append(Object(item["Key"], item["Size"], item["ETag"], int(item["LastModified"].timestamp())))
    return sorted(found, key=lambda item: item.key)


def read(client, bucket: str, item: Object) -> Iterator[bytes]:
    """The content of a listed object, in chunks; a connection that breaks is taken up where it broke.

    Raises Changed when the object is another by now.
    """
    md5, position, failures, plain = hashlib.md5(usedforsecurity=False), 0, 0, _MD5.fullmatch(item.etag)
    while position < item.length:
        began = position
        try:
            answer = client.get_object(Bucket=bucket, Key=item.key, IfMatch=item.etag, Range=f"bytes={position}-")
            if answer.get("ServerSideEncryption") in _NO_MD5_ENCRYPTION or answer.get("SSECustomerAlgorithm"):
                plain = None
            with contextlib.closing(answer["Body"]) as body:
                while chunk := body.read(_CHUNK_BYTES):
                    position += len(chunk)
                    md5.update(chunk)
                    yield chunk
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in _CHANGED:
                raise Changed from error
            raise
        except _BROKEN:
            failures = 1 if position > began else failures + 1
            if failures == _TRIES:
                raise
            time.sleep(failures)
    if position != item.length or plain and plain.group(1) != md5.hexdigest():
        raise Changed


def upload(client, path: str | os.PathLike, bucket: str, key: str) -> None:
    """Puts a file, in parts when it is large; raises botocore's errors alone."""
    try:
        client.upload_file(os.fspath(path), bucket, key)
    except boto3.exceptions.Boto3Error as error:
        # boto3 wraps what happened in an error of its own.
        raise error.__context__ or error from None
