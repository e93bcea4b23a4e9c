# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Acts by the task's type in TF_CONFIG: chief, worker or ps; without it, all in one process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from deeptrain import documents
from deeptrain.job import EXIT_STOPPED, BadInput, JobError, Progress, Stopped
from deeptrain.resnet import options as command_line
from deeptrain.resnet.cluster import Reconnect

# gRPC would ask a proxy for the other tasks; TensorFlow reads these when it is imported.
for _name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ.pop(_name, None)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
NVIDIA_UVM = Path("/dev/nvidia-uvm")
TASKS = ("chief", "worker", "ps")


def read_task() -> tuple[dict, str, int] | None:
    """The cluster, and this task's type and index; None without TF_CONFIG. Raises BadInput."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        document = documents.parse(text)
        cluster, task = document["cluster"], document["task"]
        kind, index = task["type"], int(task["index"])
        cluster[kind][index]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise BadInput(f"TF_CONFIG is not a cluster with this task in it ({error!r}): {text}") from error
    if kind not in TASKS:
        raise BadInput(f"TF_CONFIG's task is a {kind}: use chief, worker or ps")
    for name in TASKS:
        if not cluster.get(name):
            raise BadInput(f"TF_CONFIG's cluster has no {name}: parameter-server training needs a chief, workers and parameter servers")
    return cluster, kind, index


def cache_dir() -> Path:
    """The node's own directory for this run."""
    return Path(os.environ.get("DEEPTRAIN_CACHE_DIR", "cache")).absolute()


def check_gpu() -> None:
    """Raises JobError when TensorFlow's GPU build does not see every GPU of a node that has NVIDIA's driver."""
    if not NVIDIA_DRIVER.exists() or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return
    import tensorflow as tf

    if not tf.test.is_built_with_cuda():
        return
    seen = len(tf.config.list_physical_devices("GPU"))
    if not seen:
        missing = "" if NVIDIA_UVM.exists() else f"{NVIDIA_UVM} is missing: run nvidia-modprobe -u -c 0 as root; "
        raise JobError(
            f"This node has an NVIDIA driver ({NVIDIA_DRIVER}) and TensorFlow {tf.__version__} sees no GPU, so it would train on the CPU. "
            f"{missing}compare nvidia-smi with TensorFlow's messages in this journal, or set tensorflow_wheel: cpu"
        )
    there = sum(1 for _gpu in NVIDIA_GPUS.glob("*"))
    if seen < there and "CUDA_VISIBLE_DEVICES" not in os.environ:
        raise JobError(
            f"TensorFlow {tf.__version__} sees {seen} of the {there} GPUs of this node ({NVIDIA_GPUS}): compare nvidia-smi with TensorFlow's"
            " messages in this journal, or name those to use in CUDA_VISIBLE_DEVICES"
        )


def serve(cluster: dict, kind: str, index: int, options) -> None:
    """Serves a worker or a parameter server, for ever. A worker has its shards on the node before it answers."""
    if kind == "worker":
        from deeptrain.resnet import data
        from deeptrain.resnet.cluster import follow_deals, read_deal

        check_gpu()

        def fetch(index, count):
            return data.worker_shards(options.data_dir, cache_dir(), options, index, count)

        dealt, count = (index, len(cluster["worker"])), len(cluster["worker"])
        if options.data_dir.startswith("hdfs://"):
            found = read_deal(cache_dir(), *dealt)
            # Not of a cluster of another shape.
            dealt = found if 0 <= found[0] < found[1] <= count else dealt
        fetch(*dealt)
        follow_deals(cache_dir(), dealt, fetch)
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
    server = tf.distribute.Server(cluster, job_name=kind, task_index=index, protocol="grpc", start=True)
    server.join()


def main() -> int:
    try:
        options = command_line.parse()
        task = read_task()
        if task and task[1] != "chief":
            serve(*task, options)
            return 0
        from deeptrain.resnet import data, executors, training

        if task:
            executor, files = executors.Cluster(task[0], 60 * options.worker_minutes), None
        else:
            check_gpu()
            executor = executors.SingleProcess()
            files = data.worker_shards(options.data_dir, cache_dir(), options, 0, 1)
        training.train(options, executor, cache_dir(), files)
    except Reconnect as change:
        print(f"{change}; connects to the workers that answer", file=sys.stderr, flush=True)
        executor.watch.reconnect()
    except Stopped:
        return EXIT_STOPPED
    except JobError as error:
        print(error, file=sys.stderr, flush=True)
        Progress(os.environ.get("DEEPTRAIN_PROGRESS_FILE")).report("failed", error=str(error))
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
