# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run whose cluster was lost: what S3 has of it is resumed from or refused, and never destroyed."""

from __future__ import annotations

import json
import secrets
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from services import own_length

from deeptrain import checkpoint, s3
from deeptrain.archive import Archive
from deeptrain.export import export
from deeptrain.hdfs import Hdfs
from deeptrain.job import BadInput, Job, JobError
from deeptrain.namenode import Intact
from deeptrain.resume import Resume
from deeptrain.train import CheckpointCopier, train

# Resumes from the last checkpoint, saves one of a higher step, and leaves it as its model.
PROGRAM = """
import os, sys
from pathlib import Path
from deeptrain import checkpoint
from deeptrain.hdfs import Hdfs
Path(os.environ["DEEPTRAIN_CACHE_DIR"], "ran").touch()
directory = Hdfs(os.environ["DEEPTRAIN_MODEL_URL"] + "/checkpoints")
found = checkpoint.find(directory)
first = int(found[0].rsplit("-", 1)[1]) if found else 0
last = first + int(sys.argv[1])
for suffix in ("index", "data-00000-of-00001"):
    directory.write_bytes(f"ckpt-{last}.{suffix}", f"{last} {suffix}".encode())
directory.write_bytes("checkpoint", f'model_checkpoint_path: "ckpt-{last}"'.encode())
Hdfs(os.environ["DEEPTRAIN_MODEL_URL"] + "/events").write_bytes(f"events.{last}", b"events")
if len(sys.argv) > 2:
    sys.exit(int(sys.argv[2]))
out = Path(os.environ["DEEPTRAIN_EXPORT_DIR"])
(out / "saved_model").mkdir()
(out / "saved_model" / "saved_model.pb").write_text(f"from {first} to {last}")
(out / "checkpoint").mkdir()
for suffix in ("index", "data-00000-of-00001"):
    (out / "checkpoint" / f"ckpt-{last}.{suffix}").write_text(f"{last} {suffix}")
(out / "checkpoint" / "checkpoint").write_text(f'model_checkpoint_path: "ckpt-{last}"')
(out / "metrics.json").write_text("{}")
"""


@dataclass
class Chief:
    """A chief with an HDFS of its own."""

    directory: Path
    program: Path
    model: Hdfs
    s3_server: object
    prefix: str
    namenode_url: str = ""

    @property
    def target(self) -> str:
        return f"s3://{self.s3_server.bucket}/{self.prefix}"

    def _job(self, kind: str, config: dict, settings: dict) -> Job:
        directory = self.directory / kind
        directory.mkdir(parents=True, exist_ok=True)
        document = {"config": config, "settings": {"s3": self.s3_server.settings, **settings}}
        (directory / "config.json").write_text(json.dumps(document))
        return Job(directory)

    def training(self, *arguments: str, data: str = "d", replace: bool = False) -> Job:
        config = {
            "command": [sys.executable, str(self.program), *arguments],
            "data_url": self.model.url.replace("/runs/mine", f"/data-{data}"),
            "data_manifest_sha256": data,
            "model_url": self.model.url,
        }
        settings = {
            "run": "mine",
            "tf_config": {"cluster": {}, "task": {"type": "chief", "index": 0}},
            "cache_dir": str(self.directory / "cache"),
            "export_dir": str(self.directory / "train" / "export"),
            "export_url": self.target,
            "checkpoint_url": f"{self.target}/checkpoints",
            "namenode_url": self.namenode_url,
            "replace": replace,
        }
        return self._job("train", config, settings)

    def train(self, *arguments: str, **options) -> None:
        job = self.training(*arguments, **options)
        result = job.directory / "result.json"
        result.unlink(missing_ok=True)
        train(job)
        result.write_text('{"status": "succeeded"}')

    def copy(self, *arguments: str, **options) -> str | None:
        """Copies the last checkpoint to S3, as the training does from time to time."""
        return CheckpointCopier(self.training(*arguments, **options), self.model).copy()

    def export(self, **settings) -> None:
        config = {"run": "mine", "source": str(self.directory / "train" / "export"), "target": self.target, "s3": self.s3_server.settings}
        urls = {"events_url": f"{self.model.url}/events", "checkpoints_url": f"{self.model.url}/checkpoints"}
        export(self._job("export", config, {**urls, **settings}))

    def last(self) -> str | None:
        found = checkpoint.find(Hdfs(f"{self.model.url}/checkpoints"))
        return found and found[0]

    def stored(self) -> dict[str, bytes]:
        """What S3 holds of the run."""
        client, bucket = self.s3_server.client, self.s3_server.bucket
        return {item.key.removeprefix(f"{self.prefix}/"): client.get_object(Bucket=bucket, Key=item.key)["Body"].read()
                for item in s3.list_objects(client, bucket, self.prefix)}  # fmt: skip


@pytest.fixture
def make_chief(tmp_path, cluster, s3_server, monkeypatch):
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "s3.json").write_text(json.dumps(s3_server.credentials))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "program.py").write_text(PROGRAM)
    # The first failure counts, and its cause is sought at once.
    monkeypatch.setattr("deeptrain.train.FAILURES", 1)
    monkeypatch.setattr("deeptrain.train.RETRY_SECONDS", 0)
    prefix = f"models-{secrets.token_hex(4)}/mine"

    def make() -> Chief:
        name = secrets.token_hex(4)
        (tmp_path / name).mkdir()
        for data in "de":
            Hdfs(cluster.url(f"/test-{name}/data-{data}")).write_bytes("_manifest.sha256", data.encode())
        return Chief(tmp_path / name, tmp_path / "program.py", Hdfs(cluster.url(f"/test-{name}/runs/mine")), s3_server, prefix, cluster.http_url)

    return make


@pytest.fixture
def lost(make_chief):
    """A training that was lost with its cluster in the middle."""
    chief = make_chief()
    with pytest.raises(JobError, match="status 3"):
        chief.train("100", "3")
    assert chief.copy("100", "3") == "ckpt-100"
    return chief


def test_a_new_cluster_resumes_from_the_copies(lost, make_chief):
    chief = make_chief()
    with pytest.raises(JobError, match="status 3"):
        chief.train("100", "3")
    assert chief.last() == "ckpt-200"
    assert chief.copy("100", "3") == "ckpt-200"
    assert {name for name in chief.stored() if "ckpt-" in name} == {"checkpoints/ckpt-200.index", "checkpoints/ckpt-200.data-00000-of-00001"}


def test_another_configuration_is_refused_before_anything_changes(lost, make_chief):
    chief, before = make_chief(), lost.stored()
    words = r'holds checkpoints of another configuration.*"100"\], is now .*"50"\].*data\'s manifest was "d", is now "e".*deeptrain_replace_export'
    with pytest.raises(BadInput, match=words):
        chief.train("50", "3", data="e")
    assert chief.model.files() == {} and chief.stored() == before
    # What S3 held counts no more, and stays there until there is something to replace it.
    with pytest.raises(JobError, match="status 3"):
        chief.train("50", "3", data="e", replace=True)
    assert chief.last() == "ckpt-50" and chief.stored() == before
    assert chief.copy("50", "3", data="e", replace=True) == "ckpt-50"
    assert {name for name in chief.stored() if "ckpt-" in name} == {"checkpoints/ckpt-50.index", "checkpoints/ckpt-50.data-00000-of-00001"}


def test_copies_of_another_cluster_are_not_replaced_while_s3_was_away(lost, make_chief):
    chief, before = make_chief(), lost.stored()
    chief.model.write_bytes("run.json", b'{"configuration": {"command": []}, "training_id": "x"}')
    for name in ("ckpt-900.index", "ckpt-900.data-00000-of-00001"):
        chief.model.write_bytes(f"checkpoints/{name}", b"x")
    chief.model.write_bytes("checkpoints/checkpoint", b'model_checkpoint_path: "ckpt-900"')
    with pytest.raises(JobError, match="another configuration"):
        chief.copy("100", "3")
    assert chief.stored() == before


def test_copies_of_an_unknown_configuration_are_refused(make_chief, s3_server):
    chief = make_chief()
    s3_server.put(f"{chief.prefix}/checkpoints/checkpoint", b'model_checkpoint_path: "ckpt-900"')
    with pytest.raises(BadInput, match="not recorded"):
        chief.train("100")


def test_a_copy_never_replaces_a_newer_one(lost, make_chief):
    chief, before = make_chief(), lost.stored()
    chief.model.write_bytes("run.json", before["checkpoints/run.json"])
    for name in ("ckpt-7.index", "ckpt-7.data-00000-of-00001"):
        chief.model.write_bytes(f"checkpoints/{name}", b"x")
    chief.model.write_bytes("checkpoints/checkpoint", b'model_checkpoint_path: "ckpt-7"')
    with pytest.raises(JobError, match="ckpt-100, which is newer than ckpt-7"):
        chief.copy("100", "3")
    assert chief.stored() == before


@pytest.fixture
def damaged(lost):
    """S3, in which a file of the last copy has other bytes."""
    name = "checkpoints/ckpt-100.data-00000-of-00001"
    # The ETag stays what it was.
    (lost.s3_server.directory / lost.s3_server.bucket / lost.prefix / name).write_bytes(b"x" * len(lost.stored()[name]))
    return lost.stored()


def test_a_damaged_copy_is_refused_where_there_is_no_other(lost, damaged, make_chief):
    chief = make_chief()
    words = r"no other checkpoint.*/checkpoints has ckpt-100, and s3://.*ckpt-100\.data-00000-of-00001 is damaged.*deeptrain_replace_export=true"
    with pytest.raises(BadInput, match=words):
        chief.train("100", "3")
    assert chief.last() is None and not (chief.directory / "cache" / "ran").exists() and chief.stored() == damaged
    with pytest.raises(JobError, match="status 3"):
        chief.train("50", "3", replace=True)
    assert chief.last() == "ckpt-50" and chief.stored() == damaged


def test_a_damaged_copy_does_not_stop_further_copies(lost, damaged):
    for suffix in ("index", "data-00000-of-00001"):
        lost.model.write_bytes(f"checkpoints/ckpt-7.{suffix}", b"x")
        lost.model.delete(f"checkpoints/ckpt-100.{suffix}")
    lost.model.write_bytes("checkpoints/checkpoint", b'model_checkpoint_path: "ckpt-7"')
    job = lost.training("100", "3")
    job.settings["checkpoint_minutes"] = 0.0001
    uploaded, upload = threading.Event(), Archive.write_bytes

    def noted(self, name, content):
        upload(self, name, content)
        if name == "checkpoints/checkpoint":
            uploaded.set()

    # The command ends when there is a copy.
    job.config["command"] = [
        sys.executable,
        "-c",
        f"import os, sys, time\nwhile not os.path.exists({str(lost.directory / 'end')!r}): time.sleep(0.1)\nsys.exit(3)",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Archive, "write_bytes", noted)
        threading.Thread(target=lambda: uploaded.wait(90) and (lost.directory / "end").touch(), daemon=True).start()
        with pytest.raises(JobError, match="status 3"):
            train(job)
    stored = lost.stored()
    assert stored["checkpoints/checkpoint"] == b'model_checkpoint_path: "ckpt-7"' and "checkpoints/ckpt-7.index" in stored
    # What is damaged stays.
    assert {name: stored[name] for name in damaged if "ckpt-100" in name} == {name: damaged[name] for name in damaged if "ckpt-100" in name}


def save(chief, name: str, content: bytes) -> None:
    """Saves a checkpoint in HDFS, as a training command does."""
    for suffix in ("index", "data-00000-of-00001"):
        chief.model.write_bytes(f"checkpoints/{name}.{suffix}", content)
    chief.model.write_bytes("checkpoints/checkpoint", f'model_checkpoint_path: "{name}"'.encode())


# The last one replaces a checkpoint of its name.
@pytest.mark.parametrize("name", ["ckpt-200", "ckpt_best", "ckpt-100"])
def test_a_copy_cut_off_leaves_the_last_one(lost, monkeypatch, name):
    if name == "ckpt_best":
        save(lost, name, b"old")
        assert lost.copy("100", "3") == name
    save(lost, name, b"of another length")
    before, upload = lost.stored(), s3.upload

    def cut_off_at(file):
        def cut_off(client, path, bucket, key):
            if key.endswith(file):
                raise RuntimeError("cut off")
            upload(client, path, bucket, key)

        return cut_off

    for file in (f"{name}.index", f"{name}.data-00000-of-00001"):
        with monkeypatch.context() as patch:
            patch.setattr(s3, "upload", cut_off_at(file))
            with pytest.raises((RuntimeError, JobError)):
                lost.copy("100", "3")
        assert before.items() <= lost.stored().items()
    assert lost.copy("100", "3") == name
    stored = {path: content for path, content in lost.stored().items() if name in path}
    assert stored == dict.fromkeys([f"checkpoints/{name}.index", f"checkpoints/{name}.data-00000-of-00001"], b"of another length")


@pytest.mark.parametrize("count", range(4))
def test_a_replacement_of_a_copy_cut_off_anywhere_is_restored(lost, make_chief, monkeypatch, count):
    save(lost, "ckpt_best", b"old")
    assert lost.copy("100", "3") == "ckpt_best"
    save(lost, "ckpt_best", b"of another length")
    copy, write, done = Archive.copy, Archive.write_bytes, []

    def cut_off(call):
        def called(*arguments):
            if len(done) == count:
                raise RuntimeError("cut off")
            done.append(arguments)
            call(*arguments)

        return called

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "copy", cut_off(copy))
        patch.setattr(Archive, "write_bytes", cut_off(write))
        with pytest.raises(RuntimeError, match="cut off"):
            lost.copy("100", "3")
    chief = make_chief()
    Resume(chief.training("100", "3")).run()
    content = {chief.model.read_bytes(f"checkpoints/ckpt_best.{suffix}") for suffix in ("index", "data-00000-of-00001")}
    assert content == ({b"of another length"} if count else {b"old"})
    assert lost.copy("100", "3") == "ckpt_best"
    assert not any(path.startswith("checkpoints/.incoming/") for path in lost.stored())


def test_a_checkpoint_that_is_replaced_while_it_is_copied_is_not_taken_for_whole(lost, monkeypatch):
    save(lost, "ckpt_best", b"old")
    assert lost.copy("100", "3") == "ckpt_best"
    save(lost, "ckpt_best", b"new")
    before, upload = lost.stored(), s3.upload

    def replaced(*arguments):
        upload(*arguments)
        save(lost, "ckpt_best", b"newest")

    with monkeypatch.context() as patch:
        patch.setattr(s3, "upload", replaced)
        with pytest.raises(JobError, match="replaced while it was copied"):
            lost.copy("100", "3")
    assert before.items() <= lost.stored().items()
    assert lost.copy("100", "3") == "ckpt_best"
    assert lost.stored()["checkpoints/ckpt_best.index"] == b"newest"


def test_a_name_that_ends_in_a_number_for_ever_is_copied_again(lost):
    copier = CheckpointCopier(lost.training("100", "3"), lost.model)
    for content in (b"first", b"other"):
        save(lost, "resnet-250", content)
        assert copier.copy() == "resnet-250"
        assert lost.stored()["checkpoints/resnet-250.data-00000-of-00001"] == content


def test_a_copy_is_not_made_of_a_checkpoint_that_is_not_complete(lost):
    before = lost.stored()
    directory = Hdfs(f"{lost.model.url}/checkpoints")
    directory.write_bytes("ckpt-200.index", b"x")
    directory.write_bytes("checkpoint", b'model_checkpoint_path: "ckpt-200"')
    assert lost.copy("100", "3") is None
    assert lost.stored() == before


def test_a_finished_training_is_not_repeated(make_chief):
    first = make_chief()
    first.train("100")
    first.export()
    before = first.stored()
    second = make_chief()
    second.train("100")
    assert (first.directory / "cache" / "ran").exists() and not (second.directory / "cache" / "ran").exists()
    assert second.last() == "ckpt-100"
    assert second.model.status("_SUCCESS") is not None
    second.export()
    after = second.stored()
    assert {name: content for name, content in after.items() if name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }
    assert json.loads(after["manifest.json"])["files"] == json.loads(before["manifest.json"])["files"]
    assert after["saved_model/saved_model.pb"] == b"from 0 to 100" and "events/events.100" in after


def test_a_finished_training_whose_model_is_damaged_is_repeated_from_its_checkpoint(make_chief, s3_server):
    first = make_chief()
    first.train("100")
    first.export()
    s3_server.put(f"{first.prefix}/saved_model/saved_model.pb", b"damaged")
    second = make_chief()
    second.train("100")
    second.export()
    assert second.stored()["saved_model/saved_model.pb"] == b"from 100 to 200"


def test_a_damaged_checkpoint_of_the_export_is_not_restored(make_chief, s3_server):
    first = make_chief()
    first.train("100")
    first.export()
    s3_server.put(f"{first.prefix}/checkpoint/ckpt-100.data-00000-of-00001", b"damaged")
    second, before = make_chief(), first.stored()
    with pytest.raises(BadInput, match=r"no other checkpoint.*/checkpoint has ckpt-100, and .*deeptrain_replace_export=true"):
        second.train("100")
    assert second.last() is None and second.stored() == before
    second.train("100", replace=True)
    assert second.last() == "ckpt-100"
    assert Hdfs(f"{second.model.url}/checkpoints").read_bytes("ckpt-100.data-00000-of-00001") == b"100 data-00000-of-00001"


def test_a_replacement_that_cannot_be_finished_does_not_stop_a_training(make_chief, s3_server):
    first = make_chief()
    first.train("100")
    first.export()
    document = json.loads(first.stored()["manifest.json"])
    document["files"].append({"path": "other", "length": 1, "sha256": "0"})
    s3_server.put(f"{first.prefix}/.incoming/manifest.json", json.dumps({"manifest": document, "stale": []}).encode())
    second, before = make_chief(), first.stored()
    second.train("100")
    assert (second.directory / "cache" / "ran").exists() and second.stored() == before
    second.export()
    assert not any(name.startswith(".incoming/") for name in second.stored())


def test_a_restored_checkpoint_is_known_before_it_counts(lost, make_chief, monkeypatch):
    chief = make_chief()

    def cut_off(self):
        raise RuntimeError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(Resume, "_write_identity", cut_off)
        with pytest.raises(RuntimeError, match="cut off"):
            chief.train("100", "3")
    assert chief.last() == "ckpt-100"
    other = make_chief()
    other = Chief(other.directory, other.program, chief.model, chief.s3_server, f"{chief.prefix}-other")
    with pytest.raises(BadInput, match=r"hdfs://.*checkpoints of another configuration"):
        other.train("50", "3")
    with pytest.raises(JobError, match="status 3"):
        chief.train("100", "3")
    assert chief.last() == "ckpt-200"


def test_a_finished_model_of_another_configuration_is_refused(make_chief):
    first = make_chief()
    first.train("100")
    first.export()
    before = first.stored()
    second = make_chief()
    with pytest.raises(BadInput, match='holds a trained model of another configuration.*"100".*"50"'):
        second.train("50")
    assert second.model.files() == {} and second.stored() == before
    second.train("50", replace=True)
    second.export(replace=True)
    assert second.stored()["saved_model/saved_model.pb"] == b"from 0 to 50"


def test_the_newest_counts_of_hdfs_the_copies_and_the_export(lost, make_chief):
    # Autostop has exported a later checkpoint than that which was copied.
    with pytest.raises(JobError, match="status 3"):
        lost.train("100", "3")
    lost.model.write_bytes("weights.h5", b"weights")
    with pytest.raises(BadInput, match="not done.*ckpt-200"):
        lost.export(partial=True)
    chief = make_chief()
    with pytest.raises(JobError, match="status 3"):
        chief.train("100", "3")
    assert chief.last() == "ckpt-300"
    assert "events.200" in Hdfs(f"{chief.model.url}/events").files()
    assert chief.model.read_bytes("weights.h5") == b"weights"
    # HDFS has a newer one than S3 now.
    with pytest.raises(JobError, match="status 3"):
        chief.train("100", "3")
    assert chief.last() == "ckpt-400"


@pytest.mark.parametrize("name", ["ckpt-100.index", "checkpoint"])
def test_a_restore_from_s3_that_was_cut_off_is_repeated(lost, make_chief, monkeypatch, name):
    chief = make_chief()

    def cut_off(self, *arguments):
        raise RuntimeError("cut off")

    with monkeypatch.context() as patch:
        method = "write_bytes" if name == "checkpoint" else "upload"
        patch.setattr(Hdfs, method, cut_off)
        with pytest.raises(RuntimeError, match="cut off"):
            chief.train("100", "3")
    assert chief.last() is None
    with pytest.raises(JobError, match="status 3"):
        chief.train("100", "3")
    assert chief.last() == "ckpt-200"


def test_a_training_that_hdfs_has_resumes_without_s3(lost):
    job = lost.training("100", "3")
    job.settings["export_url"] = f"s3://none-{secrets.token_hex(4)}/mine"
    with pytest.raises(JobError, match="status 3"):
        train(job)
    assert lost.last() == "ckpt-200"


def test_s3_is_waited_for_where_hdfs_has_nothing(lost, make_chief, monkeypatch):
    chief, read, failures = make_chief(), Archive.read_bytes, ["S3 does not answer"]

    def away(self, name):
        if failures:
            raise JobError(failures.pop())
        return read(self, name)

    monkeypatch.setattr(Archive, "read_bytes", away)
    with pytest.raises(JobError, match="status 3"):
        chief.train("100", "3")
    assert not failures and chief.last() == "ckpt-200"


def lose(chief, cluster, name: str) -> None:
    """Loses the blocks of a file of the run in HDFS."""
    chief.model.write_bytes(name, chief.model.read_bytes(name) + b" " * own_length())
    cluster.lose_blocks(chief.model, name)


@pytest.fixture
def given_up(monkeypatch):
    """Lost blocks are not waited for."""
    monkeypatch.setattr("deeptrain.train.BLOCKS_SECONDS", 0, raising=False)
    monkeypatch.setattr("deeptrain.train.WAIT_SECONDS", 0.1)


@pytest.mark.parametrize("name", ["checkpoints/ckpt-100.data-00000-of-00001", "checkpoints/checkpoint", "run.json"])
def test_a_training_resumes_from_s3_where_hdfs_has_lost_blocks(lost, cluster, given_up, name):
    before = lost.stored()
    lose(lost, cluster, name)
    with pytest.raises(JobError, match="status 3"):
        lost.train("100", "3")
    assert lost.last() == "ckpt-200"
    # What was lost has been replaced.
    for path in ("checkpoints/ckpt-100.index", "checkpoints/ckpt-100.data-00000-of-00001"):
        assert lost.model.read_bytes(path) == before[path]
    assert json.loads(lost.model.read_bytes("run.json")) == json.loads(before["checkpoints/run.json"])


def test_copies_go_on_where_hdfs_has_lost_the_record_of_the_run(lost, cluster):
    Archive(lost.target, lost.s3_server.settings, lost.s3_server.credentials).delete_checkpoints()
    lose(lost, cluster, "run.json")
    assert CheckpointCopier(lost.training("100", "3"), Intact(lost.model.url, cluster.http_url)).copy() == "ckpt-100"
    assert lost.stored()["checkpoints/run.json"] == (lost.directory / "train" / "run.json").read_bytes()
    lost.model.delete("run.json")


def test_a_training_resumes_from_an_older_checkpoint_where_hdfs_has_lost_blocks(lost, cluster, given_up):
    with pytest.raises(JobError, match="status 3"):
        lost.train("100", "3")
    Archive(lost.target, lost.s3_server.settings, lost.s3_server.credentials).delete_checkpoints()
    lose(lost, cluster, "checkpoints/ckpt-200.data-00000-of-00001")
    with pytest.raises(JobError, match="status 3"):
        lost.train("50", "3")
    assert lost.last() == "ckpt-150"
    lost.model.delete("checkpoints", recursive=True)


@pytest.mark.parametrize("index", [None, b"", b'model_checkpoint_path: "ckpt-50"'], ids=["missing", "empty", "dangling"])
def test_a_complete_checkpoint_counts_whatever_the_index_names(lost, index):
    Archive(lost.target, lost.s3_server.settings, lost.s3_server.credentials).delete_checkpoints()
    lost.model.delete("checkpoints/checkpoint")
    if index is not None:
        lost.model.write_bytes("checkpoints/checkpoint", index)
    with pytest.raises(JobError, match="status 3"):
        lost.train("100", "3")
    assert lost.last() == "ckpt-200"


def test_the_only_checkpoint_is_not_given_up(lost, cluster, given_up):
    Archive(lost.target, lost.s3_server.settings, lost.s3_server.credentials).delete_checkpoints()
    lose(lost, cluster, "checkpoints/ckpt-100.data-00000-of-00001")
    files = set(lost.model.files())
    job = lost.training("100", "3")
    job.settings["no_progress_seconds"] = 1
    with pytest.raises(JobError, match=r"no progress for 4 s: HDFS has lost blocks.*ckpt-100\.data-00000-of-00001.*start the DataNodes"):
        train(job)
    assert set(lost.model.files()) == files
    lost.model.delete("checkpoints", recursive=True)


def test_blocks_of_a_datanode_that_restarts_are_waited_for(lost, monkeypatch):
    monkeypatch.setattr("deeptrain.train.WAIT_SECONDS", 0)
    with pytest.raises(JobError, match="status 3"):
        lost.train("100", "3")
    left, restored = [{"checkpoints/ckpt-200.index"}] * 3, []
    monkeypatch.setattr(Intact, "damaged", lambda self: left.pop() if left else set())
    monkeypatch.setattr(Resume, "_restore_checkpoint", lambda *arguments: restored.append(arguments))
    with pytest.raises(JobError, match="status 3"):
        lost.train("100", "3")
    assert not left and not restored and lost.last() == "ckpt-300"


@pytest.mark.parametrize("own", [True, False])
def test_a_role_that_is_late_ends_no_training(lost, make_chief, monkeypatch, own):
    """It resumes from HDFS alone, or waits where HDFS has nothing."""
    chief, connect, failures = lost if own else make_chief(), s3.connect, ["no role"] * 3

    def late(*arguments, **more):
        if failures:
            raise JobError(failures.pop())
        return connect(*arguments, **more)

    monkeypatch.setattr(s3, "connect", late)
    with pytest.raises(JobError, match="status 3"):
        chief.train("100", "3")
    assert chief.last() == "ckpt-200" and len(failures) == (2 if own else 0)


def test_hdfs_of_another_configuration_is_refused(lost, make_chief):
    # The chief was replaced, so no job of this run is known there.
    chief = make_chief()
    other = Chief(chief.directory, chief.program, lost.model, chief.s3_server, f"{chief.prefix}-other")
    with pytest.raises(BadInput, match=r"hdfs://.*checkpoints of another configuration.*remove hdfs://"):
        other.train("50", "3")
    # The user lets the job continue with other options.
    with pytest.raises(JobError, match="status 3"):
        lost.train("50", "3")
    assert lost.last() == "ckpt-150"


def test_an_export_of_other_options_is_not_taken_for_this_one(lost):
    export_dir = lost.directory / "train" / "export"
    export_dir.mkdir(exist_ok=True)
    (export_dir / "model").write_text("of other options")
    with pytest.raises(BadInput, match="left nothing"):
        # Status 0 and nothing in DEEPTRAIN_EXPORT_DIR.
        lost.train("50", "0")
    (export_dir / ".part").mkdir()
    (export_dir / ".part" / "model").write_text("half")
    with pytest.raises(BadInput, match="left nothing"):
        lost.train("50", "0")
