# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the training steps run: in this process, or on the workers of a cluster."""

from __future__ import annotations

import collections
import queue
import threading

import tensorflow as tf

from deeptrain.job import Progress
from deeptrain.resnet import cluster as servers

# Calls scheduled for each worker: one that it works on, one that waits for it.
CALLS_AHEAD = 2


class SingleProcess:
    """Runs the workers' function in this process."""

    # Calls that may be under way.
    capacity = 1
    strategy = None
    watch = None

    def __init__(self):
        self._finished: collections.deque = collections.deque()

    def connect(self, progress: Progress) -> None:
        pass

    def iterator(self, make_dataset):
        return iter(make_dataset())

    def schedule(self, function, arguments, tag) -> None:
        """Runs the function on the arguments; ``finished`` returns the tag with its result."""
        self._finished.append((tag, float(function(*arguments))))

    def finished(self, seconds: float):
        """The tag and the result of a finished call; None when none has finished in ``seconds``."""
        return self._finished.popleft()


class Cluster:
    """Runs the workers' function on whichever worker is free, and returns results in the order in which they arrive."""

    def __init__(self, cluster: dict, worker_seconds: float):
        self.cluster, self._worker_seconds = cluster, worker_seconds
        self._scheduled: queue.SimpleQueue = queue.SimpleQueue()
        self._finished: queue.SimpleQueue = queue.SimpleQueue()

    def connect(self, progress: Progress) -> None:
        """Waits for the servers and connects to them. ``cluster`` is then that of the workers that take part."""
        everybody = self.cluster["worker"]
        self.cluster = servers.wait(self.cluster, progress, self._worker_seconds)
        self.capacity = CALLS_AHEAD * len(self.cluster["worker"])
        self.watch = servers.Watch(everybody, self.cluster["worker"], self._worker_seconds)
        resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec(self.cluster), task_type="chief", task_id=0, rpc_layer="grpc")
        with progress.during("connect"):
            self.strategy = tf.distribute.ParameterServerStrategy(resolver)
            self._coordinator = tf.distribute.coordinator.ClusterCoordinator(self.strategy)
        # A RemoteValue can be waited for, but not asked whether it is ready.
        for _call in range(self.capacity):
            threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        while True:
            tag, call = self._scheduled.get()
            try:
                result = float(call.fetch())
            except Exception as error:
                result = error
            self._finished.put((tag, result))

    def iterator(self, make_dataset):
        return iter(self._coordinator.create_per_worker_dataset(make_dataset))

    def schedule(self, function, arguments, tag) -> None:
        self._scheduled.put((tag, self._coordinator.schedule(function, args=arguments)))

    def finished(self, seconds: float):
        try:
            tag, result = self._finished.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(result, Exception):
            raise result
        return tag, result
