# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of stages."""

from __future__ import annotations

from pathlib import Path

import yaml

STAGES = yaml.safe_load((Path(__file__).parents[2] / "roles/deeptrain/vars/main/stages.yml").read_text())["deeptrain_stages"]
# The names of those that site.yml runs.
SITE = [stage["name"] for stage in STAGES if stage.get("site", True)]


def calls() -> dict[tuple[str, str], set[str]]:
    """The roles and entry points that the Infrastructure Manager runs, each with the groups on which it does.

    And the entry point main of each of these roles, for whoever uses the role alone.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for stage in STAGES:
        for play in stage["plays"]:
            if "step" in play:
                for item in [*play.get("requires", []), play, {"role": play["role"]}]:
                    found.setdefault((item["role"], item.get("entry", "main")), set()).update(play["hosts"])
    return found
