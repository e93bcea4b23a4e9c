# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checkpoints on the node and in HDFS: which one counts, and that none is lost when the work is interrupted."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from services import own_length

from deeptrain import checkpoint, identity
from deeptrain.hdfs import Hdfs
from deeptrain.job import JobError
from deeptrain.resnet import store


def index(*names: str) -> bytes:
    """An index as TensorFlow writes it; the last name is that of the last checkpoint."""
    return "".join([f'model_checkpoint_path: "{names[-1]}"\n', *(f'all_model_checkpoint_paths: "{name}"\n' for name in names)]).encode()


def files(step: int, shards: int = 1) -> list[str]:
    return [f"ckpt-{step}.index", *(f"ckpt-{step}.data-{shard:05}-of-{shards:05}" for shard in range(shards))]


def save(directory: Path, *steps: int) -> None:
    """Saves checkpoints as TensorFlow's manager does; only those are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    for step in steps:
        for name in files(step):
            (directory / name).write_text(f"{name} {step}")
    (directory / "checkpoint").write_bytes(index(*(f"ckpt-{step}" for step in steps)))
    for path in directory.iterdir():
        if path.name not in ("checkpoint", *(name for step in steps for name in files(step))):
            path.unlink()


def last(directory) -> str | None:
    found = checkpoint.find(directory)
    return found and found[0]


class Cut(OSError):
    pass


def readable(path: Path) -> bool:
    """Stands in for TensorFlow, which compares checksums: the files hold their own names."""
    name = path.name
    step = checkpoint.step_of(name)
    return all((path.parent / file).read_text() == f"{file} {step}" for file in files(step))


def mirror(local: Path, url: str):
    local.mkdir(parents=True, exist_ok=True)
    return store.CheckpointMirror(local, url)


@pytest.mark.parametrize("count", range(3))
def test_a_restore_cut_off_at_any_file_is_repeated(tmp_path, hdfs, monkeypatch, count):
    save(tmp_path / "first", 100)
    mirror(tmp_path / "first", hdfs.url).close()
    before = set(hdfs.files())
    download, done = Hdfs.download, []

    def cut_off(self, name, local):
        if len(done) == count:
            Path(local).parent.mkdir(parents=True, exist_ok=True)
            Path(f"{local}.part").write_bytes(b"half")
            raise Cut
        done.append(name)
        return download(self, name, local)

    second = tmp_path / "second"
    with monkeypatch.context() as patch:
        patch.setattr(Hdfs, "download", cut_off)
        try:
            mirror(second, hdfs.url).restore(readable)
        except Cut:
            assert last(store.LocalDirectory(second)) is None
    again = mirror(second, hdfs.url)
    again.restore(readable)
    assert last(store.LocalDirectory(second)) == "ckpt-100"
    again.close()
    assert set(hdfs.files()) == before
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}


def test_nothing_in_hdfs_is_removed_for_a_node_that_has_no_checkpoint(tmp_path, hdfs):
    save(tmp_path / "first", 100)
    mirror(tmp_path / "first", hdfs.url).close()
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "ckpt-100.index.part").write_bytes(b"half")
    mirror(tmp_path / "second", hdfs.url).close()
    assert last(hdfs) == "ckpt-100"


def test_the_newer_of_node_and_hdfs_counts(tmp_path, hdfs):
    a, b = tmp_path / "a", tmp_path / "b"
    save(a, 100)
    mirror(a, hdfs.url).close()
    # The chief moves to another node, and back.
    on_b = mirror(b, hdfs.url)
    on_b.restore(readable)
    save(b, 100, 200)
    on_b.close()
    on_a = mirror(a, hdfs.url)
    on_a.restore(readable)
    assert last(store.LocalDirectory(a)) == "ckpt-200"
    on_a.close()
    assert last(hdfs) == "ckpt-200"
    # What was saved and not mirrored is newer than HDFS.
    save(a, 200, 300)
    on_a = mirror(a, hdfs.url)
    on_a.restore(readable)
    assert last(store.LocalDirectory(a)) == "ckpt-300"
    on_a.close()
    assert last(hdfs) == "ckpt-300"


def test_a_local_index_of_missing_files_is_not_restored(tmp_path, hdfs):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "checkpoint").write_bytes(index("ckpt-7"))
    mirror(tmp_path / "here", hdfs.url).restore(readable)
    # TensorFlow would look for its files.
    assert not (tmp_path / "here" / "checkpoint").exists()


def empty(path: Path) -> None:
    """As a loss of power leaves a file that was just written."""
    path.write_bytes(b"")


def test_an_unreadable_local_checkpoint_does_not_count(tmp_path, hdfs):
    here = tmp_path / "here"
    save(here, 100)
    mirror(here, hdfs.url).close()
    # One that HDFS has, and one that it does not have yet.
    for steps in ((100,), (100, 200)):
        save(here, *steps)
        empty(here / files(steps[-1])[1])
        again = mirror(here, hdfs.url)
        again.restore(readable)
        assert last(store.LocalDirectory(here)) == "ckpt-100"
        assert readable(here / "ckpt-100")
        again.close()
        assert last(hdfs) == "ckpt-100"
        assert hdfs.read_bytes(files(100)[1]) == f"{files(100)[1]} 100".encode()


def test_an_older_local_checkpoint_takes_the_place_of_an_unreadable_one(tmp_path, hdfs):
    here = tmp_path / "here"
    save(here, 100)
    mirror(here, hdfs.url).close()
    save(here, 200, 300, 400)
    empty(here / files(400)[0])
    empty(here / files(300)[1])
    again = mirror(here, hdfs.url)
    again.restore(readable)
    assert last(store.LocalDirectory(here)) == "ckpt-200"
    again.close()
    assert last(hdfs) == "ckpt-200"
    for name in files(200):
        empty(here / name)
    mirror(here, hdfs.url).restore(readable)
    assert readable(here / "ckpt-200")
    hdfs.delete("checkpoint")
    for name in files(200):
        empty(here / name)
    mirror(here, hdfs.url).restore(readable)
    assert not (here / "checkpoint").exists()


def test_parts_of_a_save_that_was_interrupted_are_no_checkpoint(tmp_path, hdfs):
    """TensorFlow writes those of each device first."""
    here = tmp_path / "here"
    (here / "ckpt-7_temp").mkdir(parents=True)
    for suffix in ("index", "data-00000-of-00001"):
        (here / "ckpt-7_temp" / f"part-00000-of-00003.{suffix}").write_bytes(b"part")
    mirror(here, hdfs.url).restore(lambda path: True)
    assert not (here / "checkpoint").exists()


@pytest.mark.parametrize("moment", ["upload", "index"])
def test_the_mirror_of_a_chief_that_was_replaced(tmp_path, hdfs, monkeypatch, moment):
    """Its index, written last, would name a checkpoint that the other chief has removed as older."""
    old, new = tmp_path / "old", tmp_path / "new"
    save(old, 100)
    replaced = mirror(old, hdfs.url)
    replaced.sync()
    save(new, 200)
    upload, write_bytes, done = Hdfs.upload, Hdfs.write_bytes, []

    def late(self, local, name):
        upload(self, local, name)
        if name.startswith("ckpt-150") and not done:
            done.append(name)
            mirror(new, hdfs.url).sync()

    def late_index(self, name, content):
        if name == "checkpoint" and b"ckpt-150" in content and not done:
            done.append(name)
            mirror(new, hdfs.url).sync()
        write_bytes(self, name, content)

    monkeypatch.setattr(Hdfs, "upload" if moment == "upload" else "write_bytes", late if moment == "upload" else late_index)
    save(old, 100, 150)
    with pytest.raises(JobError, match="Another chief"):
        replaced.sync()
    assert done and last(hdfs) == "ckpt-200"


def test_the_cache_of_another_training_does_not_count(tmp_path, hdfs):
    local = tmp_path / "chief"
    for step, training, counts in ((300, "first", True), (300, "first", True), (300, "second", False)):
        save(local / "checkpoints", step)
        hdfs.write_bytes(identity.FILE, identity.Identity({"command": [training]}, training).encode())
        store.forget_other(local, hdfs.url)
        assert last(store.LocalDirectory(local / "checkpoints")) == ("ckpt-300" if counts else None)
    # With deeptrain_resume_changed_training the user lets a training continue with other options.
    save(local / "checkpoints", 300)
    hdfs.write_bytes(identity.FILE, identity.Identity({"command": ["other options"]}, "second").encode())
    store.forget_other(local, hdfs.url)
    assert last(store.LocalDirectory(local / "checkpoints")) == "ckpt-300"


def test_a_checkpoint_saved_while_the_last_one_is_mirrored(tmp_path, hdfs, monkeypatch):
    local = tmp_path / "here"
    save(local, 10)
    mirrored = mirror(local, hdfs.url)
    mirrored.sync()
    save(local, 10, 20)
    upload, during = Hdfs.upload, [30, 40, 50, 60]

    def save_meanwhile(self, path, name):
        while during:
            step = during.pop(0)
            save(local, *range(step - 20, step + 1, 10))
        upload(self, path, name)

    monkeypatch.setattr(Hdfs, "upload", save_meanwhile)
    mirrored.sync()
    # The training is faster than the mirror, and what was uploaded is complete nevertheless.
    assert not during and last(hdfs) == "ckpt-20"
    mirrored.close()
    assert last(hdfs) == "ckpt-60"
    assert set(hdfs.files()) == {"checkpoint", *files(60)}


def test_the_index_goes_last_and_older_checkpoints_after_it(tmp_path, hdfs, monkeypatch):
    local = tmp_path / "here"
    save(local, 10)
    mirrored = mirror(local, hdfs.url)
    mirrored.sync()
    save(local, 20)

    def cut_off(self, name, content):
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Hdfs, "write_bytes", cut_off)
        with pytest.raises(Cut):
            mirrored.sync()
    assert last(hdfs) == "ckpt-10"
    mirrored.close()
    assert last(hdfs) == "ckpt-20"


def test_a_checkpoint_of_a_higher_step_is_not_removed(tmp_path, hdfs):
    for name in files(500):
        hdfs.write_bytes(name, b"newer")
    save(tmp_path / "here", 10)
    mirror(tmp_path / "here", hdfs.url).close()
    assert set(files(500)) <= set(hdfs.files())


def test_events_of_another_node_are_kept(tmp_path, hdfs):
    hdfs.write_bytes("events.out.tfevents.1.a", b"a")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "events.out.tfevents.2.b").write_bytes(b"b")
    store.Mirror(tmp_path / "here", hdfs.url).close()
    assert set(hdfs.files()) == {"events.out.tfevents.1.a", "events.out.tfevents.2.b"}


def test_a_file_that_was_lost_in_hdfs_is_uploaded_again(tmp_path, hdfs):
    save(tmp_path / "here", 10)
    mirrored = mirror(tmp_path / "here", hdfs.url)
    mirrored.sync()
    hdfs.delete(files(10)[0])
    mirrored.close()
    assert last(hdfs) == "ckpt-10"


def test_files_whose_blocks_are_lost_are_uploaded_again(tmp_path, hdfs, cluster, monkeypatch):
    monkeypatch.setenv("DEEPTRAIN_NAMENODE_URL", cluster.http_url)
    save(tmp_path / "here", 10)
    content = secrets.token_bytes(own_length())
    (tmp_path / "here" / files(10)[1]).write_bytes(content)
    mirrored = mirror(tmp_path / "here", hdfs.url)
    mirrored.sync()
    cluster.lose_blocks(hdfs, files(10)[1])
    mirrored.close()
    assert hdfs.read_bytes(files(10)[1]) == content


@pytest.mark.parametrize(
    ("steps", "lost", "highest"),
    [((7, 20, 100), [], "ckpt-100"), ((7, 20, 100), files(100)[:1], "ckpt-20"), ((7, 20), files(20)[1:], "ckpt-7"), ((7,), files(7)[:1], None)],
)
def test_the_highest_checkpoint_that_is_complete(tmp_path, steps, lost, highest):
    save(tmp_path, *steps)
    for name in lost:
        (tmp_path / name).unlink()
    found = next(checkpoint.find_all(store.LocalDirectory(tmp_path)), None)
    assert (found and found.name) == highest
    if found:
        (tmp_path / "checkpoint").write_bytes(found.index)
        assert checkpoint.find(store.LocalDirectory(tmp_path)) == found


@pytest.mark.parametrize(
    ("names", "complete"),
    [
        (files(7), True),
        (files(7, 3), True),
        (files(7)[:1], False),
        (files(7)[1:], False),
        (files(7, 3)[:-1], False),
        (["ckpt-7.index", "ckpt-7.data-00000-of-00001.part"], False),
        (["ckpt-7.saved_model.zip"], False),
        (["ckpt-7.weights.h5"], True),
        (files(70), False),
        ([], False),
    ],
)
def test_a_checkpoint_is_found_when_it_is_complete(tmp_path, names, complete):
    (tmp_path / "checkpoint").write_bytes(index("ckpt-7"))
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert last(store.LocalDirectory(tmp_path)) == ("ckpt-7" if complete else None)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"model_checkpoint_path: \n", None])
def test_an_index_that_names_nothing(tmp_path, content):
    (tmp_path / "ckpt-7.index").write_bytes(b"x")
    if content is not None:
        (tmp_path / "checkpoint").write_bytes(content)
    assert last(store.LocalDirectory(tmp_path)) is None


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("ckpt-12", 12),
        ("model.ckpt-123", 123),
        ("model.ckpt-123.data-00001-of-00002", 123),
        ("resnet-50.ckpt-7.index", 7),
        ("ckpt-7.index.part", 7),
        ("ckpt-7.saved_model.zip", 7),
        ("ckpt_best", None),
        ("ckpt_best.index", None),
        ("checkpoint", None),
        ("resnet-50.weights.h5", None),
    ],
)
def test_the_step_in_a_name(name, step):
    assert checkpoint.step_of(name) == step


def test_without_a_step_nothing_is_newer_or_older(tmp_path):
    for name in ("ckpt_best", "ckpt-7"):
        directory = tmp_path / name
        directory.mkdir()
        (directory / "checkpoint").write_bytes(index(name))
        for suffix in ("index", "data-00000-of-00001"):
            (directory / f"{name}.{suffix}").write_bytes(b"x")
    best, seven = (checkpoint.find(store.LocalDirectory(tmp_path / name)) for name in ("ckpt_best", "ckpt-7"))
    assert not checkpoint.newer(best, seven) and not checkpoint.newer(seven, best)
    assert not best.supersedes("ckpt-7.index") and not seven.supersedes("ckpt_best.index")
    assert checkpoint.newer(best, None) and not checkpoint.newer(None, best)
