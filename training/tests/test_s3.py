# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of a real S3 server in words that name the variable to mend."""

from __future__ import annotations

import contextlib
import dataclasses
import email.utils
import io
import re
import secrets
import socket
import subprocess
import threading
import time
from types import SimpleNamespace

import boto3
import botocore.exceptions
import botocore.session
import pytest
from services import Proxy, metadata_service, s3_process

from deeptrain import patience, s3
from deeptrain.job import BadInput, JobError, Stopped


@pytest.fixture
def quick(monkeypatch):
    """The same number of tries in less time."""
    monkeypatch.setattr(s3, "_LONGEST_DELAY", 0.02, raising=False)


def listed(url, settings, credentials):
    with s3.as_job_errors(url, "deeptrain_data_url", settings):
        client = s3.connect(settings, credentials)
        return s3.list_objects(client, *s3.split_url(url, "deeptrain_data_url"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test"]
        + ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    return directory / "cert.pem", directory / "key.pem"


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory, certificate):
    with s3_process(tmp_path_factory.mktemp("s3-tls"), *certificate) as server:
        yield server


def test_an_own_authority(tls_server, certificate):
    settings = {**tls_server.settings, "ca_bundle": str(certificate[0])}
    assert listed(f"s3://{tls_server.bucket}/x", settings, tls_server.credentials) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "not trusted.*deeptrain_s3_ca_bundle"),
        ({"ca_bundle": "/nowhere.pem"}, "deeptrain_s3_ca_bundle"),
    ],
)
def test_a_certificate_that_is_not_trusted(tls_server, changes, words):
    settings = {**tls_server.settings, **changes}
    with pytest.raises(BadInput, match=words):
        listed(f"s3://{tls_server.bucket}/x", settings, tls_server.credentials)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"addressing_style": "round"}, "deeptrain_s3_addressing_style"),
        ({"region": "no region"}, "deeptrain_s3_region"),
        ({"endpoint_url": "http://nowhere.invalid:7070"}, "does not answer.*deeptrain_s3_endpoint_url"),
    ],
)
def test_wrong_settings(s3_server, changes, words):
    with pytest.raises(JobError, match=words):
        listed(f"s3://{s3_server.bucket}/x", {**s3_server.settings, **changes}, s3_server.credentials)


def test_tls_where_there_is_none(s3_server):
    settings = {**s3_server.settings, "endpoint_url": s3_server.endpoint.replace("http:", "https:")}
    with pytest.raises(BadInput, match="no TLS.*http://"):
        listed(f"s3://{s3_server.bucket}/x", settings, s3_server.credentials)


def test_half_of_the_credentials(s3_server):
    with pytest.raises(BadInput, match="set both deeptrain_s3_access_key_id and"):
        listed(f"s3://{s3_server.bucket}/x", s3_server.settings, {"aws_access_key_id": "tester", "aws_secret_access_key": ""})


def test_no_credentials(s3_server, monkeypatch, bare):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(s3, "PATIENCE_SECONDS", 0)
    with pytest.raises(JobError, match="no S3 credentials: set deeptrain_s3_access_key_id") as error:
        listed(f"s3://{s3_server.bucket}/x", s3_server.settings, {})
    # A start at the next boot may find the role.
    assert not isinstance(error.value, BadInput)
    # boto3's own chain.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.credentials["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.credentials["aws_secret_access_key"])
    assert listed(f"s3://{s3_server.bucket}/nothing", s3_server.settings, {}) == []


def test_a_role_that_is_late_is_waited_for(s3_server, monkeypatch, bare, quick):
    with metadata_service(s3_server.credentials, refusals=20) as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        assert listed(f"s3://{s3_server.bucket}/nothing", s3_server.settings, {}) == []


@pytest.mark.parametrize("error", [None, botocore.exceptions.CredentialRetrievalError(provider="iam-role", error_msg="no answer")])
def test_a_role_that_never_comes(s3_server, monkeypatch, quick, error):
    def get_credentials(_session):
        if error:
            raise error

    monkeypatch.setattr(boto3.session.Session, "get_credentials", get_credentials)
    monkeypatch.setattr(botocore.session.Session, "get_credentials", get_credentials)
    monkeypatch.setattr(s3, "PATIENCE_SECONDS", 0.2)
    with pytest.raises(JobError, match="role gives no S3 credentials" if error else "no S3 credentials: set") as raised:
        listed(f"s3://{s3_server.bucket}/x", s3_server.settings, {})
    assert not isinstance(raised.value, BadInput)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        s3.connect(s3_server.settings, {}, stop=stop)


@pytest.mark.parametrize("url", ["", "bucket/prefix", "s3://", "s3://bucket", "s3://bucket/", "http://bucket/prefix"])
def test_urls_that_are_none(url):
    with pytest.raises(BadInput, match=re.escape(f"deeptrain_export_url is '{url}': write s3://BUCKET/PREFIX")):
        s3.split_url(url, "deeptrain_export_url")


def test_names_that_stand_for_directories(s3_server):
    prefix = f"list-{secrets.token_hex(4)}"
    for key in ("directory/", "directory/x", "y"):
        s3_server.put(f"{prefix}/{key}", b"" if key.endswith("/") else b"1")
    assert [item.key for item in s3.list_objects(s3_server.client, s3_server.bucket, prefix)] == [f"{prefix}/directory/x", f"{prefix}/y"]


def test_more_objects_than_a_page(s3_server):
    prefix = f"many-{secrets.token_hex(4)}"
    directory = s3_server.directory / s3_server.bucket / prefix
    directory.mkdir()
    for index in range(1001):
        (directory / f"{index:04}").touch()
    assert len(s3.list_objects(s3_server.client, s3_server.bucket, prefix)) == 1001


def test_an_object_that_is_another(s3_server):
    key = f"read-{secrets.token_hex(4)}/x"
    s3_server.put(key, b"old")
    (item,) = s3.list_objects(s3_server.client, s3_server.bucket, key.rpartition("/")[0])
    assert b"".join(s3.read(s3_server.client, s3_server.bucket, item)) == b"old"
    s3_server.put(key, b"new")
    with pytest.raises(s3.Changed):
        list(s3.read(s3_server.client, s3_server.bucket, item))
    # What has the ETag, and yet other bytes.
    broken = s3.Object(key, 3, s3_server.client.head_object(Bucket=s3_server.bucket, Key=key)["ETag"], 0)
    (s3_server.directory / s3_server.bucket / key).write_bytes(b"bad")
    with pytest.raises(s3.Changed):
        list(s3.read(s3_server.client, s3_server.bucket, broken))


def test_an_upload_that_is_refused(s3_server, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(BadInput, match="deeptrain_export_url"), s3.as_job_errors("s3://nobodys/x", "deeptrain_export_url", s3_server.settings):
        s3.upload(s3_server.client, tmp_path / "x", "nobodys", "x")


class RefusingProxy(Proxy):
    """Answers the first requests itself."""

    def __init__(self, endpoint: str, status: int, code: str, count: int, date: float = 0):
        super().__init__(endpoint)
        self._left, self._lock, self.refused = count, threading.Lock(), 0
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>Please reduce your request rate.</Message></Error>"
        self._answer = (
            f"HTTP/1.1 {status} Refused\r\nContent-Type: application/xml\r\nDate: {email.utils.formatdate(time.time() + date, usegmt=True)}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        ).encode()

    def serve(self, client):
        with self._lock:
            refused, self._left = self._left > 0, self._left - 1
            self.refused += refused
        with contextlib.suppress(OSError), client:
            if refused:
                # Without reading what has been sent the connection would be reset.
                client.recv(65536)
                client.sendall(self._answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
                return
            with socket.create_connection(self.server) as server:
                threading.Thread(target=self._pass, args=(server, client), daemon=True).start()
                self._pass(client, server)

    @staticmethod
    def _pass(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (400, "RequestTimeout"), (502, ""), (403, "RequestTimeTooSkewed")],
)
@pytest.mark.parametrize("operation", ["list", "read", "upload"])
def test_what_s3_puts_off_is_repeated(s3_server, tmp_path, quick, operation, status, code):
    prefix = f"put-off-{secrets.token_hex(4)}"
    s3_server.put(f"{prefix}/x", b"content")
    (item,) = s3.list_objects(s3_server.client, s3_server.bucket, prefix)
    with RefusingProxy(s3_server.endpoint, status, code, 20) as proxy:
        client = s3.connect({**s3_server.settings, "endpoint_url": proxy.endpoint}, s3_server.credentials)
        if operation == "list":
            assert s3.list_objects(client, s3_server.bucket, prefix) == [item]
        elif operation == "read":
            assert b"".join(s3.read(client, s3_server.bucket, item)) == b"content"
        else:
            (tmp_path / "y").write_bytes(b"y" * 100_000)
            s3.upload(client, tmp_path / "y", s3_server.bucket, f"{prefix}/y")
            assert s3_server.client.head_object(Bucket=s3_server.bucket, Key=f"{prefix}/y")["ContentLength"] == 100_000
    assert proxy.refused == 20


@pytest.mark.parametrize(
    ("status", "code", "date", "words"),
    [
        (503, "SlowDown", 0, "SlowDown.*throttles.*data_staging_parallel"),
        (503, "", 0, "503.*throttles"),
        (500, "InternalError", 0, "InternalError.*the server itself fails"),
        (403, "RequestTimeTooSkewed", 3600, r"clock of this machine is 3\d\d\d s behind that of S3.*NTP"),
        (403, "RequestTimeTooSkewed", -3600, r"clock of this machine is 3\d\d\d s ahead of that of S3"),
        (400, "ExpiredToken", 0, "token has expired.*deeptrain_s3_session_token"),
        (507, "XMinioStorageFull", 0, "full, free some"),
        (400, "KMS.DisabledException", 0, "key in KMS"),
        (400, "InvalidBucketName", 0, "bucket's name in deeptrain_data_url"),
    ],
)
def test_errors_that_are_not_the_endpoints(s3_server, quick, monkeypatch, status, code, date, words):
    monkeypatch.setattr(s3, "PATIENCE_SECONDS", 0.2, raising=False)
    with RefusingProxy(s3_server.endpoint, status, code, 10**6, date) as proxy:
        with pytest.raises(JobError, match=words) as error:
            listed(f"s3://{s3_server.bucket}/x", {**s3_server.settings, "endpoint_url": proxy.endpoint}, s3_server.credentials)
    assert "check deeptrain_data_url and deeptrain_s3_endpoint_url" not in str(error.value)


def test_a_request_that_waits_is_stopped(s3_server, quick):
    stop = threading.Event()
    with RefusingProxy(s3_server.endpoint, 503, "SlowDown", 10**6) as proxy:
        client = s3.connect({**s3_server.settings, "endpoint_url": proxy.endpoint}, s3_server.credentials, stop=stop)
        stop.set()
        with pytest.raises(Stopped):
            s3.list_objects(client, s3_server.bucket, "x")


def test_a_check_refuses_a_skewed_clock_at_once(s3_server):
    with RefusingProxy(s3_server.endpoint, 403, "RequestTimeTooSkewed", 10**6) as proxy:
        settings = {**s3_server.settings, "endpoint_url": proxy.endpoint}
        with pytest.raises(JobError, match="clock.*NTP"), s3.as_job_errors("s3://b/p", "deeptrain_data_url", settings):
            s3.list_objects(s3.connect(settings, s3_server.credentials, wait=False), s3_server.bucket, "x")
        assert proxy.refused == 1


@pytest.mark.parametrize(
    "error",
    [
        botocore.exceptions.CredentialRetrievalError(provider="iam-role", error_msg="no answer"),
        botocore.exceptions.MetadataRetrievalError(error_msg="no answer"),
    ],
)
def test_a_role_that_gives_no_credentials(error):
    with pytest.raises(JobError, match="role gives no S3 credentials.*check the role"), s3.as_job_errors("s3://b/p", "deeptrain_data_url", {}):
        raise error


def test_an_empty_object_whose_etag_is_no_md5(s3_server):
    """As in a bucket that encrypts by SSE-KMS."""
    assert list(s3.read(s3_server.client, s3_server.bucket, s3.Object("x", 0, '"0123456789abcdef0123456789abcdef"', 0))) == []


def test_a_listing_with_other_etags_than_the_objects(s3_server, monkeypatch):
    """As of servers that encrypt; an object that is replaced is still found."""
    key = f"etag-{secrets.token_hex(4)}/x"
    s3_server.put(key, b"content")
    client = s3_server.client
    listing = client.list_objects_v2

    def other(**arguments):
        answer = listing(**arguments)
        for item in answer.get("Contents", ()):
            item["ETag"] = '"other' + item["ETag"][6:]
        return answer

    monkeypatch.setattr(client, "list_objects_v2", other)
    (item,) = s3.list_objects(s3_server.client, s3_server.bucket, key.rpartition("/")[0])
    item = dataclasses.replace(item, etag='"other' + item.etag[6:])
    assert b"".join(s3.read(client, s3_server.bucket, item)) == b"content"
    s3_server.put(key, b"another")
    with pytest.raises(s3.Changed):
        list(s3.read(client, s3_server.bucket, item))


def test_a_checksum_of_s3(s3_server):
    """It holds where the ETag is no MD5."""
    key = f"checksum-{secrets.token_hex(4)}/x"
    s3_server.client.put_object(Bucket=s3_server.bucket, Key=key, Body=b"old", ChecksumAlgorithm="SHA256")
    s3_server.set_etag(key, "0123456789abcdef0123456789abcdef-2")
    (item,) = s3.list_objects(s3_server.client, s3_server.bucket, key.rpartition("/")[0])
    assert b"".join(s3.read(s3_server.client, s3_server.bucket, item)) == b"old"
    (s3_server.directory / s3_server.bucket / key).write_bytes(b"bad")
    with pytest.raises(s3.Damaged):
        list(s3.read(s3_server.client, s3_server.bucket, item))


def test_an_object_without_content_is_not_read_for_ever(monkeypatch):
    monkeypatch.setattr(s3, "PATIENCE_SECONDS", 1)
    pauses = []
    monkeypatch.setattr(s3, "backoff", lambda failures: pauses.append(failures) or 0.3)
    monkeypatch.setattr(s3, "time", SimpleNamespace(sleep=lambda seconds: None))
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: 0.3 * len(pauses)))

    class Empty:
        """A server that answers 200 and sends nothing."""

        answers = 0

        def get_object(self, **_unused):
            self.answers += 1
            assert self.answers < 1000
            return {"Body": io.BytesIO()}

    with pytest.raises(JobError, match="0 read"), s3.as_job_errors("s3://b/p", "deeptrain_data_url", {}):
        list(s3.read(Empty(), "b", s3.Object("p/x", 3, "", 0)))
    assert pauses == [0, 1, 2, 3]
