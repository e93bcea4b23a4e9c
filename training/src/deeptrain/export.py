# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uploads what a training left for export, verifies it, and writes the manifest last."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
import sys
import time
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deeptrain import checkpoint, documents, manifest
from deeptrain.archive import EVENTS, FINAL, INCOMING, MANIFEST, SAVED, Archive, Damaged, digest, encode, owns
from deeptrain.hdfs import CHUNK_BYTES, Hdfs
from deeptrain.identity import read_identity
from deeptrain.job import BadInput, Job, JobError, Outcome
from deeptrain.namenode import Intact

PARALLEL = 4


def exported_files(directory: Path) -> dict[str, Path]:
    """The files below a directory by their relative paths, without those that are still being written."""
    paths = {path.relative_to(directory): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return {name.as_posix(): path for name, path in paths.items() if not any(part.endswith(checkpoint.PART) for part in name.parts)}


def refuse_links(directory: Path) -> None:
    """Raises BadInput where it has what would not be exported: a link to a directory or to nothing, or no regular file."""
    for path in sorted(directory.rglob("*")):
        if not path.is_file() and (path.is_symlink() or not path.is_dir()):
            raise BadInput(
                f"{path} is neither a file nor a directory, so it would be missing in the export: the training command must leave a copy there;"
                " put one in its place and run export.yml"
            )


def succeeded(training: Path) -> bool:
    """Whether the training, by its job's directory, has succeeded at its last start."""
    try:
        return documents.parse((training / "result.json").read_text(encoding="utf-8"))["status"] == "succeeded"
    except (OSError, ValueError, LookupError, TypeError):
        return False


def read_metrics(directory: Path) -> dict:
    """What the training command left in ``metrics.json``; empty when it left none."""
    path = directory / "metrics.json"
    if path.exists() and not path.is_file():
        # A pipe would be waited on for ever.
        raise BadInput(f"{path} is no regular file: the training command must write one, or none")
    try:
        metrics = documents.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInput(f"{path} is no JSON document ({error}): the training command must write one, or none") from error
    if not isinstance(metrics, dict):
        raise BadInput(f"{path} holds no JSON object: the training command must write one, or none")
    return metrics


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
        self.archive = Archive(job.config["target"], job.config["s3"], job.credentials("s3"), job.stop)
        self.url = self.archive.url
        self.identity = read_identity(Path(job.config["source"]).parent)
        self._before: dict[str, tuple[int, str]] = {}
        self._incoming: set[str] = set()
        # What a replacement that was dropped may have left.
        self._dropped: set[str] = set()

    def run(self) -> Outcome:
        began = time.monotonic()
        with self.job.scratch("events") as scratch:
            refuse_links(self.source)
            files = exported_files(self.source)
            if not files:
                raise BadInput(f"{self.source} holds nothing to export: run train.yml, whose command must leave the model in DEEPTRAIN_EXPORT_DIR")
            self.refuse()
            self.archive.delete(f"{INCOMING}/{name}" for name in self.archive.files(INCOMING))
            before = self.archive.manifest()
            self._before = {item["path"]: (item["length"], item["sha256"]) for item in before["files"]} if before else {}
            files = dict(sorted({**self._events(scratch), **files}.items()))
            entries = self._upload_all(files)
        document = self._manifest(entries)
        if not self.complete:
            # The upload may have lasted for hours.
            self.refuse()
        stale = (self._before.keys() | self._dropped) - files.keys()
        if self._incoming or stale:
            self.archive.replace(document, stale, self._incoming)
        else:
            self.archive.write_bytes(MANIFEST, encode(document))
        content = encode(document)
        if self.archive.read_bytes(MANIFEST) != content:
            raise JobError(f"{self.url}/{MANIFEST} reads otherwise than it was written: start the export again")
        copied = self.archive.copied()
        if self.complete and self.job.settings.get("replace") and copied is not None and not self.identity.continues(copied):
            self.archive.delete_checkpoints()
        return Outcome(
            summary={
                "complete": self.complete,
                "model_uri": document["model_uri"],
                "manifest_uri": f"{self.url}/{MANIFEST}",
                "manifest_sha256": hashlib.sha256(content).hexdigest(),
                "files": len(entries),
                "bytes": sum(entry["length"] for entry in entries),
                "seconds": time.monotonic() - began,
            }
        )

    def refuse(self) -> None:
        """Refuses to replace a model by a checkpoint, and without the user's word anything of another configuration.

        Finishes a replacement of the export that was interrupted, and drops one that cannot be finished.
        """
        exported = self.archive.manifest()
        if exported is None:
            return
        allowed = self.job.settings.get("replace") or owns(self.identity, exported)
        if allowed:
            try:
                self.archive.finish_replacement()
            except Damaged as error:
                print(f"Drops a replacement that was interrupted: {error}", file=sys.stderr, flush=True)
                self._dropped |= self.archive.drop_replacement()
                # What it was to replace counts.
                return self.refuse()
        if exported.get("complete", True) and not self.complete:
            raise BadInput(f"{self.url} holds a trained model, which a checkpoint does not replace: run train.yml to its end")
        if not allowed:
            raise self.archive.foreign_export(exported, self.identity)

    def _events(self, scratch: Path) -> dict[str, Path]:
        """TensorBoard's events, which otherwise end with the cluster."""
        found = {}
        if self.job.settings.get("events_url"):
            directory = Intact(self.job.settings["events_url"], self.job.settings.get("namenode_url"))
            # Those whose blocks are lost keep no model from S3.
            for name in directory.files():
                if not name.endswith(checkpoint.PART):
                    found[f"{EVENTS}/{name}"] = scratch / name
                    directory.download(name, scratch / name)
        return found

    def _upload_all(self, files: dict[str, Path]) -> list[dict]:
        total = sum(path.stat().st_size for path in files.values())
        done, entries = 0, []
        self.job.progress.report("upload", 0, total, "bytes")
        with ThreadPoolExecutor(PARALLEL) as pool:
            for entry in pool.map(lambda item: self._upload(*item), files.items()):
                entries.append(entry)
                done += entry["length"]
                self.job.progress.report("upload", done, total, "bytes")
        return entries

    def _upload(self, name: str, path: Path) -> dict:
        """Uploads a file and reads it back; beside the export where it replaces a file of that."""
        self.job.check_stop()
        mark = length, sha256 = digest(_file_chunks(path))
        if self._before.get(name) != mark or self.archive.digest(name) != mark:
            target = name
            # Another cluster may export the model meanwhile, which no checkpoint is to touch.
            if self._before or not self.complete:
                target = f"{INCOMING}/{name}"
                self._incoming.add(name)
            self.archive.upload(path, target)
            if self.archive.digest(target) != mark:
                raise JobError(f"{self.url}/{target} reads otherwise than it was written: start the export again")
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
            "configuration": self.identity.configuration,
            "training_id": self.identity.training_id,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "model_uri": f"{self.url}/saved_model" if has_model else self.url if self.complete else None,
            "events_url": f"{self.url}/{EVENTS}" if any(item["path"].startswith(f"{EVENTS}/") for item in entries) else None,
            "files": entries,
            "metrics": metrics,
            "parameters": settings.get("parameters") or metrics.get("parameters", {}),
            "versions": {
                "deeptrain": importlib.metadata.version("deeptrain"),
                "python": platform.python_version(),
                **metrics.get("versions", {}),
            },
            "data": self._data(),
        }

    def _data(self) -> dict | None:
        """What the model was trained on, by the data's manifest; None without one."""
        url = self.job.settings.get("data_manifest")
        if not url:
            return None
        directory, name = url.rsplit("/", 1)
        content = Intact(directory, self.job.settings.get("namenode_url")).read_bytes(name)
        if content is None:
            return None
        source, entries = manifest.decode(content)
        return {
            "source": source,
            "manifest_sha256": hashlib.sha256(content).hexdigest(),
            "files": len(entries),
            "bytes": sum(entry.length for entry in entries.values()),
        }


def export_saved(job: Job) -> None:
    """Exports what a training that has left no model has saved: its last checkpoint, and every other file but events.

    Raises BadInput, since the job is not done by that. Where HDFS has lost blocks, the JobError has no summary: what could
    not be exported may come back with its DataNode.
    """
    url, namenode_url = job.settings["checkpoints_url"], job.settings.get("namenode_url")
    directory, model = Intact(url, namenode_url), Intact(url.rpartition("/")[0], namenode_url)
    found = checkpoint.find(directory) or next(checkpoint.find_all(directory), None)
    lost = sorted(filter(checkpoint.is_saved, model.damaged()))
    others = [name for name in model.files() if checkpoint.is_saved(name) and not name.endswith(checkpoint.PART) and not (found and _is_of(found, name))]
    if lost:
        missing = f"HDFS has lost blocks of {', '.join(lost)} in {model.url}: start the DataNodes that have them"
    if found is None and not others:
        raise JobError(missing) if lost else BadInput(f"{url} has no checkpoint, so there is nothing to export: run train.yml")
    with job.scratch("checkpoint") as scratch:
        if found:
            _fetch_checkpoint(directory, found, scratch)
        for name in others:
            model.download(name, scratch / SAVED / name)
        exporter = Export(job, scratch)
        exporter.refuse()
        exported = checkpoint.find(exporter.archive.checkpoints(FINAL))
        if checkpoint.newer(exported, found) and not job.settings.get("replace"):
            raise BadInput(f"{exporter.url} holds {exported.name}, which is newer than {found.name if found else url}: run train.yml, which resumes from it")
        outcome = exporter.run()
    what = f"its last checkpoint {found.name} is" if found else "the files that it has saved are"
    said = f"The training is not done, and {what} in {job.config['target']}"
    if lost:
        raise JobError(f"{said}; {missing}")
    raise BadInput(f"{said}: run train.yml, which resumes from there", outcome.summary)


def _is_of(found: checkpoint.Found, name: str) -> bool:
    """Whether a file of the run belongs to its last checkpoint, or to one that this supersedes."""
    top, _slash, path = name.partition("/")
    return top == checkpoint.DIRECTORY and (path == checkpoint.INDEX or path in found.files or found.supersedes(path))


def _fetch_checkpoint(directory: Hdfs, found: checkpoint.Found, scratch: Path) -> None:
    """Copies a checkpoint as the export has it, with the model that was packed with it."""
    target = scratch / FINAL
    for path in found.files:
        directory.download(path, target / path)
    packed = target / f"{found.name}{checkpoint.PACKED_MODEL}"
    if packed.exists():
        unpacked = scratch / f"unpacked{checkpoint.PART}"
        try:
            shutil.unpack_archive(packed, unpacked)
            for path in unpacked.iterdir():
                path.rename(scratch / path.name)
            packed.unlink()
        except (shutil.ReadError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            # The checkpoint is whole without it.
            print(f"{packed.name} is exported as it is, since it cannot be unpacked: {error}", file=sys.stderr, flush=True)
        shutil.rmtree(unpacked, ignore_errors=True)
    (target / checkpoint.INDEX).write_bytes(found.index)


def export(job: Job) -> Outcome:
    """Exports, by the job's ``source``, ``target`` and ``s3``. With the setting ``partial`` what the training has saved will do."""
    training = Path(job.config["source"]).parent
    if not succeeded(training) and job.settings.get("partial"):
        try:
            export_saved(job)
        except JobError:
            # A training that was resumed may succeed meanwhile, and starts no export beside this one.
            if not succeeded(training):
                raise
    if not succeeded(training):
        raise BadInput(
            f"{training / 'result.json'} does not say that the training has succeeded, so there is no model to export:"
            " run train.yml to its end; its command must leave the model in DEEPTRAIN_EXPORT_DIR"
        )
    return Export(job).run()
