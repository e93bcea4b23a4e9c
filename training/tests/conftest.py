# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real NameNode with two DataNodes, and a real S3 server, on loopback."""

from __future__ import annotations

import secrets
import tarfile

import pytest
from services import Cluster, needed, s3_process

from deeptrain.hdfs import Hdfs


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    with s3_process(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    archive = needed("DEEPTRAIN_TEST_HDFS_ARCHIVE", "the archive that tools/hdfs_archive/build.py makes")
    directory = tmp_path_factory.mktemp("hdfs")
    with tarfile.open(archive) as tar:
        tar.extractall(directory, filter="fully_trusted")
    cluster = Cluster(directory, list(directory.glob("hadoop-*"))[0])
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def hdfs(cluster):
    """A directory of HDFS of the test's own; it is not there yet."""
    return Hdfs(cluster.url(f"/test-{secrets.token_hex(4)}"))


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine that has no credentials of its own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_EC2_METADATA_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
