# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import boto3
import pytest

import summary
from shards import Failure

MANIFEST = {
    "version": 1,
    "run": "default",
    "model_uri": "s3://data/models/default/saved_model",
    "events_url": "s3://deeptrain/models/default/events",
    "files": [],
    "metrics": {
        "test_accuracy": 0.9012,
        "test_loss": 0.3,
        "train_steps": 2400,
        "steps_per_second": 14.27,
        "examples_per_second": 913.4,
    },
}
STAGES = {"preflight": 3.1, "hdfs": 40.2}


def test_program(bucket, s3_env, tmp_path, monkeypatch, capsys):
    boto3.client("s3").put_object(Bucket=bucket, Key="models/default/manifest.json", Body=json.dumps(MANIFEST))
    (tmp_path / "stages.json").write_text(json.dumps(STAGES))
    (tmp_path / "started").write_text("1000\n")
    monkeypatch.setattr(summary.time, "time", lambda: 1234.56)
    monkeypatch.setattr(
        "sys.argv",
        [
            "summary.py", f"--models=s3://{bucket}/models", f"--stages={tmp_path}/stages.json",
            f"--started={tmp_path}/started", f"--output={tmp_path}/summary.json",
        ],
    )  # fmt: skip
    summary.main()
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "model_uri": "s3://data/models/default/saved_model",
        "endpoint_url": s3_env["AWS_ENDPOINT_URL"],
        "test_accuracy": 0.9012,
        "train_steps": 2400,
        "steps_per_second": 14.27,
        "examples_per_second": 913.4,
        "stage_seconds": STAGES,
        "wall_seconds": 234.6,
        "events_url": "s3://deeptrain/models/default/events",
    }
    lines = capsys.readouterr().out
    assert "0.9012" in lines and "2400 steps, 14.3 steps/s, 913 examples/s" in lines
    assert "preflight 3 s, hdfs 40 s" in lines and s3_env["AWS_SECRET_ACCESS_KEY"] not in lines


def test_another_run_has_no_stages_of_the_demo(bucket, s3_env, tmp_path, monkeypatch, capsys):
    boto3.client("s3").put_object(Bucket=bucket, Key="models/first/manifest.json", Body=json.dumps(MANIFEST))
    (tmp_path / "stages.json").write_text(json.dumps(STAGES))
    (tmp_path / "started").write_text("1000\n")
    monkeypatch.setattr(
        "sys.argv",
        [
            "summary.py", "--run=first", f"--models=s3://{bucket}/models", f"--stages={tmp_path}/stages.json",
            f"--started={tmp_path}/started", f"--output={tmp_path}/summary.json",
        ],
    )  # fmt: skip
    summary.main()
    assert json.loads((tmp_path / "summary.json").read_text()).keys().isdisjoint({"stage_seconds", "wall_seconds"})
    assert "0.9012" in (lines := capsys.readouterr().out) and "preflight" not in lines


def test_no_manifest(bucket):
    with pytest.raises(Failure, match="models/none/manifest.json is not there.*run playbooks/site.yml"):
        summary.read_manifest(f"s3://{bucket}/models", "none")


def test_metrics_of_another_command():
    with pytest.raises(Failure, match="lacks test_accuracy, train_steps"):
        summary.summarize({**MANIFEST, "metrics": {"steps_per_second": 1, "examples_per_second": 2}}, {}, None)


def test_no_stages(tmp_path):
    with pytest.raises(Failure, match="stages.json cannot be read .*: run make demo"):
        summary.read(tmp_path / "stages.json")
