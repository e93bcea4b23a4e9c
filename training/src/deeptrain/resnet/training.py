# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chief's loop, which is also that of a single process."""

from __future__ import annotations

import collections
import os
import platform
import signal
import sys
import time
from pathlib import Path

import keras
import tensorflow as tf

from deeptrain.checkpoint import PACKED_MODEL
from deeptrain.job import Progress, Stopped
from deeptrain.resnet import data, exporting
from deeptrain.resnet.model import Trainer, learning_rate
from deeptrain.resnet.options import Options
from deeptrain.resnet.store import KEEP, CheckpointMirror, Mirror, forget_other

# Calls under way for each worker: one that it works on, one that waits for it.
CALLS_AHEAD = 2
EVENTS_SECONDS = 10


class SingleProcess:
    """Runs the workers' function in this process."""

    workers = 1
    strategy = None

    def iterator(self, make_dataset):
        return iter(make_dataset())

    def schedule(self, function, arguments):
        return function(*arguments)

    def fetch(self, call):
        return float(call)


class Cluster:
    """Runs the workers' function on whichever worker is free."""

    def __init__(self, resolver):
        self.workers = len(resolver.cluster_spec().as_dict().get("worker", []))
        self.strategy = tf.distribute.ParameterServerStrategy(resolver)
        self.coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)

    def iterator(self, make_dataset):
        return iter(self.coordinator.create_per_worker_dataset(make_dataset))

    def schedule(self, function, arguments):
        return self.coordinator.schedule(function, args=arguments)

    def fetch(self, call):
        return float(call.fetch())


def train(options: Options, place: SingleProcess | Cluster, cache: Path, files: list[Path] | None) -> dict:
    """Trains, evaluates and exports; returns the metrics.

    ``cache`` is the node's own directory for the run. ``files`` are the training shards of a
    single process; workers of a cluster look for theirs in their own cache.
    """
    progress = Progress(os.environ.get("DEEPTRAIN_PROGRESS_FILE"))
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))

    progress.report("connect")
    description = data.describe(options.data_dir)
    trainer = Trainer(options, description.image_shape, len(description.classes), place.strategy)

    progress.report("restore")
    forget_other(cache / "chief", options.job_dir)
    directories = {}
    for name in ("checkpoints", "events"):
        directories[name] = cache / "chief" / name
        directories[name].mkdir(parents=True, exist_ok=True)
    mirror = CheckpointMirror(directories["checkpoints"], f"{options.job_dir.rstrip('/')}/checkpoints")
    mirror.restore()
    for packed in directories["checkpoints"].glob(f"*{PACKED_MODEL}"):
        packed.unlink()
    io = tf.train.CheckpointOptions(experimental_io_device="/job:chief" if place.strategy else None)
    manager = tf.train.CheckpointManager(trainer.checkpoint(), str(directories["checkpoints"]), max_to_keep=KEEP)
    if manager.latest_checkpoint:
        manager.checkpoint.restore(manager.latest_checkpoint, options=io)
    events_mirror = Mirror(directories["events"], f"{options.job_dir.rstrip('/')}/events")
    writer = tf.summary.create_file_writer(str(directories["events"]))

    def save(step: int) -> None:
        trainer.step.assign(step)
        manager.save(checkpoint_number=step, options=io)
        mirror.push()

    first = step = int(trainer.step.numpy())
    if step:
        print(f"Goes on from step {step}", file=sys.stderr, flush=True)
    pattern = data.train_pattern(options.data_dir, cache)
    iterator = place.iterator(
        lambda: data.train_batches(
            # Listed where the dataset runs: each worker has other shards.
            tf.data.Dataset.list_files(pattern) if files is None else tf.data.Dataset.from_tensor_slices([str(path) for path in files]),
            options,
            description.image_shape,
        )
    )
    calls: collections.deque = collections.deque()
    functions: dict = {}
    scheduled, saved, shown, began = step, step, 0.0, time.monotonic()
    while step < options.train_steps:
        while scheduled < options.train_steps and len(calls) < CALLS_AHEAD * place.workers and not stopped:
            count = min(options.steps_per_call, options.train_steps - scheduled)
            if count not in functions:
                functions[count] = trainer.steps(count)
            rate = learning_rate(options, scheduled)
            calls.append((count, rate, place.schedule(functions[count], (iterator, tf.constant(rate)))))
            scheduled += count
        if not calls:
            break
        count, rate, call = calls.popleft()
        loss = place.fetch(call)
        step += count
        seconds = time.monotonic() - began
        speed = (step - first) / seconds
        extra = {"loss": loss, "examples_per_second": speed * options.train_batch_size}
        if progress.report("train", step, options.train_steps, "steps", rate=speed, **extra):
            eta = (options.train_steps - step) / speed
            print(
                f"step {step}/{options.train_steps}  {speed:.1f} steps/s  {extra['examples_per_second']:.0f} examples/s  loss {loss:.3f}  ETA {eta:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        if time.monotonic() - shown > EVENTS_SECONDS or step == options.train_steps:
            shown = time.monotonic()
            with writer.as_default(step=step):
                tf.summary.scalar("loss", loss)
                tf.summary.scalar("learning_rate", rate)
                tf.summary.scalar("examples_per_second", extra["examples_per_second"])
            writer.flush()
            events_mirror.push()
        if step - saved >= options.checkpoint_steps and step < options.train_steps:
            save(step)
            saved = step
    seconds = time.monotonic() - began
    if step > saved or not manager.latest_checkpoint:
        save(step)
    if stopped and step < options.train_steps:
        # The checkpoint is on its way; this is for those who will not go on from it.
        exporting.pack_model(trainer.local_model(), Path(f"{manager.latest_checkpoint}{PACKED_MODEL}"))
        mirror.close()
        events_mirror.close()
        raise Stopped

    progress.report("evaluate")
    model = trainer.local_model()
    test_files = data.local_shards(options.data_dir, cache / "test", data.TEST)
    metrics = exporting.evaluate(model, data.test_batches(test_files, options, description.image_shape))
    steps = step - first
    metrics.update(
        train_steps=step,
        train_seconds=seconds,
        steps_per_second=steps / seconds if steps else None,
        examples_per_second=steps * options.train_batch_size / seconds if steps else None,
        parameters=options.parameters(),
        classes=list(description.classes),
        versions={"tensorflow": tf.__version__, "keras": keras.__version__, "python": platform.python_version()},
    )
    with writer.as_default(step=step):
        tf.summary.scalar("test_accuracy", metrics["test_accuracy"])
    writer.close()

    progress.report("export")
    exporting.save(model, Path(os.environ.get("DEEPTRAIN_EXPORT_DIR", "export")), manager.latest_checkpoint, metrics)
    mirror.close()
    events_mirror.close()
    print(f"test accuracy {metrics['test_accuracy']:.4f} over {metrics['test_examples']} examples", file=sys.stderr, flush=True)
    return metrics
