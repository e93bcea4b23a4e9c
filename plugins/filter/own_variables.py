# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.own_variables; its documentation is in own_variables.yml."""

from __future__ import annotations

from ansible_collections.deeptrain.cluster.plugins.filter.variable_errors import computed, options, problem


def own_variables(names):
    """Return the names that are, were or resemble variables of the collection's roles."""
    known, computed_names = options(), computed()
    return [name for name in names if name in known or problem(name, None, known, computed_names)]


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"own_variables": own_variables}
