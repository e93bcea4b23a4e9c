# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The default training program: its options, its model, and a real cluster of processes on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from services import LIMIT

from deeptrain.job import BadInput
from deeptrain.resnet import data, model, options
from deeptrain.resnet.store import CheckpointMirror

CLASSES = 3
PLACES = ["--data-dir", "/data", "--job-dir", "/job"]


def parse(*arguments: str) -> options.Options:
    return options.parse([*PLACES, *arguments])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--train-steps", "0"], r"--train-steps is 0: use 1 to .*train_steps"),
        (["--momentum", "1.5"], r"--momentum is 1\.5.*deeptrain_training_options"),
        (["--learning-rate", "-1"], "--learning-rate"),
        (["--num-layers", "9"], "num-layers.*deeptrain_training_options"),
        (["--batch-norm-decay", "1"], "--batch-norm-decay"),
        (["--no-such-thing"], "no-such-thing"),
        (["--train-step", "100"], "train-step 100"),
        (["--train-steps", "many"], "train-steps"),
    ],
)
def test_options_out_of_range(arguments, words):
    with pytest.raises(BadInput, match=words):
        parse(*arguments)


def test_options_without_data(monkeypatch):
    monkeypatch.delenv("DEEPTRAIN_DATA_URL", raising=False)
    with pytest.raises(BadInput, match="DEEPTRAIN_DATA_URL"):
        options.parse([])


@pytest.mark.parametrize("num_layers", options.NUM_LAYERS)
def test_depth(num_layers):
    network = model.build(parse("--num-layers", str(num_layers)), (32, 32, 3), 10)
    kernels = [weight for weight in network.trainable_weights if "kernel" in weight.path]
    # Convolutions and the last layer, and one projection in each of two stages.
    assert len(kernels) == num_layers + 2
    assert network.output_shape == (None, 10)


def test_learning_rate():
    given = parse("--train-steps", "1000", "--learning-rate", "0.4")
    rates = [model.learning_rate(given, step) for step in range(1000)]
    assert max(rates) == pytest.approx(0.4) and rates.index(max(rates)) in (49, 50)
    assert rates[0] == pytest.approx(0.4 / 50)
    assert rates[-1] < 0.001
    assert rates[50:] == sorted(rates[50:], reverse=True)


def test_batches(dataset, tmp_path):
    given = parse("--train-batch-size", "16", "--eval-batch-size", "10")
    description = data.describe(str(dataset))
    files = data.local_shards(str(dataset), Path("unused"), data.TEST)
    labels = np.concatenate([labels for _images, labels in data.test_batches(files, given, description.image_shape)])
    assert np.bincount(labels).tolist() == [21, 20, 20]
    shards = tf.data.Dataset.list_files(str(dataset / data.TRAIN))
    images, labels = next(iter(data.train_batches(shards, tmp_path, given, description.image_shape)))
    assert images.shape == (16, 32, 32, 3) and images.dtype == tf.uint8
    assert (np.array([image.mean() for image in images.numpy()]) // 80 == labels.numpy()).all()


def test_data_that_is_not_described(tmp_path):
    with pytest.raises(BadInput, match=r"dataset\.json"):
        data.describe(str(tmp_path))


def test_more_workers_than_shards(dataset):
    with pytest.raises(BadInput, match="4 files like .* for 5 workers"):
        data.local_shards(str(dataset), Path("unused"), data.TRAIN, 0, 5)


def test_a_mirror_follows_and_restores(tmp_path):
    here, there, again = tmp_path / "here", tmp_path / "there", tmp_path / "again"
    here.mkdir()
    again.mkdir()

    def save(step):
        for suffix in ("index", "data-00000-of-00001"):
            (here / f"ckpt-{step}.{suffix}").write_text(str(step))
        (here / "checkpoint").write_text(f'model_checkpoint_path: "ckpt-{step}"')

    save(1)
    mirror = CheckpointMirror(here, str(there))
    mirror.sync()
    (here / "ckpt-1.index").unlink()
    (here / "ckpt-1.data-00000-of-00001").unlink()
    save(2)
    mirror.close()
    mirrored = {"checkpoint": 'model_checkpoint_path: "ckpt-2"', "ckpt-2.index": "2", "ckpt-2.data-00000-of-00001": "2"}
    assert {path.name: path.read_text() for path in there.iterdir()} == mirrored
    other = CheckpointMirror(again, str(there))
    other.restore(lambda path: True)
    other.close()
    assert {path.name for path in again.iterdir()} == set(mirrored)


LOAD = """
import json, sys
import numpy as np
import tensorflow as tf
assert "deeptrain" not in sys.modules
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
bright = np.stack([np.full((32, 32, 3), value, np.uint8) for value in (30, 110, 190)])
probabilities = serve(tf.constant(bright))["probabilities"].numpy()
print(json.dumps({"sum": probabilities.sum(axis=1).tolist(), "shape": probabilities.shape, "type": str(probabilities.dtype)}))
"""


def served(directory: Path) -> dict:
    """What a SavedModel says to a process that has TensorFlow alone."""
    loaded = subprocess.run([sys.executable, "-I", "-c", LOAD, directory / "saved_model"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(loaded.stdout)


def test_killed_told_to_stop_and_lost_workers_a_cluster_ends_what_it_began(processes, tmp_path):
    # Killed: what was saved last is gone on from.
    long = ("--train-steps", "100000", "--checkpoint-steps", "20", "--steps-per-call", "5")
    chief = processes.start("chief", 0, *long)
    processes.wait_for_steps(60, chief)
    chief.send_signal(signal.SIGKILL)
    chief.wait()
    # Told to stop: a checkpoint, and the status that says so. A worker is lost meanwhile, and comes back.
    chief = processes.start("chief", 0, *long)
    before = processes.steps()
    processes.wait_for_steps(before + 20, chief)
    processes.running[2].kill()
    processes.start("worker", 1)
    processes.wait_for_steps(processes.steps() + 40, chief)
    chief.send_signal(signal.SIGTERM)
    assert chief.wait(LIMIT) == 143, processes.log("chief0")
    saved = (tmp_path / "job" / "checkpoints" / "checkpoint").read_text()
    step = int(saved.splitlines()[0].split("ckpt-")[1].strip('"'))
    assert "Goes on from step" in processes.log("chief0")
    # Who does not go on has the model as it is.
    shutil.unpack_archive(tmp_path / "job" / "checkpoints" / f"ckpt-{step}.saved_model.zip", tmp_path / "ended")
    assert served(tmp_path / "ended")["shape"] == [3, CLASSES]
    # A node that lost its disk goes on from the job's directory.
    subprocess.run(["rm", "-r", str(tmp_path / "cache" / "chief")], check=True)
    chief = processes.start("chief", 0, "--train-steps", str(step + 60), "--steps-per-call", "5")
    assert chief.wait(LIMIT) == 0, processes.log("chief0")
    assert f"Goes on from step {step}" in processes.log("chief0")

    metrics = json.loads((tmp_path / "export" / "metrics.json").read_text())
    assert metrics["train_steps"] == step + 60
    assert metrics["test_examples"] == 61
    assert metrics["test_accuracy"] > 0.8
    assert {path.name for path in (tmp_path / "export").iterdir()} == {"saved_model", "checkpoint", "metrics.json"}
    assert list((tmp_path / "job" / "events").glob("events.*"))
    told = served(tmp_path / "export")
    assert told["shape"] == [3, CLASSES] and told["type"] == "float32"
    assert told["sum"] == pytest.approx([1, 1, 1], abs=1e-5)


def test_a_lost_parameter_server_ends_the_chief(processes):
    chief = processes.start("chief", 0, "--train-steps", "100000", "--steps-per-call", "5")
    processes.wait_for_steps(20, chief)
    processes.running[0].kill()
    assert chief.wait(LIMIT) not in (0, 2)


@pytest.mark.parametrize(
    ("tf_config", "words"),
    [
        ("{", "TF_CONFIG"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}', "no chief"),
        ('{"cluster": {"chief": ["a:1"]}, "task": {"type": "worker", "index": 0}}', "not a cluster with this task"),
    ],
)
def test_a_wrong_tf_config(tf_config, words):
    command = [sys.executable, "-m", "deeptrain.resnet", *PLACES]
    done = subprocess.run(command, env={**os.environ, "TF_CONFIG": tf_config}, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
