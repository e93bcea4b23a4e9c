#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.service_directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_directory
short_description: Create the directory of a service's user
version_added: 0.2.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - Creates missing parents as root's with mode C(0755). The module P(ansible.builtin.file#module) gives them to O(owner), who can then
    exchange the directory for a link.
  - Follows a link only where it belongs to root, in a directory of root's. Otherwise it fails.
extends_documentation_fragment: deeptrain.cluster._attributes
options:
  path:
    description: Absolute path of the directory.
    type: path
    required: true
  owner:
    description: User that the directory belongs to.
    type: str
    required: true
  group:
    description: Group that the directory belongs to. By default the group with the name of O(owner).
    type: str
  mode:
    description: Permissions of the directory, octal digits.
    type: str
    default: "0755"
attributes:
  diff_mode:
    support: none
seealso:
  - module: ansible.builtin.file
"""

EXAMPLES = r"""
- name: Create the DataNode's directory
  deeptrain.cluster.service_directory:
    path: /data/hadoop/blocks
    owner: hdfs
    group: hadoop
    mode: "0700"
"""

RETURN = r""" # """

import contextlib
import grp
import os
import pwd
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils import _guarded_files as guarded_files


def identity(module):
    """Return the ids of owner and group; None where they do not exist yet, in check mode."""
    owner, group = module.params["owner"], module.params["group"] or module.params["owner"]
    try:
        return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid
    except KeyError:
        if module.check_mode:
            return None
        module.fail_json(msg=f"There is no user {owner}, or no group {group}, on this node: create them first")


def ensure(path, uid, gid, mode, check_mode):
    """Create a directory with its missing parents; return whether anything changed."""
    parents, name = os.path.split(path)
    changed = False
    with contextlib.ExitStack() as stack:
        handle = stack.enter_context(guarded_files.directory("/"))
        for parent in parents.strip("/").split("/") if parents != "/" else ():
            try:
                handle = stack.enter_context(guarded_files.trusted(handle, parent))
            except FileNotFoundError:
                if check_mode:
                    return True
                guarded_files.make_directory(handle, parent, 0o755)
                handle = stack.enter_context(guarded_files.trusted(handle, parent))
                changed = True
        with contextlib.suppress(FileNotFoundError), guarded_files.trusted(handle, name) as leaf:
            status = os.fstat(leaf)
            if (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (uid, gid, mode):
                return changed
        if not check_mode:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=handle)
            with guarded_files.trusted(handle, name) as leaf:
                guarded_files.own(leaf, mode, uid, gid)
    return True


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "owner": {"type": "str", "required": True},
            "group": {"type": "str"},
            "mode": {"type": "str", "default": "0755"},
        },
        supports_check_mode=True,
    )
    path = os.path.normpath(module.params["path"])
    if not os.path.isabs(path) or path.strip("/") == "":
        module.fail_json(msg=f"path is '{module.params['path']}': use an absolute path, below the root directory")
    try:
        mode = int(module.params["mode"], 8)
    except ValueError:
        module.fail_json(msg=f"mode is '{module.params['mode']}': use octal digits, such as 0755")
    found = identity(module)
    try:
        changed = found is None or ensure("/" + path.strip("/"), *found, mode, module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"cannot create {path}: {error}")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
