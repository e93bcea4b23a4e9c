#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.im_infrastructure_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: im_infrastructure_info
short_description: List or describe infrastructures of the Infrastructure Manager
version_added: 0.1.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - Lists all infrastructures of a user. With O(infrastructure_id) or O(name) it describes one, with its VMs, its contextualization and its RADL.
extends_documentation_fragment:
  - deeptrain.cluster._attributes.read_only
  - deeptrain.cluster._im
options:
  infrastructure_id:
    description: Id of the infrastructure to describe. Excludes O(name).
    type: str
  name:
    description: Name of the infrastructure to describe, which is in the C(description) of its RADL. Excludes O(infrastructure_id).
    type: str
  secrets:
    description: Whether to return passwords and private keys, also those in the RADL.
    type: bool
    default: false
seealso:
  - module: deeptrain.cluster.im_infrastructure
"""

EXAMPLES = r"""
- name: List all infrastructures
  deeptrain.cluster.im_infrastructure_info:
    url: https://im.example.org:8800
    auth_file: ~/.im/auth.dat
  register: all

- name: Describe one infrastructure
  deeptrain.cluster.im_infrastructure_info:
    url: https://im.example.org:8800
    auth_file: ~/.im/auth.dat
    name: deeptrain
  register: cluster
"""

RETURN = r"""
infrastructures:
  description:
    - The infrastructures, each with C(infrastructure_id), C(name) and C(state). With O(infrastructure_id) or O(name) also with C(contmsg),
      C(outputs) and C(vms) as M(deeptrain.cluster.im_infrastructure) returns them, and with C(radl).
    - Empty if no infrastructure of this id or name exists.
  type: list
  elements: dict
  returned: success
  sample: [{infrastructure_id: 78b872ac-e716-11f1-8ca8-02fc00000001, name: deeptrain, state: configured}]
"""

import contextlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import (
    ImError,
    NotFound,
    radl_masked,
)
from ansible_collections.deeptrain.cluster.plugins.module_utils._im_module import (
    CONNECTION,
    choose,
    connect,
    describe,
)


def list_all(im):
    """Return id, name and state of all infrastructures."""
    found = []
    for infrastructure in im.infrastructures():
        # It may have been destroyed since it was listed.
        with contextlib.suppress(NotFound):
            found.append({"infrastructure_id": infrastructure, "name": im.name(infrastructure), "state": im.state(infrastructure)["state"]})
    return found


def describe_one(im, infrastructure, secrets):
    """Return an infrastructure with its RADL."""
    radl = im.radl(infrastructure)
    return {
        **describe(im, infrastructure, secrets),
        "radl": radl if secrets else radl_masked(radl),
    }


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **CONNECTION,
            "infrastructure_id": {"type": "str"},
            "name": {"type": "str"},
            "secrets": {"type": "bool", "default": False, "no_log": False},
        },
        mutually_exclusive=[("infrastructure_id", "name")],
        supports_check_mode=True,
    )
    im = connect(module)
    wanted, name = module.params["infrastructure_id"], module.params["name"]
    try:
        if wanted or name:
            infrastructure = choose(im, wanted, name)
            found = [describe_one(im, infrastructure, module.params["secrets"])] if infrastructure else []
        else:
            found = list_all(im)
    except ImError as error:
        module.fail_json(msg=str(error), code=error.code)
    module.exit_json(changed=False, infrastructures=found)


if __name__ == "__main__":
    main()
