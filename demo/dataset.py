# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put an image data set as TFRecord shards into S3 or a directory.

Each example has the features image (bytes, uint8 32x32x3, row by row) and label (int64). What is there already and
unchanged is not written again; shards of an earlier division are removed. S3's endpoint, region and credentials come
from the environment: AWS_ENDPOINT_URL, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from shards import Failure, records, sources
from shards.stores import S3, Directory, store

PARALLEL = 4
SEED = 2018
SHARD_NAME = re.compile(r"(train|test)-\d{5}-of-\d{5}\.tfrecord")


def plan(source: sources.Source, train_shards: int, test_shards: int) -> dict[str, tuple[sources.Split, np.ndarray]]:
    """What goes into each shard, by its name: a split and indices into it. Training's examples are shuffled."""
    shuffled = np.random.RandomState(SEED).permutation(len(source.train))
    found = {}
    for kind, split, order, shards in (
        ("train", source.train, shuffled, train_shards),
        ("test", source.test, np.arange(len(source.test)), test_shards),
    ):
        if len(split) < shards:
            raise Failure(f"{len(split)} {kind} examples cannot fill {shards} shards: lower --{kind}-shards")
        for number, indices in enumerate(np.array_split(order, shards)):
            found[f"{kind}-{number:05}-of-{shards:05}.tfrecord"] = split, indices
    return found


def description(source: sources.Source) -> bytes:
    """dataset.json."""
    document = {
        "name": source.name,
        "classes": source.classes,
        "image_shape": [sources.SIDE, sources.SIDE, 3],
        "train_examples": len(source.train),
        "test_examples": len(source.test),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


def upload(source: sources.Source, target: S3 | Directory, train_shards: int, test_shards: int) -> dict[str, int]:
    """Put the shards, then dataset.json; counts of files written, unchanged, removed, and the bytes written."""
    shards = plan(source, train_shards, test_shards)
    present = target.digests()

    def put(name: str, content: bytes) -> int:
        if present.get(name) == hashlib.md5(content, usedforsecurity=False).hexdigest():
            return 0
        target.put(name, content)
        return len(content)

    with ThreadPoolExecutor(PARALLEL) as pool:
        written = list(pool.map(lambda name: put(name, records.shard(*_examples(shards[name]))), shards))
    stale = [name for name in present if SHARD_NAME.fullmatch(name) and name not in shards]
    for name in stale:
        target.remove(name)
    written.append(put("dataset.json", description(source)))
    return {
        "written": sum(length > 0 for length in written),
        "unchanged": written.count(0),
        "removed": len(stale),
        "bytes": sum(written),
    }


def _examples(content: tuple[sources.Split, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    split, indices = content
    return split.select(indices)


def positive(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 99999")
    return int(text)


def arguments() -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--to", required=True, metavar="URL", help="s3://BUCKET/PREFIX, or a directory")
    common.add_argument("--train-shards", type=positive, default=8, metavar="N", help="default 8")
    common.add_argument("--test-shards", type=positive, default=2, metavar="N", help="default 2")
    common.add_argument("--limit", type=positive, metavar="N", help="only the first N examples of each split")

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = parser.add_subparsers(dest="name", required=True, metavar="DATASET")
    fashion = names.add_parser("fashion-mnist", parents=[common], help="Debian's package dataset-fashion-mnist")
    fashion.add_argument("--directory", type=Path, default=sources.FASHION_MNIST, metavar="DIR", help="its IDX files")
    cifar = names.add_parser("cifar-10", parents=[common], help="cifar-10-binary.tar.gz, which you give")
    cifar.add_argument("--archive", required=True, metavar="FILE|URL")
    cifar.add_argument("--sha256", metavar="HEX", help="what the archive's SHA-256 must be")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    began = time.monotonic()
    target = store(options.to)
    if options.name == "fashion-mnist":
        source = sources.fashion_mnist(options.directory)
    else:
        source = sources.cifar_10(options.archive, options.sha256)
    if options.limit:
        source = source.first(options.limit)
    done = upload(source, target, options.train_shards, options.test_shards)
    print(
        f"{source.name}: {len(source.train)} training and {len(source.test)} test images in {options.to}; "
        f"{done['written']} files written ({done['bytes'] / 1e6:.1f} MB), {done['unchanged']} unchanged, "
        f"{done['removed']} removed, {time.monotonic() - began:.1f} s"
    )


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(f"dataset.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
