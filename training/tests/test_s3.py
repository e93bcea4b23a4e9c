# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of a real S3 server in words that name the variable to mend."""

from __future__ import annotations

import re
import secrets
import subprocess

import pytest
from conftest import s3_process

from deeptrain import s3
from deeptrain.job import BadInput, JobError


def listed(url, settings, credentials):
    with s3.explained(url, "deeptrain_data_url", settings):
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


def test_no_credentials(s3_server, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(BadInput, match="no S3 credentials: set deeptrain_s3_access_key_id"):
        listed(f"s3://{s3_server.bucket}/x", s3_server.settings, {})
    # boto3's own chain.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.credentials["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.credentials["aws_secret_access_key"])
    assert listed(f"s3://{s3_server.bucket}/nothing", s3_server.settings, {}) == []


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
    with pytest.raises(BadInput, match="deeptrain_export_url"), s3.explained("s3://nobodys/x", "deeptrain_export_url", s3_server.settings):
        s3.upload(s3_server.client, tmp_path / "x", "nobodys", "x")
