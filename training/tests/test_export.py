# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The export to a real S3 server, and the check before it."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from pathlib import Path

import pytest
from services import own_length

from deeptrain import manifest, s3
from deeptrain.archive import Archive
from deeptrain.check import check
from deeptrain.export import Export, export, read_metrics
from deeptrain.hdfs import Hdfs
from deeptrain.job import BadInput, Job, JobError


@pytest.fixture
def make_job(tmp_path, s3_server, monkeypatch):
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "s3.json").write_text(json.dumps(s3_server.credentials))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))

    def make(config: dict, settings: dict | None = None) -> Job:
        (tmp_path / "config.json").write_text(json.dumps({"config": {"s3": s3_server.settings, **config}, "settings": settings or {}}))
        return Job(tmp_path)

    return make


CONFIGURATION = {"command": ["python", "-m", "mine", "--steps", "7"], "data_manifest_sha256": "0"}


def trained(tmp_path, configuration: dict | None = None, training_id: str = "first", status: str | None = "succeeded") -> Path:
    """The directory that a training has left on its chief; returns that of its export."""
    directory = tmp_path / "train"
    (directory / "export").mkdir(parents=True, exist_ok=True)
    (directory / "run.json").write_text(json.dumps({"configuration": configuration or CONFIGURATION, "training_id": training_id}))
    (directory / "result.json").unlink(missing_ok=True)
    if status:
        (directory / "result.json").write_text(json.dumps({"status": status}))
    return directory / "export"


@pytest.fixture
def model(tmp_path):
    return write_model(trained(tmp_path), 20_000_000)


@pytest.fixture
def small_model(tmp_path):
    return write_model(trained(tmp_path), 2_000)


def write_model(directory: Path, size: int) -> Path:
    (directory / "saved_model" / "variables").mkdir(parents=True)
    (directory / "saved_model" / "saved_model.pb").write_bytes(os.urandom(1000))
    (directory / "saved_model" / "variables" / "variables.data").write_bytes(os.urandom(size))
    (directory / "metrics.json").write_text(json.dumps({"test_accuracy": 0.9, "parameters": {"num_layers": 8}, "versions": {"tensorflow": "2"}}))
    return directory


def test_what_is_exported_is_verified_and_listed(make_job, model, s3_server, hdfs):
    hdfs.write_bytes(manifest.NAME, manifest.encode("s3://b/p", [manifest.Entry("x", 3, "0")]))
    prefix = f"models-{secrets.token_hex(4)}/run"
    outcome = export(
        make_job(
            {"run": "run", "source": str(model), "target": f"s3://{s3_server.bucket}/{prefix}"},
            {"data_manifest": f"{hdfs.url}/{manifest.NAME}", "events_url": f"{hdfs.url}/events"},
        )
    )

    def read(key):
        return s3_server.client.get_object(Bucket=s3_server.bucket, Key=f"{prefix}/{key}")["Body"].read()

    document = json.loads(read("manifest.json"))
    assert document["model_uri"] == outcome.summary["model_uri"] == f"s3://{s3_server.bucket}/{prefix}/saved_model"
    assert document["metrics"]["test_accuracy"] == 0.9
    assert document["parameters"] == {"num_layers": 8}
    assert document["data"] == {
        "source": "s3://b/p",
        "files": 1,
        "bytes": 3,
        "manifest_sha256": hashlib.sha256(hdfs.read_bytes(manifest.NAME)).hexdigest(),
    }
    assert {item["path"] for item in document["files"]} == {
        "metrics.json",
        "saved_model/saved_model.pb",
        "saved_model/variables/variables.data",
    }
    for item in document["files"]:
        content = (model / item["path"]).read_bytes()
        assert read(item["path"]) == content
        assert (item["length"], item["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_nothing_to_export(make_job, tmp_path, s3_server):
    with pytest.raises(BadInput, match="DEEPTRAIN_EXPORT_DIR"):
        export(make_job({"run": "r", "source": str(tmp_path / "none"), "target": f"s3://{s3_server.bucket}/x"}))


def names(s3_server, prefix) -> set[str]:
    listing = s3_server.client.list_objects_v2(Bucket=s3_server.bucket, Prefix=prefix + "/").get("Contents", [])
    return {item["Key"].removeprefix(prefix + "/") for item in listing}


def test_exported_again_nothing_of_before_is_left(make_job, model, s3_server):
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    s3_server.put(f"{prefix}/checkpoints/checkpoint", b"")
    export(make_job(config))
    (model / "saved_model" / "variables" / "variables.data").rename(model / "saved_model" / "variables" / "variables.data-2")
    export(make_job(config))
    assert names(s3_server, prefix) == {
        "checkpoints/checkpoint",
        "manifest.json",
        "metrics.json",
        "saved_model/saved_model.pb",
        "saved_model/variables/variables.data-2",
    }


def content(s3_server, prefix) -> dict[str, bytes]:
    return {name: s3_server.client.get_object(Bucket=s3_server.bucket, Key=f"{prefix}/{name}")["Body"].read() for name in names(s3_server, prefix)}


def verified(s3_server, prefix) -> dict[str, str]:
    """What the manifest names, when all of that is in S3 as it says, and nothing else is there."""
    stored = content(s3_server, prefix)
    found = {item["path"]: item["sha256"] for item in json.loads(stored.pop("manifest.json"))["files"]}
    assert {name: hashlib.sha256(value).hexdigest() for name, value in stored.items()} == found
    return found


class Cut(JobError):
    pass


def cut_off(*arguments):
    raise Cut("cut off")


@pytest.mark.parametrize("uploads", range(3))
def test_an_upload_cut_off_leaves_the_old_model(make_job, small_model, s3_server, monkeypatch, uploads):
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    export(make_job(config))
    before = content(s3_server, prefix)
    for path in small_model.rglob("*.*"):
        if path.is_file() and path.suffix != ".json":
            path.write_bytes(os.urandom(1000))
    (small_model / "saved_model" / "new").write_bytes(b"new")
    upload, done = Export._upload, []

    def some(self, name, path):
        if len(done) == uploads:
            raise Cut("cut off")
        done.append(name)
        return upload(self, name, path)

    with monkeypatch.context() as patch:
        patch.setattr("deeptrain.export.PARALLEL", 1)
        patch.setattr(Export, "_upload", some)
        with pytest.raises(JobError, match="cut off"):
            export(make_job(config))
    assert {name: value for name, value in content(s3_server, prefix).items() if not name.startswith(".incoming/")} == before
    export(make_job(config))
    assert verified(s3_server, prefix)["saved_model/new"] == hashlib.sha256(b"new").hexdigest()


@pytest.mark.parametrize("step", ["digest", "delete", "write_bytes"])
@pytest.mark.parametrize("count", range(1, 4))
def test_a_replacement_cut_off_is_finished_without_its_source(make_job, small_model, s3_server, monkeypatch, step, count):
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    export(make_job(config))
    (small_model / "saved_model" / "saved_model.pb").write_bytes(b"new")
    (small_model / "metrics.json").unlink()
    replace, call, calls = Archive.finish_replacement, getattr(Archive, step), []

    def some(self, *arguments):
        calls.append(arguments)
        if len(calls) == count:
            raise Cut("cut off")
        return call(self, *arguments)

    def interrupted(self, *arguments):
        if self.read_bytes(".incoming/manifest.json") is not None:
            monkeypatch.setattr(Archive, step, some)
        return replace(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "finish_replacement", interrupted)
        try:
            export(make_job(config))
        except Cut:
            pass
        else:
            assert len(calls) < count
    monkeypatch.setattr(Archive, step, call)
    if "manifest.json" in (stored := names(s3_server, prefix)):
        found = json.loads(content(s3_server, prefix)["manifest.json"])
        assert {item["path"] for item in found["files"]} <= stored
    archive = Archive(config["target"], s3_server.settings, s3_server.credentials)
    archive.finish_replacement()
    assert verified(s3_server, prefix)["saved_model/saved_model.pb"] == hashlib.sha256(b"new").hexdigest()


@pytest.mark.parametrize("spoilt", ["missing", "damaged"])
@pytest.mark.parametrize("step", ["finish_replacement", "digest"])
def test_a_replacement_that_cannot_be_finished_is_dropped(make_job, small_model, s3_server, monkeypatch, spoilt, step):
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    export(make_job(config))
    before = content(s3_server, prefix)
    (small_model / "saved_model" / "saved_model.pb").write_bytes(b"new")
    (small_model / "metrics.json").unlink()
    call = getattr(Archive, step)

    def interrupted(self, *arguments):
        if self.read_bytes(".incoming/manifest.json") is not None:
            raise Cut("cut off")
        return call(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Archive, step, interrupted)
        with pytest.raises(Cut):
            export(make_job(config))
    # The old manifest is deleted after the new files are verified, and before they are copied.
    assert ("manifest.json" in names(s3_server, prefix)) == (step == "finish_replacement")
    if step == "digest":
        s3_server.put(f"{prefix}/saved_model/saved_model.pb", b"half")
    name = f"{prefix}/.incoming/saved_model/saved_model.pb"
    if spoilt == "missing":
        s3_server.client.delete_object(Bucket=s3_server.bucket, Key=name)
    else:
        s3_server.put(name, b"neW")
    stored = content(s3_server, prefix)
    archive = Archive(config["target"], s3_server.settings, s3_server.credentials)
    with pytest.raises(JobError, match=r"missing or damaged.*run export\.yml"):
        archive.finish_replacement()
    assert content(s3_server, prefix) == stored
    if step == "finish_replacement":
        assert before.items() <= stored.items()
    (small_model / "other").write_bytes(b"other")
    export(make_job(config))
    assert verified(s3_server, prefix).keys() == {"other", "saved_model/saved_model.pb", "saved_model/variables/variables.data"}


def test_the_same_content_is_not_uploaded_again(make_job, small_model, s3_server, monkeypatch):
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    export(make_job(config))
    first = verified(s3_server, prefix)
    monkeypatch.setattr(s3, "upload", cut_off)
    export(make_job(config))
    assert verified(s3_server, prefix) == first
    # Unless it is damaged in S3.
    s3_server.put(f"{prefix}/metrics.json", b"other")
    with pytest.raises(Cut):
        export(make_job(config))


OTHER = {"command": ["python", "-m", "mine", "--steps", "9"], "data_manifest_sha256": "1"}


def test_a_model_of_another_configuration_is_kept(make_job, small_model, tmp_path, s3_server):
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    export(make_job(config))
    before = content(s3_server, prefix)
    # The same training, too, has no word of the user's to replace a model by that of other options.
    for training_id in ("first", "second"):
        trained(tmp_path, OTHER, training_id)
        (small_model / "saved_model" / "saved_model.pb").write_bytes(b"other")
        with pytest.raises(BadInput, match=r'trained model.*"--steps", "7".*"--steps", "9".*was "0", is now "1".*deeptrain_replace_export'):
            export(make_job(config))
        assert content(s3_server, prefix) == before
    s3_server.put(f"{prefix}/checkpoints/run.json", json.dumps({"configuration": CONFIGURATION, "training_id": "first"}).encode())
    export(make_job(config, {"replace": True}))
    assert verified(s3_server, prefix)["saved_model/saved_model.pb"] == hashlib.sha256(b"other").hexdigest()


def test_a_model_of_an_unknown_configuration_is_kept(make_job, small_model, s3_server):
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    s3_server.put(f"{prefix}/manifest.json", b'{"files": []}')
    with pytest.raises(BadInput, match="not recorded.*deeptrain_replace_export"):
        export(make_job(config))
    export(make_job(config, {"replace": True}))
    verified(s3_server, prefix)


def test_a_checkpoint_of_the_same_training_is_replaced_whatever_its_options(make_job, small_model, tmp_path, s3_server, checkpoints):
    prefix = f"models-{secrets.token_hex(4)}/run"
    with pytest.raises(BadInput, match="not done"):
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    trained(tmp_path, OTHER)
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    assert export(make_job(config)).summary["complete"]
    verified(s3_server, prefix)


def test_a_newer_checkpoint_in_s3_is_kept(make_job, tmp_path, s3_server, checkpoints, hdfs):
    prefix = f"models-{secrets.token_hex(4)}/run"
    with pytest.raises(BadInput, match="not done"):
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    before = content(s3_server, prefix)
    older = Hdfs(f"{hdfs.url}/older")
    for name in ("ckpt-6.index", "ckpt-6.data-00000-of-00001"):
        older.write_bytes(name, b"6")
    older.write_bytes("checkpoint", b'model_checkpoint_path: "ckpt-6"\n')
    with pytest.raises(BadInput, match="holds ckpt-7, which is newer than ckpt-6"):
        export(partial(make_job, tmp_path, s3_server, prefix, older.url))
    assert content(s3_server, prefix) == before


@pytest.mark.parametrize("status", [None, "failed"])
def test_a_training_that_has_not_succeeded_has_no_model(make_job, small_model, tmp_path, s3_server, checkpoints, status):
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    trained(tmp_path, status=status)
    with pytest.raises(BadInput, match=r"result\.json.*succeeded.*run train\.yml"):
        export(make_job(config))
    assert names(s3_server, prefix) == set()
    # When the lease expires its checkpoint is exported, not what its command was writing.
    with pytest.raises(BadInput, match="not done") as raised:
        export(make_job(config, {"partial": True, "checkpoints_url": checkpoints}))
    assert raised.value.summary["complete"] is False
    assert names(s3_server, prefix) == {"manifest.json", "checkpoint/checkpoint", "checkpoint/ckpt-7.index", "checkpoint/ckpt-7.data-00000-of-00001"}


def test_what_is_being_written_is_not_exported(make_job, tmp_path, s3_server):
    source = trained(tmp_path)
    for name in ("model.part", ".part/saved_model/saved_model.pb"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"half")
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(source), "target": f"s3://{s3_server.bucket}/{prefix}"}
    with pytest.raises(BadInput, match="DEEPTRAIN_EXPORT_DIR"):
        export(make_job(config))
    (source / "model").write_bytes(b"all")
    export(make_job(config))
    assert set(verified(s3_server, prefix)) == {"model"}


def test_events_are_exported(make_job, small_model, s3_server, hdfs):
    prefix = f"models-{secrets.token_hex(4)}/run"
    hdfs.write_bytes("events/events.out.tfevents.1", b"events")
    hdfs.write_bytes("events/events.out.tfevents.2.part", b"half")
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    export(make_job(config, {"events_url": f"{hdfs.url}/events"}))
    assert verified(s3_server, prefix)["events/events.out.tfevents.1"] == hashlib.sha256(b"events").hexdigest()
    document = json.loads(content(s3_server, prefix)["manifest.json"])
    assert document["events_url"] == f"s3://{s3_server.bucket}/{prefix}/events"
    assert not any(item["path"].endswith(".part") for item in document["files"])


def test_events_that_are_lost_keep_no_model_from_s3(make_job, small_model, s3_server, hdfs, cluster):
    prefix = f"models-{secrets.token_hex(4)}/run"
    for name in ("kept", "lost"):
        hdfs.write_bytes(f"events/{name}", os.urandom(own_length()))
    cluster.lose_blocks(hdfs, "events/lost")
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    export(make_job(config, {"events_url": f"{hdfs.url}/events", "namenode_url": cluster.http_url}))
    assert {name for name in verified(s3_server, prefix) if name.startswith("events/")} == {"events/kept"}
    hdfs.delete(recursive=True)


def test_a_checkpoint_whose_blocks_are_lost_is_not_taken_for_exported(make_job, tmp_path, s3_server, hdfs, cluster, checkpoints):
    prefix = f"models-{secrets.token_hex(4)}/run"
    name = "ckpt-7.data-00000-of-00001"
    Hdfs(checkpoints).write_bytes(name, os.urandom(own_length()))
    Hdfs(checkpoints).write_bytes("ckpt-6.data-00000-of-00001", b"old")
    cluster.lose_blocks(Hdfs(checkpoints), name)
    job = partial(make_job, tmp_path, s3_server, prefix, checkpoints)
    job.settings["namenode_url"] = cluster.http_url
    with pytest.raises(JobError, match=rf"ckpt-6 is in s3:.*lost blocks of checkpoints/{name}.*start the DataNodes") as raised:
        export(job)
    # Without a summary autostop destroys nothing, and a restart of the unit tries again.
    assert raised.value.summary == {} and not isinstance(raised.value, BadInput)
    assert names(s3_server, prefix) == {
        "manifest.json", "checkpoint/checkpoint", "checkpoint/ckpt-6.index", "checkpoint/ckpt-6.data-00000-of-00001", "saved/checkpoints/ckpt-7.index",
    }  # fmt: skip
    hdfs.delete(recursive=True)


@pytest.fixture
def checkpoints(hdfs):
    """The checkpoints of a training that was ended in its middle."""
    directory = Hdfs(f"{hdfs.url}/checkpoints")
    directory.write_bytes("ckpt-6.index", b"old")
    for name in ("ckpt-7.index", "ckpt-7.data-00000-of-00001"):
        directory.write_bytes(name, name.encode())
    directory.write_bytes("checkpoint", b'model_checkpoint_path: "ckpt-7"\n')
    return directory.url


def partial(make_job, tmp_path, s3_server, prefix, url) -> Job:
    source = trained(tmp_path, status=None)
    config = {"run": "run", "source": str(source), "target": f"s3://{s3_server.bucket}/{prefix}"}
    return make_job(config, {"partial": True, "checkpoints_url": url})


def test_of_a_training_that_is_not_done_the_last_checkpoint(make_job, tmp_path, s3_server, checkpoints):
    prefix = f"models-{secrets.token_hex(4)}/run"
    with pytest.raises(BadInput, match=r"not done.*ckpt-7.*run train\.yml") as raised:
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    assert raised.value.summary["complete"] is False
    assert raised.value.summary["manifest_uri"] == f"s3://{s3_server.bucket}/{prefix}/manifest.json"
    assert names(s3_server, prefix) == {"manifest.json", "checkpoint/checkpoint", "checkpoint/ckpt-7.index", "checkpoint/ckpt-7.data-00000-of-00001"}
    document = json.loads(s3_server.client.get_object(Bucket=s3_server.bucket, Key=f"{prefix}/manifest.json")["Body"].read())
    assert (document["complete"], document["model_uri"]) == (False, None)


def test_of_a_training_that_was_told_to_stop_the_model_too(make_job, tmp_path, s3_server, checkpoints):
    prefix = f"models-{secrets.token_hex(4)}/run"
    for name in ("ckpt-6", "ckpt-7"):
        model = tmp_path / name / "saved_model"
        model.mkdir(parents=True)
        (model / "saved_model.pb").write_text(name)
        Hdfs(checkpoints).upload(shutil.make_archive(str(tmp_path / name), "zip", model.parent, model.name), f"{name}.saved_model.zip")
    with pytest.raises(BadInput, match="not done"):
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    assert names(s3_server, prefix) == {
        "manifest.json", "checkpoint/checkpoint", "checkpoint/ckpt-7.index", "checkpoint/ckpt-7.data-00000-of-00001", "saved_model/saved_model.pb",
    }  # fmt: skip
    read = {
        name: s3_server.client.get_object(Bucket=s3_server.bucket, Key=f"{prefix}/{name}")["Body"].read()
        for name in ("manifest.json", "saved_model/saved_model.pb")
    }
    assert read["saved_model/saved_model.pb"] == b"ckpt-7"
    document = json.loads(read["manifest.json"])
    assert (document["complete"], document["model_uri"]) == (False, f"s3://{s3_server.bucket}/{prefix}/saved_model")


def test_a_packed_model_that_is_damaged_keeps_no_checkpoint_from_s3(make_job, tmp_path, s3_server, checkpoints):
    prefix = f"models-{secrets.token_hex(4)}/run"
    Hdfs(checkpoints).write_bytes("ckpt-7.saved_model.zip", b"PK")
    with pytest.raises(BadInput, match="not done"):
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    files = {"ckpt-7.index", "ckpt-7.data-00000-of-00001", "ckpt-7.saved_model.zip", "checkpoint"}
    assert names(s3_server, prefix) == {"manifest.json", *(f"checkpoint/{name}" for name in files)}


def test_a_model_takes_the_place_of_a_checkpoint_and_not_the_other_way(make_job, small_model, tmp_path, s3_server, checkpoints):
    prefix = f"models-{secrets.token_hex(4)}/run"
    with pytest.raises(BadInput, match="not done"):
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    trained(tmp_path)
    config = {"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    # What may be a checkpoint is the model where there is one.
    assert export(make_job(config, {"partial": True, "checkpoints_url": checkpoints})).summary["complete"] is True
    exported = names(s3_server, prefix)
    assert exported == {"manifest.json", "metrics.json", "saved_model/saved_model.pb", "saved_model/variables/variables.data"}
    with pytest.raises(BadInput, match="holds a trained model"):
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    assert names(s3_server, prefix) == exported


def test_a_model_that_arrives_during_the_export_of_a_checkpoint_is_kept(make_job, small_model, tmp_path, s3_server, checkpoints, monkeypatch):
    prefix, upload, done = f"models-{secrets.token_hex(4)}/run", Archive.upload, []
    model = make_job({"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"})

    def meanwhile(*arguments):
        monkeypatch.setattr(Archive, "upload", upload)
        Export(model).run()
        done.append(content(s3_server, prefix))
        upload(*arguments)

    monkeypatch.setattr(Archive, "upload", meanwhile)
    with pytest.raises(BadInput, match="holds a trained model"):
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    assert done[0].items() <= content(s3_server, prefix).items()


def test_a_training_that_succeeds_during_the_export_of_its_checkpoint(make_job, tmp_path, s3_server, checkpoints, monkeypatch):
    prefix = f"models-{secrets.token_hex(4)}/run"
    job = partial(make_job, tmp_path, s3_server, prefix, checkpoints)
    report = job.progress.report

    def succeed(*arguments, **more):
        write_model(trained(tmp_path), 2_000)
        monkeypatch.setattr(job.progress, "report", report)

    monkeypatch.setattr(job.progress, "report", succeed)
    assert export(job).summary["complete"] is True
    assert names(s3_server, prefix) == {"manifest.json", "metrics.json", "saved_model/saved_model.pb", "saved_model/variables/variables.data"}


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_what_else_a_training_that_is_not_done_has_saved(make_job, tmp_path, s3_server, hdfs, checkpoints, with_checkpoint):
    prefix = f"models-{secrets.token_hex(4)}/run"
    if not with_checkpoint:
        Hdfs(checkpoints).delete(recursive=True)
    for name in ("weights.h5", "weights.h5.part", "checkpoints/ckpt_best.index", "run.json", "_SUCCESS", "events/e"):
        hdfs.write_bytes(name, name.encode())
    with pytest.raises(BadInput, match=r"not done.*run train\.yml") as raised:
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    assert raised.value.summary["manifest_uri"]
    exported = {"checkpoint/checkpoint", "checkpoint/ckpt-7.index", "checkpoint/ckpt-7.data-00000-of-00001"} if with_checkpoint else set()
    assert set(verified(s3_server, prefix)) == {"saved/weights.h5", "saved/checkpoints/ckpt_best.index"} | exported


def test_other_files_whose_blocks_are_lost_are_not_taken_for_exported(make_job, tmp_path, s3_server, hdfs, cluster, checkpoints):
    hdfs.write_bytes("weights.h5", os.urandom(own_length()))
    cluster.lose_blocks(hdfs, "weights.h5")
    prefix = f"models-{secrets.token_hex(4)}/run"
    job = partial(make_job, tmp_path, s3_server, prefix, checkpoints)
    job.settings["namenode_url"] = cluster.http_url
    with pytest.raises(JobError, match=r"ckpt-7.*lost blocks of weights\.h5") as raised:
        export(job)
    assert raised.value.summary == {} and "checkpoint/ckpt-7.index" in names(s3_server, prefix)
    hdfs.delete(recursive=True)


def test_neither_model_nor_checkpoint(make_job, tmp_path, s3_server, hdfs):
    with pytest.raises(BadInput, match="no checkpoint"):
        export(partial(make_job, tmp_path, s3_server, f"models-{secrets.token_hex(4)}/run", f"{hdfs.url}/checkpoints"))


def test_bytes_that_arrive_otherwise(make_job, small_model, s3_server, monkeypatch):
    prefix = f"models-{secrets.token_hex(4)}/run"

    def spoil(client, path, bucket, key):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")

    monkeypatch.setattr(s3, "upload", spoil)
    with pytest.raises(JobError, match="reads otherwise than it was written"):
        export(make_job({"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}))
    assert "manifest.json" not in names(s3_server, prefix)


def test_a_prefix_with_something_else(make_job, small_model, s3_server):
    prefix = f"models-{secrets.token_hex(4)}/run"
    s3_server.put(f"{prefix}/manifest.json", b"mine")
    with pytest.raises(BadInput, match="deeptrain_export_url or deeptrain_run"):
        export(make_job({"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}))
    assert names(s3_server, prefix) == {"manifest.json"}


@pytest.mark.parametrize("kind", ["directory", "dangling", "fifo"])
def test_what_would_be_missing_in_the_export_is_refused(make_job, small_model, tmp_path, s3_server, kind):
    prefix, path = f"models-{secrets.token_hex(4)}/run", small_model / "saved_model.best"
    (tmp_path / "best").mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "best" if kind == "directory" else tmp_path / "none")
    with pytest.raises(BadInput, match=r"saved_model\.best is neither a file nor a directory.*export\.yml"):
        export(make_job({"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}))
    assert names(s3_server, prefix) == set()


@pytest.mark.parametrize("content", [b"mine", b"[]", b'{"manifest": {}}', b"[" * 100_000])
def test_what_no_export_has_written_beside_it_stops_none(make_job, small_model, s3_server, content):
    prefix = f"models-{secrets.token_hex(4)}/run"
    s3_server.put(f"{prefix}/.incoming/manifest.json", content)
    export(make_job({"run": "run", "source": str(small_model), "target": f"s3://{s3_server.bucket}/{prefix}"}))
    verified(s3_server, prefix)


@pytest.mark.parametrize("content", ["accuracy: 0.9", "[1]", "[" * 100_000])
def test_metrics_that_are_none(make_job, small_model, s3_server, content):
    (small_model / "metrics.json").write_text(content)
    with pytest.raises(BadInput, match=r"metrics\.json"):
        export(make_job({"run": "r", "source": str(small_model), "target": f"s3://{s3_server.bucket}/metrics-{secrets.token_hex(4)}"}))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_metrics_that_are_no_file(small_model, make):
    (small_model / "metrics.json").unlink()
    make(small_model / "metrics.json")
    with pytest.raises(BadInput, match=r"metrics\.json is no regular file"):
        read_metrics(small_model)


def test_no_manifest_without_the_rest(make_job, small_model, s3_server):
    with pytest.raises(BadInput, match="deeptrain_export_url"):
        export(make_job({"run": "r", "source": str(small_model), "target": "s3://nobodys/x"}))


def test_check_reads_and_writes(make_job, s3_server):
    prefix = f"check-{secrets.token_hex(4)}"
    s3_server.put(f"{prefix}/x", b"abc")
    outcome = check(make_job({"source": f"s3://{s3_server.bucket}/{prefix}", "export": f"s3://{s3_server.bucket}/{prefix}-models/run"}))
    assert not outcome.changed
    assert outcome.summary == {"objects": 1, "bytes": 3}
    listing = s3_server.client.list_objects_v2(Bucket=s3_server.bucket, Prefix=f"{prefix}-models")
    assert listing["KeyCount"] == 0


def test_check_refuses_what_staging_would(make_job, s3_server):
    prefix = f"check-{secrets.token_hex(4)}"
    s3_server.put(f"{prefix}/a:b", b"")
    with pytest.raises(BadInput, match="a:b.*rename"):
        check(make_job({"source": f"s3://{s3_server.bucket}/{prefix}", "export": f"s3://{s3_server.bucket}/models"}))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"export": "s3://nobodys/models"}, "deeptrain_export_url"),
        ({"source": "s3://nobodys/data"}, "deeptrain_data_url"),
        ({"source": "http://x/y"}, "deeptrain_data_url.*s3://BUCKET/PREFIX"),
        ({"export": "s3://bucket-alone"}, "deeptrain_export_url.*s3://BUCKET/PREFIX"),
    ],
)
def test_check_names_the_variable(make_job, s3_server, config, words):
    s3_server.put("checked/x", b"")
    given = {"source": f"s3://{s3_server.bucket}/checked", "export": f"s3://{s3_server.bucket}/models"}
    with pytest.raises(JobError, match=words):
        check(make_job({**given, **config}))


def test_check_refuses_at_once_what_jobs_wait_for(make_job, s3_server, tmp_path, monkeypatch, bare):
    s3_server.put("checked/x", b"")
    connect, waits = s3.connect, []

    def noted(*arguments, wait=True, **more):
        waits.append(wait)
        return connect(*arguments, wait=wait, **more)

    monkeypatch.setattr(s3, "connect", noted)
    check(make_job({"source": f"s3://{s3_server.bucket}/checked", "export": f"s3://{s3_server.bucket}/models"}, {"command": ["x"]}))
    assert waits == [False, False]
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "credentials" / "s3.json").write_text("{}")
    with pytest.raises(JobError, match="no S3 credentials: set deeptrain_s3_access_key_id"):
        check(make_job({"source": f"s3://{s3_server.bucket}/checked", "export": f"s3://{s3_server.bucket}/models"}))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--train-step", "5"], "unrecognized arguments: --train-step 5.*deeptrain_training_options"),
        (["--num-layers", "9"], "num-layers.*choose from"),
        (["--learning-rate=-1"], r"learning-rate is -1\.0.*deeptrain_training_options: {learning_rate"),
    ],
)
def test_check_refuses_options_of_the_collections_program(make_job, s3_server, arguments, words):
    s3_server.put("checked/x", b"")
    config = {"source": f"s3://{s3_server.bucket}/checked", "export": f"s3://{s3_server.bucket}/models"}
    program = ["python", "-m", "deeptrain.resnet"]
    with pytest.raises(BadInput, match=words):
        check(make_job(config, {"command": [*program, *arguments]}))
    with pytest.raises(BadInput, match="has help"):
        check(make_job(config, {"command": [*program, "--help"]}))
    # Options of other programs are not validated.
    check(make_job(config, {"command": ["python", "-m", "theirs", *arguments]}))
    check(make_job(config, {"command": [*program, "--train-steps", "5"]}))


def test_check_refuses_the_name_of_another_training(make_job, small_model, tmp_path, s3_server):
    prefix = f"check-{secrets.token_hex(4)}"
    s3_server.put(f"{prefix}/x", b"abc")
    config = {"source": f"s3://{s3_server.bucket}/{prefix}", "export": f"s3://{s3_server.bucket}/{prefix}-models/run"}
    export(make_job({"run": "run", "source": str(small_model), "target": config["export"]}))
    before = content(s3_server, f"{prefix}-models/run")
    check(make_job(config, {"command": CONFIGURATION["command"], "training_dir": str(tmp_path / "nowhere")}))
    with pytest.raises(BadInput, match=r'the command was \["--steps", "7"\], is now \["--steps", "9"\].*deeptrain_replace_export'):
        check(make_job(config, {"command": OTHER["command"]}))
    check(make_job(config, {"command": OTHER["command"], "replace": True}))
    assert content(s3_server, f"{prefix}-models/run") == before


def test_check_lets_a_training_of_this_node_resume_with_other_options(make_job, tmp_path, s3_server):
    prefix = f"check-{secrets.token_hex(4)}"
    s3_server.put(f"{prefix}/x", b"abc")
    s3_server.put(f"{prefix}-models/run/checkpoints/run.json", json.dumps({"configuration": OTHER, "training_id": "first"}).encode())
    config = {"source": f"s3://{s3_server.bucket}/{prefix}", "export": f"s3://{s3_server.bucket}/{prefix}-models/run"}
    trained(tmp_path, status="failed")
    settings = {"command": CONFIGURATION["command"], "training_dir": str(tmp_path / "train")}
    check(make_job(config, settings))
    trained(tmp_path, training_id="second", status="failed")
    with pytest.raises(BadInput, match="holds checkpoints of another configuration"):
        check(make_job(config, settings))
