# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who does what in a cluster, from the inventory's groups and host variables.

Pure functions over plain data; the filters and the module are thin wrappers.
Nothing else in the collection knows of group aliases, of the Infrastructure
Manager's variables, or of which names are legal host names.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

TASK_TYPES = ("chief", "ps", "worker")
GROUPS = TASK_TYPES + ("hdfs_namenode", "hdfs_datanode")
# The name that a chief had in TF_CONFIG before TensorFlow 2.
ALIASES = {"master": "chief"}

DEFAULT_PORTS = {"chief": 2222, "ps": 2223, "worker": 2224}
DEFAULT_HDFS_PORT = 8020
DEFAULT_HDFS_HTTP_PORT = 9870
# Hadoop's own: web pages, data transfer, IPC.
DATANODE_PORTS = (9864, 9866, 9867)

# How many machines the Infrastructure Manager has made of each system, whether they are in the inventory or not.
COUNTS = {f"IM_{group.upper()}_NUM_VMS": group for group in (*GROUPS, *ALIASES)}

# All that topology() reads of a host.
HOST_VARIABLES = (
    *COUNTS,
    "deeptrain_address",
    "IM_NODE_PRIVATE_IP",
    "ansible_host",
    "IM_NODE_HOSTNAME",
    "deeptrain_ports",
    "deeptrain_hdfs_port",
    "deeptrain_hdfs_http_port",
)

# Stands for a host variable that refers to one that does not exist.
UNDEFINED = object()

# Ansible's own names of the controller; they may be in an inventory for it.
_CONTROLLER = ("localhost", "127.0.0.1", "::1")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# The resolver takes these for IPv4 addresses.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ENDPOINT = re.compile(r"(?P<address>\[[^\[\]]*:[^\[\]]*\]|[^\s:/\[\]]+)(:(?P<port>[0-9]+))?")


class TopologyError(ValueError):
    """The inventory describes no cluster; the message names the fix."""


def members(groups):
    """Return the hosts of each of GROUPS, defaults filled in, in the inventory's order.

    Raises TopologyError when a group has too few or too many hosts.
    """
    if not isinstance(groups, Mapping):
        raise TopologyError(f"expected the inventory's groups (a dictionary of lists), got {type(groups).__name__}")
    found = {group: _hosts(groups, group) for group in GROUPS + tuple(ALIASES)}

    strays = [host for host in _hosts(groups, "ungrouped") if host not in _CONTROLLER]
    if strays:
        raise TopologyError(
            f"{_hosts_phrase(strays)} in no group: put each host into ps, chief or worker "
            "(or a group of your own, when it is no part of the cluster), or take it out of the inventory"
        )

    for alias, group in ALIASES.items():
        if found[alias] and found[group] and found[alias] != found[group]:
            raise TopologyError(
                f"groups {group} ({', '.join(found[group])}) and {alias} ({', '.join(found[alias])}) differ: "
                f"{alias} is another name of {group}, so use only one of them"
            )
        found[group] = found[group] or found[alias]

    for group in TASK_TYPES:
        if not found[group]:
            need = "exactly one host" if group == "chief" else "at least one host"
            also = " (master, its former name, will do too)" if group == "chief" else ""
            raise TopologyError(f"group {group} is empty or missing: put {need} into it{also}")
    if len(found["chief"]) > 1:
        raise TopologyError(
            f"group chief has {len(found['chief'])} hosts ({_some(found['chief'])}): "
            "leave exactly one in it, the others can be workers"
        )

    for group in ("hdfs_namenode", "hdfs_datanode"):
        if group in groups and not found[group]:
            raise TopologyError(f"group {group} has no host: put one into it, or remove the group to get the default")
    if len(found["hdfs_namenode"]) > 1:
        raise TopologyError(
            f"group hdfs_namenode has {len(found['hdfs_namenode'])} hosts ({_some(found['hdfs_namenode'])}): "
            "leave exactly one in it"
        )
    everyone = _unique(host for group in TASK_TYPES for host in found[group])
    return {
        **{group: found[group] for group in TASK_TYPES},
        "hdfs_namenode": found["hdfs_namenode"] or found["ps"][:1],
        "hdfs_datanode": found["hdfs_datanode"] or everyone,
    }


def cluster_hosts(groups, *names):
    """Return the hosts of the named groups, or of the whole cluster.

    Without a group hdfs_namenode or hdfs_datanode, its name gives the default hosts.
    Raises TopologyError for an unknown name and for what members() refuses.
    """
    found = members(groups)
    wanted = [ALIASES.get(name, name) for name in names] or GROUPS
    for name in wanted:
        if name not in found:
            raise TopologyError(f"{name!r} is no group of a cluster: use one of {', '.join(GROUPS)}")
    return _unique(host for name in wanted for host in found[name])


def topology(groups, hostvars, ports=None, hdfs_port=None, hdfs_http_port=None):
    """Return names, addresses, tasks and HDFS daemons of every host of the cluster.

    groups and hostvars are plain dictionaries; of a host only HOST_VARIABLES are
    read. The ports count for hosts whose own variables do not say otherwise.
    Raises TopologyError for whatever could not work.
    """
    found = members(groups)
    everyone = _unique(host for group in GROUPS for host in found[group])
    variables = {host: hostvars.get(host, {}) for host in everyone}
    default_ports = {**DEFAULT_PORTS, **_ports(ports, "the argument ports")}
    _check_counts(groups, everyone[0], variables[everyone[0]])

    addresses = {host: _address(host, variables[host]) for host in everyone}
    _check_loopback(addresses)
    names = _names(found, variables)

    hosts = {
        host: {
            "name": names[host],
            "address": addresses[host],
            "tasks": [],
            "namenode": host in found["hdfs_namenode"],
            "datanode": False,
        }
        for host in everyone
    }
    for host in found["hdfs_datanode"]:
        hosts[host]["datanode"] = True
    host_ports = {
        host: {
            **default_ports,
            **_ports(_value(host, variables[host], "deeptrain_ports"), f"deeptrain_ports of host {host}"),
        }
        for host in everyone
    }
    cluster = {}
    for task_type in TASK_TYPES:
        cluster[task_type] = []
        for index, host in enumerate(found[task_type]):
            port = host_ports[host][task_type]
            hosts[host]["tasks"].append({"type": task_type, "index": index, "port": port})
            cluster[task_type].append(f"{_bracketed(addresses[host])}:{port}")

    namenode = found["hdfs_namenode"][0]
    rpc, http = (
        _port(_first(_value(namenode, variables[namenode], name), argument, default), f"{name} of host {namenode}")
        for name, argument, default in (
            ("deeptrain_hdfs_port", hdfs_port, DEFAULT_HDFS_PORT),
            ("deeptrain_hdfs_http_port", hdfs_http_port, DEFAULT_HDFS_HTTP_PORT),
        )
    )
    _check_clashes(hosts, rpc, http)
    return {
        "hosts": hosts,
        "cluster": cluster,
        "namenode": {
            "host": namenode,
            "name": names[namenode],
            "address": addresses[namenode],
            "port": rpc,
            "http_port": http,
            "url": f"hdfs://{names[namenode]}:{rpc}",
            "http_url": f"http://{_bracketed(addresses[namenode])}:{http}",
        },
        "datanodes": list(found["hdfs_datanode"]),
    }


def host_tf_config(result, host, task_type):
    """Return the TF_CONFIG of a host's task of one type, from what topology() gave.

    Raises TopologyError when the host has no such task.
    """
    task_type = ALIASES.get(task_type, task_type)
    if not isinstance(result, Mapping) or not isinstance(result.get("hosts"), Mapping):
        raise TopologyError("expected the result of the filter deeptrain.cluster.topology")
    if host not in result["hosts"]:
        raise TopologyError(f"host {host} is not in the cluster: put it into ps, chief or worker")
    for task in result["hosts"][host]["tasks"]:
        if task["type"] == task_type:
            return tf_config(result["cluster"], task_type, task["index"])
    raise TopologyError(f"host {host} has no task of type {task_type}: put it into the group {task_type}")


def tf_config(cluster, task_type, index):
    """Return TF_CONFIG for one task of a cluster of "address:port" lists.

    Raises TopologyError for an unknown type, an index out of range, a task type
    without addresses, more than one chief, or one address used twice.
    """
    task_type = ALIASES.get(task_type, task_type)
    if task_type not in TASK_TYPES:
        raise TopologyError(f"{task_type!r} is no type of task: use one of {', '.join(TASK_TYPES)}")
    seen = {}
    for name in TASK_TYPES:
        addresses = cluster.get(name) or []
        if not addresses:
            raise TopologyError(f"{name} has no address: give at least one")
        for number, address in enumerate(addresses):
            if address in seen:
                raise TopologyError(
                    f"{seen[address]} and {name} {number} have the same address {address}: give each its own"
                )
            seen[address] = f"{name} {number}"
    if len(cluster["chief"]) > 1:
        raise TopologyError(f"chief has {len(cluster['chief'])} addresses: give exactly one")
    if not 0 <= index < len(cluster[task_type]):
        raise TopologyError(f"there is no {task_type} {index}: the index goes from 0 to {len(cluster[task_type]) - 1}")
    return {
        "cluster": {name: [str(address) for address in cluster[name]] for name in TASK_TYPES},
        "task": {"type": str(task_type), "index": int(index)},
    }


def endpoint(text, default_port, where):
    """Return "address:port" of "address", "address:port", an IPv6 address or "[IPv6]:port".

    Raises TopologyError, naming `where`, for an illegal address or port.
    """
    match = _ENDPOINT.fullmatch(text)
    address, port = (match["address"].strip("[]"), match["port"]) if match else (text, None)
    if (match is None or ":" in address) and _ip(address) is None:
        raise TopologyError(f"{where}: {text!r} is no address: write it as address, or address:port")
    return f"{_bracketed(address)}:{_port(_first(port, default_port), f'{where}: the port of {text}')}"


def _hosts(groups, group):
    return _unique(str(host) for host in groups.get(group) or [])


def _unique(hosts):
    return list(dict.fromkeys(hosts))


def _some(hosts, limit=5):
    more = f" and {len(hosts) - limit} more" if len(hosts) > limit else ""
    return ", ".join(hosts[:limit]) + more


def _hosts_phrase(hosts):
    return f"host {hosts[0]} is" if len(hosts) == 1 else f"hosts {_some(hosts)} are"


def _first(*values):
    return next((value for value in values if value is not None and value != ""), None)


def _value(host, variables, name):
    """Return a host variable; None when it is missing or empty."""
    value = variables.get(name)
    if value is UNDEFINED or (isinstance(value, str) and "{{" in value):
        raise TopologyError(
            f"{name} of host {host} refers to a variable that is not defined: "
            f"define that one, or give {name} a plain value"
        )
    return None if value == "" else value


def _ip(value):
    try:
        return ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _bracketed(address):
    return f"[{address}]" if ":" in address else address


def _address(host, variables):
    """Return the IP address at which the other nodes reach a host."""
    for name in ("deeptrain_address", "IM_NODE_PRIVATE_IP"):
        value = _value(host, variables, name)
        if value is None:
            continue
        ip = _ip(value.strip() if isinstance(value, str) else value)
        if ip is None or ip.is_unspecified or ip.is_multicast:
            raise TopologyError(
                f"{name} of host {host} is {value!r}, which is no host's IP address: "
                "set deeptrain_address to the IP address at which the other nodes reach it"
            )
        return str(ip)
    for value in (_value(host, variables, "ansible_host"), host):
        ip = _ip(value)
        if ip is not None and not ip.is_loopback and not ip.is_unspecified:
            return str(ip)
    raise TopologyError(
        f"host {host} has no address: set deeptrain_address for it, the IP address at which the other nodes reach it"
    )


def _check_counts(groups, host, variables):
    """A machine that failed or is off is not in the Infrastructure Manager's own inventory; the others must not continue without it."""
    for name, group in COUNTS.items():
        count, there = _value(host, variables, name), len(_hosts(groups, group))
        if count is not None and str(count) != str(there):
            raise TopologyError(
                f"the Infrastructure Manager has {count} machines in {group}, and {there} of them are in its inventory: "
                "see which of them is off or failed, and start or remove it"
            )


def _check_loopback(addresses):
    """A loopback address serves only when all tasks are on one machine."""
    loopback = [host for host, address in addresses.items() if _ip(address).is_loopback]
    if loopback and len(loopback) < len(addresses):
        host = loopback[0]
        raise TopologyError(
            f"host {host} has the loopback address {addresses[host]}, at which no other node reaches it: "
            "set deeptrain_address to its address in the nodes' network"
        )


def _legal_name(name):
    return _LABEL.fullmatch(name) is not None and _NUMBER.fullmatch(name) is None and name != "localhost"


def _names(found, variables):
    """Return a legal host name for every host, none of them twice."""
    names = {}
    first_labels = {}
    for host, values in variables.items():
        given = _value(host, values, "IM_NODE_HOSTNAME")
        for candidate in (given, host):
            if candidate is not None and _legal_name(str(candidate).lower()):
                names[host] = str(candidate).lower()
                break
        else:
            label, dot, _domain = host.lower().partition(".")
            if dot and _ip(host) is None and _legal_name(label):
                first_labels.setdefault(label, []).append(host)
    taken = set(names.values())
    for label, hosts in first_labels.items():
        if len(hosts) == 1 and label not in taken:
            names[hosts[0]] = label
    for group in GROUPS:
        for index, host in enumerate(found[group]):
            names.setdefault(host, f"{group.replace('_', '-')}-{index}")

    owners = {}
    for host, name in names.items():
        if name in owners:
            raise TopologyError(
                f"hosts {owners[name]} and {host} would both be named {name}: "
                "rename one of them in the inventory (under the Infrastructure Manager, give each its own dns_name)"
            )
        owners[name] = host
    return names


def _ports(value, where):
    """Return a checked {task type: port}, possibly of some types only."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TopologyError(f"{where} must be a dictionary such as {{ps: 2223}}, not {value!r}")
    unknown = [str(key) for key in value if key not in TASK_TYPES]
    if unknown:
        raise TopologyError(f"{where} has {', '.join(unknown)}: it takes only {', '.join(TASK_TYPES)}")
    return {str(key): _port(port, f"{where}, {key}") for key, port in value.items()}


def _port(value, where):
    """Return a port that a user other than root can listen on."""
    try:
        port = None if isinstance(value, (bool, float)) else int(value)
    except (TypeError, ValueError):
        port = None
    if port is None or not 1024 <= port <= 65535:
        raise TopologyError(f"{where} is {value!r}: it must be a port from 1024 to 65535")
    return port


def _check_clashes(hosts, rpc, http):
    """Refuse two listeners on one port of one address."""
    owners = {}
    for host, node in hosts.items():
        listeners = [(task["port"], f"{task['type']} {task['index']}", "deeptrain_ports") for task in node["tasks"]]
        if node["namenode"]:
            listeners += [
                (rpc, "the NameNode's RPC", "deeptrain_hdfs_port"),
                (http, "the NameNode's HTTP", "deeptrain_hdfs_http_port"),
            ]
        if node["datanode"]:
            listeners += [(port, "the DataNode", None) for port in DATANODE_PORTS]
        for port, what, variable in listeners:
            key = (node["address"], port)
            if key not in owners:
                owners[key] = (host, what, variable)
                continue
            other_host, other, other_variable = owners[key]
            if other_host == host:
                raise TopologyError(
                    f"{other} and {what} of host {host} are both on port {port}: "
                    f"give one of them another port in {variable or other_variable}"
                )
            variable = variable or other_variable
            fix = f"or another port in {variable}" if variable else "or leave one of them out of a group hdfs_datanode"
            raise TopologyError(
                f"{other} of host {other_host} and {what} of host {host} are both on {_bracketed(node['address'])}:{port}: "
                f"give one of the hosts its own deeptrain_address, {fix}"
            )
