# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all that speaks to the Infrastructure Manager has in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - The Infrastructure Manager's REST address, C(https://HOST:8800).
      - The environment's E(IM_URL) where it is not given.
    type: str
  auth:
    description:
      - The authorization, a list of dictionaries with the keys of the Infrastructure Manager's auth file. One is of type C(InfrastructureManager),
        with C(username) and C(password) or with C(token); each other is that of a cloud.
      - Where neither this nor O(auth_file) is given, the environment's E(IM_AUTH), a text as in an auth file.
    type: list
    elements: dict
  auth_file:
    description:
      - An auth file of the Infrastructure Manager, on the machine that the call is made from. Others should not be able to read it.
      - It has the syntax of the Infrastructure Manager's client. C(file(PATH)) is replaced by the content of the file, and C(command(PROGRAM ARGUMENTS))
        by what the program writes, which is run without a shell at each reading, and again when the server refuses a token that has expired.
      - The environment's E(IM_AUTH_FILE) where it is not given.
    type: path
  validate_certs:
    description: Whether the server's certificate must be one that is trusted.
    type: bool
    default: true
  ca_path:
    description: PEM file with the authorities to trust, where the system's own do not suffice.
    type: path
  timeout:
    description: How long one call may take, in seconds.
    type: int
    default: 30
  unavailable_timeout:
    description:
      - How long, in seconds, a call is retried while the Infrastructure Manager is unavailable, and the outcome is checked of a call whose answer was lost.
      - The first call of a task is not retried.
    type: int
    default: 300
"""

    # Together with the above: where a plugin's options come from, which a module is told by its arguments.
    PLUGIN = r"""
options:
  url:
    env:
      - name: IM_URL
  auth_file:
    env:
      - name: IM_AUTH_FILE
"""
