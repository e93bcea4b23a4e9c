# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The comparison of argument specs with defaults finds what it is for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from check_argument_specs import problems


def spec(**options):
    return {"main": {"options": options}}


def test_agreement():
    assert problems("r", spec(r_a={"default": 1}, r_b={"required": True}), {"r_a": 1}, {"__r_x": 2}) == []


@pytest.mark.parametrize(
    ("options", "defaults", "private", "words"),
    [
        ({"r_a": {"default": 1}}, {"r_a": 2}, {}, "the specs say 1"),
        ({"r_a": {"default": 1}}, {}, {}, "specs alone"),
        ({"r_a": {}}, {"r_a": 1}, {}, "do not tell"),
        ({}, {"r_a": 1}, {}, "not in the specs"),
        ({"a": {}}, {}, {}, "role's name"),
        ({}, {}, {"x": 1}, "does not start with __r_"),
        ({"r_a": {"default": 1}}, {"r_a": 1}, {"r_a": 2}, "in vars is an option"),
    ],
)
def test_disagreements(options, defaults, private, words):
    found = problems("r", spec(**options), defaults, private)
    assert any(words in line for line in found), found
