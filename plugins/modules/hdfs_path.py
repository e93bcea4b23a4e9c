#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.hdfs_path."""

from __future__ import annotations

DOCUMENTATION = r"""
module: hdfs_path
short_description: Manage a directory in HDFS
version_added: 0.1.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - Creates a directory in HDFS, with owner, group and mode, or removes a path.
  - Talks WebHDFS to the NameNode, so it needs neither Java nor Hadoop where it runs.
extends_documentation_fragment:
  - deeptrain.cluster._attributes
  - deeptrain.cluster._hdfs
options:
  path:
    description: Absolute path in HDFS.
    type: str
    required: true
  state:
    description:
      - V(directory) creates the directory and the missing ones above it (with mode 0755, of the user O(user)).
      - V(absent) removes the path.
    type: str
    choices: [directory, absent]
    default: directory
  owner:
    description: The directory's owner; left as it is when not given.
    type: str
  group:
    description: The directory's group; left as it is when not given.
    type: str
  mode:
    description: The directory's mode as a quoted octal number such as V('0755') or V('1777'); left as it is when not given.
    type: raw
  recurse:
    description: With O(state=absent), whether a directory that is not empty is removed with all that is in it.
    type: bool
    default: false
  timeout:
    description: Timeout of one call, in seconds.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Give a user a home directory
  deeptrain.cluster.hdfs_path:
    path: /user/deeptrain
    owner: deeptrain
    group: deeptrain
    mode: "0750"
    namenode_url: http://10.0.0.10:9870

- name: Remove a directory and what is in it
  deeptrain.cluster.hdfs_path:
    path: /user/deeptrain/runs/old
    state: absent
    recurse: true
    namenode_url: http://10.0.0.10:9870
"""

RETURN = r"""
path:
  description: The path.
  type: str
  returned: success
  sample: /user/deeptrain
state:
  description: What the path is now, or in check mode would be.
  type: str
  returned: success
  sample: directory
owner:
  description: The directory's owner. In check mode, of one yet to be made, only when given.
  type: str
  returned: when the state is V(directory)
  sample: deeptrain
group:
  description: The directory's group, as RV(owner).
  type: str
  returned: when the state is V(directory)
  sample: deeptrain
mode:
  description: The directory's mode, as RV(owner).
  type: str
  returned: when the state is V(directory)
  sample: "0750"
"""

import posixpath
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils._webhdfs import (
    NAMENODE,
    WebHdfs,
    WebHdfsError,
)


def check_arguments(module):
    """Fail where an argument has a value that its type alone does not refuse."""
    path, mode, url = (module.params[name] for name in ("path", "mode", "namenode_url"))
    if not path.startswith("/") or {".", ".."} & set(path.split("/")):
        module.fail_json(msg=f"path is {path!r}: it must be absolute, without . and ..")
    if mode is not None and not (isinstance(mode, str) and re.fullmatch(r"[01]?[0-7]{3}", mode)):
        module.fail_json(msg=f"mode is {mode!r}: write it as a quoted octal number such as '0755'")
    if not re.match(r"https?://[^/]", url):
        module.fail_json(msg=f"namenode_url is {url!r}: it must be the NameNode's HTTP address, http://HOST:9870")
    for name in ("owner", "group", "user"):
        if module.params[name] == "":
            module.fail_json(msg=f"{name} is empty: give a name, or leave {name} out")


def described(path, status):
    """Return what WebHDFS says of a path in this module's terms."""
    if status is None:
        return {"path": path, "state": "absent"}
    return {
        "path": path,
        "state": status["type"].lower(),
        "owner": status["owner"],
        "group": status["group"],
        "mode": f"{int(status['permission'], 8):04o}",
    }


def make_directory(hdfs, before, after):
    """Change a directory from one description to another."""
    path = after["path"]
    if before["state"] == "absent":
        # One call for both would give the directories above this one's mode.
        hdfs.make_directory(posixpath.dirname(path))
        hdfs.make_directory(path, after.get("mode", "0755"))
        before = described(path, hdfs.status(path))
    names = {key: after[key] for key in ("owner", "group") if after.get(key, before[key]) != before[key]}
    if names:
        hdfs.set_owner(path, **names)
    if after.get("mode", before["mode"]) != before["mode"]:
        hdfs.set_permission(path, after["mode"])


def refuse_removal(path, status, recurse):
    """Return why a path must not be removed, or None."""
    if path == "/":
        return "the root of HDFS cannot be removed: give another path"
    if status["type"] == "DIRECTORY" and status["childrenNum"] > 0 and not recurse:
        return f"{path} is not empty: set recurse to remove it with all that is in it"
    return None


def manage(module, hdfs):
    """Do what was asked; return the path's description before and after."""
    path = posixpath.normpath("/" + module.params["path"].lstrip("/"))
    status = hdfs.status(path)
    before = described(path, status)

    if module.params["state"] == "absent":
        if status is not None:
            refusal = refuse_removal(path, status, module.params["recurse"])
            if refusal is not None:
                module.fail_json(msg=refusal)
            if not module.check_mode:
                hdfs.delete(path, module.params["recurse"])
        return before, described(path, None)

    if before["state"] == "file":
        module.fail_json(msg=f"{path} is a file: move it away, or give another path")
    wanted = {key: module.params[key] for key in ("owner", "group", "mode") if module.params[key] is not None}
    if "mode" in wanted:
        wanted["mode"] = wanted["mode"].zfill(4)
    after = {**before, **wanted, "state": "directory"}
    if after != before and not module.check_mode:
        make_directory(hdfs, before, after)
        after = described(path, hdfs.status(path))
    return before, after


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["directory", "absent"], "default": "directory"},
            "owner": {"type": "str"},
            "group": {"type": "str"},
            "mode": {"type": "raw"},
            "recurse": {"type": "bool", "default": False},
            **NAMENODE,
            "timeout": {"type": "int", "default": 10},
        },
        supports_check_mode=True,
    )
    check_arguments(module)
    hdfs = WebHdfs(module.params["namenode_url"], module.params["user"], module.params["timeout"])
    try:
        before, after = manage(module, hdfs)
    except WebHdfsError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=before != after, diff={"before": before, "after": after}, **after)


if __name__ == "__main__":
    main()
