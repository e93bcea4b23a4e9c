# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A residual network for small images, and the update of its weights."""

from __future__ import annotations

import contextlib
import math
import re

import keras
import tensorflow as tf

from deeptrain.job import BadInput
from deeptrain.resnet.options import Options

FILTERS = (16, 32, 64)
WARM_UP = 0.05


def build(options: Options, shape: tuple[int, int, int], classes: int) -> keras.Model:
    """ResNet of 6n + 2 layers; takes uint8 images [N, H, W, C] as stored, gives logits [N, classes]."""
    layers = keras.layers

    def convolution(x, filters, size=3, stride=1):
        return layers.Conv2D(filters, size, stride, padding="same", use_bias=False, kernel_initializer="he_normal")(x)

    def normal(x):
        return layers.BatchNormalization(momentum=options.batch_norm_decay, epsilon=options.batch_norm_epsilon)(x)

    images = keras.Input(shape, dtype="uint8")
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(images)
    x = layers.ReLU()(normal(convolution(x, FILTERS[0])))
    for stage, filters in enumerate(FILTERS):
        for block in range((options.num_layers - 2) // 6):
            stride = 2 if stage > 0 and block == 0 else 1
            shortcut = x
            if stride == 2:
                shortcut = normal(convolution(x, filters, 1, stride))
            x = layers.ReLU()(normal(convolution(x, filters, 3, stride)))
            x = normal(convolution(x, filters))
            x = layers.ReLU()(layers.Add()([x, shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, layers.Dense(classes)(x))


def learning_rate(options: Options, step: int) -> float:
    """Rises linearly, then falls to 0 as a cosine does."""
    warm_up = max(1, int(options.train_steps * WARM_UP))
    if step < warm_up:
        return options.learning_rate * (step + 1) / warm_up
    share = (step - warm_up) / max(1, options.train_steps - warm_up)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


def describe(shapes: list[list[int]]) -> str:
    """The kind of network that weights of these shapes make."""
    kernels = [shape for shape in shapes if len(shape) > 1]
    if len(kernels) < 3:
        return "another program"
    # Two of the kernels are projections, beside the layers that are counted.
    return f"{len(kernels) - 2} layers for images with {kernels[0][-2]} channels and {kernels[-1][-1]} classes"


class Trainer:
    """A model, its momentum and one update. Variables are where the scope puts them, on parameter servers in a cluster."""

    def __init__(self, options: Options, shape: tuple[int, int, int], classes: int, strategy=None):
        self.options = options
        keras.utils.set_random_seed(options.seed)
        with strategy.scope() if strategy else contextlib.nullcontext():
            self.model = build(options, shape, classes)
            # Counted by the chief: a call that a lost worker left half done is done again as a whole.
            self.step = tf.Variable(0, dtype=tf.int64, name="step")
            self.weights = [weight.value for weight in self.model.trainable_weights]
            self.kernels = [weight.value for weight in self.model.trainable_weights if "kernel" in weight.path]
            self.slots = []
            for weight in self.weights:
                # The update runs where both are.
                with strategy.extended.colocate_vars_with(weight) if strategy else contextlib.nullcontext():
                    self.slots.append(tf.Variable(tf.zeros(weight.shape), name="momentum", trainable=False))

    def checkpoint(self) -> tf.train.Checkpoint:
        values = [weight.value for weight in self.model.weights]
        return tf.train.Checkpoint(step=self.step, values=values, momentum=self.slots)

    def check_checkpoint(self, path: str) -> None:
        """Raises BadInput when a checkpoint is of another network than this one."""
        shapes = tf.train.load_checkpoint(path).get_variable_to_shape_map()

        def saved(name):
            found = ((re.fullmatch(rf"{name}/(\d+)/.*VARIABLE_VALUE", key), shape) for key, shape in shapes.items())
            return [shape for _index, shape in sorted((int(match[1]), shape) for match, shape in found if match)]

        found, wanted = saved("values"), [list(weight.shape) for weight in self.model.weights]
        if found != wanted or saved("momentum") != [list(slot.shape) for slot in self.slots]:
            raise BadInput(
                f"The checkpoint {path} is of {describe(found)}; the options and the data make {describe(wanted)}: "
                "use the same num_layers (deeptrain_training_options) and the same kind of data, or another deeptrain_run"
            )

    def update(self, images, labels, rate):
        """One step of gradient descent; returns the mean cross-entropy."""
        with tf.GradientTape() as tape:
            logits = self.model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
            total = loss + self.options.weight_decay * tf.add_n([tf.nn.l2_loss(kernel) for kernel in self.kernels])
        for weight, slot, gradient in zip(self.weights, self.slots, tape.gradient(total, self.weights), strict=True):
            # This operation runs on the parameter server: only the gradient travels.
            tf.raw_ops.ResourceApplyMomentum(
                var=weight.handle,
                accum=slot.handle,
                lr=rate,
                grad=gradient,
                momentum=self.options.momentum,
                use_locking=True,
                use_nesterov=True,
            )
        return loss

    def steps(self, count: int):
        """The function that a worker runs: ``count`` updates from its iterator; returns the mean of their losses."""

        @tf.function
        def run(iterator, rate):
            loss = tf.constant(0.0)
            for _step in tf.range(count):
                images, labels = next(iterator)
                loss += self.update(images, labels, rate)
            return loss / count

        return run

    def local_model(self) -> keras.Model:
        """A copy of the model in this process."""
        shape, classes = self.model.input_shape[1:], self.model.output_shape[-1]
        copy = build(self.options, shape, classes)
        for target, source in zip(copy.weights, self.model.weights, strict=True):
            target.assign(source.value.numpy())
        return copy
