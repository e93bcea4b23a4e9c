# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""S3, with errors that say which variable to look at."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import heapq
import os
import random
import re
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import boto3
import boto3.exceptions
import botocore.config
import botocore.exceptions

from deeptrain.job import BadInput, JobError, Stopped
from deeptrain.patience import Patience

_CREDENTIALS = "deeptrain_s3_access_key_id and deeptrain_s3_secret_access_key (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
# The last one is versitygw's own.
_WRONG_CREDENTIALS = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "AuthorizationHeaderMalformed",
    "XAdminUserNotFound",
)
_SKEWED_CLOCK = ("RequestTimeTooSkewed", "RequestExpired")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired")
_FULL = ("QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded")
_CHANGED = ("PreconditionFailed", "412", "NoSuchKey", "404")
_CHUNK_BYTES = 4 * 1024 * 1024

# What S3 puts off: too many requests, or a server of its own that fails for the moment.
_THROTTLED = ("SlowDown", "ServiceUnavailable", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "RequestThrottled")
_TRANSIENT = ("InternalError", "RequestTimeout", "RequestTimeoutException", "OperationAborted")
_THROTTLED_STATUS = (429, 503)
_TRANSIENT_STATUS = (*_THROTTLED_STATUS, 500, 502, 504)
# How long an operation is repeated without any progress, and how long for an endpoint that has never answered.
PATIENCE_SECONDS = 300.0
CONNECT_PATIENCE_SECONDS = 3.0
_LONGEST_DELAY = 20.0

# The ETag may be the MD5 of the content: on AWS for an object that was put in one piece, unless one of these encrypts it.
_MD5 = re.compile(r'"([0-9a-f]{32})"')
_NO_MD5_ENCRYPTION = ("aws:kms", "aws:kms:dsse")
# Other objects that are read to see whether a server's ETags are MD5s.
_SAMPLES = 4


# What becomes of a connection.
_BROKEN = (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError, botocore.exceptions.IncompleteReadError)
_NO_ROLE = (botocore.exceptions.CredentialRetrievalError, botocore.exceptions.MetadataRetrievalError)


class Changed(Exception):
    """An object is not what it was when it was listed."""


class Damaged(Changed):
    """An object's bytes are not those of its checksum, or of an ETag that may be their MD5."""


@dataclass(frozen=True, slots=True)
class Object:
    """An object of a listing: its key, its length in bytes, its ETag with quotes (empty where a server has none), its last change in seconds since 1970."""

    key: str
    length: int
    etag: str
    modified: int


class Retries:
    """Repeats the requests of a client that S3 puts off, with exponential back-off and jitter.

    botocore's own retries end after some tries of all threads together, which is seconds.
    """

    def __init__(self, stop: threading.Event | None, wait: bool):
        self._stop = stop
        self._codes = (*_THROTTLED, *_TRANSIENT, *(_SKEWED_CLOCK if wait else ()))
        # A wrong endpoint is found quickly; one that has answered before comes back.
        self._answered = False

    def delay(self, attempts: int, response, caught_exception, request_dict: dict, operation, **_unused) -> float | None:
        """Seconds until a request is repeated, None to leave it as it is; botocore's event ``needs-retry``."""
        if caught_exception is None:
            self._answered = True
            status, parsed = response[0].status_code, response[1]
            code = parsed.get("Error", {}).get("Code", "") if status >= 300 else ""
            if status not in _TRANSIENT_STATUS and code not in self._codes:
                return None
            said = code or status
        elif isinstance(caught_exception, botocore.exceptions.SSLError) or not isinstance(caught_exception, _BROKEN):
            return None
        else:
            said = type(caught_exception).__name__
        if self._stop is not None and self._stop.is_set():
            raise Stopped
        patience = request_dict["context"].setdefault("deeptrain_patience", Patience(PATIENCE_SECONDS if self._answered else CONNECT_PATIENCE_SECONDS))
        if not patience.lasts():
            return None
        delay = backoff(attempts)
        if delay > 2:
            print(f"S3 answers {said} to {operation.name}: repeated in {delay:.0f} s", file=sys.stderr, flush=True)
        return delay


def backoff(attempts: int) -> float:
    """Seconds to wait after so many failures in succession."""
    return random.uniform(0.5, 1) * min(0.5 * 2.0**attempts, _LONGEST_DELAY)


def connect(s3: dict, credentials: dict, connections: int = 16, stop: threading.Event | None = None, wait: bool = True):
    """A boto3 client from ``endpoint_url``, ``region``, ``addressing_style``, ``ca_bundle`` and ``proxy``, each of them optional.

    Without credentials boto3 uses its own: a profile, or the machine's role. While S3 throttles or fails, its
    calls wait for minutes; once ``stop`` is set they raise Stopped. With ``wait`` they do so, too, for what a node may lack
    for minutes after its boot: the credentials of its role, and the right time.
    """
    # An empty string is a variable left out; boto3 wants None there.
    given = {name: value for name, value in credentials.items() if value}
    session = boto3.session.Session()
    try:
        if not given:
            _wait_for_role(session, PATIENCE_SECONDS if wait else 0, stop)
        client = _client(session, s3, given, connections)
    except _NO_ROLE as error:
        raise _no_credentials(error) from error
    except (botocore.exceptions.PartialCredentialsError, botocore.exceptions.ProfileNotFound) as error:
        raise BadInput(f"S3 cannot be used ({error}): set both {_CREDENTIALS}") from error
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise BadInput(
            f"S3 cannot be used ({error}): check deeptrain_s3_endpoint_url (http://HOST:PORT or https://HOST),"
            " deeptrain_s3_region and deeptrain_s3_addressing_style"
        ) from error
    client.meta.events.register("needs-retry.s3", Retries(stop, wait).delay)
    return client


def _wait_for_role(session: boto3.session.Session, seconds: float, stop: threading.Event | None) -> None:
    """Waits until boto3 finds credentials: it asks the metadata service once, which may answer later than this node boots.

    Returns without any when the time is up, since the first request says so.
    """
    patience, attempts = Patience(seconds), 0
    while True:
        try:
            if session.get_credentials() is not None:
                return
            said = "the metadata service has none"
        except _NO_ROLE as error:
            if not patience.lasts():
                raise
            said = str(error)
        if stop is not None and stop.is_set():
            raise Stopped
        if not patience.lasts():
            return
        delay = backoff(attempts)
        attempts += 1
        print(f"Waits {delay:.0f} s for the S3 credentials of the machine's role: {said}", file=sys.stderr, flush=True)
        time.sleep(delay)


def _no_credentials(error: Exception) -> JobError:
    if isinstance(error, botocore.exceptions.NoCredentialsError):
        return JobError(f"There are no S3 credentials: set {_CREDENTIALS}, or give the machine a role")
    return JobError(f"The machine's role gives no S3 credentials ({error}): check the role, or set {_CREDENTIALS}")


def _client(session: boto3.session.Session, s3: dict, given: dict, connections: int):
    return session.client(
        "s3",
        endpoint_url=s3.get("endpoint_url") or None,
        region_name=s3.get("region") or None,
        verify=s3.get("ca_bundle") or None,
        config=botocore.config.Config(
            s3={"addressing_style": s3.get("addressing_style") or "auto"},
            connect_timeout=5,
            read_timeout=60,
            # See Retries.
            retries={"mode": "standard", "total_max_attempts": 1},
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
def as_job_errors(url: str, variable: str, s3: dict) -> Iterator[None]:
    """Turns boto3's errors into one sentence that names the variable to change."""
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
    except (botocore.exceptions.NoCredentialsError, *_NO_ROLE) as error:
        raise _no_credentials(error) from error
    except botocore.exceptions.ParamValidationError as error:
        raise BadInput(f"{variable}, {url}, is not possible in S3 ({error}): check {variable}") from error
    except botocore.exceptions.FlexibleChecksumError as error:
        raise JobError(f"S3 at {endpoint} sent other bytes than their checksum says, for {url} ({error}): see the server's disks, then run it again") from error
    except (ValueError, botocore.exceptions.BotoCoreError) as error:
        raise BadInput(f"S3 at {endpoint} cannot be used ({error}): check deeptrain_s3_endpoint_url and deeptrain_s3_region") from error
    except botocore.exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code") or ""
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = f"S3 at {endpoint} says {code or status}"
        if code == "NoSuchBucket":
            raise BadInput(f"{said}: the bucket of {variable}, {url}, is not there") from error
        if code == "InvalidBucketName":
            raise BadInput(f"{said}: check the bucket's name in {variable}, {url}") from error
        if code == "InvalidObjectState":
            raise BadInput(f"{said}: an object of {variable}, {url}, is archived, restore it first") from error
        if code in _SKEWED_CLOCK:
            raise JobError(f"{said}: the clock of this machine{_clock_difference(error.response)}, set it by NTP (timedatectl set-ntp true)") from error
        if code in _EXPIRED:
            raise BadInput(f"{said}: the session token has expired, set {_CREDENTIALS} and deeptrain_s3_session_token to new ones") from error
        if code in _WRONG_CREDENTIALS:
            raise BadInput(f"{said}: check {_CREDENTIALS}, and deeptrain_s3_region") from error
        if code.startswith("KMS."):
            raise BadInput(f"{said} for {url} ({error}): the key in KMS that encrypts {variable} cannot be used, check its state and who may use it") from error
        if code in _FULL or status == 507:
            raise JobError(f"{said} for {url}: the storage or its quota is full, free some or raise the quota, then run it again") from error
        if code in _THROTTLED or status in _THROTTLED_STATUS:
            raise JobError(
                f"{said} for {url}, and did for {PATIENCE_SECONDS / 60:.0f} minutes: it throttles, so run it again later,"
                " or with fewer requests at a time (data_staging_parallel)"
            ) from error
        if code in _TRANSIENT or status in _TRANSIENT_STATUS:
            raise JobError(
                f"{said} for {url}, and did for {PATIENCE_SECONDS / 60:.0f} minutes: the server itself fails, see its log or its status page, then run it again"
            ) from error
        if code in ("AccessDenied", "AllAccessDisabled") or status == 403:
            raise BadInput(f"{said} for {url}: check {_CREDENTIALS}, and what they may do with {variable}") from error
        if code in ("PermanentRedirect", "IllegalLocationConstraintException", "301") or status == 301:
            raise BadInput(f"{said}: the bucket of {variable} is in another region, check deeptrain_s3_region") from error
        raise JobError(f"{said} for {url} ({error}): check {variable} and deeptrain_s3_endpoint_url") from error


def _clock_difference(response: dict) -> str:
    """How far this machine's clock is from S3's, by the answer's date."""
    try:
        there = email.utils.parsedate_to_datetime(response["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
    except (LookupError, TypeError, ValueError):
        return " differs from that of S3"
    seconds = time.time() - there
    return f" is {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} that of S3"


def iterate_objects(client, bucket: str, prefix: str) -> Iterator[Object]:
    """The objects below a prefix, in pages; empty ones whose names end with a slash stand for directories and are left out."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/"):
        for item in page.get("Contents", ()):
            if item["Size"] or not item["Key"].endswith("/"):
                yield Object(item["Key"], item["Size"], item.get("ETag", ""), int(item["LastModified"].timestamp()))


def list_objects(client, bucket: str, prefix: str) -> list[Object]:
    """All objects below a prefix, by key."""
    return sorted(iterate_objects(client, bucket, prefix), key=lambda item: item.key)


def _is_listed(client, bucket: str, item: Object) -> bool:
    """Whether a listing has an object as it was."""
    for other in client.list_objects_v2(Bucket=bucket, Prefix=item.key, MaxKeys=1).get("Contents", ()):
        return (other["Key"], other["Size"], other.get("ETag", ""), int(other["LastModified"].timestamp())) == (item.key, item.length, item.etag, item.modified)
    return False


def read(client, bucket: str, item: Object) -> Generator[bytes, None, bool]:
    """The content of a listed object, in chunks; a connection that breaks is resumed where it broke.

    Raises Changed when the object is another by now, and Damaged when its bytes are not those of its checksum
    or of its ETag. Returns whether the ETag was the MD5 of the content.
    """
    md5, position, plain, etag = hashlib.md5(usedforsecurity=False), 0, _MD5.fullmatch(item.etag), item.etag
    patience, failures = Patience(PATIENCE_SECONDS), 0
    while position < item.length:
        began = position
        # S3 has checksums of whole objects alone; botocore compares them.
        part = {"Range": f"bytes={position}-"} if position else {"ChecksumMode": "ENABLED"}
        try:
            answer = client.get_object(Bucket=bucket, Key=item.key, **({"IfMatch": etag} if etag else {}), **part)
            if answer.get("ServerSideEncryption") in _NO_MD5_ENCRYPTION or answer.get("SSECustomerAlgorithm"):
                plain = None
            with contextlib.closing(answer["Body"]) as body:
                while chunk := body.read(_CHUNK_BYTES):
                    position += len(chunk)
                    md5.update(chunk)
                    yield chunk
                    patience.moved(position)
                    failures = 0
            if position == began:
                # An answer without any content is none.
                raise botocore.exceptions.IncompleteReadError(actual_bytes=position, expected_bytes=item.length)
        except botocore.exceptions.FlexibleChecksumError as error:
            raise Damaged from error
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] not in _CHANGED:
                raise
            # Some servers list another ETag than the object itself has, of encrypted ones for instance.
            if position or etag != item.etag or not _is_listed(client, bucket, item):
                raise Changed from error
            etag, plain = client.head_object(Bucket=bucket, Key=item.key)["ETag"], None
            if etag == item.etag:
                raise Changed from error
        except _BROKEN:
            time.sleep(backoff(failures))
            failures += 1
            if not patience.lasts():
                raise
    if position != item.length:
        raise Changed
    if position and plain and plain.group(1) != md5.hexdigest():
        raise Damaged
    return bool(position and plain)


def _has_md5(client, bucket: str, item: Object) -> bool:
    chunks = read(client, bucket, item)
    while True:
        try:
            next(chunks)
        except StopIteration as end:
            return end.value
        except Changed:
            return False


def etags_are_md5(client, bucket: str, others: Iterable[Object]) -> bool:
    """Whether a server's ETags are MD5s of the content, by some other objects of a source, the smallest ones."""
    alike = (item for item in others if item.length and _MD5.fullmatch(item.etag))
    return any(_has_md5(client, bucket, item) for item in heapq.nsmallest(_SAMPLES, alike, key=lambda item: item.length))


def upload(client, path: str | os.PathLike, bucket: str, key: str) -> None:
    """Puts a file, in parts when it is large; raises botocore's errors alone."""
    try:
        client.upload_file(os.fspath(path), bucket, key)
    except boto3.exceptions.Boto3Error as error:
        # boto3 wraps what happened in an error of its own.
        raise error.__context__ or error from None
