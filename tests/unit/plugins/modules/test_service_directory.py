# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import pwd
import stat

import pytest
from ansible_collections.deeptrain.cluster.plugins.modules import service_directory

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the directories of root and of another user")

USER = pwd.getpwnam("daemon")


@pytest.fixture
def run(run_module):
    def call(path, **arguments):
        return run_module(service_directory, path=str(path), owner="daemon", **arguments)

    return call


def owner(path):
    status = os.lstat(path)
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def test_missing_parents_are_roots(run, tmp_path):
    path = tmp_path / "data" / "deeptrain" / "cache"
    assert run(path, check_mode=True) == {"changed": True} and not (tmp_path / "data").exists()
    before = os.umask(0o077)
    try:
        assert run(path, mode="0750") == {"changed": True}
    finally:
        os.umask(before)
    assert owner(path) == (USER.pw_uid, USER.pw_gid, 0o750)
    assert owner(path.parent) == owner(path.parent.parent) == (0, 0, 0o755)
    assert run(path, mode="0750") == {"changed": False}
    assert run(f"{path}/", check_mode=True) == {"changed": True} and owner(path)[2] == 0o750


def test_existing_parents_stay(run, tmp_path):
    tmp_path.chmod(0o711)
    os.chown(tmp_path, 2, 2)
    assert run(tmp_path / "cache")["changed"]
    assert owner(tmp_path) == (2, 2, 0o711)


@pytest.mark.parametrize("parents_owner", [0, USER.pw_uid])
@pytest.mark.parametrize("links_owner", [0, USER.pw_uid])
@pytest.mark.parametrize("link", ["cache", "deeptrain"])
def test_only_links_of_root_are_followed(run, tmp_path, link, links_owner, parents_owner):
    parent, etc = tmp_path / "data", tmp_path / "etc"
    for directory in (parent, etc):
        directory.mkdir()
    os.chown(parent, parents_owner, -1)
    (parent / link).symlink_to(etc)
    os.chown(parent / link, links_owner, -1, follow_symlinks=False)
    path = parent / "deeptrain" / "cache" if link == "deeptrain" else parent / "cache"
    result = run(path)
    if links_owner == parents_owner == 0:
        assert result["changed"] and owner(path.resolve())[0] == USER.pw_uid and path.resolve().is_relative_to(etc)
    else:
        assert result["failed"] and f"{parent}/{link} is a link or a file where a directory is needed" in result["msg"]
        assert owner(etc) == (0, 0, 0o755) and list(etc.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"path": "cache"}, "use an absolute path"),
        ({"path": "//"}, "use an absolute path"),
        ({"path": "/cache", "mode": "u=rwx"}, "use octal digits"),
        ({"path": "/cache", "group": "no-such-group"}, "create them first"),
    ],
)
def test_what_cannot_be_right(run, arguments, said):
    assert said in run(**arguments)["msg"]


def test_a_user_that_does_not_exist_yet(run, tmp_path):
    assert run(tmp_path / "cache", group="no-such-group", check_mode=True) == {"changed": True}
