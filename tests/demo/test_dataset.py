# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

import dataset
from shards import Failure, sources
from shards.stores import S3, Directory, store

PROGRAM = Path(dataset.__file__)
RECORD_BYTES = 3126


@pytest.fixture
def source(fashion_directory):
    return sources.fashion_mnist(fashion_directory)


def first_pixels(content: bytes) -> list[int]:
    """What tells the images of a shard apart."""
    records = [content[start : start + RECORD_BYTES] for start in range(0, len(content), RECORD_BYTES)]
    assert all(struct.unpack("<Q", record[:8])[0] == RECORD_BYTES - 16 for record in records)
    # An image ends 18 bytes before its record: label 14, checksum 4. Its pixel 2,2 holds what was pixel 0,0.
    return [record[-18 - 3072 + (2 * 32 + 2) * 3] for record in records]


def test_every_example_is_in_one_shard(source, tmp_path):
    done = dataset.upload(source, Directory(str(tmp_path)), 8, 2)
    assert (done["written"], done["unchanged"], done["removed"]) == (11, 0, 0)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "dataset.json",
        *(f"test-{number:05}-of-00002.tfrecord" for number in range(2)),
        *(f"train-{number:05}-of-00008.tfrecord" for number in range(8)),
    ]
    train = [first_pixels((tmp_path / name).read_bytes()) for name in names if name.startswith("train")]
    assert {len(shard) for shard in train} == {7, 8}
    together = [pixel for shard in train for pixel in shard]
    assert sorted(together) == list(range(60)) and together != sorted(together)
    test = [first_pixels((tmp_path / name).read_bytes()) for name in names if name.startswith("test")]
    assert [pixel for shard in test for pixel in shard] == list(range(20))


def test_description(source, tmp_path):
    dataset.upload(source.first(10), Directory(str(tmp_path)), 2, 1)
    assert json.loads((tmp_path / "dataset.json").read_text()) == {
        "name": "fashion-mnist",
        "classes": sources.FASHION_MNIST_CLASSES,
        "image_shape": [32, 32, 3],
        "train_examples": 10,
        "test_examples": 10,
    }


def test_bytes_stay_the_same(source, tmp_path):
    """A change here makes every user's data be copied and trained anew."""
    dataset.upload(source, Directory(str(tmp_path)), 8, 2)
    content = (tmp_path / "train-00000-of-00008.tfrecord").read_bytes()
    assert first_pixels(content) == [14, 29, 30, 56, 2, 33, 16, 3]


@pytest.mark.parametrize("kind", ["s3", "directory"])
def test_again(source, tmp_path, kind, request):
    where = str(tmp_path) if kind == "directory" else f"s3://{request.getfixturevalue('bucket')}/{tmp_path.name}"
    target = store(where)
    dataset.upload(source, target, 8, 2)
    target.put("notes.txt", b"not ours")
    before = target.digests()

    done = dataset.upload(source, target, 8, 2)
    assert (done["written"], done["unchanged"], done["removed"], done["bytes"]) == (0, 11, 0, 0)

    target.put("test-00001-of-00002.tfrecord", b"damaged")
    done = dataset.upload(source, target, 8, 2)
    assert (done["written"], done["unchanged"], done["removed"]) == (1, 10, 0)
    assert target.digests() == before

    done = dataset.upload(source, target, 8, 1)
    assert (done["written"], done["unchanged"], done["removed"]) == (1, 9, 2)
    assert "notes.txt" in target.digests() and "test-00001-of-00002.tfrecord" not in target.digests()


def test_s3_holds_what_a_directory_does(source, tmp_path, bucket):
    dataset.upload(source, Directory(str(tmp_path)), 3, 2)
    dataset.upload(source, S3(f"s3://{bucket}/same/"), 3, 2)
    client = boto3.client("s3")
    for path in tmp_path.iterdir():
        assert client.get_object(Bucket=bucket, Key=f"same/{path.name}")["Body"].read() == path.read_bytes()
    assert S3(f"s3://{bucket}/same").digests() == {
        path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()
    }


def test_fewer_examples_than_shards(source, tmp_path):
    with pytest.raises(Failure, match="3 test examples cannot fill 4 shards: lower --test-shards"):
        dataset.upload(source.first(3), Directory(str(tmp_path)), 2, 4)
    assert not list(tmp_path.iterdir())


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments],
        env={**os.environ, **env},
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_program(fashion_directory, tmp_path):
    arguments = ("fashion-mnist", "--directory", str(fashion_directory), "--to", str(tmp_path), "--limit", "16")
    assert "16 training and 16 test images" in run(*arguments).stdout
    assert "0 files written" in run(*arguments).stdout


@pytest.mark.parametrize(
    ("where", "env", "message"),
    [
        ("s3://data", {}, "is not like s3://BUCKET/PREFIX"),
        ("s3://other/prefix", {}, "NoSuchBucket"),
        ("s3://data/prefix", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "SignatureDoesNotMatch"),
        ("s3://data/prefix", {"AWS_ENDPOINT_URL": "nowhere"}, "check AWS_ENDPOINT_URL"),
        ("s3://data/prefix", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}, "AWS_ENDPOINT_URL"),
    ],
)
def test_wrong_s3(fashion_directory, bucket, where, env, message):
    done = run("fashion-mnist", "--directory", str(fashion_directory), "--to", where, **env)
    assert done.returncode == 1
    assert done.stderr.startswith("dataset.py: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


def test_wrong_arguments(tmp_path):
    done = run("fashion-mnist", "--to", str(tmp_path), "--train-shards", "0")
    assert done.returncode == 2 and "'0' is not a number from 1 to 99999" in done.stderr
