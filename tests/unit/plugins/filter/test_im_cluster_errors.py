# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.deeptrain.cluster.plugins.filter.im_cluster_errors import im_cluster_errors

CARRIED = {"hadoop_archive": "https://web.example/hadoop.tar.gz", "deeptrain_run": "first"}
HOSTS = {
    "cloud": "",
    "mode": "existing_hosts",
    "private_key": "KEY",
    "node": {"user": "admin"},
    "chief": {"addresses": ["10.0.0.1"]},
    "ps": {"addresses": ["10.0.0.2"]},
    "worker": {"addresses": ["10.0.0.3", "10.0.0.4"]},
}


@pytest.fixture
def errors(options, clouds):
    """Return a function that gives the errors of some options."""
    return lambda carried=None, **given: im_cluster_errors(options(**given), clouds, carried)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ps_count": "2", "worker_count": "29"},
        {"node": {"image": "aws://eu-central-1/ami-0123456789abcdef0", "spot": True}},
        {"cloud": "GCE", "node": {"spot": "no"}},
        {"cloud": "Azure", "ssh_sources": ["192.0.2.0/24"]},
        {"cloud": "OpenNebula", "ssh_sources": ["192.0.2.0/24", "198.51.100.7/32"]},
        {"format": "tosca"},
        {"mode": "im", "carried": CARRIED},
        {"worker_count": 100},
        {**HOSTS, "carried": CARRIED},
        {**HOSTS, "carried": CARRIED, "dedicated_namenode": True, "namenode": {"addresses": ["10.0.0.5"]}},
        # No controller needs what is not carried.
        {"carried": {"hadoop_archive": "/tmp/hadoop.tar.gz"}},
    ],
)
def test_valid(errors, given):
    assert errors(**given) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "deploy"}, "im_cluster_name is 'deploy': use letters, digits, dot, dash and underscore, a letter first, and no word of RADL"),
        ({"name": "1st"}, "im_cluster_name is '1st'"),
        ({"ps_count": 0}, "im_cluster_ps_count and im_cluster_worker_count must be at least 1"),
        ({"worker_count": "0"}, "must be at least 1"),
        ({"worker": {"image": "gce://x/y"}}, "image is 'gce://x/y', which is none of EC2: write it as aws://"),
        ({"ssh_sources": ["192.0.2.7"]}, "write each as an IPv4 network such as 192.0.2.0/24, and a single host as 192.0.2.7/32"),
        ({"cloud": "Azure", "ssh_sources": ["192.0.2.0/24", "198.51.100.0/24"]}, "im_cluster_ssh_sources has 2 networks, and Azure takes 1"),
        ({"cloud": "GCE", "worker": {"spot": True}}, "requests no spot instances of GCE, so leave it out"),
        ({"mode": "im", "carried": {}}, "hadoop_archive is '': no controller takes part in the IM-run way"),
        ({"mode": "im", "carried": {"hadoop_archive": "/tmp/x.tar.gz"}}, "hadoop_archive is '/tmp/x.tar.gz'"),
        ({"mode": "im", "carried": {**CARRIED, "deeptrain_s3_ca_bundle": "/ca.pem"}}, "deeptrain_s3_ca_bundle is a file of the controller"),
        ({"mode": "im", "carried": {**CARRIED, "deeptrain_ports": {}, "deeptrain_address": "x"}}, "deeptrain_ports, deeptrain_address cannot be set"),
        ({"mode": "im", "carried": {**CARRIED, "deeptrain_autostop_hour": 12}}, "write deeptrain_autostop_hours"),
        ({"mode": "im", "carried": CARRIED, "worker_count": 29}, "on each of 31 machines, for all users there to read; up to 30 it does not"),
        ({"mode": "im", "carried": CARRIED, "format": "tosca"}, "im_cluster_format tosca has the machines only"),
        ({"format": "tosca", "worker": {"disk_gib": 100}}, "root_disk_gib in place of disk_gib"),
        ({"cloud": "AWS"}, "im_cluster_cloud is 'AWS': use one of EC2, OpenStack, "),
        ({"cloud": ""}, "im_cluster_cloud is '': use one of EC2, "),
        ({**HOSTS, "mode": "push"}, "set im_cluster_mode to existing_hosts for hosts that exist"),
        ({**HOSTS, "cloud": "DeployedNode", "mode": "push"}, "so write them in an inventory"),
        ({**HOSTS, "cloud": "DeployedNode", "mode": "im", "carried": CARRIED}, "leave it out and set im_cluster_mode to existing_hosts"),
        ({**HOSTS, "cloud": "EC2", "carried": CARRIED}, "im_cluster_cloud is 'EC2', and im_cluster_mode existing_hosts creates no machines"),
        ({**HOSTS, "cloud": "DeployedNode", "carried": CARRIED}, "leave im_cluster_cloud out"),
        ({**HOSTS, "carried": CARRIED, "format": "tosca"}, "set im_cluster_format to radl"),
        (
            {**HOSTS, "carried": CARRIED, "worker": {"addresses": ["10.0.0.3"]}, "ps_count": 3, "dedicated_namenode": True},
            "addresses must name each host that exists: give im_cluster_chief one, im_cluster_ps 3 and im_cluster_worker 2, im_cluster_namenode one",
        ),
        ({**HOSTS, "carried": CARRIED, "private_key": ""}, "im_cluster_private_key and the user in im_cluster_node"),
        ({**HOSTS, "carried": CARRIED, "node": {}, "ps": {"user": "x", "addresses": ["10.0.0.2"]}}, "the user in im_cluster_node"),
    ],
)
def test_errors(errors, given, words):
    (error,) = errors(**given)
    assert words in error


def test_all_errors_are_returned(errors):
    assert len(errors(name="deploy", ps_count=0, ssh_sources=["x"], format="tosca", mode="im")) == 5


def test_no_credentials_of_a_url_are_shown(errors):
    (error,) = errors(mode="im", carried={"hadoop_archive": "s3://user:planted@web.example/x?X-Amz-Signature=planted"})
    assert "'s3://web.example/x?…'" in error and "planted" not in error
