# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""README's table of variables has the settings of role deeptrain, all of them, with their defaults."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (`deeptrain_[^|]*) \| ([^|]*)\| .* \|$", re.MULTILINE)


def rows() -> dict[str, str]:
    """Each variable's default as README has it."""
    table = ROW.findall((PROJECT / "README.md").read_text(encoding="utf-8"))
    return {name: default.strip() for names, default in table for name in re.findall(r"`([a-z0-9_]+)`", names)}


def settings() -> dict[str, dict]:
    specs = yaml.safe_load((PROJECT / "roles/deeptrain/meta/argument_specs.yml").read_text(encoding="utf-8"))
    return specs["argument_specs"]["validate"]["options"]


def test_the_table_has_all_settings():
    assert rows().keys() == settings().keys()


def test_the_table_has_their_defaults():
    """Where they are values: an expression is described in words."""
    for name, default in rows().items():
        said, computed = re.fullmatch(r"`(.*)`", default), settings()[name].get("default")
        if said and "{{" not in str(computed) and computed is not None:
            assert yaml.safe_load(said[1]) == computed, name
        elif not default:
            assert computed in ("", None), name
