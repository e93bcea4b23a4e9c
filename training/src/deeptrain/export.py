# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads what a training left for export, verifies it, and writes the manifest last."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deeptrain import checkpoint, manifest, s3
from deeptrain.hdfs import CHUNK_BYTES, Hdfs
from deeptrain.job import BadInput, Job, JobError, Outcome

MANIFEST = "manifest.json"
PARALLEL = 4


def local_files(directory: Path) -> dict[str, Path]:
    """The files below a directory by their relative paths; refuses one that holds none."""
    found = {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}
    if not found:
        raise BadInput(f"{directory} holds nothing to export: run train.yml, whose command must leave the model in DEEPTRAIN_EXPORT_DIR")
    return found


def read_metrics(directory: Path) -> dict:
    """What the training command left in ``metrics.json``; empty when it left none."""
    path = directory / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInput(f"{path} is no JSON document ({error}): the training command must write one, or none") from error
    if not isinstance(metrics, dict):
        raise BadInput(f"{path} holds no JSON object: the training command must write one, or none")
    return metrics


def _digest(chunks) -> tuple[int, str]:
    length, digest = 0, hashlib.sha256()
    for chunk in chunks:
        length += len(chunk)
        digest.update(chunk)
    return length, digest.hexdigest()


def _file_chunks(path: Path):
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


class Export:
    """One run's export to its prefix; of a directory of its own where the training is not done, and so not complete."""

    def __init__(self, job: Job, partial: Path | None = None):
        self.job = job
        self.complete = partial is None
        self.source = partial or Path(job.config["source"])
        self.url = job.config["target"].rstrip("/")
        self.settings = job.config["s3"]
        self.bucket, self.prefix = s3.split_url(self.url, "deeptrain_export_url")
        self.client = s3.connect(self.settings, job.credentials("s3"))

    def explained(self):
        return s3.explained(self.url, "deeptrain_export_url", self.settings)

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def run(self) -> Outcome:
        began = time.monotonic()
        files = local_files(self.source)
        total = sum(path.stat().st_size for path in files.values())
        done = 0
        entries = []
        retired = self._retire()
        self.job.progress.report("upload", 0, total, "bytes")
        with ThreadPoolExecutor(PARALLEL) as pool:
            for entry in pool.map(lambda item: self._upload(*item), files.items()):
                entries.append(entry)
                done += entry["length"]
                self.job.progress.report("upload", done, total, "bytes")
        self._remove(retired - files.keys())
        document = self._manifest(entries)
        content = (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()
        with self.explained():
            self.client.put_object(Bucket=self.bucket, Key=self.key(MANIFEST), Body=content, ContentType="application/json")
            stored = self.client.get_object(Bucket=self.bucket, Key=self.key(MANIFEST))["Body"].read()
        if stored != content:
            raise JobError(f"{self.url}/{MANIFEST} reads otherwise than it was written: start the export again")
        return Outcome(
            summary={
                "complete": self.complete,
                "model_uri": document["model_uri"],
                "manifest_uri": f"{self.url}/{MANIFEST}",
                "manifest_sha256": hashlib.sha256(content).hexdigest(),
                "files": len(entries),
                "bytes": total,
                "seconds": time.monotonic() - began,
            }
        )

    def _retire(self) -> set[str]:
        """Removes the manifest of an earlier export, since it describes what is about to change; returns the names of its files."""
        with self.explained():
            try:
                content = self.client.get_object(Bucket=self.bucket, Key=self.key(MANIFEST))["Body"].read()
            except self.client.exceptions.NoSuchKey:
                return set()
            try:
                before = json.loads(content)
                names = {item["path"] for item in before["files"]}
            except (ValueError, LookupError, TypeError) as error:
                raise BadInput(f"{self.url}/{MANIFEST} is not of an export: choose another deeptrain_export_url or deeptrain_run") from error
            if before.get("complete", True) and not self.complete:
                raise BadInput(f"{self.url} holds a trained model, which a checkpoint does not replace: run train.yml to its end")
            self.client.delete_object(Bucket=self.bucket, Key=self.key(MANIFEST))
        return names

    def _remove(self, names: set[str]) -> None:
        with self.explained():
            for name in sorted(names):
                self.client.delete_object(Bucket=self.bucket, Key=self.key(name))

    def _upload(self, name: str, path: Path) -> dict:
        """Uploads a file and reads it back."""
        self.job.check_stop()
        length, sha256 = _digest(_file_chunks(path))
        with self.explained():
            s3.upload(self.client, path, self.bucket, self.key(name))
            body = self.client.get_object(Bucket=self.bucket, Key=self.key(name))["Body"]
            stored = _digest(iter(lambda: body.read(CHUNK_BYTES), b""))
        if stored != (length, sha256):
            raise JobError(f"{self.url}/{name} reads otherwise than it was written: start the export again")
        return {"path": name, "length": length, "sha256": sha256}

    def _manifest(self, entries: list[dict]) -> dict:
        metrics = read_metrics(self.source)
        settings = self.job.settings
        has_model = any(item["path"].startswith("saved_model/") for item in entries)
        return {
            "version": 1,
            # Otherwise the training was ended before it was done, and this is its last checkpoint.
            "complete": self.complete,
            "run": self.job.config["run"],
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "model_uri": f"{self.url}/saved_model" if has_model else self.url if self.complete else None,
            "events_url": settings.get("events_url"),
            "files": entries,
            "metrics": metrics,
            "parameters": settings.get("parameters") or metrics.get("parameters", {}),
            "versions": {
                "deeptrain": importlib.metadata.version("deeptrain"),
                "python": platform.python_version(),
                **metrics.get("versions", {}),
            },
            "data": self._data(settings.get("data_manifest")),
        }

    @staticmethod
    def _data(url: str | None) -> dict | None:
        """What the model was trained on, by the data's manifest."""
        if not url:
            return None
        directory, name = url.rsplit("/", 1)
        content = Hdfs(directory).read_bytes(name)
        if content is None:
            return None
        source, entries = manifest.decode(content)
        return {
            "source": source,
            "manifest_sha256": hashlib.sha256(content).hexdigest(),
            "files": len(entries),
            "bytes": sum(entry.length for entry in entries.values()),
        }


def export_checkpoint(job: Job) -> None:
    """Exports the last checkpoint of a training that has left no model; raises BadInput, since the job is not done by that."""
    url = job.settings["checkpoints_url"]
    directory = Hdfs(url)
    found = checkpoint.find(directory)
    if found is None:
        raise BadInput(f"{url} has no checkpoint, so there is nothing to export: run train.yml")
    name, index, files = found
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "checkpoint")
        for path in files:
            directory.download(path, target / path)
        packed = target / f"{name}{checkpoint.PACKED_MODEL}"
        if packed.exists():
            shutil.unpack_archive(packed, scratch)
            packed.unlink()
        (target / checkpoint.INDEX).write_bytes(index)
        outcome = Export(job, Path(scratch)).run()
    said = f"The training is not done, and its last checkpoint {name} is in {job.config['target']}: run train.yml, which goes on from it"
    raise BadInput(said, outcome.summary)


def export(job: Job) -> Outcome:
    """Exports, by the job's ``source``, ``target`` and ``s3``. With the setting ``partial`` the last checkpoint will do."""
    if job.settings.get("partial") and not any(Path(job.config["source"]).glob("*")):
        export_checkpoint(job)
    return Export(job).run()
