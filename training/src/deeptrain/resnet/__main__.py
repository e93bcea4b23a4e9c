# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Acts by the task's type in TF_CONFIG: chief, worker or ps; without it, all in one process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from deeptrain.job import EXIT_STOPPED, BadInput, JobError, Stopped
from deeptrain.resnet import options as command_line

# gRPC would ask a proxy for the other tasks; TensorFlow reads these when it is imported.
for _name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ.pop(_name, None)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

TASKS = ("chief", "worker", "ps")


def read_task() -> tuple[dict, str, int] | None:
    """The cluster, and this task's type and index; None without TF_CONFIG. Raises BadInput."""
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    try:
        document = json.loads(text)
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


def serve(cluster: dict, kind: str, index: int, options) -> None:
    """Serves a worker or a parameter server, for ever. A worker has its shards on the node before it answers."""
    if kind == "worker":
        from deeptrain.resnet import data

        data.local_shards(options.data_dir, cache_dir() / "train", data.TRAIN, index, len(cluster["worker"]))
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
        from deeptrain.resnet import data, training

        if task:
            import tensorflow as tf

            place, files = training.Cluster(tf.distribute.cluster_resolver.TFConfigClusterResolver()), None
        else:
            place = training.SingleProcess()
            files = data.local_shards(options.data_dir, cache_dir() / "train", data.TRAIN)
        training.train(options, place, cache_dir(), files)
    except Stopped:
        return EXIT_STOPPED
    except JobError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
