# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a SavedModel from S3, ask it for three images, and print what it says of them as JSON."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "demo"))

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from evaluate import download  # noqa: E402

with tempfile.TemporaryDirectory() as directory:
    download(sys.argv[1], Path(directory))
    serve = tf.saved_model.load(directory).signatures["serving_default"]
    ((name, spec),) = serve.structured_input_signature[1].items()
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    (output,) = serve(**{name: tf.constant(images)}).values()

print(
    json.dumps(
        {
            "input": [spec.dtype.name, spec.shape.as_list()],
            "shape": list(output.shape),
            "lowest": float(output.numpy().min()),
            "sums": output.numpy().sum(axis=1).tolist(),
        }
    )
)
