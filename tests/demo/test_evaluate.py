# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Needs TensorFlow, as the program does."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import dataset
import evaluate
from shards import sources
from shards.stores import S3

tf = pytest.importorskip("tensorflow")


class FirstPixel(tf.Module):
    """Says that an image's class is the last digit of its first pixel: right for the small Fashion-MNIST's images."""

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.uint8, name="images")])
    def __call__(self, images):
        return {"probabilities": tf.one_hot(tf.cast(images[:, 2, 2, 0], tf.int32) % 10, 10)}


@pytest.fixture
def model_uri(bucket, tmp_path):
    model = FirstPixel()
    tf.saved_model.save(model, str(tmp_path), signatures={"serving_default": model.__call__})
    target = S3(f"s3://{bucket}/saved_model")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            target.put(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    return target.url


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, evaluate.__file__, *arguments],
        env=os.environ,
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_accuracy(model_uri, bucket, fashion_directory, tmp_path):
    source = sources.fashion_mnist(fashion_directory)
    # One label of twenty is made wrong.
    labels = source.test.labels.copy()
    labels[7] = 3
    test = sources.Split(source.test.images, labels)
    data = f"s3://{bucket}/evaluated"
    dataset.upload(sources.Source(source.name, source.classes, source.train, test), S3(data), 8, 2)
    done = run(model_uri, "--data", data)
    assert json.loads(done.stdout) == {"accuracy": 0.95, "examples": 20}


def test_debians_images(model_uri):
    images, labels = evaluate.test_images(None)
    expected = float((images[:, 2, 2, 0] % 10 == labels).mean())
    assert json.loads(run(model_uri).stdout) == {"accuracy": expected, "examples": 10000}


@pytest.mark.parametrize(("prefix", "message"), [("nothing", "holds no object"), ("other", "is no SavedModel")])
def test_no_model(bucket, prefix, message):
    S3(f"s3://{bucket}/other").put("readme", b"text")
    done = run(f"s3://{bucket}/{prefix}")
    assert done.returncode == 1 and message in done.stderr.splitlines()[-1]
