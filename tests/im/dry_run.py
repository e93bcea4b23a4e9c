# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Infrastructure Manager's own dry run of RADLs, with the machines that a cloud offers said here.

Only what its connectors would ask a cloud for is replaced; how they choose a machine is theirs. Runs with the
Infrastructure Manager's packages: dry_run.py TYPE FILE..., and prints a JSON document of the estimates by file.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

from IM.auth import Authentication
from IM.connectors import EC2, GCE, Azure, OpenStack
from IM.FedcloudInfo import FedcloudInfo
from IM.InfrastructureManager import InfrastructureManager
from libcloud.compute.drivers.gce import GCENodeSize
from libcloud.compute.drivers.openstack import OpenStackNodeSize
from radl.radl_parse import parse_radl

HOSTS = {"OpenStack": "https://keystone.example.org:5000", "EGI": "SITE", "OpenNebula": "one.example.org:2633"}
# Name, cores, MiB, GPUs.
EC2_TYPES = [("t3.large", 2, 8192, 0), ("c5.2xlarge", 8, 16384, 0), ("g4dn.xlarge", 4, 16384, 1)]
FLAVORS = [("m1.large", 2, 8192, 0), ("m1.xlarge", 8, 16384, 0), ("g1.large", 4, 16384, 1)]
GCE_TYPES = [("e2-standard-2", 2, 8192, 0), ("n2-standard-8", 8, 32768, 0), ("g2-standard-4", 4, 16384, 1)]
AZURE_TYPES = [("Standard_D2s_v3", 2, 8192, 0), ("Standard_D8s_v3", 8, 32768, 0), ("Standard_NC4as_T4_v3", 4, 28672, 1)]


def flavor(name: str, cores: int, memory: int, gpus: int) -> OpenStackNodeSize:
    extra = {"pci_devices": gpus, **({"Accelerator:Type": "GPU", "Accelerator:Number": str(gpus)} if gpus else {})}
    return OpenStackNodeSize(name, name, memory, 40, None, 0, None, vcpus=cores, extra=extra)


def google(name: str, cores: int, memory: int, gpus: int) -> GCENodeSize:
    accelerators = [{"guestAcceleratorCount": gpus, "guestAcceleratorType": "nvidia-l4"}] if gpus else []
    return GCENodeSize(name, name, memory, 0, None, cores, None, extra={"guestCpus": cores, "accelerators": accelerators})


def offer() -> None:
    """Have the connectors find machines without asking a cloud."""
    EC2.EC2CloudConnector.instance_type_list = [
        EC2.InstanceTypeInfo(name, ["x86_64"], cores, 1, memory, cores, gpu=gpus) for name, cores, memory, gpus in EC2_TYPES
    ]
    OpenStack.OpenStackCloudConnector.get_driver = lambda *arguments: None
    OpenStack.OpenStackCloudConnector.get_list_sizes_details = lambda *arguments: [flavor(*item) for item in FLAVORS]
    sizes = [google(*item) for item in GCE_TYPES]
    GCE.GCECloudConnector.get_driver = lambda *arguments: SimpleNamespace(list_sizes=lambda location: sizes)
    Azure.AzureCloudConnector.get_credentials = lambda *arguments: (None, "")
    Azure.AzureCloudConnector.get_instance_type_list = lambda *arguments: [
        Azure.AzureInstanceTypeInfo(name, cores, memory, gpu=gpus) for name, cores, memory, gpus in AZURE_TYPES
    ]
    FedcloudInfo.get_image_data = staticmethod(lambda url, vo=None: ("https://keystone.example.org:5000", "image", ""))
    FedcloudInfo.get_site_url = staticmethod(lambda *arguments: "https://keystone.example.org:5000")
    FedcloudInfo.get_project_ids = staticmethod(lambda *arguments: {"v": "project"})


def main(cloud: str, files: list[str]) -> None:
    logging.disable()
    offer()
    auth = Authentication(
        [
            {"type": "InfrastructureManager", "username": "tester", "password": "tester"},
            {"id": "cloud", "type": cloud, "username": "u", "password": "p", "project": "p", "tenant": "t", "vo": "v", "token": "t", **host(cloud)},
        ]
    )
    found = {}
    for file in files:
        radl = parse_radl(Path(file).read_text())
        radl.check()
        found[file] = InfrastructureManager.EstimateResouces(radl, auth)
    print(json.dumps(found))


def host(cloud: str) -> dict[str, str]:
    return {"host": HOSTS[cloud]} if cloud in HOSTS else {}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
