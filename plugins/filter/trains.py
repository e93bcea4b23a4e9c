# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.trains; its documentation is in trains.yml."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from ansible.errors import AnsibleFilterError


def trains(answer, seconds=120):
    """Return whether a run trains, by WebHDFS's answer to GETFILESTATUS of its mark."""
    if answer.get("status", 404) == 404:
        return False
    try:
        # Both times are the NameNode's.
        now = parsedate_to_datetime(answer["date"]).timestamp()
        return now - answer["json"]["FileStatus"]["modificationTime"] / 1000 < seconds
    except (LookupError, TypeError, ValueError) as error:
        raise AnsibleFilterError(f"trains takes a result of ansible.builtin.uri with the answer of WebHDFS to GETFILESTATUS, not {answer!r}") from error


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"trains": trains}
