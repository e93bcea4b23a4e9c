# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.topology; its documentation is in topology.yml."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import re
from collections.abc import Mapping

from ansible import constants as C
from ansible.errors import AnsibleFilterError, AnsibleUndefinedVariable
from ansible_collections.deeptrain.cluster.plugins.module_utils import _guarded_files as guarded_files
from ansible_collections.deeptrain.cluster.plugins.module_utils import _topology as pure
from jinja2 import Undefined, UndefinedError

_TEMPLATE = re.compile(r"\{[{%#]")


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


def _is_plain(value):
    """Return whether a raw value contains neither a template nor a vaulted text."""
    return isinstance(value, (str, int, Mapping, type(None))) and not _TEMPLATE.search(repr(value))


def _host_variables(hostvars, host):
    """Return what topology() reads of a host, fetching the host's variables once, and whether all values are plain."""
    if host not in hostvars:
        return {}, True
    variables = hostvars[host]
    if not isinstance(variables, Mapping):
        return {}, True
    # Templating plain values takes as long as everything else.
    raw = getattr(variables, "_vars", {})
    values, plain = {}, True
    for name in pure.HOST_VARIABLES:
        if name in raw and _is_plain(raw[name]):
            values[name] = _plain(raw[name])
        elif name in variables:
            plain = False
            try:
                values[name] = _plain(variables[name])
            except (AnsibleUndefinedVariable, UndefinedError):
                values[name] = pure.UNDEFINED
    return values, plain


def _chosen(variables):
    """Return those of a source's variables that topology() reads."""
    return [(name, variables[name]) for name in pure.HOST_VARIABLES if name in variables]


def _facts(cache, host):
    try:
        return cache.get(host) or {}
    except KeyError:
        # A cache plugin knows no default.
        return {}


def _fingerprint(groups, hostvars, arguments):
    """Return a digest of all that the topology depends on, or None where Ansible's internals are other than expected.

    Merging 1,000 hosts' variables takes a second; this reads the few of interest from their sources in milliseconds.
    """
    try:
        inventory, manager = hostvars._inventory, hostvars._variable_manager
        caches = (manager._fact_cache, manager._nonpersistent_fact_cache, manager._vars_cache)
        digest = hashlib.sha256(repr((hostvars._loader.get_basedir(), sorted(groups.items()), arguments)).encode())
        for name, group in sorted(inventory.groups.items()):
            digest.update(repr((name, group.priority, _chosen(group.vars))).encode())
        for host in pure.cluster_hosts(groups):
            sources = (inventory.get_host(host).vars, *(_facts(cache, host) for cache in caches))
            digest.update(repr((host, [_chosen(source) for source in sources])).encode())
    except (AttributeError, TypeError):
        return None
    return digest.hexdigest()


def _read(groups, hostvars, arguments):
    """Return the topology, and whether it depends on plain values alone."""
    read = {host: _host_variables(hostvars, host) for host in pure.cluster_hosts(groups)}
    variables = {host: values for host, (values, _plain_values) in read.items()}
    return pure.topology(groups, variables, *arguments), all(plain for _values, plain in read.values())


def _stored(groups, hostvars, arguments):
    """Return the topology from this run's temporary directory, where whichever process computed it first has stored it."""
    fingerprint = _fingerprint(groups, hostvars, arguments)
    if fingerprint is None:
        return _read(groups, hostvars, arguments)[0]
    path = os.path.join(C.DEFAULT_LOCAL_TMP, f"topology-{fingerprint}.json")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        pass
    result, plain = _read(groups, hostvars, arguments)
    # What a template gives can change with any variable.
    if plain:
        with contextlib.suppress(OSError):
            guarded_files.write_own(path, json.dumps(result))
    return result


# Of a worker process, which lives for one task of one host: what it computed last, and from what.
_last = None


def topology(groups, hostvars, ports=None, hdfs_port=None, hdfs_http_port=None):
    """Return the cluster that groups and host variables describe."""
    global _last  # pylint: disable=global-statement
    if not isinstance(hostvars, Mapping):
        raise AnsibleFilterError("topology: the first argument must be hostvars")
    arguments = (_plain(ports), _plain(hdfs_port), _plain(hdfs_http_port))
    # Compared by identity: its content takes long to read, and does not change within a task.
    if _last is not None and _last[0] == os.getpid() and _last[1] is hostvars and _last[2] == (groups, arguments):
        return _last[3]
    try:
        result = _stored(groups, hostvars, arguments)
    except pure.TopologyError as error:
        raise AnsibleFilterError(str(error)) from error
    if multiprocessing.parent_process() is not None:
        _last = (os.getpid(), hostvars, (groups, arguments), result)
    return result


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"topology": topology}
