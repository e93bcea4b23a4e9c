# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluation, and what is exported."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deeptrain.checkpoint import INDEX
from deeptrain.job import finite


def evaluate(model: keras.Model, batches: tf.data.Dataset, report: Callable[[int], object] = lambda done: None) -> dict:
    """Accuracy and mean loss over all examples; ``report`` gets the number of examples after each batch."""
    run = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    right, loss, count = 0, 0.0, 0
    for images, labels in batches:
        logits = run(images)
        right += int(np.sum(np.argmax(logits.numpy(), axis=1) == labels.numpy()))
        loss += float(tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)))
        count += len(labels)
        report(count)
    return {"test_accuracy": right / count, "test_loss": loss / count, "test_examples": count}


def save_model(model: keras.Model, directory: Path) -> None:
    """Writes a SavedModel that gives images' probabilities."""
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        name="serve",
        fn=lambda images: {"probabilities": tf.nn.softmax(model(images, training=False))},
        input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8, name="images")],
    )
    archive.write_out(str(directory), verbose=False)


def pack_model(model: keras.Model, archive: Path) -> None:
    """Writes a zip archive that holds ``saved_model``."""
    with tempfile.TemporaryDirectory(dir=archive.parent.parent) as scratch:
        save_model(model, Path(scratch, "saved_model"))
        packed = shutil.make_archive(str(Path(scratch, "packed")), "zip", scratch, "saved_model")
        os.replace(packed, archive)


def write_index(directory: Path, names: list[str]) -> None:
    """Writes TensorFlow's index of the checkpoints, the last name that of the newest."""
    lines = [f'model_checkpoint_path: "{names[-1]}"', *(f'all_model_checkpoint_paths: "{name}"' for name in names)]
    temporary = directory / f"{INDEX}.part"
    temporary.write_text("\n".join(lines) + "\n")
    temporary.replace(directory / INDEX)


def save(model: keras.Model, directory: Path, checkpoint: str, metrics: dict) -> None:
    """Writes ``saved_model``, ``checkpoint`` and ``metrics.json``; the directory holds all of them or what it held before."""
    directory.mkdir(parents=True, exist_ok=True)
    scratch = directory / ".part"
    shutil.rmtree(scratch, ignore_errors=True)

    save_model(model, scratch / "saved_model")
    (scratch / "checkpoint").mkdir()
    for path in Path(checkpoint).parent.glob(Path(checkpoint).name + ".*"):
        shutil.copyfile(path, scratch / "checkpoint" / path.name)
    write_index(scratch / "checkpoint", [Path(checkpoint).name])
    (scratch / "metrics.json").write_text(json.dumps(finite(metrics), indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")

    for path in scratch.iterdir():
        target = directory / path.name
        if target.is_dir():
            shutil.rmtree(target)
        path.replace(target)
    scratch.rmdir()
