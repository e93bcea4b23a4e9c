# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.variable_prefixes; its documentation is in variable_prefixes.yml."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.filter.variable_errors import RENAMED_PREFIXES, SETTINGS


def variable_prefixes(stages):
    """Return the first words of the names of the roles' variables, former ones included."""
    try:
        roles = {play["role"] for stage in stages for play in stage["plays"]}
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"deeptrain_stages is {stages!r}: leave it out, the stages are the collection's own list") from error
    return sorted({SETTINGS, *roles, *(former.removesuffix("_") for former in RENAMED_PREFIXES)})


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"variable_prefixes": variable_prefixes}
