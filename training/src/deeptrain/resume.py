# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a training begins: at its newest checkpoint, in HDFS or in S3, where a lost cluster may have left it."""

from __future__ import annotations

import functools
import shutil
import sys
import uuid
from pathlib import Path

from deeptrain import checkpoint
from deeptrain.archive import EVENTS, FINAL, REPLACEMENT, SAVED, Archive, Damaged, Foreign, owns
from deeptrain.hdfs import Hdfs, Unavailable
from deeptrain.identity import FILE, Identity, read_identity
from deeptrain.job import BadInput, Job, JobError, replace_file
from deeptrain.namenode import Intact


class Resume:
    """Makes HDFS hold the newest checkpoint of a training, and refuses what belongs to another."""

    def __init__(self, job: Job):
        self.job = job
        url, namenode_url = job.config["model_url"], job.settings.get("namenode_url")
        self.model = Intact(url, namenode_url)
        self.directory = Intact(f"{self.model.url}/{checkpoint.DIRECTORY}", namenode_url)
        self.before = read_identity(job.directory)
        # Checkpoints in S3 whose files are not what they were, by their directory, and why.
        self.damaged: dict[str, tuple[checkpoint.Found, Damaged]] = {}
        configuration = {"command": job.config["command"], "data_manifest_sha256": job.config.get("data_manifest_sha256")}
        self.identity = Identity(configuration, self.before.training_id)

    @functools.cached_property
    def archive(self) -> Archive:
        settings = self.job.settings
        return Archive(settings["export_url"], settings["s3"], self.job.credentials("s3"), self.job.stop)

    def run(self) -> bool:
        """Refuses, or restores; returns whether the complete export was restored, so that there is nothing to train."""
        found, lost = checkpoint.find(self.directory), set()
        indexed = found is not None
        if not indexed:
            # The index, or what it names, is lost; a complete one may be beside it.
            lost = self.directory.damaged()
            found = next(checkpoint.find_all(self.directory), None)
        # Where its record in HDFS is lost, that of this node counts.
        stored = self.before if FILE in self.model.damaged() else Identity.decode(self.model.read_bytes(FILE))
        own = stored.configuration is not None and self.identity.continues(stored)
        if found and stored.configuration is not None and not own:
            raise BadInput(
                f"{self.directory.url} holds checkpoints of another configuration ({self.identity.difference(stored)}):"
                f" use another deeptrain_run, go back to the old values, or remove {self.model.url} from HDFS"
            )
        if own:
            self._adopt(stored)
        done = False
        try:
            done = self._from_archive(found)
        except (Foreign, Unavailable):
            raise
        except JobError as error:
            # S3 may have a newer one than what is left of those in HDFS.
            if lost or not (found and own):
                if isinstance(error, BadInput):
                    raise
                # Waited for, as HDFS is.
                raise Unavailable(str(error)) from error
            print(f"Resumes from HDFS alone: {error}", file=sys.stderr, flush=True)
        if not done and (lost or (found and not indexed)):
            self._replace_lost(found, lost)
        elif self.damaged and not done:
            self._refuse_damaged()
        if not done and self.before.configuration is not None and not self.identity.same(self.before):
            # What it holds is of another configuration.
            shutil.rmtree(self.job.settings["export_dir"], ignore_errors=True)
        self._write_identity()
        return done

    def _refuse_damaged(self) -> None:
        """Refuses to train from the beginning, unless the user says so, where S3 has a checkpoint that is damaged."""
        if checkpoint.find(self.directory) is None and not self.job.settings.get("replace"):
            what = "; ".join(f"{self.archive.url}/{name} has {found.name}, and {error}" for name, (found, error) in self.damaged.items())
            raise BadInput(
                f"There is no other checkpoint to resume from: {what}. Restore it, such as from the bucket's older versions, or set"
                " deeptrain_replace_export=true to train from the beginning"
            )

    def _replace_lost(self, older: checkpoint.Found | None, lost: set[str]) -> None:
        """Makes the index in HDFS name an older checkpoint, where S3 has none that is newer."""
        if checkpoint.find(self.directory) is not None:
            return
        if older is None:
            raise Unavailable(
                f"HDFS has lost blocks of the checkpoint in {self.directory.url} ({', '.join(sorted(lost))}), and there is no other one: start the"
                f" DataNodes that have them; to train from the beginning, remove {self.directory.url} from HDFS"
            )
        why = f"HDFS has lost blocks of {', '.join(sorted(lost))}" if lost else f"{checkpoint.INDEX} names no complete checkpoint"
        print(f"Resumes from {older.name}: {why}", file=sys.stderr, flush=True)
        self.directory.write_bytes(checkpoint.INDEX, older.index)

    def _adopt(self, other: Identity) -> None:
        self.identity = Identity(self.identity.configuration, self.identity.training_id or other.training_id)

    def _write_identity(self) -> None:
        self._adopt(Identity(None, uuid.uuid4().hex))
        content = self.identity.encode()
        if self.model.read_bytes(FILE) != content:
            self.model.write_bytes(FILE, content)
        replace_file(self.job.directory / FILE, content)

    def _from_archive(self, found: checkpoint.Found | None) -> bool:
        if not self.job.settings.get("export_url"):
            return False
        archive = self.archive
        if not self.job.settings.get("replace"):
            archive.refuse_foreign(self.identity)
        exported, copied = archive.manifest(), archive.copied()
        if exported is not None and not (owns(self.identity, exported) and self._is_whole()):
            exported = None
        candidates = []
        if exported is not None:
            digests = {item["path"]: item["sha256"] for item in exported["files"]}
            candidates.append((FINAL, Identity.of(exported), digests))
        if copied is not None and self.identity.continues(copied):
            # A replacement that was interrupted counts where the other one is lost to it.
            candidates += [(checkpoint.DIRECTORY, copied, {}), (REPLACEMENT, copied, {})]
        for name, identity, digests in candidates:
            restored = self._restore_newer(name, found, identity, digests)
            if restored:
                found = restored
                self._adopt(identity)
        if exported is None:
            return False
        if exported.get("complete", True):
            return self._restore_export(exported)
        self._restore_files(exported, EVENTS, Hdfs(f"{self.model.url}/{EVENTS}"))
        self._restore_files(exported, SAVED, self.model)
        return False

    def _is_whole(self) -> bool:
        """Finishes a replacement of the export; returns False when that cannot be finished."""
        try:
            self.archive.finish_replacement()
        except Damaged as error:
            print(f"The model in S3 is not restored, so it is trained: {error}", file=sys.stderr, flush=True)
            return False
        return True

    def _restore_newer(self, name: str, found: checkpoint.Found | None, identity: Identity, digests: dict[str, str]) -> checkpoint.Found | None:
        """Restores the checkpoint that S3 has in a directory when it is newer, and returns it; None when it is older or damaged."""
        for _attempt in range(2):
            there = checkpoint.find(self.archive.checkpoints(name))
            if not checkpoint.newer(there, found):
                return None
            try:
                self._restore_checkpoint(name, there, identity, digests)
                self.damaged.pop(name, None)
                return there
            except Damaged as error:
                print(f"Not restored from S3: {error}", file=sys.stderr, flush=True)
                self.damaged[name] = there, error
        return None

    def _restore_checkpoint(self, name: str, found: checkpoint.Found, identity: Identity, digests: dict[str, str]) -> None:
        """Copies a checkpoint to HDFS, verified, its index last; before that whose it is."""
        print(f"Restores {found.name} from {self.archive.url}/{name}", file=sys.stderr, flush=True)
        with self.job.scratch("restore") as scratch:
            for index, (path, item) in enumerate(found.files.items()):
                self._advance(index, len(found.files))
                self._copy(item, scratch / path, self.directory, path, digests.get(f"{name}/{path}") if digests else None)
        self.model.write_bytes(FILE, identity.encode())
        self.directory.write_bytes(checkpoint.INDEX, found.index)

    def _restore_files(self, exported: dict, name: str, directory: Hdfs) -> None:
        """Restores the files below a directory of the export that are missing in HDFS."""
        existing, objects = directory.files(), self.archive.files(name)
        with self.job.scratch("restore") as scratch:
            for item in exported["files"]:
                path = item["path"].removeprefix(f"{name}/")
                if path != item["path"] and path in objects and path not in existing:
                    self._copy(objects[path], scratch / "file", directory, path)

    def _copy(self, item, local: Path, directory: Hdfs, path: str, expected: str | None = None) -> None:
        sha256 = self.archive.download(item, local)
        if expected not in (None, sha256):
            raise Damaged(f"{item.key} is not what the manifest of {self.archive.url} says: run train.yml and export.yml, which replace it")
        directory.upload(local, path)
        if directory.sha256(path) != sha256:
            raise JobError(f"{directory.url}/{path} reads otherwise than it was written: check the DataNodes' disks (hdfs fsck /), then run train.yml")
        local.unlink()

    def _restore_export(self, exported: dict) -> bool:
        """Restores the export into the training's export directory; returns whether all of it is there and verified."""
        export_dir = Path(self.job.settings["export_dir"])
        scratch = export_dir.with_name(f".{export_dir.name}.part")
        shutil.rmtree(scratch, ignore_errors=True)
        objects = self.archive.files()
        try:
            for index, item in enumerate(exported["files"]):
                self._advance(index, len(exported["files"]))
                path = item["path"]
                if path not in objects or ".." in Path(path).parts or Path(path).is_absolute():
                    raise Damaged(f"{self.archive.url}/{path} is missing")
                if self.archive.download(objects[path], scratch / path) != item["sha256"]:
                    raise Damaged(f"{self.archive.url}/{path} is not what its manifest says")
        except Damaged as error:
            print(f"The model in S3 is not restored, so it is trained: {error}", file=sys.stderr, flush=True)
            shutil.rmtree(scratch, ignore_errors=True)
            return False
        shutil.rmtree(export_dir, ignore_errors=True)
        scratch.rename(export_dir)
        self._adopt(Identity.of(exported))
        return True

    def _advance(self, done: int, total: int) -> None:
        self.job.check_stop()
        self.job.progress.report("restore", done, total, "files")
