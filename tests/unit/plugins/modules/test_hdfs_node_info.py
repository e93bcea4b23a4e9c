# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import pwd

import pytest
from ansible_collections.deeptrain.cluster.plugins.modules import hdfs_node_info

VERSION = "#Thu Nov 26 14:00:00 UTC 2026\nnamespaceID=1\nclusterID=deeptrain-ps-0\nlayoutVersion=-66\n"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="the links of root and of another user")


@pytest.fixture
def storage(run_module):
    """Return a function that gives what the module returns of one storage directory."""

    def call(path, **arguments):
        result = run_module(hdfs_node_info, directories=[str(path)], **arguments)
        if "failed" in result:
            return result["msg"]
        (found,) = result["storage"]
        assert found.pop("path") == str(path) and result["changed"] is False
        return found

    return call


@pytest.fixture
def used(tmp_path):
    """Return a directory that a daemon of a cluster has used."""
    (tmp_path / "used" / "current").mkdir(parents=True)
    (tmp_path / "used" / "current" / "VERSION").write_text(VERSION)
    return tmp_path / "used"


def free(path):
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_directory_in_use(storage, used, check_mode):
    (used / "in_use.lock").touch()
    found = storage(used, check_mode=check_mode)
    assert abs(found.pop("free_bytes") - free(used)) < 10**8
    assert found == {"cluster_id": "deeptrain-ps-0", "first_entry": "current"}


def test_free_space_of_the_nearest_existing_directory(storage):
    """A file system of its own, whose free space is another than that of the root directory."""
    found = storage("/dev/shm/missing/data/")
    assert abs(found.pop("free_bytes") - free("/dev/shm")) < 10**7
    assert found == {"cluster_id": "", "first_entry": ""}


def test_other_content(storage, tmp_path):
    assert storage(tmp_path)["first_entry"] == ""
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".hidden|\nname").touch()
    found = storage(f"{tmp_path}/./")
    assert (found["cluster_id"], found["first_entry"]) == ("", ".hidden|\nname")
    (tmp_path / os.fsdecode(b"\x21\xff")).touch()
    (tmp_path / ".hidden|\nname").unlink()
    assert storage(tmp_path)["first_entry"] == "!\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("content", ["", "clusterID=\n", "storageType=DATA_NODE\n# clusterID=x\n", "\0" * (5 * 1024 * 1024) + VERSION])
def test_no_identity(storage, used, content):
    (used / "current" / "VERSION").write_text(content)
    found = storage(used)
    assert (found["cluster_id"], found["first_entry"]) == ("", "current")


@pytest.mark.parametrize("kind", ["link", "fifo", "directory", "linked directory", "fifo as directory", "missing"])
def test_what_the_daemons_user_has_left_is_not_read(storage, used, tmp_path, kind):
    current = tmp_path / "other" / "current"
    current.mkdir(parents=True)
    if kind == "link":
        (current / "VERSION").symlink_to(used / "current" / "VERSION")
    elif kind == "fifo":
        os.mkfifo(current / "VERSION")
    elif kind == "directory":
        (current / "VERSION").mkdir()
    elif kind in ("linked directory", "fifo as directory"):
        current.rmdir()
        current.symlink_to(used / "current") if kind == "linked directory" else os.mkfifo(current)
    found = storage(current.parent)
    assert (found["cluster_id"], found["first_entry"]) == ("", "current")


@as_root
@pytest.mark.parametrize("owner", [0, pwd.getpwnam("daemon").pw_uid])
def test_only_links_of_root_are_followed(storage, used, tmp_path, owner):
    (tmp_path / "link").symlink_to(used)
    os.chown(tmp_path / "link", owner, -1, follow_symlinks=False)
    found = storage(tmp_path / "link")
    if owner == 0:
        assert found["cluster_id"] == "deeptrain-ps-0"
    else:
        assert found == f"cannot read the storage directory {tmp_path}/link: {tmp_path}/link is a link or a file where a directory is needed: remove it"


def test_a_file_where_a_directory_is_needed(storage, used):
    assert f"{used}/current/VERSION is a link or a file where a directory is needed" in storage(used / "current" / "VERSION")


def test_files(run_module, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing")
    paths = [str(tmp_path / name) for name in ("missing", "dangling", "link", "file")]
    assert run_module(hdfs_node_info, files=paths) == {"changed": False, "storage": [], "existing": paths[2:]}
