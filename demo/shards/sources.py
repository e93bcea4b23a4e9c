# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Image data sets as they are published: Fashion-MNIST's IDX files and CIFAR-10's binary archive."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import shutil
import tarfile
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from shards import Failure

SIDE = 32
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip
CIFAR_10_FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR_10_RECORD = 1 + 3 * SIDE * SIDE


@dataclass(frozen=True)
class Split:
    """Images, uint8 [N, 28, 28] or [N, 3, 32, 32] as published, and their labels, uint8 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        return Split(self.images[:count], self.labels[:count])

    def select(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images of these indices as uint8 [N, 32, 32, 3], and their labels."""
        images = self.images[indices]
        if images.ndim == 3:
            margin = (SIDE - images.shape[1]) // 2
            images = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
            images = np.repeat(images[..., np.newaxis], 3, axis=3)
        else:
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return images, self.labels[indices]


@dataclass(frozen=True)
class Source:
    """A data set: its name, the classes' names by label, its two splits."""

    name: str
    classes: list[str]
    train: Split
    test: Split

    def first(self, count: int) -> Source:
        """The same with so many examples at most in each split."""
        return Source(self.name, self.classes, self.train.first(count), self.test.first(count))


def fashion_mnist(directory: Path = FASHION_MNIST) -> Source:
    """Fashion-MNIST from its four IDX files."""
    return Source("fashion-mnist", FASHION_MNIST_CLASSES, _idx_split(directory, "train"), _idx_split(directory, "t10k"))


def _idx_split(directory: Path, name: str) -> Split:
    images = _idx(directory / f"{name}-images-idx3-ubyte.gz", 3)
    labels = _idx(directory / f"{name}-labels-idx1-ubyte.gz", 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        raise Failure(f"{directory}: {name} has images {images.shape} and labels {labels.shape}, not N of 28x28 and N")
    _check_labels(labels, len(FASHION_MNIST_CLASSES), directory)
    return Split(images, labels)


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """The array of bytes in a gzipped IDX file."""
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise Failure(
            f"{path} is not there: install Debian's package dataset-fashion-mnist, or give --directory"
        ) from None
    except (OSError, EOFError) as error:
        raise Failure(f"{path} cannot be read: {error}") from error
    header = 4 + 4 * dimensions
    # Two zeros, the type "unsigned byte", the number of dimensions; then each dimension.
    if len(content) < header or content[:4] != bytes((0, 0, 8, dimensions)):
        raise Failure(f"{path} is no IDX file of bytes in {dimensions} dimensions")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4)
    if len(content) - header != np.prod(shape, dtype=np.int64):
        raise Failure(f"{path} has {len(content) - header} bytes of data, not {'x'.join(map(str, shape))}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def cifar_10(archive: str, sha256: str | None = None) -> Source:
    """CIFAR-10 from its binary archive, a file or an http(s) URL; the digest is checked before anything is read."""
    with _opened(archive) as file:
        if sha256:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256.lower():
                raise Failure(f"{archive} has the SHA-256 {found}, not {sha256}: get it again, or mend --sha256")
            file.seek(0)
        contents = _cifar_10_contents(archive, file)
    classes = contents["batches.meta.txt"].decode("ascii").split()
    splits = {}
    for split, names in CIFAR_10_FILES.items():
        for name in names:
            if not contents[name] or len(contents[name]) % CIFAR_10_RECORD:
                raise Failure(f"{archive}: {name} has {len(contents[name])} bytes, not N x {CIFAR_10_RECORD}")
        records = np.frombuffer(b"".join(contents[name] for name in names), np.uint8).reshape(-1, CIFAR_10_RECORD)
        splits[split] = Split(records[:, 1:].reshape(-1, 3, SIDE, SIDE), records[:, 0])
        _check_labels(splits[split].labels, len(classes), archive)
    return Source("cifar-10", classes, **splits)


@contextlib.contextmanager
def _opened(archive: str) -> Iterator[BinaryIO]:
    """The archive, from a file or through a temporary one."""
    if not archive.startswith(("http://", "https://")):
        try:
            file = open(archive, "rb")
        except OSError as error:
            raise Failure(
                f"{archive} cannot be read ({error.strerror}): give cifar-10-binary.tar.gz, file or URL"
            ) from error
        with file:
            yield file
        return
    with tempfile.TemporaryFile() as file:
        try:
            with urllib.request.urlopen(archive, timeout=60) as response:
                shutil.copyfileobj(response, file, 1 << 20)
        except OSError as error:
            raise Failure(f"{archive} cannot be downloaded: {error}") from error
        file.seek(0)
        yield file


def _cifar_10_contents(archive: str, file: BinaryIO) -> dict[str, bytes]:
    wanted = {"batches.meta.txt", *(name for names in CIFAR_10_FILES.values() for name in names)}
    contents = {}
    try:
        with tarfile.open(fileobj=file, mode="r:gz") as members:
            for member in members:
                name = member.name.rpartition("/")[2]
                if member.isfile() and name in wanted:
                    contents[name] = members.extractfile(member).read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise Failure(f"{archive} is no whole tar.gz archive ({error}): get it again") from error
    if missing := sorted(wanted - contents.keys()):
        raise Failure(
            f"{archive} lacks {', '.join(missing)}: it must be CIFAR-10's binary version, cifar-10-binary.tar.gz"
        )
    return contents


def _check_labels(labels: np.ndarray, classes: int, where: object) -> None:
    if len(labels) and labels.max() >= classes:
        raise Failure(f"{where} has the label {labels.max()}, though there are {classes} classes")
