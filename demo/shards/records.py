# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""TFRecord files of tf.train.Example, written without TensorFlow; the same input gives the same bytes."""

from __future__ import annotations

import struct

import google_crc32c
import numpy as np

# Protocol Buffers' wire type of what has a length.
_LENGTH_DELIMITED = 2


def shard(images: np.ndarray, labels: np.ndarray) -> bytes:
    """A TFRecord file with an example for each image, uint8 [N, height, width, channels]."""
    return b"".join(record(example(image.tobytes(), int(label))) for image, label in zip(images, labels, strict=True))


def record(data: bytes) -> bytes:
    """Length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return b"".join((length, _masked_crc(length), data, _masked_crc(data)))


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def example(image: bytes, label: int) -> bytes:
    """A serialized tf.train.Example with the features ``image`` (bytes) and ``label`` (int64, not negative)."""
    bytes_list = _field(1, _field(1, image))
    int64_list = _field(3, _field(1, _varint(label)))
    return _field(1, _feature(b"image", bytes_list) + _feature(b"label", int64_list))


def _feature(name: bytes, value: bytes) -> bytes:
    """An entry of the map Features.feature."""
    return _field(1, _field(1, name) + _field(2, value))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
