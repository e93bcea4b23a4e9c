# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demo's programs, small data sets as they are published, and a real S3 server on loopback."""

from __future__ import annotations

import gzip
import io
import os
import secrets
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))


def idx(array: np.ndarray) -> bytes:
    """A gzipped IDX file."""
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), 1)


@pytest.fixture(scope="session")
def fashion_directory(tmp_path_factory):
    """Fashion-MNIST's files with 60 training and 20 test images."""
    directory = tmp_path_factory.mktemp("fashion")
    random = np.random.RandomState(1)
    for name, count in (("train", 60), ("t10k", 20)):
        images = random.randint(0, 256, (count, 28, 28), np.uint8)
        # Each image can be told from the others by its first pixel.
        images[:, 0, 0] = np.arange(count)
        (directory / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(images))
        (directory / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))
    return directory


CIFAR_10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def cifar_10_files() -> dict[str, bytes]:
    """The binary archive's files with 4 images in each batch; pixel values are the channel's number."""
    image = np.repeat(np.arange(3, dtype=np.uint8), 32 * 32).tobytes()
    batch = b"".join(bytes([label]) + image for label in (3, 1, 4, 9))
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    return {"batches.meta.txt": ("\n".join(CIFAR_10_CLASSES) + "\n\n").encode(), **dict.fromkeys(names, batch)}


@pytest.fixture
def make_archive(tmp_path):
    """A function that packs such files."""

    def make(files: dict[str, bytes]) -> Path:
        path = tmp_path / "cifar-10-binary.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path

    return make


@pytest.fixture(scope="session")
def s3_process(tmp_path_factory):
    """The AWS_* variables of a running S3 server with the bucket data."""
    program = Path(os.environ.get("DEEPTRAIN_TEST_VERSITYGW", ""))
    if not program.is_file():
        pytest.fail("set DEEPTRAIN_TEST_VERSITYGW to the program versitygw", pytrace=False)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = {
        "AWS_ACCESS_KEY_ID": "tester",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    process = subprocess.Popen(
        [program.resolve(), "--quiet", "--port", f"127.0.0.1:{port}", "posix", tmp_path_factory.mktemp("s3")],
        env={"ROOT_ACCESS_KEY": env["AWS_ACCESS_KEY_ID"], "ROOT_SECRET_KEY": env["AWS_SECRET_ACCESS_KEY"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 600
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None, "the S3 server does not answer"
                time.sleep(0.1)
        yield env
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def s3_env(s3_process, monkeypatch):
    """The same, set in the environment."""
    for name, value in s3_process.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return s3_process


@pytest.fixture
def bucket(s3_env):
    """The name of a bucket that is there."""
    import boto3

    from bucket import ensure

    ensure(boto3.client("s3"), "data")
    return "data"
