# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure a SavedModel's accuracy on test images, knowing nothing of it but where it is in S3.

Needs TensorFlow and boto3. The model's serving_default takes uint8 images [N, 32, 32, 3] and gives class probabilities
[N, classes]. S3's endpoint, region and credentials come from the environment: AWS_ENDPOINT_URL, AWS_DEFAULT_REGION,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. Prints {"accuracy": …, "examples": …}.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from shards import Failure, sources
from shards.stores import S3

BATCH = 500


def download(url: str, directory: Path, wanted: str = "") -> None:
    """Everything below an S3 prefix whose name starts so."""
    store = S3(url)
    names = [name for name in store.digests() if name.startswith(wanted)]
    if not names:
        raise Failure(f"{store.url} holds no {wanted or 'object'}")
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(name))


def test_images(data: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 [N, 32, 32, 3], and labels: Debian's Fashion-MNIST, or the test shards below an S3 prefix."""
    if data is None:
        split = sources.fashion_mnist().test
        return split.select(np.arange(len(split)))

    import tensorflow as tf

    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    with tempfile.TemporaryDirectory() as directory:
        download(data, Path(directory), "test-")
        records = tf.data.TFRecordDataset(sorted(map(str, Path(directory).iterdir())))
        examples = [tf.io.parse_single_example(record, features) for record in records]
    images = np.stack([np.frombuffer(item["image"].numpy(), np.uint8) for item in examples])
    return images.reshape(-1, sources.SIDE, sources.SIDE, 3), np.array([int(item["label"]) for item in examples])


def accuracy(model_uri: str, images: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose most probable class is theirs."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as directory:
        download(model_uri, Path(directory))
        try:
            model = tf.saved_model.load(directory)
        except OSError as error:
            raise Failure(f"{model_uri} is no SavedModel: {error}") from error
        serve = model.signatures["serving_default"]
        (argument,) = serve.structured_input_signature[1]
        (output,) = serve.structured_outputs
        correct = 0
        for start in range(0, len(labels), BATCH):
            batch = slice(start, start + BATCH)
            probabilities = serve(**{argument: tf.constant(images[batch])})[output].numpy()
            correct += int((probabilities.argmax(axis=1) == labels[batch]).sum())
    return correct / len(labels)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_uri", help="s3://BUCKET/PREFIX of the SavedModel")
    parser.add_argument(
        "--data", metavar="URL", help="s3://BUCKET/PREFIX of a data set; else Debian's dataset-fashion-mnist"
    )
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if importlib.util.find_spec("tensorflow") is None:
        raise Failure(f"{sys.executable} has no TensorFlow: use a Python that has it (pip install tensorflow-cpu)")
    images, labels = test_images(options.data)
    print(json.dumps({"accuracy": accuracy(options.model_uri, images, labels), "examples": len(labels)}))


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"evaluate.py: {failure}")
