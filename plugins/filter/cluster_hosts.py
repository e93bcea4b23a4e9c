# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.cluster_hosts; its documentation is in cluster_hosts.yml."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.module_utils import _topology as pure


def cluster_hosts(groups, *names):
    """Return the hosts of the named groups, or of the whole cluster."""
    try:
        return pure.cluster_hosts(groups, *names)
    except pure.TopologyError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"cluster_hosts": cluster_hosts}
