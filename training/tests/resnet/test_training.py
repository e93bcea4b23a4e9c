# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The chief's loop: slow workers, losses that are no numbers, other networks, the order of the data, long phases."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import threading
from pathlib import Path

import pytest
import tensorflow as tf
from services import LIMIT, wait_until

from deeptrain.job import BadInput, JobError, Stopped
from deeptrain.resnet import __main__ as program
from deeptrain.resnet import cluster, data, executors, options, training
from deeptrain.resnet.model import Trainer


class Run:
    """A training of one process in a directory; its steps are the test's."""

    def __init__(self, directory: Path, dataset: Path, monkeypatch):
        self.directory, self.dataset, self.monkeypatch = directory, dataset, monkeypatch
        monkeypatch.setenv("DEEPTRAIN_PROGRESS_FILE", str(directory / "progress.jsonl"))
        monkeypatch.setenv("DEEPTRAIN_EXPORT_DIR", str(directory / "export"))
        # It takes longest, and is another test's.
        monkeypatch.setattr(training.exporting, "save_model", lambda model, directory: directory.mkdir(parents=True))

    def steps(self, function) -> None:
        """Replaces the steps by ``function(trainer, batch)``, which returns a loss."""

        def steps(trainer, count):
            return lambda iterator, rate: tf.constant(function(trainer, next(iterator)))

        self.monkeypatch.setattr(Trainer, "steps", steps)

    def options(self, *arguments: str) -> options.Options:
        given = ["--data-dir", str(self.dataset), "--job-dir", str(self.directory / "job"), "--steps-per-call", "1", "--train-batch-size", "16"]
        return options.parse([*given, *arguments])

    def train(self, *arguments: str, executor=None) -> dict:
        files = None if executor else data.local_shards(str(self.dataset), self.directory / "unused", data.TRAIN)
        return training.train(self.options(*arguments), executor or training.SingleProcess(), self.directory / "cache", files)

    def progress(self) -> list[dict]:
        """All lines of progress, which are legal JSON."""

        def refuse(constant):
            pytest.fail(f"{constant} is no JSON")

        return [json.loads(line, parse_constant=refuse) for line in (self.directory / "progress.jsonl").read_text().splitlines()]

    def saved(self) -> list[str]:
        """The checkpoints in the job's directory, the last one as its index names it."""
        directory = self.directory / "job" / "checkpoints"
        names = sorted(path.stem for path in directory.glob("*.index"))
        last = tf.train.latest_checkpoint(str(directory))
        return [*names, f"last {os.path.basename(last)}"] if last else names


@pytest.fixture
def run(tmp_path, dataset, monkeypatch):
    return Run(tmp_path, dataset, monkeypatch)


class Coordinator:
    """Simulated workers; the first one holds its first call until all others are done."""

    def __init__(self, strategy=None):
        self.calls: queue.Queue = queue.Queue()
        self.done = 0
        self.others_done = threading.Event()

    def begin(self, workers: int, calls: int) -> None:
        self.wanted = calls - 1
        slow = threading.Event()
        for _worker in range(workers):
            threading.Thread(target=self.work, args=(slow,), daemon=True).start()

    def work(self, slow) -> None:
        while True:
            call = self.calls.get()
            if not slow.is_set():
                slow.set()
                self.others_done.wait()
            else:
                self.done += 1
                if self.done == self.wanted:
                    self.others_done.set()
            call.set()

    def create_per_worker_dataset(self, make_dataset):
        return []

    def schedule(self, function, args):
        finished = threading.Event()
        self.calls.put(finished)

        class Call:
            def fetch(self):
                finished.wait()
                return 0.5

        return Call()


def test_a_slow_worker_holds_up_no_other(run, monkeypatch):
    coordinator = Coordinator()
    monkeypatch.setattr(tf.distribute, "ParameterServerStrategy", lambda resolver: None)
    monkeypatch.setattr(tf.distribute.coordinator, "ClusterCoordinator", lambda strategy: coordinator)
    monkeypatch.setattr(cluster, "answering", list)
    addresses = {"chief": ["127.0.0.1:1"], "ps": ["127.0.0.1:2"], "worker": [f"127.0.0.1:{port}" for port in range(3, 7)]}
    coordinator.begin(4, 200)
    ended = []

    def train():
        ended.append(run.train("--train-steps", "200", "--checkpoint-steps", "1000", executor=executors.Cluster(addresses, 600)))

    monkeypatch.setattr(training.signal, "signal", lambda *arguments: None)
    thread = threading.Thread(target=train, daemon=True)
    thread.start()
    # What the slow worker holds is the oldest call.
    assert coordinator.others_done.wait(LIMIT), f"{coordinator.done} of 199 calls were done while one worker held one"
    thread.join(LIMIT)
    assert ended[0]["train_steps"] == 200


class Reconnecting(executors.SingleProcess):
    """Has to connect again at once."""

    class watch:  # noqa: N801
        missing = ()

        @staticmethod
        def check():
            raise cluster.Reconnect("Worker w:1 is lost")


@pytest.fixture
def sigterm():
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def test_a_signal_while_the_training_reconnects_is_not_lost(run, monkeypatch, sigterm):
    run.steps(lambda trainer, batch: 1.0)
    files = data.local_shards(str(run.dataset), run.directory, data.TRAIN)

    def train():
        training.train(run.options("--train-steps", "100"), Reconnecting(), run.directory / "cache", files)

    # A signal after the last check ends the process.
    with pytest.raises(cluster.Reconnect):
        train()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    close = training.CheckpointMirror.close

    def stop(mirror):
        os.kill(os.getpid(), signal.SIGTERM)
        close(mirror)

    monkeypatch.setattr(training.CheckpointMirror, "close", stop)
    with pytest.raises(Stopped):
        train()
    assert [path.name for path in (run.directory / "job" / "checkpoints").glob(f"*{training.PACKED_MODEL}")]


def diverge(trainer):
    for weight in trainer.weights:
        weight.assign(tf.fill(weight.shape, float("nan")))


def test_a_loss_that_is_no_number_ends_the_training(run):
    losses = iter([1.0, 1.0, 1.0, 1.0, float("nan")])

    def step(trainer, batch):
        loss = next(losses)
        if loss != 1.0:
            diverge(trainer)
        return loss

    run.steps(step)
    with pytest.raises(BadInput, match=r"NaN.*step 5.*ckpt-4.*is kept.*learning_rate.*nan_loss"):
        run.train("--train-steps", "100", "--checkpoint-steps", "2")
    assert run.saved() == ["ckpt-4", "last ckpt-4"]
    assert run.progress()[-1]["extra"]["loss"] is None


def test_a_checkpoint_that_holds_no_numbers_is_discarded(run):
    done = []

    def step(trainer, batch):
        # Another worker's update arrives before its loss does.
        done.append(1)
        if len(done) == 4:
            diverge(trainer)
        return 1.0

    run.steps(step)
    with pytest.raises(BadInput, match=r"NaN.*ckpt-2.*is kept"):
        run.train("--train-steps", "100", "--checkpoint-steps", "2")
    assert run.saved() == ["ckpt-2", "last ckpt-2"]
    # The same start refuses nothing that is good.
    run.steps(lambda trainer, batch: 1.0)
    assert run.train("--train-steps", "4")["train_steps"] == 4


def test_a_loss_that_is_no_number_can_be_ignored(run):
    run.steps(lambda trainer, batch: diverge(trainer) or float("nan"))
    run.train("--train-steps", "3", "--nan-loss", "continue")

    def refuse(constant):
        pytest.fail(f"{constant} is no JSON")

    metrics = json.loads((run.directory / "export" / "metrics.json").read_text(), parse_constant=refuse)
    assert metrics["test_loss"] is None
    assert [record["extra"]["loss"] for record in run.progress() if record["phase"] == "train"][-1] is None


def test_a_checkpoint_of_another_network_is_refused(run, monkeypatch):
    run.steps(lambda trainer, batch: 1.0)
    run.train("--train-steps", "2")
    with pytest.raises(BadInput, match=r"ckpt-2 is of 8 layers.*3 classes.*make 20 layers.*num_layers"):
        run.train("--train-steps", "4", "--num-layers", "20")
    assert run.saved()[-1] == "last ckpt-2"


def test_a_resumed_training_does_not_repeat_the_order_of_the_data(run):
    seen = []

    def step(trainer, batch):
        seen.append(batch[0].numpy().sum(axis=(1, 2, 3)).tolist())
        return 1.0

    run.steps(step)
    run.train("--train-steps", "3", "--no-use-distortion-for-training")
    run.train("--train-steps", "6", "--no-use-distortion-for-training")
    first, second = seen[:3], seen[3:]
    assert len(second) == 3
    assert not [batch for batch in second if batch in first]
    # By the seed and the step: the whole again is the same again.
    shutil.rmtree(run.directory / "job")
    shutil.rmtree(run.directory / "cache")
    del seen[:]
    run.train("--train-steps", "3", "--no-use-distortion-for-training")
    assert seen == first


@pytest.mark.parametrize(("on_workers", "orders"), [(True, 3), (False, 1)])
def test_workers_that_run_one_graph_have_orders_of_their_own(on_workers, orders):
    graph = tf.function(lambda: training.data_order(7, on_workers))
    assert len({int(graph()) for _run in range(3)}) == orders


def test_missing_test_shards_are_found_before_the_training(run, tmp_path, dataset):
    run.dataset = tmp_path / "data"
    shutil.copytree(dataset, run.dataset, ignore=shutil.ignore_patterns("test-*"))
    run.steps(lambda trainer, batch: pytest.fail("trained without test shards"))
    with pytest.raises(BadInput, match="test-"):
        run.train("--train-steps", "1")
    (run.dataset / "test-0.tfrecord").write_bytes(b"")
    with pytest.raises(BadInput, match="no example"):
        run.train("--train-steps", "1")
    shutil.copy(next(dataset.glob("test-*")), run.dataset)
    description = json.loads((run.dataset / "dataset.json").read_text())
    (run.dataset / "dataset.json").write_text(json.dumps({**description, "image_shape": [16, 16, 3]}))
    with pytest.raises(BadInput, match="dataset.json"):
        run.train("--train-steps", "1")


def test_the_evaluation_reports_each_batch(run, monkeypatch):
    # Every report is written, as it is when batches take seconds.
    monkeypatch.setattr(training.Progress.__init__, "__defaults__", (0.0,))
    run.steps(lambda trainer, batch: 1.0)
    run.train("--train-steps", "1", "--eval-batch-size", "10")
    done = [record["done"] for record in run.progress() if record["phase"] == "evaluate"]
    assert done == [0, 10, 20, 30, 40, 50, 60, 61]
    phases = {record["phase"] for record in run.progress()}
    assert phases >= {"prepare", "restore", "train", "save", "evaluate", "export"}


def test_a_failed_evaluation_trains_nothing_again(run, monkeypatch):
    steps = []
    run.steps(lambda trainer, batch: steps.append(1) or 1.0)
    with monkeypatch.context() as broken:
        broken.setattr(training.exporting, "evaluate", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run.train("--train-steps", "3")
    assert run.train("--train-steps", "3")["train_steps"] == 3
    assert len(steps) == 3


@pytest.mark.parametrize(("cache", "available", "in_memory"), [("memory", 9000, True), ("memory", 100, False), ("none", 9000, False)])
def test_examples_in_memory_or_on_disk(run, tmp_path, monkeypatch, capsys, cache, available, in_memory):
    monkeypatch.setattr(data, "MEMINFO", tmp_path / "meminfo")
    (tmp_path / "meminfo").write_text(f"MemTotal:  100000 kB\nMemAvailable:      {available} kB\n")
    given = run.options("--cache", cache)
    # Of a share that was smaller.
    data.memory_mark(tmp_path).touch()
    files = data.worker_shards(str(run.dataset), tmp_path, given, 0, 1)
    assert len(files) == 4
    assert ("GiB of memory available: they are read from disk" in capsys.readouterr().err) == (available == 100)
    copies = [str(shutil.copy(path, tmp_path)) for path in files]
    batches = iter(data.train_batches(tf.data.Dataset.from_tensor_slices(copies), tmp_path, given, (32, 32, 3)))
    next(batches)
    for copy in copies:
        Path(copy).write_bytes(b"changed" * 10)
    if in_memory:
        for _batch in range(100):
            next(batches)
    else:
        with pytest.raises(tf.errors.DataLossError):
            for _batch in range(100):
                next(batches)


@pytest.mark.parametrize("driver", [True, False])
def test_a_driver_without_a_gpu(tmp_path, monkeypatch, driver):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(program, "NVIDIA_DRIVER", tmp_path / "version")
    monkeypatch.setattr(program, "NVIDIA_UVM", tmp_path / "nvidia-uvm")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    if driver:
        (tmp_path / "version").write_text("NVRM version: 550")
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)
    if driver:
        with pytest.raises(JobError, match=r"sees no GPU.*nvidia-uvm is missing.*nvidia-modprobe.*tensorflow_wheel: cpu"):
            program.check_gpu()
    else:
        program.check_gpu()
    # The CPU wheel was asked for.
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: False)
    program.check_gpu()


def test_every_gpu_is_seen(tmp_path, monkeypatch):
    """Without GPUs here: the driver's files and TensorFlow's list are simulated."""
    monkeypatch.setattr(program, "NVIDIA_DRIVER", Path(__file__))
    monkeypatch.setattr(program, "NVIDIA_GPUS", tmp_path)
    monkeypatch.setattr(tf.test, "is_built_with_cuda", lambda: True)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["GPU:0"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "0000:01:00.0").mkdir()
    program.check_gpu()
    (tmp_path / "0000:02:00.0").mkdir()
    with pytest.raises(JobError, match="sees 1 of the 2 GPUs"):
        program.check_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    program.check_gpu()


def test_progress_while_a_phase_lasts(tmp_path):
    progress = training.Progress(tmp_path / "progress.jsonl", interval=0.01)

    def lines():
        return len((tmp_path / "progress.jsonl").read_text().splitlines())

    with progress.during("connect"):
        wait_until(lambda: lines() >= 3, "it is reported again and again")


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-1], lambda content: content[:99] + bytes([content[99] ^ 1]) + content[100:]])
@pytest.mark.parametrize("suffix", ["index", "data-00000-of-00001"])
def test_a_damaged_checkpoint_is_not_readable(tmp_path, suffix, damage):
    saved = Path(tf.train.Checkpoint(weight=tf.Variable(tf.ones(100)), step=tf.Variable(7)).write(str(tmp_path / "ckpt-7")))
    assert training.readable(saved)
    path = tmp_path / f"{saved.name}.{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    assert not training.readable(saved)
    # A file that cannot be read at all says nothing of what it holds.
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        training.readable(saved)


def test_a_training_resumes_after_a_loss_of_power(run):
    """The node's files are empty, as of those that were not on the disk yet; HDFS has the checkpoint."""
    run.steps(lambda trainer, batch: 0.5)
    run.train("--train-steps", "2")
    for path in (run.directory / "cache" / "chief" / "checkpoints").glob("ckpt-*"):
        path.write_bytes(b"")
    run.train("--train-steps", "3")
    assert run.saved()[-1] == "last ckpt-3"
    # None but the last step was done again.
    assert [record["done"] for record in run.progress() if record["phase"] == "train"][-1] == 3
