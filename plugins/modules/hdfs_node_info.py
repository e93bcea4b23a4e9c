#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.hdfs_node_info."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hdfs_node_info
short_description: Query the storage directories and files of HDFS's daemons
version_added: 0.2.0
author: The deeptrain.cluster authors (@deeptrain)
extends_documentation_fragment: deeptrain.cluster._attributes.read_only
description:
  - Returns what storage directories of a NameNode and a DataNode hold, and whether files exist.
  - A link, a FIFO or a huge file that the daemons' user may have left in a storage directory is not read. A storage directory whose path
    has a link of another user than root, or a file, makes the module fail.
options:
  directories:
    description: Absolute paths of storage directories. They need not exist.
    type: list
    elements: path
    default: []
  files:
    description: Absolute paths of files.
    type: list
    elements: path
    default: []
seealso:
  - module: deeptrain.cluster.hdfs_info
  - module: deeptrain.cluster.service_directory
"""

EXAMPLES = r"""
- name: Query the storage directories
  deeptrain.cluster.hdfs_node_info:
    directories: [/var/lib/hadoop/name, /var/lib/hadoop/data]
    files: [/opt/hadoop/bin/hdfs]
  register: node
"""

RETURN = r"""
storage:
  description: The storage directories, in the order of O(directories).
  type: list
  elements: dict
  returned: success
  contains:
    path:
      description: The directory.
      type: str
      sample: /var/lib/hadoop/name
    cluster_id:
      description: ID of the cluster whose daemon has used the directory, or empty.
      type: str
      sample: deeptrain-ps-0
    first_entry:
      description: Name of the directory's first entry. Empty when it has none, or does not exist.
      type: str
      sample: current
    free_bytes:
      description: Free space of the file system where the directory is or will be.
      type: int
      sample: 107374182400
existing:
  description: Those of O(files) that exist.
  type: list
  elements: str
  returned: success
  sample: [/opt/hadoop/bin/hdfs]
"""

import contextlib
import os
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils import _guarded_files as guarded_files

CLUSTER_ID = re.compile(rb"^clusterID=(.*)$", re.MULTILINE)


def text(name):
    """Return bytes that a user has written as text."""
    return name.decode(errors="replace")


def cluster_id(handle):
    """Return the cluster ID in an open storage directory, or an empty text."""
    try:
        with guarded_files.untrusted(handle, "current") as current:
            found = CLUSTER_ID.search(guarded_files.read(current, "VERSION") or b"")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return text(found[1]) if found else ""


def described(path):
    """Return what a storage directory holds, and the free space of the nearest existing directory."""
    with contextlib.ExitStack() as stack:
        handle, exists = stack.enter_context(guarded_files.directory("/")), True
        try:
            for name in os.path.normpath(path).strip("/").split("/"):
                handle = stack.enter_context(guarded_files.trusted(handle, name))
        except FileNotFoundError:
            exists = False
        space = os.fstatvfs(handle)
        return {
            "path": path,
            "cluster_id": cluster_id(handle) if exists else "",
            "first_entry": text(os.fsencode(min(os.listdir(handle), default=""))) if exists else "",
            "free_bytes": space.f_bavail * space.f_frsize,
        }


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directories": {"type": "list", "elements": "path", "default": []},
            "files": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    storage = []
    for path in module.params["directories"]:
        try:
            storage.append(described(path))
        except OSError as error:
            module.fail_json(msg=f"cannot read the storage directory {path}: {error}")
    module.exit_json(changed=False, storage=storage, existing=[path for path in module.params["files"] if os.path.exists(path)])


if __name__ == "__main__":
    main()
