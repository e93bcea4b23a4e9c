# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.topology; its documentation is in topology.yml."""

from __future__ import annotations

from collections.abc import Mapping

from ansible.errors import AnsibleFilterError, AnsibleUndefinedVariable
from ansible_collections.deeptrain.cluster.plugins.module_utils import topology as pure
from jinja2 import Undefined, UndefinedError


def _plain(value):
    """Return a value without the types that Ansible wraps it in."""
    if isinstance(value, Undefined):
        return pure.UNDEFINED
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def _host_variables(hostvars, host):
    """Return what topology() reads of a host, fetching the host's variables once."""
    if host not in hostvars:
        return {}
    variables = hostvars[host]
    if not isinstance(variables, Mapping):
        return {}
    values = {}
    for name in pure.HOST_VARIABLES:
        if name in variables:
            try:
                values[name] = _plain(variables[name])
            except (AnsibleUndefinedVariable, UndefinedError):
                values[name] = pure.UNDEFINED
    return values


def topology(groups, hostvars, ports=None, hdfs_port=None, hdfs_http_port=None):
    """Return the cluster that groups and host variables describe."""
    if not isinstance(hostvars, Mapping):
        raise AnsibleFilterError("topology: the first argument must be hostvars")
    try:
        variables = {host: _host_variables(hostvars, host) for host in pure.cluster_hosts(groups)}
        return pure.topology(groups, variables, _plain(ports), _plain(hdfs_port), _plain(hdfs_http_port))
    except pure.TopologyError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"topology": topology}
