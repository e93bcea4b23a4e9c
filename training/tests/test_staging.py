# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Staging between a real S3 server and a real HDFS."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import pytest
from services import LIMIT, Proxy, metadata_service, wait_until

import deeptrain.staging
from deeptrain import manifest, s3
from deeptrain.hdfs import Hdfs, Unavailable
from deeptrain.job import BadInput, Job, JobError
from deeptrain.namenode import NameNode
from deeptrain.staging import Staging, largest_directory, relative_paths, stage


def start_staging(directory: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "deeptrain.cli", "staging", "--job", str(directory)])


def wait_for_files(process: subprocess.Popen, hdfs: Hdfs, count: int) -> None:
    """Waits until a staging that is at work has copied so many files."""

    def copied() -> bool:
        assert process.poll() is None, "the staging has ended"
        return sum(not name.startswith("_") for name in hdfs.files()) >= count

    wait_until(copied, f"{count} files are copied")


class PassingProxy(Proxy):
    """Passes all on; ``answering`` is called before each piece of an answer, with the length of its connection's answers by then and its own."""

    def __init__(self, endpoint: str, after: int):
        super().__init__(endpoint)
        self.after = after

    def serve(self, client):
        with contextlib.suppress(OSError):
            server = socket.create_connection(self.server)
            threading.Thread(target=self._pass, args=(client, server), daemon=True).start()
            self._pass(server, client, self.answering)

    @staticmethod
    def _pass(source, target, before=lambda length, more: None):
        length = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                length += len(data)
                before(length, len(data))
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


class BreakingProxy(PassingProxy):
    """Breaks each connection after so many bytes of answers."""

    broken = 0

    def answering(self, length, more):
        if length > self.after:
            self.broken += 1
            raise ConnectionAbortedError


class HaltingProxy(PassingProxy):
    """Passes so many bytes of answers altogether, and then none until it may go on: what is done to a staging meanwhile never comes too late."""

    def __init__(self, endpoint: str, after: int):
        super().__init__(endpoint, after)
        self.go_on, self._lock = threading.Event(), threading.Lock()

    def __exit__(self, *exception):
        self.go_on.set()
        super().__exit__(*exception)

    def answering(self, length, more):
        with self._lock:
            self.after -= more
        if self.after < 0:
            self.go_on.wait()


@pytest.fixture
def source(s3_server):
    """A prefix of three objects."""
    prefix = f"data-{secrets.token_hex(4)}"
    contents = {"a.bin": os.urandom(3_000_000), "b.bin": b"", "deep/c.bin": os.urandom(100_000)}
    for name, content in contents.items():
        s3_server.put(f"{prefix}/{name}", content)
    s3_server.contents = contents
    return prefix


@pytest.fixture
def make_job(tmp_path, s3_server, cluster, hdfs, monkeypatch):
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "s3.json").write_text(json.dumps(s3_server.credentials))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))

    def make(prefix, s3_changes=None, settings=None, bucket=None) -> Job:
        config = {
            "source": f"s3://{bucket or s3_server.bucket}/{prefix}",
            "target": hdfs.url,
            "s3": {**s3_server.settings, **(s3_changes or {})},
        }
        (tmp_path / "config.json").write_text(json.dumps({"config": config, "settings": {"parallel": 4, "namenode_url": cluster.http_url, **(settings or {})}}))
        return Job(tmp_path)

    return make


def test_everything_arrives_verified(make_job, source, s3_server, hdfs):
    outcome = stage(make_job(source))
    assert outcome.changed
    assert (outcome.summary["objects"], outcome.summary["copied_objects"]) == (3, 3)
    for name, content in s3_server.contents.items():
        assert b"".join(hdfs.read_stream(name)) == content
    origin, entries = manifest.read(hdfs)
    assert origin == f"s3://{s3_server.bucket}/{source}"
    assert {path: entry.sha256 for path, entry in entries.items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in s3_server.contents.items()
    }
    assert hdfs.status("_incoming") is None


def test_a_second_staging_changes_nothing(make_job, source, hdfs):
    stage(make_job(source))
    before = hdfs.read_bytes(manifest.NAME)
    outcome = stage(make_job(source))
    assert not outcome.changed
    assert outcome.summary["skipped_objects"] == 3
    assert hdfs.read_bytes(manifest.NAME) == before


def test_only_the_difference_is_copied(make_job, source, s3_server, hdfs):
    stage(make_job(source))
    time.sleep(1.1)  # S3 tells times in seconds
    s3_server.put(f"{source}/a.bin", b"new")
    s3_server.client.delete_object(Bucket=s3_server.bucket, Key=f"{source}/deep/c.bin")
    outcome = stage(make_job(source))
    assert (outcome.summary["copied_objects"], outcome.summary["removed_objects"]) == (1, 1)
    assert hdfs.read_bytes("a.bin") == b"new"
    assert hdfs.status("deep/c.bin") is None
    assert set(manifest.read(hdfs)[1]) == {"a.bin", "b.bin"}


@pytest.mark.parametrize("damage", ["removed", "overwritten"])
def test_a_damaged_target_is_mended(make_job, source, s3_server, hdfs, damage):
    stage(make_job(source))
    if damage == "removed":
        hdfs.delete("a.bin")
    else:
        hdfs.write_bytes("a.bin", os.urandom(3_000_000))
    outcome = stage(make_job(source))
    assert outcome.summary["copied_objects"] == 1
    assert hdfs.read_bytes("a.bin") == s3_server.contents["a.bin"]


def test_a_change_within_the_same_second(make_job, source, s3_server, hdfs):
    stage(make_job(source))
    file = s3_server.directory / s3_server.bucket / source / "a.bin"
    before = file.stat()
    content = os.urandom(3_000_000)
    s3_server.put(f"{source}/a.bin", content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stage(make_job(source)).summary["copied_objects"] == 1
    assert hdfs.read_bytes("a.bin") == content


def test_a_file_takes_the_place_of_a_directory_and_back(make_job, source, s3_server, hdfs):
    stage(make_job(source))
    s3_server.client.delete_object(Bucket=s3_server.bucket, Key=f"{source}/deep/c.bin")
    s3_server.client.delete_object(Bucket=s3_server.bucket, Key=f"{source}/deep/")
    s3_server.put(f"{source}/deep", b"file")
    stage(make_job(source))
    assert hdfs.read_bytes("deep") == b"file"
    s3_server.client.delete_object(Bucket=s3_server.bucket, Key=f"{source}/deep")
    s3_server.put(f"{source}/deep/er/c.bin", b"again")
    stage(make_job(source))
    assert hdfs.read_bytes("deep/er/c.bin") == b"again"
    assert set(hdfs.files()) == {manifest.NAME, manifest.DIGEST, "a.bin", "b.bin", "deep/er/c.bin"}


def test_cut_off_while_the_data_changes(make_job, source, s3_server, hdfs, monkeypatch):
    """No manifest stands beside data that it does not describe, and no digest outlives its file."""
    stage(make_job(source))
    time.sleep(1.1)
    new = {"a.bin": os.urandom(3_000_000), "deep/c.bin": os.urandom(100_000)}
    for name, content in new.items():
        s3_server.put(f"{source}/{name}", content)
    copy = Staging._copy

    def cut_off(self, path, item):
        if path == "deep/c.bin":
            raise JobError("cut off")
        return copy(self, path, item)

    with monkeypatch.context() as patch:
        patch.setattr(Staging, "_copy", cut_off)
        with pytest.raises(JobError, match="cut off"):
            stage(make_job(source, settings={"parallel": 1}))
    assert hdfs.read_bytes("a.bin") == new["a.bin"]
    assert hdfs.status(manifest.NAME) is None
    assert stage(make_job(source)).summary["copied_objects"] == 1
    entries = manifest.read(hdfs)[1]
    assert {name: entries[name].sha256 for name in new} == {name: hashlib.sha256(content).hexdigest() for name, content in new.items()}


def test_names_of_all_kinds(make_job, s3_server, hdfs):
    prefix = f"names-{secrets.token_hex(4)}"
    names = {"a b", "a#b", "a?b", "a%41b", "a+b", "[a]*{b}", "grün/é", "'quoted\"", "a&b=c"}
    for name in names:
        s3_server.put(f"{prefix}/{name}", name.encode())
    s3_server.put(f"{prefix}/directory/", b"")
    assert stage(make_job(prefix)).summary["objects"] == len(names)
    assert {name: hdfs.read_bytes(name) for name in names} == {name: name.encode() for name in names}
    assert not stage(make_job(prefix)).changed


def test_the_manifest_is_the_same_for_the_same_data(make_job, source, s3_server, cluster, hdfs):
    stage(make_job(source))
    first = hdfs.read_bytes(manifest.NAME)
    hdfs.delete(recursive=True)
    time.sleep(1.1)
    for name, content in s3_server.contents.items():
        s3_server.put(f"{source}/{name}", content)
    stage(make_job(source))
    assert hdfs.read_bytes(manifest.NAME) == first


def test_killed_in_the_middle_it_goes_on(make_job, s3_server, hdfs, tmp_path):
    prefix = f"many-{secrets.token_hex(4)}"
    contents = {f"{index:03}.bin": os.urandom(1_000_000) for index in range(60)}
    for name, content in contents.items():
        s3_server.put(f"{prefix}/{name}", content)
    with HaltingProxy(s3_server.endpoint, after=30_000_000) as proxy:
        make_job(prefix, {"endpoint_url": proxy.endpoint}, {"parallel": 2})
        process = start_staging(tmp_path)
        wait_for_files(process, hdfs, 10)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    there = [name for name in hdfs.files() if not name.startswith("_")]
    assert 10 <= len(there) < 60
    assert hdfs.status(manifest.NAME) is None
    outcome = stage(make_job(prefix))
    assert outcome.summary["skipped_objects"] == len(there)
    assert {name: hdfs.read_bytes(name) for name in contents} == contents


def test_sigterm_ends_in_order(make_job, s3_server, hdfs, tmp_path):
    prefix = f"many-{secrets.token_hex(4)}"
    for index in range(40):
        s3_server.put(f"{prefix}/{index:03}", os.urandom(2_000_000))
    with HaltingProxy(s3_server.endpoint, after=20_000_000) as proxy:
        make_job(prefix, {"endpoint_url": proxy.endpoint}, {"parallel": 2})
        process = start_staging(tmp_path)
        wait_for_files(process, hdfs, 1)
        process.terminate()
        proxy.go_on.set()
        assert process.wait(LIMIT) == 143
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "failed" and "goes on" in result["error"]


def test_an_object_that_changes_before_it_is_copied(make_job, source, s3_server, hdfs):
    staging = Staging(make_job(source))
    listing = staging.listing()
    s3_server.put(f"{source}/a.bin", os.urandom(3_000_000))
    with pytest.raises(JobError, match="a.bin.*changed while it was copied"):
        staging._copy("a.bin", listing["a.bin"])
    assert hdfs.status("a.bin") is None
    assert stage(make_job(source)).summary["objects"] == 3


@pytest.mark.parametrize("change", ["replaced", "removed", "added"])
def test_objects_that_change_meanwhile(make_job, s3_server, hdfs, tmp_path, change):
    prefix = f"moving-{secrets.token_hex(4)}"
    content = os.urandom(40_000_000)
    for index in range(3):
        s3_server.put(f"{prefix}/{index}", content)
    with HaltingProxy(s3_server.endpoint, after=60_000_000) as proxy:
        make_job(prefix, {"endpoint_url": proxy.endpoint}, {"parallel": 1})
        process = start_staging(tmp_path)
        wait_for_files(process, hdfs, 1)
        if change == "replaced":
            s3_server.put(f"{prefix}/0", content[::-1])
        elif change == "removed":
            s3_server.client.delete_object(Bucket=s3_server.bucket, Key=f"{prefix}/0")
        else:
            s3_server.put(f"{prefix}/00", b"new")
        proxy.go_on.set()
        assert process.wait(LIMIT) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert re.search(f"'{prefix}/0+'.*changed while it was copied", result["error"])
    assert hdfs.status(manifest.NAME) is None
    assert not result["changed"]
    outcome = stage(make_job(prefix))
    assert set(manifest.read(hdfs)[1]) == {"replaced": {"0", "1", "2"}, "removed": {"1", "2"}, "added": {"0", "00", "1", "2"}}[change]
    assert outcome.summary["skipped_objects"] >= 2


def test_broken_connections_are_taken_up(make_job, s3_server, hdfs):
    prefix = f"broken-{secrets.token_hex(4)}"
    content = os.urandom(30_000_000)
    s3_server.put(f"{prefix}/a.bin", content)
    with BreakingProxy(s3_server.endpoint, after=12_000_000) as proxy:
        stage(make_job(prefix, {"endpoint_url": proxy.endpoint}))
    assert proxy.broken >= 2
    assert hdfs.read_bytes("a.bin") == content


def test_a_target_with_something_else(make_job, source, hdfs):
    hdfs.write_bytes("precious.txt", b"x")
    with pytest.raises(BadInput, match=r"precious\.txt.*deeptrain_data_dir"):
        stage(make_job(source))
    assert list(hdfs.files()) == ["precious.txt"]


def test_a_target_with_another_source(make_job, source, s3_server, hdfs):
    stage(make_job(source))
    s3_server.put("other/x", b"x")
    with pytest.raises(BadInput, match="holds the data of"):
        stage(make_job("other"))
    stage(make_job("other", settings={"replace": True}))
    assert set(manifest.read(hdfs)[1]) == {"x"}


@pytest.mark.parametrize(
    ("changes", "bucket", "words"),
    [
        ({"endpoint_url": "http://127.0.0.1:9"}, None, "deeptrain_s3_endpoint_url"),
        ({"endpoint_url": "not a url"}, None, "deeptrain_s3_endpoint_url"),
        ({"endpoint_url": "https://127.0.0.1:9"}, None, "deeptrain_s3_endpoint_url"),
        ({}, "nobodys", "nobodys.*is not there"),
    ],
)
def test_a_wrong_source(make_job, source, changes, bucket, words):
    with pytest.raises(JobError, match=words):
        stage(make_job(source, changes, bucket=bucket))


def test_an_empty_prefix(make_job, s3_server):
    with pytest.raises(BadInput, match="no object under.*deeptrain_data_url"):
        stage(make_job("nothing-here"))


@pytest.mark.parametrize("wrong", [{"aws_access_key_id": "nobody"}, {"aws_secret_access_key": "wrong"}])
def test_wrong_credentials(make_job, source, s3_server, tmp_path, wrong):
    job = make_job(source)
    (tmp_path / "credentials" / "s3.json").write_text(json.dumps({**s3_server.credentials, **wrong}))
    with pytest.raises(BadInput, match="deeptrain_s3_access_key_id") as error:
        stage(job)
    assert s3_server.credentials["aws_secret_access_key"] not in str(error.value)


def test_a_node_whose_role_is_late_at_boot(make_job, source, s3_server, tmp_path, monkeypatch, bare):
    make_job(source)
    (tmp_path / "credentials" / "s3.json").write_text("{}")
    with metadata_service(s3_server.credentials, refusals=4) as url:
        monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
        assert start_staging(tmp_path).wait(300) == 0


def test_no_hdfs(make_job, source, tmp_path, monkeypatch):
    monkeypatch.setattr(deeptrain.staging, "HDFS_SECONDS", 0, raising=False)
    job = make_job(source)
    job.config["target"] = "hdfs://127.0.0.1:9/data"
    with pytest.raises(JobError, match=r"run hdfs\.yml"):
        stage(job)


def test_hdfs_that_starts_with_the_node_is_waited_for(make_job, source, monkeypatch):
    monkeypatch.setattr(deeptrain.staging, "HDFS_RETRY_SECONDS", 0.01, raising=False)
    job, mkdirs, tries = make_job(source), Hdfs.mkdirs, []

    def starting(directory, name=""):
        if len(tries) < 2:
            raise Unavailable("down")
        mkdirs(directory, name)

    monkeypatch.setattr(Hdfs, "mkdirs", starting)
    monkeypatch.setattr(job.stop, "wait", tries.append)
    assert stage(job).summary["objects"] > 0
    assert tries == [0.01, 0.01] and '"wait for HDFS"' in job.progress_file.read_text()


@pytest.mark.parametrize(
    "keys", [["p/a/../b"], ["p//x"], ["p/x/"], ["p/a:b"], ["p/" + "ü" * 128], ["p/_manifest.json"], ["p/_manifest.sha256"], ["p/_incoming/x"], ["p/a", "p/a/b"]]
)
def test_names_that_hdfs_cannot_hold(keys):
    with pytest.raises(BadInput, match="rename"):
        relative_paths([s3.Object(key, 1, '"x"', 0) for key in keys], "p")


def test_the_result_of_a_job(make_job, source, tmp_path: Path):
    make_job(source)
    assert start_staging(tmp_path).wait(LIMIT) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["status"] == "succeeded" and result["summary"]["copied_objects"] == 3
    records = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert records[0]["total"] == records[-1]["done"] == 3_100_000


def test_a_datanode_dies_meanwhile(make_job, s3_server, cluster, hdfs, tmp_path):
    prefix = f"dying-{secrets.token_hex(4)}"
    contents = {f"{index:02}.bin": os.urandom(10_000_000) for index in range(12)}
    for name, content in contents.items():
        s3_server.put(f"{prefix}/{name}", content)
    with HaltingProxy(s3_server.endpoint, after=35_000_000) as proxy:
        make_job(prefix, {"endpoint_url": proxy.endpoint}, {"parallel": 2})
        process = start_staging(tmp_path)
        wait_for_files(process, hdfs, 2)
        with cluster.without_datanode(0):
            proxy.go_on.set()
            assert process.wait(LIMIT) == 0
            assert {name: hdfs.read_bytes(name) for name in contents} == contents


def test_lost_blocks_are_copied_again(make_job, s3_server, cluster, hdfs):
    prefix = f"lost-{secrets.token_hex(4)}"
    contents = {"grün €.bin": os.urandom(54_321), "b.bin": os.urandom(1000)}
    for name, content in contents.items():
        s3_server.put(f"{prefix}/{name}", content)
    stage(make_job(prefix))
    before = hdfs.read_bytes(manifest.NAME)
    cluster.lose_blocks(hdfs, "grün €.bin")
    outcome = stage(make_job(prefix))
    assert (outcome.changed, outcome.summary["copied_objects"], outcome.summary["damaged_objects"]) == (True, 1, 1)
    assert {name: hdfs.read_bytes(name) for name in contents} == contents
    assert hdfs.read_bytes(manifest.NAME) == before


@pytest.mark.parametrize("problem", ["room", "entries"])
def test_what_does_not_fit_is_refused_before_the_copying(make_job, source, hdfs, monkeypatch, problem):
    if problem == "room":
        # Two copies of 3,100,000 bytes.
        monkeypatch.setattr(NameNode, "remaining", lambda _self: 6_199_999)
        words = r"needs 6200000 bytes in HDFS \(2 copies\).*room for 6199999: add DataNodes"
    else:
        monkeypatch.setattr(NameNode, "setting", lambda _self, name: {"dfs.namenode.fs-limits.max-directory-items": "7"}[name])
        words = "has 3 entries, and a directory of HDFS holds 2: distribute"
    with pytest.raises(BadInput, match=words):
        stage(make_job(source))
    assert hdfs.status() is None


def test_what_replaces_other_files_fits(make_job, source, s3_server, monkeypatch):
    stage(make_job(source))
    s3_server.put(f"{source}/a.bin", os.urandom(2_000_000))
    monkeypatch.setattr(NameNode, "remaining", lambda _self: 0)
    assert stage(make_job(source)).summary["copied_objects"] == 1


def test_the_largest_directory():
    assert largest_directory(["a", "b", "c/d/e/1", "c/d/e/2", "c/d/e/3", "c/d/4"]) == ("", 3)
    assert largest_directory(["a/b/1", "a/b/2", "a/c/1", "a/d/1"]) == ("a", 3)


class TestTrainings:
    """What a training uses stays as it is."""

    @pytest.fixture
    def trained(self, make_job, source, tmp_path, hdfs, monkeypatch):
        """Stages for run a; returns what stages again, for a run, while others train."""

        def again(run="a", trains=(), **settings):
            job = make_job(source, settings=settings)
            job.directory = tmp_path / "runs" / run / "staging"
            job.directory.mkdir(parents=True, exist_ok=True)
            monkeypatch.setattr(deeptrain.staging, "is_running", lambda unit: unit in {f"deeptrain-train@{name}.service" for name in trains}, raising=False)
            return stage(job)

        again()
        self.manifest = hdfs.read_bytes(manifest.NAME)
        config = {"data_url": hdfs.url, "data_manifest_sha256": hashlib.sha256(self.manifest).hexdigest()}
        (tmp_path / "runs" / "a" / "train").mkdir()
        (tmp_path / "runs" / "a" / "train" / "config.json").write_text(json.dumps({"config": config}))
        return again

    def change(self, s3_server, source, kind):
        key = f"{source}/a.bin"
        if kind == "replaced":
            s3_server.put(key, os.urandom(3_000_000))
        elif kind == "added":
            s3_server.put(f"{source}/new", b"new")
        else:
            s3_server.client.delete_object(Bucket=s3_server.bucket, Key=key)

    @pytest.mark.parametrize("kind", ["replaced", "added", "removed"])
    @pytest.mark.parametrize(("run", "trains", "settings"), [("b", "a", {}), ("a", "a", {"replace": True}), ("a", "", {})])
    def test_a_changed_source_is_refused(self, trained, source, s3_server, hdfs, kind, run, trains, settings):
        """Whichever run stages while one trains, and that of the run itself when it has begun."""
        before = {path: file.modification_time for path, file in hdfs.files().items()}
        self.change(s3_server, source, kind)
        with pytest.raises(BadInput, match=r"training of run 'a' uses.*(a\.bin|new) would change.*deeptrain_data_dir"):
            trained(run, trains, **settings)
        assert {path: file.modification_time for path, file in hdfs.files().items() if not path.startswith("_incoming/")} == before

    @pytest.mark.parametrize(("run", "settings"), [("b", {}), ("a", {"replace": True})])
    def test_a_changed_source_when_nothing_trains(self, trained, source, s3_server, run, settings):
        self.change(s3_server, source, "added")
        assert trained(run, **settings).summary["copied_objects"] == 1

    def test_an_unchanged_source(self, trained):
        assert not trained("b", trains="a").changed

    def test_a_removed_file_is_restored_under_the_training(self, trained, s3_server, source, hdfs):
        hdfs.delete("a.bin")
        assert trained("b", trains="a").summary["copied_objects"] == 1
        assert hdfs.read_bytes("a.bin") == s3_server.contents["a.bin"]
        assert hdfs.read_bytes(manifest.NAME) == self.manifest


def test_two_stagings_at_once(make_job, source, s3_server, hdfs, tmp_path):
    with Staging(make_job(source))._alone():
        process = start_staging(tmp_path)
        progress = tmp_path / "progress.jsonl"
        wait_until(lambda: "wait for another staging" in progress.read_text(), "the second staging waits")
        assert hdfs.status() is None
    assert process.wait(LIMIT) == 0
    assert hdfs.read_bytes("a.bin") == s3_server.contents["a.bin"]


def test_a_server_whose_etags_are_no_md5(make_job, source, s3_server, hdfs):
    """An empty object among them, as in a bucket that encrypts by SSE-KMS."""
    for name in s3_server.contents:
        s3_server.set_etag(f"{source}/{name}", secrets.token_hex(16))
    stage(make_job(source))
    assert {name: hdfs.read_bytes(name) for name in s3_server.contents} == s3_server.contents


def test_an_object_that_is_damaged_in_s3(make_job, source, s3_server, hdfs):
    s3_server.set_etag(f"{source}/a.bin", secrets.token_hex(16))
    with pytest.raises(JobError, match=r"a\.bin.*other bytes than its checksum or ETag says"):
        stage(make_job(source))
    assert hdfs.status("a.bin") is None


class FakeTarget:
    """A directory of HDFS that keeps the small files alone."""

    def __init__(self, files):
        self.url, self.kept, self.listed = "hdfs://x/data", {}, files

    def status(self, name=""):
        return SimpleNamespace(isdir=True) if name in ("", *self.kept) else None

    def files(self):
        return dict(self.list_files())

    def list_files(self):
        for path, item in self.listed.items():
            yield path, SimpleNamespace(length=item.length, modification_time=deeptrain.staging.stamp(item))

    def read_bytes(self, name):
        return self.kept.get(name)

    def write_bytes(self, name, content):
        self.kept[name] = content

    def write_file(self, name, chunks):
        self.kept[name] = b"".join(chunks())

    def delete(self, names, recursive=False):
        self.kept.pop(names, None)


def test_memory_of_many_objects(make_job, monkeypatch):
    """Of the first staging, and of a later one that has all to compare."""
    count, target = 5_000, FakeTarget({})
    objects = [
        s3.Object(f"p/dir-{index % 100:03}/file-{index:08}.tfrecord", 100_000 + index, f'"{hashlib.md5(b"%d" % index).hexdigest()}"', index)
        for index in range(count)
    ]

    def listed(item):
        # New strings each time, as in an answer.
        names = {"Key": f"{item.key[:1]}{item.key[1:]}", "ETag": f"{item.etag[:1]}{item.etag[1:]}"}
        return {**names, "Size": item.length, "LastModified": datetime.fromtimestamp(item.modified, timezone.utc)}

    def pages(*_arguments, **_options):
        for start in range(0, count, 1000):
            yield {"Contents": [listed(item) for item in objects[start : start + 1000]]}

    monkeypatch.setattr(s3, "connect", lambda *_arguments: SimpleNamespace(get_paginator=lambda _name: SimpleNamespace(paginate=pages)))
    monkeypatch.setattr(Staging, "_copy", lambda _self, path, item: manifest.Entry(path, item.length, hashlib.sha256(path.encode()).hexdigest()))
    for _time in range(2):
        staging = Staging(make_job("p", settings={"namenode_url": ""}))
        staging.target = target
        tracemalloc.start()
        assert staging.run().summary["objects"] == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(f"{peak / count:.0f} bytes an object")
        assert peak / count < 1700
        target.listed = {item.key.removeprefix("p/"): item for item in objects}
