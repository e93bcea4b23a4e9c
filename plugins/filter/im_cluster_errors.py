# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.im_cluster_errors; its documentation is in im_cluster_errors.yml."""

from __future__ import annotations

import re

from ansible.module_utils.parsing.convert_bool import boolean
from ansible_collections.deeptrain.cluster.plugins.filter.im_cluster_layout import im_cluster_layout
from ansible_collections.deeptrain.cluster.plugins.filter.variable_errors import variable_errors

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
# RADL's own words.
RESERVED = frozenset("and ansible configure contains contextualize deploy description network option soft step system with".split())
NETWORK = re.compile(r"([0-9]{1,3}[.]){3}[0-9]{1,3}/[0-9]{1,2}")
# What filter topology reads of each host's own variables.
OF_HOSTS = frozenset(["deeptrain_address", "deeptrain_ports", "deeptrain_hdfs_port", "deeptrain_hdfs_http_port"])
# From more machines on, the Infrastructure Manager copies its files to each.
MOST_MACHINES = 30


def _shape_errors(options):
    name = options["im_cluster_name"]
    if not NAME.fullmatch(name) or name in RESERVED:
        yield f"im_cluster_name is '{name}': use letters, digits, dot, dash and underscore, a letter first, and no word of RADL"
    if min(int(options["im_cluster_ps_count"]), int(options["im_cluster_worker_count"])) < 1:
        yield "im_cluster_ps_count and im_cluster_worker_count must be at least 1"
    sources = options["im_cluster_ssh_sources"]
    if not all(NETWORK.fullmatch(str(source)) for source in sources):
        yield f"im_cluster_ssh_sources is {sources}: write each as an IPv4 network such as 192.0.2.0/24, and a single host as 192.0.2.7/32"


def _cloud_errors(options, layout, clouds):
    name = options["im_cluster_cloud"]
    if name == "DeployedNode":
        yield (
            "im_cluster_cloud is 'DeployedNode': leave it out and set im_cluster_mode to existing_hosts, with which the Infrastructure Manager runs "
            "the roles on hosts that exist. A controller needs no Infrastructure Manager to run them there, so write them in an inventory"
        )
        return
    if name not in clouds:
        yield f"im_cluster_cloud is '{name}': use one of {', '.join(clouds)}, or set im_cluster_mode to existing_hosts for hosts that exist"
        return
    cloud, systems, sources = clouds[name], layout["systems"].values(), options["im_cluster_ssh_sources"]
    for image in filter(None, (system.get("image") for system in systems)):
        if not re.match(cloud["image"], str(image)):
            yield f"image is '{image}', which is none of {name}: write it as {cloud['example']}, or leave it out to let the Infrastructure Manager choose"
            break
    if 0 < cloud["sources"] < len(sources):
        yield f"im_cluster_ssh_sources has {len(sources)} networks, and {name} takes {cloud['sources']}: write fewer that hold them all"
    if not cloud["spot"] and any(boolean(system.get("spot") or False) for system in systems):
        yield f"spot is set, and the Infrastructure Manager requests no spot instances of {name}, so leave it out"


def _host_errors(options, layout):
    if options["im_cluster_cloud"]:
        yield (
            f"im_cluster_cloud is '{options['im_cluster_cloud']}', and im_cluster_mode existing_hosts creates no machines: leave im_cluster_cloud out, "
            "or set im_cluster_mode to push or im"
        )
    if [host["system"] for host in layout["hosts"]] != layout["machines"]:
        namenode = ", im_cluster_namenode one" if "hdfs_namenode" in layout["systems"] else ""
        yield (
            f"addresses must name each host that exists: give im_cluster_chief one, im_cluster_ps {options['im_cluster_ps_count']} and "
            f"im_cluster_worker {options['im_cluster_worker_count']}{namenode}"
        )
    if not options["im_cluster_private_key"] or not all(system.get("user") for system in layout["systems"].values()):
        yield "im_cluster_private_key and the user in im_cluster_node are required to reach hosts that exist"


def _without_secrets(url):
    """Return a URL without its user and its query, which may be those of a presigned URL."""
    return re.sub(r"[?].*$", "?…", re.sub(r"//[^/@]*@", "//", url))


def _carried_errors(carried):
    archive = str(carried.get("hadoop_archive") or "")
    if not re.match(r"https?://", archive):
        yield (
            f"hadoop_archive is '{_without_secrets(archive)}': no controller takes part in the IM-run way, so give an http:// or https:// URL, "
            "and hadoop_archive_checksum with it"
        )
    if carried.get("deeptrain_s3_ca_bundle"):
        yield "deeptrain_s3_ca_bundle is a file of the controller, and none takes part in the IM-run way, so leave it out"
    of_hosts = [name for name in carried if name in OF_HOSTS]
    if of_hosts:
        yield f"{', '.join(of_hosts)} cannot be set in the IM-run way, where no host knows another's variables: leave it out"
    yield from variable_errors(carried)


def im_cluster_errors(options, clouds, carried=None):
    """Return what is wrong with the options of role im_cluster, a message each; carried are the variables that the RADL has."""
    layout = im_cluster_layout(options, clouds)
    mode, machines = options["im_cluster_mode"], len(layout["machines"])
    errors = list(_shape_errors(options))
    errors += _host_errors(options, layout) if mode == "existing_hosts" else _cloud_errors(options, layout, clouds)
    if mode != "push":
        errors += _carried_errors(carried or {})
        if machines > MOST_MACHINES:
            errors.append(
                f"the Infrastructure Manager would put its files, credentials among them, on each of {machines} machines, for all users there to "
                f"read; up to {MOST_MACHINES} it does not, so take fewer, or set im_cluster_mode to push"
            )
    if options["im_cluster_format"] == "tosca" and (mode != "push" or layout["mounting"]):
        errors.append(
            "im_cluster_format tosca has the machines only, since the Infrastructure Manager ends what a TOSCA document configures after two hours: "
            "set im_cluster_format to radl, or im_cluster_mode to push, and root_disk_gib in place of disk_gib"
        )
    return errors


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"im_cluster_errors": im_cluster_errors}
