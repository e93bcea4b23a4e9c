# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model is in S3 and can be used by somebody else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess

import pytest
from cluster import HERE, PROJECT

PYTHON = PROJECT / ".cache/venv-training/bin/python"


@pytest.fixture(scope="module")
def manifest(cluster) -> dict:
    return json.loads(cluster.get("models/default/manifest.json"))


def elsewhere(cluster, *command) -> dict:
    """What a separate process prints that knows S3 only."""
    environment = {**os.environ, **cluster.s3_env, "no_proxy": "*", "NO_PROXY": "*", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run([PYTHON, *command], env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_manifest_tells_every_object(cluster, manifest):
    found = {}
    for entry in manifest["files"]:
        content = cluster.get(f"models/default/{entry['path']}")
        found[entry["path"]] = len(content), hashlib.sha256(content).hexdigest()
    assert found == {entry["path"]: (entry["length"], entry["sha256"]) for entry in manifest["files"]}
    # Copies of checkpoints of long trainings are kept beside the export.
    others = {name for name in cluster.objects("models/default") if not name.startswith("checkpoints/")}
    assert others == {*found, "manifest.json"}
    assert {"metrics.json", "saved_model/saved_model.pb"} <= set(found)
    assert any(name.startswith("checkpoint/") for name in found)
    assert any(name.startswith("events/") for name in found)
    assert manifest["events_url"] == "s3://deeptrain/models/default/events"
    assert manifest["model_uri"] == "s3://deeptrain/models/default/saved_model"
    assert manifest["metrics"]["train_steps"] == 40
    data = cluster.sh(cluster.chief, "runuser --user deeptrain -- hdfs dfs -cat /user/deeptrain/data/_manifest.json | sha256sum")
    assert manifest["data"]["manifest_sha256"] == data.split()[0]


def test_accuracy_is_the_one_that_was_told(cluster, manifest):
    found = elsewhere(cluster, PROJECT / "demo/evaluate.py", manifest["model_uri"], "--data", "s3://deeptrain/fashion-mnist")
    assert found["examples"] == manifest["metrics"]["test_examples"] == 1000
    assert found["accuracy"] == pytest.approx(manifest["metrics"]["test_accuracy"], abs=0.005)


def test_serving_gives_probabilities(cluster, manifest):
    found = elsewhere(cluster, HERE / "predict.py", manifest["model_uri"])
    assert found["input"] == ["uint8", [None, 32, 32, 3]]
    assert found["shape"] == [3, 10]
    assert found["lowest"] >= 0
    assert found["sums"] == pytest.approx([1, 1, 1], abs=1e-5)
