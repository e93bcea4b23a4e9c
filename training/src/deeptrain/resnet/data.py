# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From TFRecord shards to batches of images."""

from __future__ import annotations

import fnmatch
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from deeptrain import documents, manifest
from deeptrain.fetch import fetch, share
from deeptrain.hdfs import Hdfs
from deeptrain.job import BadInput
from deeptrain.resnet.options import Options

MEMINFO = Path("/proc/meminfo")
# The share of the free memory that cached examples may take.
MEMORY_SHARE = 0.8
TRAIN, TEST = "train-*.tfrecord", "test-*.tfrecord"
DESCRIPTION = "dataset.json"
SHUFFLE_EXAMPLES = 10_000
# Pixels by which an image is shifted at most.
SHIFT = 2


@dataclass(frozen=True)
class Description:
    """What the data is: the shape of an image (height, width, channels), the classes' names, the number of test examples."""

    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    test_examples: int


def describe(data_dir: str) -> Description:
    """Reads the data's description, from HDFS or a local directory."""
    if data_dir.startswith("hdfs://"):
        content = Hdfs(data_dir).read_bytes(DESCRIPTION)
    else:
        path = Path(data_dir, DESCRIPTION)
        content = path.read_bytes() if path.is_file() else None
    if content is None:
        raise BadInput(f"{data_dir} has no {DESCRIPTION}: stage data that demo/dataset.py made, or write one")
    document = documents.parse(content)
    return Description(tuple(document["image_shape"]), tuple(document["classes"]), document["test_examples"])


def train_pattern(data_dir: str, cache: Path) -> str:
    """Where a worker finds its training shards, the same path on all of them: its cache, or a directory that all see."""
    return os.fspath(cache / "train" / TRAIN) if data_dir.startswith("hdfs://") else os.path.join(data_dir, TRAIN)


def local_shards(data_dir: str, cache_dir: Path, pattern: str, index: int = 0, count: int = 1) -> list[Path]:
    """This task's shards on this node; those of HDFS are brought to the cache, those of a local directory are used where they are."""
    if data_dir.startswith("hdfs://"):
        return fetch(data_dir, cache_dir, pattern, index, count)
    found = sorted(str(path) for path in Path(data_dir).glob(pattern))
    if len(found) < count:
        raise BadInput(f"{data_dir} has {len(found)} files like {pattern} for {count} workers: make more shards, or use fewer workers")
    return [Path(path) for path in share(found, index, count)]


def worker_shards(data_dir: str, cache: Path, options: Options, index: int, count: int) -> list[Path]:
    """A worker's share of the training shards, on this node; a mark in ``cache`` says that it fits the memory."""
    mark = memory_mark(cache)
    mark.unlink(missing_ok=True)
    files = local_shards(data_dir, cache / "train", TRAIN, index, count)
    size, available = sum(path.stat().st_size for path in files), available_memory()
    if options.cache == "memory":
        if available is None or size <= MEMORY_SHARE * available:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
        else:
            print(
                f"This task's training shards have {size / 2**30:.2f} GiB and the machine has {available / 2**30:.2f} GiB of memory available: "
                "they are read from disk in each epoch, which is slower; use more workers or more memory",
                file=sys.stderr,
                flush=True,
            )
    print(f"Holds {len(files)} training shards, share {index + 1} of {count}", file=sys.stderr, flush=True)
    return files


def memory_mark(cache: Path) -> Path:
    """Exists while a worker's share fits its memory; the datasets' graph, which is the same on all workers, reads it on each."""
    return cache / "train-in-memory"


def dealt_shards(data_dir: str, count: int) -> list[list[str]] | None:
    """The names of each worker's training shards in its cache; None where all workers read the same local directory."""
    if not data_dir.startswith("hdfs://"):
        return None
    found = manifest.read(Hdfs(data_dir))
    names = fnmatch.filter(found[1] if found else [], TRAIN)
    return [share(names, index, count) for index in range(count)]


def available_memory() -> int | None:
    """The machine's memory in bytes that programs can still use; None where the kernel does not say."""
    try:
        for line in MEMINFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def _parse(record, shape):
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}
    parsed = tf.io.parse_single_example(record, features)
    return tf.reshape(tf.io.decode_raw(parsed["image"], tf.uint8), shape), tf.cast(parsed["label"], tf.int32)


def _distort(image, label):
    shape = image.shape
    image = tf.pad(image, [[SHIFT, SHIFT], [SHIFT, SHIFT], [0, 0]], mode="SYMMETRIC")
    image = tf.image.random_crop(image, shape)
    return tf.image.random_flip_left_right(image), label


def _records(files: tf.data.Dataset, condition: tf.Tensor) -> tf.data.Dataset:
    return files.filter(lambda _name: condition).interleave(tf.data.TFRecordDataset, cycle_length=4)


def train_batches(files: tf.data.Dataset, cache: Path, options: Options, shape: tuple[int, ...], seed: tf.Tensor | None = None) -> tf.data.Dataset:
    """Endless shuffled batches of uint8 images [N, H, W, C] and int32 labels [N]; ``seed`` gives their order.

    Native operations alone: a Python function in here would run on the chief for all workers.
    """
    in_memory = tf.size(tf.io.matching_files(os.fspath(memory_mark(cache)))) > 0
    dataset = _records(files, in_memory).cache().concatenate(_records(files, ~in_memory))
    dataset = dataset.shuffle(SHUFFLE_EXAMPLES, seed=seed, reshuffle_each_iteration=True).repeat()
    dataset = dataset.map(lambda record: _parse(record, shape))
    if options.use_distortion_for_training:
        dataset = dataset.map(_distort)
    return dataset.batch(options.train_batch_size, drop_remainder=True).prefetch(4)


def test_batches(files: list[Path], options: Options, shape: tuple[int, ...]) -> tf.data.Dataset:
    """Every test example once, the last batch as small as it comes."""
    dataset = tf.data.TFRecordDataset([os.fspath(path) for path in files])
    return dataset.map(lambda record: _parse(record, shape)).batch(options.eval_batch_size).prefetch(2)


def check_test_data(files: list[Path], options: Options, shape: tuple[int, ...]) -> None:
    """Raises BadInput when the evaluation could not read its data."""
    try:
        found = next(iter(test_batches(files, options, shape).take(1)), None)
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        raise BadInput(f"{files[0]} holds no examples of shape {shape} ({str(error).splitlines()[0]}): correct {DESCRIPTION} or the test shards") from error
    if found is None:
        raise BadInput(f"{files[0]} and the other test shards hold no example: stage data with test examples")
