#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of deeptrain.cluster.python_wheel, which is an action plugin alone."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_wheel
short_description: Put a wheel of a Python source tree on a node
version_added: 0.1.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - Packs a pure-Python project on the controller into a wheel and puts it into a directory on the node.
  - The version gets a local label, eight hexadecimal digits of the content's SHA-256, so that changed sources are another version, and the
    same sources make the same wheel bit for bit. So M(ansible.builtin.pip) installs it when it changed, and only then.
  - No build tool takes part, on the controller or the node. Wheels that were put there before are left there.
extends_documentation_fragment: deeptrain.cluster._attributes
options:
  src:
    description:
      - The project's directory on the controller. In it are C(pyproject.toml) and the packages below C(src/).
      - Of C([project]) it takes C(name), C(version), C(description), C(requires-python), C(dependencies), C(optional-dependencies) and
        C(scripts).
    type: str
    required: true
  dest:
    description: Directory on the node. It must exist.
    type: str
    required: true
attributes:
  diff_mode:
    support: partial
    details: Shows that the wheel is binary, not its content.
notes:
  - The controller's Python must be 3.11 or newer, or have C(pip) or C(tomli).
seealso:
  - module: ansible.builtin.pip
  - module: deeptrain.cluster.python_environment
"""

EXAMPLES = r"""
- name: Put the package on the node
  deeptrain.cluster.python_wheel:
    src: "{{ role_path }}/../../training"
    dest: /opt/deeptrain/wheels
  register: wheel

- name: Install the package
  deeptrain.cluster.python_environment:
    path: /opt/deeptrain/venv
    requirements: ["{{ wheel.requirement }}"]
    find_links: /opt/deeptrain/wheels
"""

RETURN = r"""
name:
  description: The project's name.
  type: str
  returned: success
  sample: deeptrain
version:
  description: The project's version with the local label.
  type: str
  returned: success
  sample: 0.1.0+ab12cd34
filename:
  description: The wheel's file name.
  type: str
  returned: success
  sample: deeptrain-0.1.0+ab12cd34-py3-none-any.whl
path:
  description: The wheel's path on the node.
  type: str
  returned: success
  sample: /opt/deeptrain/wheels/deeptrain-0.1.0+ab12cd34-py3-none-any.whl
requirement:
  description: What to give to pip, exact to the content.
  type: str
  returned: success
  sample: deeptrain==0.1.0+ab12cd34
"""
