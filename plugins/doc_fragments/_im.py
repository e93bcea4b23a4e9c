# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of the modules and the inventory plugin that use the Infrastructure Manager, as _im_module.CONNECTION and _im_module.wait_options()."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - REST address of the Infrastructure Manager, C(https://HOST:8800).
      - The default is the environment variable E(IM_URL). Required unless that is set.
    type: str
  auth:
    description:
      - Authorization, a list of dictionaries with the keys of the Infrastructure Manager's auth file. One is of type C(InfrastructureManager),
        with C(username) and C(password) or with C(token). Each other one is for a cloud.
      - The default is O(auth_file), else the environment variable E(IM_AUTH), a text in the format of an auth file. Required unless one of these is set.
    type: list
    elements: dict
  auth_file:
    description:
      - Auth file of the Infrastructure Manager, on the host that runs the call. Other users should not be able to read it.
      - It has the syntax of the Infrastructure Manager's client. C(file(PATH)) is replaced by the content of the file, and C(command(PROGRAM ARGUMENTS))
        by the output of the program. The program runs without a shell each time the file is read, and again when the server refuses an expired token.
      - The default is the environment variable E(IM_AUTH_FILE).
    type: path
  validate_certs:
    description: Whether to verify the server's certificate.
    type: bool
    default: true
  ca_path:
    description: PEM file with trusted certificate authorities. The default is those of the system.
    type: path
  timeout:
    description: Timeout of one call, in seconds.
    type: int
    default: 30
  unavailable_timeout:
    description:
      - Seconds for which a call is retried while the Infrastructure Manager is unavailable, and for which an unknown outcome of a call is checked.
      - The first call of a task is not retried.
    type: int
    default: 300
"""

    # Together with the above: the environment variables, which a module has in its argument spec.
    PLUGIN = r"""
options:
  url:
    env:
      - name: IM_URL
  auth_file:
    env:
      - name: IM_AUTH_FILE
"""

    # The default of wait_timeout is the module's.
    WAIT = r"""
options:
  wait:
    description: Whether to wait until the state is reached. With V(false) the task ends when the Infrastructure Manager has accepted the call.
    type: bool
    default: true
  wait_timeout:
    description: Timeout of the wait, in seconds. The task fails after it.
    type: int
  poll:
    description: Initial interval between two polls, in seconds. It grows to ten times this value.
    type: float
    default: 3
"""
