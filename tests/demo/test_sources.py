# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import functools
import hashlib
import http.server
import threading

import numpy as np
import pytest
from conftest import CIFAR_10_CLASSES, cifar_10_files, idx

from shards import Failure, sources


def test_fashion_mnist_is_padded_and_has_three_equal_channels(fashion_directory):
    source = sources.fashion_mnist(fashion_directory)
    images, labels = source.train.select(np.array([5, 11]))
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    assert labels.tolist() == [5, 1]
    assert (images[:, 2:30, 2:30, 1] == source.train.images[[5, 11]]).all()
    assert (images[..., 0] == images[..., 2]).all()
    assert images[:, :2].max() == images[:, 30:].max() == images[:, :, :2].max() == images[:, :, 30:].max() == 0


def test_debians_fashion_mnist():
    source = sources.fashion_mnist()
    assert np.bincount(source.train.labels).tolist() == [6000] * 10
    assert np.bincount(source.test.labels).tolist() == [1000] * 10
    assert len(source.classes) == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "install Debian's package dataset-fashion-mnist"),
        (b"no gzip", "cannot be read"),
        (idx(np.zeros((20, 28, 28), np.uint8))[:-20], "cannot be read"),
        (idx(np.zeros(20, np.uint8)), "no IDX file of bytes in 3 dimensions"),
        (idx(np.zeros((20, 32, 32), np.uint8)), "N of 28x28"),
        (idx(np.zeros((19, 28, 28), np.uint8)), "N of 28x28"),
    ],
)
def test_wrong_images(fashion_directory, tmp_path, content, message):
    for path in fashion_directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "t10k-images-idx3-ubyte.gz").unlink()
    if content is not None:
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(Failure, match=message):
        sources.fashion_mnist(tmp_path)


def test_cifar_10_goes_from_planes_to_pixels(make_archive):
    source = sources.cifar_10(str(make_archive(cifar_10_files())))
    assert source.classes == CIFAR_10_CLASSES
    assert (len(source.train), len(source.test)) == (20, 4)
    images, labels = source.test.select(np.arange(4))
    assert labels.tolist() == [3, 1, 4, 9]
    assert images.shape == (4, 32, 32, 3)
    assert (images == [0, 1, 2]).all()


def test_cifar_10_from_a_url(make_archive):
    path = make_archive(cifar_10_files())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=path.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert len(sources.cifar_10(f"{url}/{path.name}", digest).train) == 20
            with pytest.raises(Failure, match="other.tar.gz cannot be downloaded.*404"):
                sources.cifar_10(f"{url}/other.tar.gz")
        finally:
            server.shutdown()


def test_wrong_digest(make_archive):
    with pytest.raises(Failure, match="has the SHA-256 [0-9a-f]{64}, not 00"):
        sources.cifar_10(str(make_archive(cifar_10_files())), "00" * 32)


def test_no_archive(tmp_path):
    with pytest.raises(Failure, match="give cifar-10-binary.tar.gz"):
        sources.cifar_10(str(tmp_path / "nothing"))


def test_truncated_archive(make_archive):
    path = make_archive(cifar_10_files())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Failure, match="no whole tar.gz"):
        sources.cifar_10(str(path))


def test_other_archive(make_archive):
    files = cifar_10_files()
    del files["data_batch_4.bin"]
    with pytest.raises(Failure, match="lacks data_batch_4.bin: it must be CIFAR-10's binary version"):
        sources.cifar_10(str(make_archive(files)))


def test_wrong_size(make_archive):
    files = cifar_10_files()
    files["test_batch.bin"] += b"x"
    with pytest.raises(Failure, match="test_batch.bin has 12293 bytes, not N x 3073"):
        sources.cifar_10(str(make_archive(files)))


def test_wrong_label(make_archive):
    files = cifar_10_files()
    files["test_batch.bin"] = b"\x0a" + files["test_batch.bin"][1:]
    with pytest.raises(Failure, match="label 10, though there are 10 classes"):
        sources.cifar_10(str(make_archive(files)))
