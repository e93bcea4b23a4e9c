# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chief's loop, which is also that of a single process."""

from __future__ import annotations

import collections
import math
import os
import platform
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deeptrain.checkpoint import INDEX, PACKED_MODEL
from deeptrain.job import BadInput, Progress, Stopped
from deeptrain.resnet import cluster, data, exporting
from deeptrain.resnet.executors import Cluster, SingleProcess
from deeptrain.resnet.model import Trainer, learning_rate
from deeptrain.resnet.options import Options
from deeptrain.resnet.store import KEEP, CheckpointMirror, Mirror, forget_other

EVENTS_SECONDS = 10
# Between checks for a signal and for lost workers, when no call finishes.
POLL_SECONDS = 1.0
READ_BYTES = 16 << 20
# What the calls under way get to finish when the training is stopped.
DRAIN_SECONDS = 60.0


def _tensors(checkpoint: str | os.PathLike) -> Iterator[tuple[tf.DType, np.ndarray]]:
    reader = tf.train.load_checkpoint(os.fspath(checkpoint))
    for name, kind in reader.get_variable_to_dtype_map().items():
        yield kind, reader.get_tensor(name)


def readable(checkpoint: Path) -> bool:
    """Whether a checkpoint is intact; TensorFlow compares each tensor with its checksum. Raises OSError where a file cannot be read."""
    for path in checkpoint.parent.glob(f"{checkpoint.name}.*"):
        # TensorFlow's errors do not say whether it was read at all.
        with open(path, "rb") as file:
            while file.read(READ_BYTES):
                pass
    try:
        collections.deque(_tensors(checkpoint), maxlen=0)
    except (tf.errors.OpError, LookupError, ValueError) as error:
        print(f"The checkpoint {checkpoint} cannot be read, and does not count: {error}", file=sys.stderr, flush=True)
        return False
    return True


def holds_numbers(checkpoint: str) -> bool:
    """Whether a checkpoint holds neither NaN nor infinity. Losses say it later: updates of other workers are saved before their losses arrive."""
    return all(np.isfinite(tensor).all() for kind, tensor in _tensors(checkpoint) if kind.is_floating)


def discard(checkpoints: list[str]) -> str | None:
    """Removes the last of the checkpoints; returns the one before it, which the index then names."""
    *kept, last = map(Path, checkpoints)
    if kept:
        exporting.write_index(last.parent, [path.name for path in kept])
    else:
        (last.parent / INDEX).unlink()
    for path in last.parent.glob(f"{last.name}.*"):
        path.unlink()
    return str(kept[-1]) if kept else None


def data_order(seed: int, on_workers: bool) -> tf.Tensor:
    """The seed of the data's order, an int64: workers run the same graph, and a restarted one runs it again, so there it is another each time."""
    order = tf.constant(seed, tf.int64)
    return order + tf.cast(1e6 * tf.timestamp(), tf.int64) if on_workers else order


def train(options: Options, executor: SingleProcess | Cluster, cache: Path, files: list[Path] | None) -> dict:
    """Trains, evaluates and exports; returns the metrics.

    ``cache`` is the node's own directory for the run. ``files`` are the training shards of a
    single process; workers of a cluster list those in their own cache.
    """
    progress = Progress(os.environ.get("DEEPTRAIN_PROGRESS_FILE"))
    # What the evaluation needs is found before hours of training.
    with progress.during("prepare"):
        description = data.describe(options.data_dir)
        test_files = data.local_shards(options.data_dir, cache / "test", data.TEST)
        data.check_test_data(test_files, options, description.image_shape)

    executor.connect(progress)
    pattern = data.train_pattern(options.data_dir, cache)
    if files is None and (dealt := data.dealt_shards(options.data_dir, len(executor.cluster["worker"]))):
        cluster.deal(executor.cluster, cache, pattern, dealt, progress)
    stopped: list[float] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(time.monotonic()))

    with progress.during("restore"):
        trainer = Trainer(options, description.image_shape, len(description.classes), executor.strategy)
        forget_other(cache / "chief", options.job_dir)
        directories = {}
        for name in ("checkpoints", "events"):
            directories[name] = cache / "chief" / name
            directories[name].mkdir(parents=True, exist_ok=True)
        mirror = CheckpointMirror(directories["checkpoints"], f"{options.job_dir.rstrip('/')}/checkpoints")
        mirror.restore(readable)
        for packed in directories["checkpoints"].glob(f"*{PACKED_MODEL}"):
            packed.unlink()
        io = tf.train.CheckpointOptions(experimental_io_device="/job:chief" if executor.strategy else None)
        manager = tf.train.CheckpointManager(trainer.checkpoint(), str(directories["checkpoints"]), max_to_keep=KEEP)
        if manager.latest_checkpoint:
            trainer.check_checkpoint(manager.latest_checkpoint)
            manager.checkpoint.restore(manager.latest_checkpoint, options=io)
        events_mirror = Mirror(directories["events"], f"{options.job_dir.rstrip('/')}/events")
        writer = tf.summary.create_file_writer(str(directories["events"]))

    def refuse(step: int, good: str | None) -> BadInput:
        saved = f"the last good checkpoint, {Path(good).name}, is kept" if good else "no checkpoint was saved"
        return BadInput(
            f"The training diverged: the loss is no number (NaN) at step {step}; {saved}. Lower learning_rate in deeptrain_training_options and set "
            "deeptrain_resume_changed_training, or set nan_loss: continue"
        )

    def save(step: int) -> None:
        with progress.during("save"):
            mirror.hold()
            trainer.step.assign(step)
            path = manager.save(checkpoint_number=step, options=io)
            if options.nan_loss == "stop" and not holds_numbers(path):
                good = discard(manager.checkpoints)
                mirror.push()
                mirror.close()
                raise refuse(step, good)
            mirror.push()

    first = step = int(trainer.step.numpy())
    if step:
        print(f"Goes on from step {step}", file=sys.stderr, flush=True)
    # A resumed training does not repeat the order of the data.
    seed = options.seed * 1_000_003 + step
    tf.random.set_seed(seed % 2**31)

    def make_dataset():
        # Runs where the dataset is used: each worker lists its own shards.
        order = data_order(seed, on_workers=bool(executor.strategy))
        found = tf.data.Dataset.from_tensor_slices(list(map(str, files))) if files else tf.data.Dataset.list_files(pattern, seed=order)
        return data.train_batches(found, cache, options, description.image_shape, order)

    iterator = executor.iterator(make_dataset)
    functions: dict = {}
    scheduled, saved, shown, began, under_way = step, step, 0.0, time.monotonic(), 0
    while step < options.train_steps:
        while scheduled < options.train_steps and under_way < executor.capacity and not stopped:
            count = min(options.steps_per_call, options.train_steps - scheduled)
            if count not in functions:
                functions[count] = trainer.steps(count)
            rate = learning_rate(options, scheduled)
            executor.schedule(functions[count], (iterator, tf.constant(rate)), (count, rate))
            scheduled += count
            under_way += 1
        if not under_way or (stopped and time.monotonic() - stopped[0] > DRAIN_SECONDS):
            break
        finished = executor.finished(POLL_SECONDS)
        if executor.watch and not stopped:
            try:
                executor.watch.check()
            except cluster.Reconnect:
                if step > saved:
                    save(step)
                    saved = step
                mirror.close()
                events_mirror.close()
                # From here a signal ends the process, since the program that replaces this one would not know of it.
                handler = signal.signal(signal.SIGTERM, signal.SIG_DFL)
                if not stopped:
                    raise
                signal.signal(signal.SIGTERM, handler)
                break
        if finished is None:
            continue
        (count, rate), loss = finished
        under_way -= 1
        step += count
        seconds = time.monotonic() - began
        speed = (step - first) / seconds
        extra = {"loss": loss, "examples_per_second": speed * options.train_batch_size}
        if executor.watch and executor.watch.missing:
            extra["missing_workers"] = len(executor.watch.missing)
        if progress.report("train", step, options.train_steps, "steps", rate=speed, **extra):
            eta = (options.train_steps - step) / speed
            print(
                f"step {step}/{options.train_steps}  {speed:.1f} steps/s  {extra['examples_per_second']:.0f} examples/s  loss {loss:.3f}  ETA {eta:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        if not math.isfinite(loss) and options.nan_loss == "stop":
            progress.report("train", step, options.train_steps, "steps", rate=speed, force=True, **extra)
            mirror.close()
            events_mirror.close()
            raise refuse(step, manager.latest_checkpoint)
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
        with progress.during("save"):
            # The checkpoint is on its way; this is for those who will not go on from it.
            exporting.pack_model(trainer.local_model(), Path(f"{manager.latest_checkpoint}{PACKED_MODEL}"))
            mirror.close()
            events_mirror.close()
        raise Stopped

    progress.report("evaluate", 0, description.test_examples, "examples")
    model = trainer.local_model()
    metrics = exporting.evaluate(
        model,
        data.test_batches(test_files, options, description.image_shape),
        lambda done: progress.report("evaluate", done, description.test_examples, "examples"),
    )
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

    with progress.during("export"):
        exporting.save(model, Path(os.environ.get("DEEPTRAIN_EXPORT_DIR", "export")), manager.latest_checkpoint, metrics)
        mirror.close()
        events_mirror.close()
    print(f"test accuracy {metrics['test_accuracy']:.4f} over {metrics['test_examples']} examples", file=sys.stderr, flush=True)
    return metrics
