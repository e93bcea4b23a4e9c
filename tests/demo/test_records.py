# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib

import google_crc32c
import numpy as np

from shards import records

# Two examples with images of 2x2x3, as TensorFlow 2.21's TFRecordWriter wrote them.
WRITTEN_BY_TENSORFLOW = bytes.fromhex(
    "2d000000000000003c418afb0a2b0a190a05696d61676512100a0e0a0c000102030405060708090a0b0a0e0a056c6162656c12051a030a0107"
    "0993635f2e00000000000000c5cb57fa0a2c0a190a05696d61676512100a0e0a0c0c0d0e0f10111213141516170a0f0a056c6162656c1206"
    "1a040a02ac0245acd8e8"
)
# SHA-256 of an example with a whole image, as TensorFlow serialized it.
WHOLE_IMAGE = "e66bc00c24ae981a5409cbecbb7e7950d515589acb6788dce3fbf732b929d545"


def test_same_bytes_as_tensorflow():
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    assert records.shard(images, np.array([7, 300])) == WRITTEN_BY_TENSORFLOW


def test_same_bytes_as_tensorflow_where_lengths_take_two_bytes():
    image = bytes(number % 256 for number in range(3072))
    assert hashlib.sha256(records.example(image, 9)).hexdigest() == WHOLE_IMAGE


def test_checksum_is_castagnoli():
    assert google_crc32c.value(b"123456789") == 0xE3069283
