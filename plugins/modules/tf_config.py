#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.tf_config."""

from __future__ import annotations

DOCUMENTATION = r"""
module: tf_config
short_description: Make TF_CONFIG for one task of a cluster
version_added: 0.1.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - Makes TensorFlow's description of a cluster and of one task in it from addresses that you give.
  - It changes nothing. Where the inventory has the groups C(ps), C(chief) and C(worker), the filters
    P(deeptrain.cluster.topology#filter) and P(deeptrain.cluster.tf_config#filter) find the addresses by themselves.
extends_documentation_fragment: deeptrain.cluster._attributes.read_only
options:
  chief:
    description: The chief's address, or address and port separated by a colon.
    type: str
    required: true
    aliases: [master]
  ps:
    description: The parameter servers' addresses, or addresses and ports.
    type: list
    elements: str
    required: true
  worker:
    description: The workers' addresses, or addresses and ports.
    type: list
    elements: str
    required: true
  ports:
    description:
      - Ports of the addresses that name none.
      - A type that is left out keeps its default, 2222 for V(chief), 2223 for V(ps) and 2224 for V(worker).
    type: dict
    default: {}
    suboptions:
      chief:
        description: The chief's port.
        type: int
        default: 2222
      ps:
        description: The parameter servers' port.
        type: int
        default: 2223
      worker:
        description: The workers' port.
        type: int
        default: 2224
  type:
    description: Type of the task. V(master) is another name of V(chief).
    type: str
    choices: [chief, ps, worker, master]
    required: true
  index:
    description: Index of the task among those of its type.
    type: int
    default: 0
seealso:
  - plugin: deeptrain.cluster.tf_config
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Describe the second worker's place
  deeptrain.cluster.tf_config:
    chief: 10.0.0.11
    ps: [10.0.0.10]
    worker: [10.0.0.12, "10.0.0.13:2300"]
    type: worker
    index: 1
  register: second_worker
"""

RETURN = r"""
tf_config:
  description: TF_CONFIG as a dictionary; the environment variable wants it as C({{ result.tf_config | to_json }}).
  type: dict
  returned: success
  sample:
    cluster:
      chief: ["10.0.0.11:2222"]
      ps: ["10.0.0.10:2223"]
      worker: ["10.0.0.12:2224", "10.0.0.13:2300"]
    task: {type: worker, index: 1}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils._topology import (
    ALIASES,
    DEFAULT_PORTS,
    TASK_TYPES,
    TopologyError,
    endpoint,
    tf_config,
)


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "chief": {"type": "str", "required": True, "aliases": ["master"]},
            "ps": {"type": "list", "elements": "str", "required": True},
            "worker": {"type": "list", "elements": "str", "required": True},
            "ports": {
                "type": "dict",
                "default": {},
                "options": {name: {"type": "int", "default": port} for name, port in DEFAULT_PORTS.items()},
            },
            "type": {"type": "str", "choices": [*TASK_TYPES, *ALIASES], "required": True},
            "index": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    given = {**module.params, "chief": [module.params["chief"]]}
    try:
        cluster = {
            name: [endpoint(address, given["ports"][name], name) for address in given[name]] for name in TASK_TYPES
        }
        result = tf_config(cluster, given["type"], given["index"])
    except TopologyError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, tf_config=result)


if __name__ == "__main__":
    main()
