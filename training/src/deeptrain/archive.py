# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What S3 holds of a run: the export with its manifest, and copies of checkpoints made while it trained."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterable
from pathlib import Path

from deeptrain import checkpoint, documents, s3
from deeptrain.hdfs import CHUNK_BYTES
from deeptrain.identity import FILE, Identity
from deeptrain.job import BadInput, JobError

MANIFEST = "manifest.json"
# The export's own checkpoint, the final one of a complete export.
FINAL = "checkpoint"
EVENTS = checkpoint.EVENTS
# What else a training that is not done has saved, by its path in the run's directory of HDFS.
SAVED = "saved"
# Files that replace others of the export, until all of them are uploaded.
INCOMING = ".incoming"
# A copy of a checkpoint that replaces the files of one of the same name, until it has.
REPLACEMENT = f"{checkpoint.DIRECTORY}/{INCOMING}"


class Foreign(BadInput):
    """S3 holds something of another configuration under the run's name."""


class Damaged(JobError):
    """What S3 holds is not what its manifest or its listing says."""


def encode(document: dict) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def digest(chunks: Iterable[bytes]) -> tuple[int, str]:
    """Length and sha256."""
    length, sha256 = 0, hashlib.sha256()
    for chunk in chunks:
        length += len(chunk)
        sha256.update(chunk)
    return length, sha256.hexdigest()


def _is_manifest(document: dict) -> bool:
    """Whether it lists files as a manifest does; LookupError or TypeError where it lists none."""
    return all(isinstance(item["path"], str) and item["sha256"] and item["length"] >= 0 for item in document["files"])


class Archive:
    """The prefix of one run. Names are relative to it."""

    def __init__(self, url: str, settings: dict, credentials: dict, stop: threading.Event | None = None, wait: bool = True):
        self.url = url.rstrip("/")
        self.settings = settings
        self.bucket, self.prefix = s3.split_url(self.url, "deeptrain_export_url")
        self.client = s3.connect(settings, credentials, stop=stop, wait=wait)

    def as_job_errors(self):
        return s3.as_job_errors(self.url, "deeptrain_export_url", self.settings)

    def key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def files(self, directory: str = "") -> dict[str, s3.Object]:
        """The objects below a directory, by their names there."""
        prefix = self.key(directory).rstrip("/")
        with self.as_job_errors():
            return {item.key.removeprefix(f"{prefix}/"): item for item in s3.list_objects(self.client, self.bucket, prefix)}

    def read_bytes(self, name: str) -> bytes | None:
        with self.as_job_errors():
            try:
                return self.client.get_object(Bucket=self.bucket, Key=self.key(name))["Body"].read()
            except self.client.exceptions.NoSuchKey:
                return None

    def write_bytes(self, name: str, content: bytes) -> None:
        with self.as_job_errors():
            self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=content)

    def upload(self, local: Path, name: str) -> None:
        with self.as_job_errors():
            s3.upload(self.client, local, self.bucket, self.key(name))

    def copy(self, name: str, target: str) -> None:
        with self.as_job_errors():
            self.client.copy({"Bucket": self.bucket, "Key": self.key(name)}, self.bucket, self.key(target))

    def delete(self, names: Iterable[str]) -> None:
        with self.as_job_errors():
            for name in names:
                self.client.delete_object(Bucket=self.bucket, Key=self.key(name))

    def digest(self, name: str) -> tuple[int, str] | None:
        """Length and sha256 of an object, read back; None when it is missing."""
        with self.as_job_errors():
            try:
                body = self.client.get_object(Bucket=self.bucket, Key=self.key(name))["Body"]
            except self.client.exceptions.NoSuchKey:
                return None
            with contextlib.closing(body):
                return digest(iter(lambda: body.read(CHUNK_BYTES), b""))

    def download(self, item: s3.Object, local: Path) -> str:
        """Copies an object to the node; returns the sha256 of its content."""
        local.parent.mkdir(parents=True, exist_ok=True)
        sha256 = hashlib.sha256()
        with self.as_job_errors(), open(local, "wb") as file:
            try:
                for chunk in s3.read(self.client, self.bucket, item):
                    file.write(chunk)
                    sha256.update(chunk)
            except s3.Changed as error:
                if not self._only_etag(error, item):
                    raise Damaged(f"s3://{self.bucket}/{item.key} is damaged, or changed while it was downloaded: check what else writes there") from error
        return sha256.hexdigest()

    def _only_etag(self, error: s3.Changed, item: s3.Object) -> bool:
        """Whether all that is wrong is an ETag that looks like an MD5, on a server where it is none."""
        if not isinstance(error, s3.Damaged) or error.__cause__ is not None:
            return False
        return not s3.etags_are_md5(self.client, self.bucket, (other for other in self.files().values() if other != item))

    def manifest(self) -> dict | None:
        """The manifest of the export, or of that which is about to replace it; refuses a document of something else."""
        pending = self._pending()
        if pending:
            return pending["manifest"]
        content = self.read_bytes(MANIFEST)
        if content is None:
            return None
        try:
            document = documents.parse(content)
            if _is_manifest(document):
                return document
            raise ValueError("no files")
        except (ValueError, LookupError, TypeError) as error:
            raise Foreign(f"{self.url}/{MANIFEST} is not of an export: choose another deeptrain_export_url or deeptrain_run") from error

    def _pending(self) -> dict | None:
        """What is about to replace the export; None where there is nothing, or something that no export has written."""
        content = self.read_bytes(f"{INCOMING}/{MANIFEST}")
        try:
            document = documents.parse(content) if content else None
            return document if document and _is_manifest(document["manifest"]) and isinstance(document["stale"], list) else None
        except (ValueError, LookupError, TypeError):
            return None

    def replace(self, document: dict, stale: Iterable[str], uploaded: set[str]) -> None:
        """Replaces the export. The caller has verified its files, those uploaded in INCOMING and the others in their places.

        Whenever this is interrupted, either the old or the new one is complete in S3.
        """
        self.write_bytes(f"{INCOMING}/{MANIFEST}", encode({"manifest": document, "stale": sorted(stale)}))
        self.finish_replacement(uploaded)

    def finish_replacement(self, uploaded: set[str] | None = None) -> None:
        """Finishes a replacement that was interrupted; does nothing when none was.

        Raises Damaged, before it changes anything, when files of the new export are missing or damaged.
        """
        pending = self._pending()
        if pending is None:
            return
        incoming = self.files(INCOMING)
        entries = {entry["path"]: (entry["length"], entry["sha256"]) for entry in pending["manifest"]["files"]}
        if uploaded is None or not uploaded <= incoming.keys():
            # Another writer or a lifecycle rule of the bucket may have changed them since they were uploaded.
            uploaded = {name for name, mark in entries.items() if name in incoming and self.digest(f"{INCOMING}/{name}") == mark}
            damaged = next((name for name in sorted(entries.keys() - uploaded) if self.digest(name) != entries[name]), None)
            if damaged is not None:
                raise Damaged(f"{self.url}/{INCOMING}/{damaged}, which is to replace a file, is missing or damaged: run export.yml, which uploads it again")
        self.delete([MANIFEST])
        for name in sorted(uploaded):
            self.copy(f"{INCOMING}/{name}", name)
            if self.digest(name) != entries[name]:
                raise JobError(f"{self.url}/{name} reads otherwise than it was written: start the export again")
        self.delete(pending["stale"])
        self.write_bytes(MANIFEST, encode(pending["manifest"]))
        self.delete([f"{INCOMING}/{name}" for name in incoming if name != MANIFEST])
        self.delete([f"{INCOMING}/{MANIFEST}"])

    def drop_replacement(self) -> set[str]:
        """Removes a replacement that cannot be finished; returns the names that it was to write or remove."""
        pending = self._pending()
        self.delete([f"{INCOMING}/{MANIFEST}"])
        self.delete(f"{INCOMING}/{name}" for name in self.files(INCOMING))
        return {*pending["stale"], *(entry["path"] for entry in pending["manifest"]["files"])} if pending else set()

    def checkpoints(self, directory: str) -> ArchiveDirectory:
        return ArchiveDirectory(self, directory)

    def copied(self) -> Identity | None:
        """Whose checkpoints are copied there; None when there are none."""
        content = self.read_bytes(f"{checkpoint.DIRECTORY}/{FILE}")
        return Identity.decode(content) if content or self.files(checkpoint.DIRECTORY) else None

    def delete_checkpoints(self, directory: str = checkpoint.DIRECTORY) -> None:
        """Removes the copies, the index first."""
        names = sorted(self.files(directory), key=lambda name: name != checkpoint.INDEX)
        self.delete(f"{directory}/{name}" for name in names)

    def refuse_foreign(self, identity: Identity) -> None:
        """Raises Foreign, with the difference, when S3 holds a model or checkpoints of another configuration."""
        exported = self.manifest()
        if exported is not None and not owns(identity, exported):
            raise self.foreign_export(exported, identity)
        copied = self.copied()
        if copied is not None and not identity.continues(copied):
            raise self.foreign_checkpoints(copied, identity)

    def foreign_checkpoints(self, copied: Identity, identity: Identity) -> Foreign:
        return _foreign(f"{self.url}/{checkpoint.DIRECTORY} holds checkpoints", copied, identity)

    def foreign_export(self, exported: dict, identity: Identity) -> Foreign:
        what = "a trained model" if exported.get("complete", True) else "a checkpoint"
        return _foreign(f"{self.url} holds {what}", Identity.of(exported), identity)


def _foreign(what: str, theirs: Identity, identity: Identity) -> Foreign:
    return Foreign(
        f"{what} of another configuration ({identity.difference(theirs)}): use another deeptrain_run,"
        " go back to the old values, or set deeptrain_replace_export=true to replace it"
    )


class ArchiveDirectory:
    """A directory of checkpoints in S3."""

    def __init__(self, archive: Archive, name: str):
        self.archive, self.name = archive, name

    def files(self) -> dict[str, s3.Object]:
        return self.archive.files(self.name)

    def read_bytes(self, name: str) -> bytes | None:
        return self.archive.read_bytes(f"{self.name}/{name}")


def owns(identity: Identity, exported: dict) -> bool:
    """Whether a training may replace an export: a complete model only one of the same configuration."""
    theirs = Identity.of(exported)
    return identity.same(theirs) or not exported.get("complete", True) and identity.continues(theirs)
