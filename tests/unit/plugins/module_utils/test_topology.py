# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import time

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils._topology import (
    UNDEFINED,
    TopologyError,
    cluster_hosts,
    endpoint,
    host_tf_config,
    tf_config,
    topology,
)


def nodes(*names, **changes):
    """Return hostvars in which each host has an address of its own, updated by `changes`."""
    hostvars = {name: {"deeptrain_address": f"10.0.0.{number}"} for number, name in enumerate(names, 10)}
    for name, variables in changes.items():
        hostvars[name].update(variables)
    return hostvars


THESIS = {"ps": ["p"], "master": ["m"], "worker": ["w0", "w1"], "all": ["p", "m", "w0", "w1"], "ungrouped": []}
SMALL = {"ps": ["p"], "chief": ["c"], "worker": ["w"]}


def test_the_thesis_shape():
    result = topology(THESIS, nodes("p", "m", "w0", "w1"))
    assert result["cluster"] == {
        "chief": ["10.0.0.11:2222"],
        "ps": ["10.0.0.10:2223"],
        "worker": ["10.0.0.12:2224", "10.0.0.13:2224"],
    }
    assert result["hosts"]["w1"] == {
        "name": "w1",
        "address": "10.0.0.13",
        "tasks": [{"type": "worker", "index": 1, "port": 2224}],
        "namenode": False,
        "datanode": True,
    }
    assert result["namenode"] == {
        "host": "p",
        "name": "p",
        "address": "10.0.0.10",
        "port": 8020,
        "http_port": 9870,
        "url": "hdfs://p:8020",
        "http_url": "http://10.0.0.10:9870",
    }
    assert result["datanodes"] == ["m", "p", "w0", "w1"]
    assert host_tf_config(result, "m", "master")["task"] == {"type": "chief", "index": 0}
    assert host_tf_config(result, "w1", "worker") == {
        "cluster": result["cluster"],
        "task": {"type": "worker", "index": 1},
    }


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_indices_are_positions_in_the_group_whatever_the_names(workers):
    names = [f"node-{9 - number}" for number in range(workers)]
    groups = {"ps": ["p"], "chief": ["c"], "worker": names}
    result = topology(groups, nodes("p", "c", *names))
    assert [host_tf_config(result, name, "worker")["task"]["index"] for name in names] == list(range(workers))


def test_several_parameter_servers():
    result = topology({**SMALL, "ps": ["p2", "p1"]}, nodes("p1", "p2", "c", "w"))
    assert result["cluster"]["ps"] == ["10.0.0.11:2223", "10.0.0.10:2223"]
    assert result["namenode"]["host"] == "p2"
    assert result["cluster"]["worker"] == ["10.0.0.13:2224"]


def test_a_host_in_several_groups_has_a_task_and_port_for_each():
    result = topology({"ps": ["a"], "chief": ["a"], "worker": ["a", "b"]}, nodes("a", "b"))
    assert [(task["type"], task["index"], task["port"]) for task in result["hosts"]["a"]["tasks"]] == [
        ("chief", 0, 2222),
        ("ps", 0, 2223),
        ("worker", 0, 2224),
    ]
    assert result["datanodes"] == ["a", "b"]


def test_one_host_for_all_may_be_on_loopback():
    groups = {"ps": ["a"], "chief": ["a"], "worker": ["a"]}
    result = topology(groups, {"a": {"deeptrain_address": "127.0.0.1"}})
    assert result["cluster"] == {"chief": ["127.0.0.1:2222"], "ps": ["127.0.0.1:2223"], "worker": ["127.0.0.1:2224"]}


def test_hdfs_groups_replace_the_defaults():
    groups = {**SMALL, "hdfs_namenode": ["n"], "hdfs_datanode": ["w", "d"]}
    result = topology(groups, nodes("p", "c", "w", "n", "d"))
    assert result["namenode"]["url"] == "hdfs://n:8020"
    assert result["datanodes"] == ["w", "d"]
    assert result["hosts"]["n"]["tasks"] == []
    assert [host for host, node in result["hosts"].items() if node["namenode"]] == ["n"]
    assert [host for host, node in result["hosts"].items() if node["datanode"]] == ["w", "d"]


def test_the_infrastructure_managers_inventory():
    hosts = ["158.42.1.1_0", "158.42.1.2_1", "158.42.1.3_2"]
    groups = {"ps": hosts[:1], "chief": hosts[1:2], "worker": hosts[2:], "all": hosts, "ungrouped": []}
    hostvars = {
        host: {
            "ansible_host": host.split("_", maxsplit=1)[0],
            "IM_NODE_HOSTNAME": f"node{number}",
            "IM_NODE_PRIVATE_IP": f"192.168.0.{number + 1}",
            "IM_NODE_NUM": str(number),
            "deeptrain_ports": {"ps": "3000"},
            "deeptrain_hdfs_port": "9000",
        }
        for number, host in enumerate(hosts)
    }
    result = topology(groups, hostvars)
    assert [node["name"] for node in result["hosts"].values()] == ["node1", "node0", "node2"]
    assert result["cluster"]["ps"] == ["192.168.0.1:3000"]
    assert result["namenode"]["url"] == "hdfs://node0:9000"


def test_illegal_names_give_way_to_group_and_index():
    groups = {
        "ps": ["10.0.0.1_0"],
        "chief": ["chief_0"],
        "worker": ["10.0.0.3", "localhost", "12"],
        "hdfs_datanode": ["0x1f"],
    }
    result = topology(groups, nodes(*(host for hosts in groups.values() for host in hosts)))
    assert {host: node["name"] for host, node in result["hosts"].items()} == {
        "chief_0": "chief-0",
        "10.0.0.1_0": "ps-0",
        "10.0.0.3": "worker-0",
        "localhost": "worker-1",
        "12": "worker-2",
        "0x1f": "hdfs-datanode-0",
    }


def test_a_domain_is_cut_off_unless_two_hosts_would_share_a_name():
    groups = {"ps": ["Store.example.org"], "chief": ["a.one.org"], "worker": ["a.two.org", "node"]}
    result = topology(groups, nodes("Store.example.org", "a.one.org", "a.two.org", "node"))
    assert [node["name"] for node in result["hosts"].values()] == ["chief-0", "store", "worker-0", "node"]


@pytest.mark.parametrize(
    "variables, address",
    [
        ({"deeptrain_address": "10.1.1.1", "IM_NODE_PRIVATE_IP": "10.1.1.2", "ansible_host": "10.1.1.3"}, "10.1.1.1"),
        ({"IM_NODE_PRIVATE_IP": "10.1.1.2", "ansible_host": "10.1.1.3"}, "10.1.1.2"),
        ({"IM_NODE_PRIVATE_IP": "", "ansible_host": "10.1.1.3"}, "10.1.1.3"),
        ({"ansible_host": "127.0.0.1"}, "10.9.9.9"),
        ({"ansible_host": "node.example.org"}, "10.9.9.9"),
        ({"ansible_host": UNDEFINED, "deeptrain_address": "10.1.1.1"}, "10.1.1.1"),
        ({}, "10.9.9.9"),
    ],
)
def test_where_an_address_comes_from(variables, address):
    groups = {**SMALL, "worker": ["10.9.9.9"]}
    result = topology(groups, {**nodes("p", "c"), "10.9.9.9": variables})
    assert result["hosts"]["10.9.9.9"]["address"] == address


def test_all_machines_of_the_manager_must_be_in_its_inventory():
    counts = {"IM_PS_NUM_VMS": "1", "IM_MASTER_NUM_VMS": "1", "IM_WORKER_NUM_VMS": "2"}
    hosts = nodes("p", "m", "w0", "w1")
    whole = {host: {**variables, **counts} for host, variables in hosts.items()}
    assert topology(THESIS, whole) == topology(THESIS, hosts)
    groups = {**THESIS, "worker": ["w0"], "all": ["p", "m", "w0"]}
    with pytest.raises(TopologyError, match="2 machines in worker, and 1 of them .* start or remove it"):
        topology(groups, whole)


def test_ipv6_addresses_are_bracketed():
    hostvars = nodes("p", "c", "w", p={"deeptrain_address": "FD00::0:1"})
    result = topology(SMALL, hostvars)
    assert result["hosts"]["p"]["address"] == "fd00::1"
    assert result["cluster"]["ps"] == ["[fd00::1]:2223"]
    assert result["namenode"]["http_url"] == "http://[fd00::1]:9870"


def test_ports_of_a_host_may_be_partial_and_win_over_the_argument():
    hostvars = nodes("p", "c", "w", w={"deeptrain_ports": {"worker": "4004"}})
    result = topology(SMALL, hostvars, ports={"worker": 5005, "ps": 5006}, hdfs_port=9000, hdfs_http_port="9001")
    assert result["cluster"] == {"chief": ["10.0.0.11:2222"], "ps": ["10.0.0.10:5006"], "worker": ["10.0.0.12:4004"]}
    assert (result["namenode"]["port"], result["namenode"]["http_port"]) == (9000, 9001)


def test_two_hosts_at_one_address_need_other_ports():
    same = {"deeptrain_address": "10.0.0.1"}
    groups = {"ps": ["p"], "chief": ["c"], "worker": ["a", "b"], "hdfs_datanode": ["a"]}
    hostvars = {"p": same, "c": same, "a": same, "b": {**same, "deeptrain_ports": {"worker": 2225}}}
    assert topology(groups, hostvars)["cluster"]["worker"] == ["10.0.0.1:2224", "10.0.0.1:2225"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"ps": []}, ["group ps is empty"]),
        ({"chief": []}, ["group chief is empty", "master"]),
        ({"worker": []}, ["group worker is empty", "at least one host"]),
        ({"chief": ["c", "w"]}, ["group chief has 2 hosts", "c, w"]),
        ({"master": ["w"]}, ["chief (c)", "master (w)", "only one"]),
        ({"ungrouped": ["lost"]}, ["host lost is in no group", "ps, chief or worker"]),
        ({"ungrouped": ["lost", "stray"]}, ["hosts lost, stray are in no group"]),
        ({"hdfs_namenode": ["p", "c"]}, ["hdfs_namenode has 2 hosts", "p, c"]),
        ({"hdfs_namenode": []}, ["hdfs_namenode has no host", "remove the group"]),
        ({"hdfs_datanode": []}, ["hdfs_datanode has no host"]),
    ],
)
def test_groups_that_make_no_cluster(change, words):
    groups = {**SMALL, **change}
    for call in (lambda: topology(groups, nodes("p", "c", "w")), lambda: cluster_hosts(groups)):
        with pytest.raises(TopologyError) as caught:
            call()
        for word in words:
            assert word in str(caught.value)


@pytest.mark.parametrize("group", ["ps", "chief", "worker"])
def test_a_group_that_is_missing(group):
    with pytest.raises(TopologyError, match=f"group {group} is empty or missing"):
        topology({name: hosts for name, hosts in SMALL.items() if name != group}, nodes("p", "c", "w"))


@pytest.mark.parametrize("groups", [{**SMALL, "master": ["c"]}, {**SMALL, "ungrouped": ["localhost"]}])
def test_groups_that_are_fine(groups):
    assert topology(groups, nodes("p", "c", "w"))["cluster"]["chief"] == ["10.0.0.11:2222"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"deeptrain_address": None}, ["host w has no address", "set deeptrain_address"]),
        ({"deeptrain_address": None, "ansible_host": "127.0.0.1"}, ["host w has no address"]),
        ({"deeptrain_address": "w.example.org"}, ["deeptrain_address of host w", "w.example.org", "IP address"]),
        ({"deeptrain_address": 167772161}, ["deeptrain_address of host w", "IP address"]),
        ({"deeptrain_address": "0.0.0.0"}, ["deeptrain_address of host w"]),
        ({"deeptrain_address": "127.0.0.1"}, ["host w", "loopback", "set deeptrain_address"]),
        ({"deeptrain_address": UNDEFINED}, ["deeptrain_address of host w", "not defined"]),
        ({"deeptrain_address": "{{ nowhere }}"}, ["deeptrain_address of host w", "not defined"]),
        ({"deeptrain_address": "10.0.0.10"}, ["host p", "host w", "deeptrain_address"]),
        ({"IM_NODE_HOSTNAME": "P"}, ["p and w", "named p", "dns_name"]),
        ({"deeptrain_ports": {"worker": 0}}, ["deeptrain_ports of host w, worker is 0", "1024 to 65535"]),
        ({"deeptrain_ports": {"worker": 80}}, ["1024 to 65535"]),
        ({"deeptrain_ports": {"worker": 65536}}, ["65536"]),
        ({"deeptrain_ports": {"worker": "many"}}, ["'many'"]),
        ({"deeptrain_ports": {"worker": True}}, ["True"]),
        ({"deeptrain_ports": {"worker": 2224.5}}, ["2224.5"]),
        ({"deeptrain_ports": {"master": 2222}}, ["deeptrain_ports of host w has master", "chief, ps, worker"]),
        ({"deeptrain_ports": 2224}, ["deeptrain_ports of host w must be a dictionary"]),
        ({"deeptrain_ports": {"worker": UNDEFINED}}, ["deeptrain_ports of host w", "worker"]),
        (
            {"deeptrain_ports": {"worker": 9866}},
            ["worker 0 and the DataNode of host w are both on port 9866", "deeptrain_ports"],
        ),
    ],
)
def test_host_variables_that_cannot_work(change, words):
    with pytest.raises(TopologyError) as caught:
        topology(SMALL, nodes("p", "c", "w", w=change))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"deeptrain_hdfs_port": 9870}, ["NameNode's RPC and the NameNode's HTTP of host p", "port 9870"]),
        ({"deeptrain_hdfs_port": 2223}, ["ps 0 and the NameNode's RPC of host p", "deeptrain_hdfs_port"]),
        (
            {"deeptrain_hdfs_http_port": 9864},
            ["the NameNode's HTTP and the DataNode of host p", "deeptrain_hdfs_http_port"],
        ),
        ({"deeptrain_hdfs_port": "x"}, ["deeptrain_hdfs_port of host p is 'x'"]),
    ],
)
def test_hdfs_ports_that_cannot_work(change, words):
    with pytest.raises(TopologyError) as caught:
        topology(SMALL, nodes("p", "c", "w", p=change))
    for word in words:
        assert word in str(caught.value)


def test_two_tasks_of_one_host_on_one_port():
    groups = {"ps": ["a"], "chief": ["a"], "worker": ["b"]}
    with pytest.raises(TopologyError, match="chief 0 and ps 0 of host a are both on port 3000: .*deeptrain_ports"):
        topology(groups, nodes("a", "b", a={"deeptrain_ports": {"ps": 3000, "chief": 3000}}))


def test_two_hosts_with_one_address_and_port():
    groups = {**SMALL, "worker": ["a", "b"]}
    hostvars = nodes("p", "c", "a", "b", b={"deeptrain_address": "10.0.0.12"})
    with pytest.raises(TopologyError, match="worker 0 of host a and worker 1 of host b are both on 10.0.0.12:2224"):
        topology(groups, hostvars)


def test_two_datanodes_at_one_address():
    groups = {**SMALL, "worker": ["a", "b"]}
    hostvars = nodes("p", "c", "a", "b", b={"deeptrain_address": "10.0.0.12", "deeptrain_ports": {"worker": 2225}})
    with pytest.raises(TopologyError, match="DataNode of host a and the DataNode of host b .*hdfs_datanode"):
        topology(groups, hostvars)


def test_a_thousand_nodes_take_no_longer_each_than_a_hundred():
    def seconds(count):
        """Return the shortest processor time of some tries, which other work on the machine does not change."""
        workers = [f"10.1.{number // 250}.{number % 250 + 1}_{number}" for number in range(count - 2)]
        groups = {**SMALL, "worker": workers}
        hostvars = {**nodes("p", "c"), **{name: {"IM_NODE_PRIVATE_IP": name.split("_", maxsplit=1)[0]} for name in workers}}
        tries = []
        for _try in range(5):
            started = time.process_time()
            result = topology(groups, hostvars)
            config = host_tf_config(result, workers[0], "worker")
            tries.append(time.process_time() - started)
        assert len(result["hosts"]) == count
        assert len(config["cluster"]["worker"]) == count - 2
        return min(tries)

    # It would be a hundred times as long if each node were compared with each.
    assert seconds(1000) < 30 * seconds(100)


def test_the_result_is_plain_and_its_parts_are_apart():
    result = topology(THESIS, nodes("p", "m", "w0", "w1"))
    assert json.loads(json.dumps(result)) == result
    config = host_tf_config(result, "p", "ps")
    config["cluster"]["ps"].append("mine")
    assert result["cluster"]["ps"] == ["10.0.0.10:2223"]


@pytest.mark.parametrize(
    "names, expected",
    [
        ((), ["m", "p", "w0", "w1"]),
        (("worker",), ["w0", "w1"]),
        (("chief",), ["m"]),
        (("master",), ["m"]),
        (("worker", "ps"), ["w0", "w1", "p"]),
        (("hdfs_namenode",), ["p"]),
        (("hdfs_datanode",), ["m", "p", "w0", "w1"]),
    ],
)
def test_hosts_of_groups(names, expected):
    assert cluster_hosts(THESIS, *names) == expected


def test_hosts_of_hdfs_alone_belong_to_the_cluster():
    groups = {**THESIS, "hdfs_namenode": ["n"], "hdfs_datanode": ["d", "w0"]}
    assert cluster_hosts(groups) == ["m", "p", "w0", "w1", "n", "d"]


def test_an_unknown_group_is_refused():
    with pytest.raises(TopologyError, match="'workers' is no group of a cluster: use one of chief, ps, worker"):
        cluster_hosts(THESIS, "workers")


@pytest.mark.parametrize(
    "host, task_type, words",
    [
        ("elsewhere", "worker", "host elsewhere is not in the cluster"),
        ("p", "worker", "host p has no task of type worker: put it into the group worker"),
    ],
)
def test_a_task_that_a_host_does_not_have(host, task_type, words):
    with pytest.raises(TopologyError, match=words):
        host_tf_config(topology(THESIS, nodes("p", "m", "w0", "w1")), host, task_type)


@pytest.mark.parametrize(
    "change, task_type, index, words",
    [
        ({}, "evaluator", 0, "'evaluator' is no type of task"),
        ({}, "worker", 2, "there is no worker 2: the index goes from 0 to 1"),
        ({}, "worker", -1, "there is no worker -1"),
        ({"ps": []}, "worker", 0, "ps has no address"),
        ({"chief": ["a:1", "b:1"]}, "chief", 0, "chief has 2 addresses"),
        ({"ps": ["b:3"]}, "ps", 0, "ps 0 and worker 0 have the same address b:3"),
    ],
)
def test_a_cluster_that_cannot_work(change, task_type, index, words):
    cluster = {"chief": ["a:1"], "ps": ["a:2"], "worker": ["b:3", "c:3"], **change}
    with pytest.raises(TopologyError, match=words):
        tf_config(cluster, task_type, index)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("10.0.0.1", "10.0.0.1:2222"),
        ("10.0.0.1:3333", "10.0.0.1:3333"),
        ("node.example.org", "node.example.org:2222"),
        ("fd00::1", "[fd00::1]:2222"),
        ("[fd00::1]", "[fd00::1]:2222"),
        ("[fd00::1]:3333", "[fd00::1]:3333"),
    ],
)
def test_endpoints(text, expected):
    assert endpoint(text, 2222, "ps") == expected


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1:", "10.0.0.1:x", "10.0.0.1:70000", "a b", "fd00::g", "[node]:1234", "http://a", "a:1:2"]
)
def test_endpoints_that_are_none(text):
    with pytest.raises(TopologyError, match="^ps"):
        endpoint(text, 2222, "ps")
