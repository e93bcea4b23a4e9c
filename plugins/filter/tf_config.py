# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.tf_config; its documentation is in tf_config.yml."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.module_utils import _topology as pure


def tf_config(topology, host, task_type):
    """Return the TF_CONFIG of a host's task of one type."""
    try:
        return pure.host_tf_config(topology, host, task_type)
    except pure.TopologyError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"tf_config": tf_config}
