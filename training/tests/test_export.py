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

import pytest

from deeptrain import manifest, s3
from deeptrain.check import check
from deeptrain.export import Export, export
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


@pytest.fixture
def model(tmp_path):
    directory = tmp_path / "model"
    (directory / "saved_model" / "variables").mkdir(parents=True)
    (directory / "saved_model" / "saved_model.pb").write_bytes(os.urandom(1000))
    (directory / "saved_model" / "variables" / "variables.data").write_bytes(os.urandom(20_000_000))
    (directory / "metrics.json").write_text(json.dumps({"test_accuracy": 0.9, "parameters": {"num_layers": 8}, "versions": {"tensorflow": "2"}}))
    return directory


def test_what_is_exported_is_verified_and_listed(make_job, model, s3_server, hdfs):
    hdfs.write_bytes(manifest.NAME, manifest.encode("s3://b/p", [manifest.Entry("x", 3, "0")]))
    prefix = f"models-{secrets.token_hex(4)}/run"
    outcome = export(
        make_job(
            {"run": "run", "source": str(model), "target": f"s3://{s3_server.bucket}/{prefix}"},
            {"data_manifest": f"{hdfs.url}/{manifest.NAME}", "events_url": "hdfs://n/events"},
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


def test_no_manifest_stands_beside_other_files(make_job, model, s3_server, monkeypatch):
    prefix = f"models-{secrets.token_hex(4)}/run"
    config = {"run": "run", "source": str(model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    export(make_job(config))

    def cut_off(self, name, path):
        raise JobError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(Export, "_upload", cut_off)
        with pytest.raises(JobError, match="cut off"):
            export(make_job(config))
    assert "manifest.json" not in names(s3_server, prefix)
    export(make_job(config))
    assert "manifest.json" in names(s3_server, prefix)


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
    config = {"run": "run", "source": str(tmp_path / "none"), "target": f"s3://{s3_server.bucket}/{prefix}"}
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


def test_a_model_takes_the_place_of_a_checkpoint_and_not_the_other_way(make_job, model, tmp_path, s3_server, checkpoints):
    prefix = f"models-{secrets.token_hex(4)}/run"
    with pytest.raises(BadInput, match="not done"):
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    config = {"run": "run", "source": str(model), "target": f"s3://{s3_server.bucket}/{prefix}"}
    # What may be a checkpoint is the model where there is one.
    assert export(make_job(config, {"partial": True, "checkpoints_url": checkpoints})).summary["complete"] is True
    exported = names(s3_server, prefix)
    assert exported == {"manifest.json", "metrics.json", "saved_model/saved_model.pb", "saved_model/variables/variables.data"}
    with pytest.raises(BadInput, match="holds a trained model"):
        export(partial(make_job, tmp_path, s3_server, prefix, checkpoints))
    assert names(s3_server, prefix) == exported


def test_neither_model_nor_checkpoint(make_job, tmp_path, s3_server, hdfs):
    with pytest.raises(BadInput, match="no checkpoint"):
        export(partial(make_job, tmp_path, s3_server, f"models-{secrets.token_hex(4)}/run", f"{hdfs.url}/checkpoints"))


def test_bytes_that_arrive_otherwise(make_job, model, s3_server, monkeypatch):
    prefix = f"models-{secrets.token_hex(4)}/run"

    def spoil(client, path, bucket, key):
        client.put_object(Bucket=bucket, Key=key, Body=b"x")

    monkeypatch.setattr(s3, "upload", spoil)
    with pytest.raises(JobError, match="reads otherwise than it was written"):
        export(make_job({"run": "run", "source": str(model), "target": f"s3://{s3_server.bucket}/{prefix}"}))
    assert "manifest.json" not in names(s3_server, prefix)


def test_a_prefix_with_something_else(make_job, model, s3_server):
    prefix = f"models-{secrets.token_hex(4)}/run"
    s3_server.put(f"{prefix}/manifest.json", b"mine")
    with pytest.raises(BadInput, match="deeptrain_export_url or deeptrain_run"):
        export(make_job({"run": "run", "source": str(model), "target": f"s3://{s3_server.bucket}/{prefix}"}))
    assert names(s3_server, prefix) == {"manifest.json"}


@pytest.mark.parametrize("content", ["accuracy: 0.9", "[1]"])
def test_metrics_that_are_none(make_job, model, s3_server, content):
    (model / "metrics.json").write_text(content)
    with pytest.raises(BadInput, match=r"metrics\.json"):
        export(make_job({"run": "r", "source": str(model), "target": f"s3://{s3_server.bucket}/metrics-{secrets.token_hex(4)}"}))


def test_no_manifest_without_the_rest(make_job, model, s3_server):
    with pytest.raises(BadInput, match="deeptrain_export_url"):
        export(make_job({"run": "r", "source": str(model), "target": "s3://nobodys/x"}))


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
