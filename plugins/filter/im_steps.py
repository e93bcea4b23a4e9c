# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.im_steps; its documentation is in im_steps.yml."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.module_utils import _topology as pure


def _runs_on(play, system, systems):
    """Return whether a play's hosts have machines of a system."""
    names = [] if "all" in play["hosts"] else play["hosts"]
    # The systems are the groups of the inventory.
    return system in pure.cluster_hosts({name: [name] for name in systems}, *names)


def _roles(plays):
    """Return roles and entry points of the plays of a system, each once, after those that they require."""
    own = [(play["role"], play.get("entry", "main")) for play in plays]
    required = [(item["role"], item.get("entry", "main")) for play in plays for item in play.get("requires", [])]
    return tuple(dict.fromkeys([item for item in required if item not in own] + own))


def im_steps(stages, systems):
    """Return the configure blocks of a contextualization in their order."""
    steps = {}
    for stage in stages:
        for play in stage["plays"]:
            if "step" in play:
                steps.setdefault(play["step"], []).append(play)
    found = []
    for number, (step, plays) in enumerate(steps.items(), start=1):
        blocks = {}
        for system in systems:
            try:
                roles = _roles([play for play in plays if _runs_on(play, system, systems)])
            except pure.TopologyError as error:
                raise AnsibleFilterError(f"step {step}: {error}") from error
            if roles:
                blocks.setdefault(roles, []).append(system)
        for roles, members in blocks.items():
            found.append(
                {
                    "name": step if len(blocks) == 1 else f"{step}_{members[0]}",
                    "step": number,
                    "systems": members,
                    "roles": [{"role": role, "entry": entry} for role, entry in roles],
                }
            )
    return found


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"im_steps": im_steps}
