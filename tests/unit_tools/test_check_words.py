# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of words finds what it is for, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
import check_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The next look renews the lease.", "look"),
        ("The training goes on.", "goes on"),
        ("# The training goes\n# on without it.", "goes # on"),
        ("Start it again.", "Start it again"),
        ("- name: Say what runs", "name: Say"),
        ("It makes the machines.", "makes the machines"),
        ("It has no role deadline.", "role deadline"),
        ("No stage has what it must not do without.", "must not do without"),
    ],
)
def test_words_not_to_use(text, words):
    assert [found for _line, found, _term in check_words.problems(text)] == [words]


@pytest.mark.parametrize(
    "text",
    [
        "{{ lookup('ansible.builtin.env', 'HOME') }}",
        "WatchdogSec=30",
        "self._look(args)",
        "Touch the file `watched`, formerly ``told``.",
        "deadline = time.monotonic() + timeout",
    ],
)
def test_other_words(text):
    assert list(check_words.problems(text)) == []


def test_the_line_is_that_of_the_file():
    assert [line for line, _words, _term in check_words.problems("one `x`\ntwo\nthree is told\n")] == [3]


def test_fragments_of_a_release_are_left_out(tmp_path):
    fragments = tmp_path / "fragments"
    fragments.mkdir()
    for name in ("protection.yml", "new.yml"):
        (fragments / name).write_text("it is told\n", encoding="utf-8")
    assert "protection.yml" in check_words.released()
    assert list(check_words.files([str(tmp_path)])) == [fragments / "new.yml"]


def test_the_exit_status(tmp_path):
    file = tmp_path / "text.md"
    for text, status in (("it is told", 1), ("it is signalled", 0)):
        file.write_text(text, encoding="utf-8")
        assert subprocess.run([sys.executable, check_words.__file__, file], capture_output=True, timeout=60, check=False).returncode == status
