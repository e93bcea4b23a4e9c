# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images that are easy to learn, and a cluster of processes on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from services import LIMIT, free_port

from deeptrain import manifest

CLASSES = 3


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """Images whose class is their brightness: easy to learn."""
    directory = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for name, shards, examples in (("train", 4, 240), ("test", 2, 61)):
        for shard in range(shards):
            with tf.io.TFRecordWriter(str(directory / f"{name}-{shard:05}-of-{shards:05}.tfrecord")) as writer:
                for index in range(shard, examples, shards):
                    label = index % CLASSES
                    image = random.integers(80 * label, 80 * label + 60, (32, 32, 3), dtype=np.uint8)
                    features = {
                        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image.tobytes()])),
                        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                    }
                    writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    description = {"name": "bright", "classes": ["a", "b", "c"], "image_shape": [32, 32, 3], "train_examples": 240, "test_examples": 61}
    (directory / "dataset.json").write_text(json.dumps(description))
    return directory


class Processes:
    """One chief, one parameter server and two workers, each a process in a directory of its own."""

    def __init__(self, directory: Path, dataset: Path | str, cache: Path | None = None):
        self.directory = directory
        self.dataset = dataset
        self.cache = cache or directory / "cache"
        self.cluster = {
            "chief": [f"127.0.0.1:{free_port()}"],
            "ps": [f"127.0.0.1:{free_port()}"],
            "worker": [f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"],
        }
        self.running: list[subprocess.Popen] = []

    def start(self, kind: str, index: int, *arguments: str) -> subprocess.Popen:
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps({"cluster": self.cluster, "task": {"type": kind, "index": index}}),
            "DEEPTRAIN_CACHE_DIR": str(self.cache),
            "DEEPTRAIN_EXPORT_DIR": str(self.directory / "export"),
            "DEEPTRAIN_PROGRESS_FILE": str(self.directory / "progress.jsonl"),
        }
        command = [sys.executable, "-m", "deeptrain.resnet", "--data-dir", str(self.dataset), "--job-dir", str(self.directory / "job")]
        work = self.directory / f"{kind}{index}"
        work.mkdir(exist_ok=True)
        with open(self.directory / f"{kind}{index}.log", "ab") as log:
            process = subprocess.Popen([*command, "--train-batch-size", "16", *arguments], env=environment, cwd=work, stdout=log, stderr=log)
        self.running.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def steps(self) -> int:
        """How many steps the progress tells of."""
        try:
            records = [json.loads(line) for line in (self.directory / "progress.jsonl").read_text().splitlines()]
        except FileNotFoundError:
            return 0
        return max((record["done"] for record in records if record["phase"] == "train"), default=0)

    def wait_for_steps(self, count: int, chief: subprocess.Popen) -> None:
        end = time.monotonic() + LIMIT
        while self.steps() < count:
            assert chief.poll() is None, self.log("chief0")
            assert time.monotonic() < end, self.log("chief0")
            time.sleep(0.1)

    def start_servers(self) -> None:
        for kind, index in (("ps", 0), ("worker", 0), ("worker", 1)):
            self.start(kind, index)

    def kill(self) -> None:
        for process in self.running:
            process.kill()
            process.wait()


@pytest.fixture
def processes(tmp_path, dataset):
    processes = Processes(tmp_path, dataset)
    processes.start_servers()
    yield processes
    processes.kill()


@pytest.fixture
def hdfs_processes(tmp_path, dataset, hdfs):
    """The same with data in HDFS, and a cache of each process's own under one path."""
    entries = []
    for path in dataset.iterdir():
        hdfs.upload(path, path.name)
        entries.append(manifest.Entry(path.name, path.stat().st_size, hdfs.sha256(path.name)))
    hdfs.write_bytes(manifest.NAME, manifest.encode("s3://bucket/data", entries))
    processes = Processes(tmp_path, hdfs.url, Path("/proc/self/cwd/cache"))
    processes.start_servers()
    yield processes
    processes.kill()
