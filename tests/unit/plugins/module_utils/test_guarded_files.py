# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import stat

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils import _guarded_files as guarded_files


@pytest.mark.parametrize("durable", [False, True])
def test_own_file_is_replaced_atomically(tmp_path, monkeypatch, durable):
    file, calls = tmp_path / "file", []
    file.write_text("old")
    for name in ("fsync", "rename"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *arguments, name=name, call=call, **more: (calls.append((name, file.read_text())), call(*arguments, **more)))
    monkeypatch.setattr(os, "fchown", None)
    guarded_files.write_own(str(file), "new", 0o640, durable)
    assert calls == [("fsync", "old")] * durable + [("rename", "old")]
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new", 0o640)
    assert os.listdir(tmp_path) == ["file"]


def test_failure_leaves_the_old_content(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(UnicodeEncodeError):
        guarded_files.write_own(str(tmp_path / "file"), "\ud800")
    assert (tmp_path / "file").read_text() == "old" and os.listdir(tmp_path) == ["file"]
