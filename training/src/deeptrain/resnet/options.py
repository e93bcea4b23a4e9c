# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line."""

from __future__ import annotations

import argparse
import os
from dataclasses import asdict, dataclass

from deeptrain.job import BadInput

PROGRAM = "deeptrain.resnet"
NUM_LAYERS = (8, 20, 32, 44, 56)


@dataclass(frozen=True)
class Options:
    """What is trained and how."""

    data_dir: str
    job_dir: str
    train_steps: int
    train_batch_size: int
    eval_batch_size: int
    num_layers: int
    learning_rate: float
    momentum: float
    weight_decay: float
    use_distortion_for_training: bool
    batch_norm_decay: float
    batch_norm_epsilon: float
    checkpoint_steps: int
    steps_per_call: int
    seed: int
    cache: str = "memory"
    nan_loss: str = "stop"
    worker_minutes: float = 10.0

    def parameters(self) -> dict:
        """The options that make the model, without where things are and how the cluster works."""
        return {name: value for name, value in asdict(self).items() if name not in ("data_dir", "job_dir", "cache", "nan_loss", "worker_minutes")}


# Option → lowest and highest value that make sense.
RANGES = {
    "train_steps": (1, 10**9),
    "train_batch_size": (1, 65536),
    "eval_batch_size": (1, 65536),
    "learning_rate": (1e-8, 100.0),
    "momentum": (0.0, 0.9999),
    "weight_decay": (0.0, 1.0),
    "batch_norm_decay": (0.0, 0.99999),
    "batch_norm_epsilon": (1e-12, 1.0),
    "checkpoint_steps": (1, 10**9),
    "steps_per_call": (1, 1000),
    "worker_minutes": (0.01, 10_080.0),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise BadInput(f"{message}: see python -m {PROGRAM} --help, or deeptrain_training_options")


def parse(arguments: list[str] | None = None) -> Options:
    """Reads the command line; raises BadInput that names option and range."""
    # A misspelt option would pass as the abbreviation of another, and the right one later as another configuration.
    parser = _Parser(prog=f"python -m {PROGRAM}", allow_abbrev=False, description="Trains a ResNet on 32 x 32 images, by TF_CONFIG or in one process.")
    add = parser.add_argument
    add("--data-dir", default=os.environ.get("DEEPTRAIN_DATA_URL"), help="directory of the TFRecord shards, hdfs:// or local")
    add("--job-dir", default=os.environ.get("DEEPTRAIN_MODEL_URL"), help="directory of checkpoints and events, hdfs:// or local")
    add("--train-steps", type=int, default=2400, help="updates of the model, over all workers (%(default)s)")
    add("--train-batch-size", type=int, default=64, help="examples an update (%(default)s)")
    add("--eval-batch-size", type=int, default=500, help="examples a step of the evaluation (%(default)s)")
    add("--num-layers", type=int, choices=NUM_LAYERS, default=8, help="depth of the network (%(default)s)")
    add("--learning-rate", type=float, default=0.1, help="highest learning rate, reached after a warm-up (%(default)s)")
    add("--momentum", type=float, default=0.9, help="(%(default)s)")
    add("--weight-decay", type=float, default=2e-4, help="factor of the kernels' L2 norm in the loss (%(default)s)")
    add(
        "--use-distortion-for-training",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="mirror and shift the training images at random (%(default)s)",
    )
    add("--batch-norm-decay", type=float, default=0.9, help="of the moving averages (%(default)s)")
    add("--batch-norm-epsilon", type=float, default=1e-5, help="(%(default)s)")
    add("--checkpoint-steps", type=int, default=500, help="updates between checkpoints (%(default)s)")
    add("--steps-per-call", type=int, default=10, help="updates that a worker does at a time (%(default)s)")
    add("--seed", type=int, default=1, help="of the first weights and of the order of the data (%(default)s)")
    add(
        "--cache",
        choices=("memory", "none"),
        default="memory",
        help="where a worker keeps its training examples: in memory when they fit, or none, which reads the shards from its disk in each epoch (%(default)s)",
    )
    add(
        "--nan-loss",
        choices=("stop", "continue"),
        default="stop",
        help="whether a loss that is no number ends the training with the last good checkpoint kept (%(default)s)",
    )
    add(
        "--worker-minutes",
        type=float,
        default=10.0,
        help="minutes after which a worker that does not answer is left out and its shards are dealt to the others (%(default)s)",
    )
    options = Options(**vars(parser.parse_args(arguments)))
    for name, (low, high) in RANGES.items():
        value = getattr(options, name)
        if not low <= value <= high:
            option = name.replace("_", "-")
            raise BadInput(f"--{option} is {value}: use {low} to {high} (deeptrain_training_options: {{{name}: …}})")
    for name, variable in (("data_dir", "DEEPTRAIN_DATA_URL"), ("job_dir", "DEEPTRAIN_MODEL_URL")):
        if not getattr(options, name):
            raise BadInput(f"There is no --{name.replace('_', '-')}: give it, or set {variable}")
    return options
