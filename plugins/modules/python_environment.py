#!/usr/bin/python
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Module deeptrain.cluster.python_environment."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_environment
short_description: Manage a versioned Python virtual environment behind a symbolic link
version_added: 0.1.0
author: The deeptrain.cluster authors (@deeptrain)
description:
  - Installs packages into a new virtual environment for each combination of interpreter and requirements. The symbolic link O(path) is
    switched to the new environment once it is complete.
  - Running processes keep the environment that they were started from. An environment is never modified after it is complete.
  - Credentials in the URLs of O(requirements) are neither returned nor logged, and are stored for root alone.
  - Removes stale environments that no process uses. This alone is not reported as a change.
  - Replaces a virtual environment that is a plain directory at O(path) with the link. Fails while a process uses that directory.
extends_documentation_fragment: deeptrain.cluster._attributes
options:
  path:
    description: Absolute path of the symbolic link. The environments are in the directory C(environments) beside it.
    type: path
    required: true
  requirements:
    description: Requirements of the packages to install, as pip takes them.
    type: list
    elements: str
    required: true
  keep_others:
    description:
      - Whether the new environment also gets the requirements of the current environment for packages that O(requirements) does not name.
      - With V(false) the environment contains O(requirements) and their dependencies alone.
    type: bool
    default: false
  python:
    description: Interpreter of the environment, a program name or an absolute path.
    type: str
    default: python3
  find_links:
    description: Directory with further wheels.
    type: path
attributes:
  diff_mode:
    details: Shows the link's target before and after.
seealso:
  - module: ansible.builtin.pip
  - module: deeptrain.cluster.python_wheel
"""

EXAMPLES = r"""
- name: Install the package
  deeptrain.cluster.python_environment:
    path: /opt/deeptrain/venv
    requirements: ["{{ wheel.requirement }}"]
    keep_others: true
    find_links: /opt/deeptrain/wheels

- name: Install the package with TensorFlow
  deeptrain.cluster.python_environment:
    path: /opt/deeptrain/venv
    requirements:
      - "{{ wheel.requirement }}"
      - tensorflow-cpu==2.21.0
      - tensorboard
    find_links: /opt/deeptrain/wheels
"""

RETURN = r"""
path:
  description: The symbolic link.
  type: str
  returned: success
  sample: /opt/deeptrain/venv
environment:
  description: The environment that the link refers to, or would refer to in check mode.
  type: str
  returned: success
  sample: /opt/deeptrain/environments/0123456789abcdef
requirements:
  description: The requirements that the environment was installed from, without the credentials in their URLs.
  type: list
  elements: str
  returned: success
  sample: [deeptrain==0.1.0+ab12cd34, tensorboard, tensorflow-cpu==2.21.0]
removed:
  description: Stale environments that were removed.
  type: list
  elements: str
  returned: success
  sample: [/opt/deeptrain/environments/fedcba9876543210]
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.deeptrain.cluster.plugins.module_utils import _guarded_files as guarded_files
from ansible_collections.deeptrain.cluster.plugins.module_utils import _locks as locks

# In each environment, written last: without it the environment is incomplete.
MARKER = "environment.json"
LOCK_SECONDS = 1800
PROC = "/proc"
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)|(?<=://)([^?\s]*\?)[^#\s]+")
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_IDENTITY = "import json, os, sys; print(json.dumps([os.path.realpath(sys.executable), '%d.%d' % sys.version_info[:2]]))"


def redacted(text):
    """Return a text without user, password and query of its URLs, which may be credentials."""
    return _CREDENTIALS.sub(lambda match: (match[1] or "") + "****", text)


def project(requirement):
    """Return the normalized name of the project that a requirement names, or the requirement itself."""
    match = _NAME.match(requirement)
    return re.sub(r"[-_.]+", "-", match[1]).lower() if match else requirement


def wanted(identity, requirements, current, keep_others):
    """Return the description of the environment to have; `current` describes the existing one."""
    names = {project(requirement) for requirement in requirements}
    kept = [other for other in current.get("requirements", []) if project(other) not in names] if keep_others else []
    return {"python": identity, "requirements": sorted({*requirements, *kept})}


def identifier(description):
    """Return the directory name of an environment."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]


def read_description(directory):
    """Return the description of a complete environment, else {}."""
    try:
        with open(os.path.join(directory, MARKER), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def users(directories):
    """Return the ids of the processes that use each of the directories.

    A program of an environment has its path as the first argument, through the
    script's first line; the memory maps name its extension modules.
    """
    found = {directory: [] for directory in directories}
    for pid in [name for name in os.listdir(PROC) if name.isdigit()] if directories else []:
        text = b"\n"
        for name, separator in (("cmdline", b"\0"), ("maps", b" ")):
            try:
                with open(os.path.join(PROC, pid, name), "rb") as file:
                    text += file.read().replace(separator, b"\n") + b"\n"
            except OSError:
                # The process has ended.
                continue
        for directory, pids in found.items():
            if b"\n" + os.fsencode(directory) + b"/" in text:
                pids.append(int(pid))
    return found


def _open_private(path, flags):
    return os.open(path, flags, 0o600)


class Module(AnsibleModule):
    """A module that logs no credentials."""

    def log(self, msg, log_args=None):
        """Log a message without the credentials in its URLs."""
        super().log(redacted(msg), log_args={name: redacted(str(value)) for name, value in (log_args or {}).items()})


class Environments:
    """The environments beside a link."""

    def __init__(self, module):
        self.module = module
        self.requirements = module.params["requirements"]
        # What Ansible returns of the arguments.
        module.params["requirements"] = [redacted(requirement) for requirement in self.requirements]
        self.link = module.params["path"].rstrip("/")
        # Processes and scripts name an environment by its real path.
        self.base = os.path.join(os.path.realpath(os.path.dirname(self.link)), "environments")

    def identity(self):
        """Return the interpreter's real path and version."""
        python = self.module.params["python"]
        failed = f"cannot run the interpreter {python}"
        try:
            return json.loads(self._run([python, "-c", _IDENTITY], failed))
        except OSError as error:
            self.module.fail_json(msg=f"{failed} ({error.strerror}): install it, or set python to another one")
        except ValueError:
            self.module.fail_json(msg=f"{python} is not a Python interpreter: set python to one, such as python3")

    @contextlib.contextmanager
    def locked(self):
        """Create the directory of the environments, and hold its lock."""
        os.makedirs(self.base, mode=0o755, exist_ok=True)
        with open(os.path.join(self.base, ".lock"), "a", encoding="utf-8", opener=_open_private) as file:
            try:
                locks.acquire(file, LOCK_SECONDS)
            except TimeoutError:
                self.module.fail_json(
                    msg=f"another process has held the lock {file.name} for {LOCK_SECONDS} s: wait until the other installation ends, or end it"
                )
            yield

    def ensure(self):
        """Have the link refer to an environment with the requirements; return the module's result."""
        parameters = self.module.params
        target = os.path.realpath(self.link) if os.path.islink(self.link) else None
        current = read_description(target) if target else {}
        description = wanted(self.identity(), self.requirements, current, parameters["keep_others"])
        directory = os.path.join(self.base, identifier(description))
        changed = current != description or target != directory
        if changed:
            self.refuse_used_directory()
        if changed and not self.module.check_mode:
            if read_description(directory) != description:
                self.build(directory, description)
            self.switch(directory)
        return {
            "changed": changed,
            "path": self.link,
            "environment": directory,
            "requirements": [redacted(requirement) for requirement in description["requirements"]],
            "removed": [] if self.module.check_mode else self.remove_stale(directory),
            "diff": {"before": {"target": target}, "after": {"target": directory}},
        }

    def build(self, directory, description):
        """Create an environment; it is complete when its marker exists."""
        shutil.rmtree(directory, ignore_errors=True)
        failed = f"cannot install {redacted(', '.join(description['requirements']))}"
        try:
            self._run([self.module.params["python"], "-m", "venv", directory], f"cannot create {directory}")
            self._run(
                [
                    os.path.join(directory, "bin", "python"),
                    *("-m", "pip", "install", "--disable-pip-version-check", "--no-input"),
                    *(["--find-links", self.module.params["find_links"]] if self.module.params["find_links"] else []),
                    *("--requirement", "/dev/stdin"),
                ],
                failed,
                # All users can read a command line.
                data="\n".join(description["requirements"]),
            )
            guarded_files.write_own(os.path.join(directory, MARKER), json.dumps(description, indent=2, sort_keys=True) + "\n", durable=True)
        except OSError as error:
            self.module.fail_json(msg=f"{failed} into {directory}: {error}")
        finally:
            if not read_description(directory):
                shutil.rmtree(directory, ignore_errors=True)

    def switch(self, directory):
        """Point the link to an environment, atomically."""
        temporary = f"{self.link}.link"
        if os.path.lexists(temporary):
            os.unlink(temporary)
        os.symlink(os.path.relpath(directory, os.path.realpath(os.path.dirname(self.link))), temporary)
        if os.path.isdir(self.link) and not os.path.islink(self.link):
            # Removed with the stale environments.
            os.rename(self.link, os.path.join(self.base, f"former-{time.time_ns()}"))
        os.rename(temporary, self.link)

    def refuse_used_directory(self):
        """Fail while processes use a plain directory in the link's place: a link would give them other files."""
        if os.path.isdir(self.link) and not os.path.islink(self.link):
            pids = users([self.link])[self.link]
            if pids:
                self.module.fail_json(
                    msg=f"{self.link} is a directory that processes use ({', '.join(map(str, pids[:20]))}), so it cannot be replaced "
                    "with a link to a versioned environment: wait until the training has finished or run stop.yml, then run this again"
                )

    def remove_stale(self, current):
        """Remove the environments other than the current one that no process uses; return their paths."""
        others = [os.path.join(self.base, name) for name in sorted(os.listdir(self.base))]
        others = [path for path in others if path != current and os.path.isdir(path) and not os.path.islink(path)]
        stale = [path for path, pids in users(others).items() if not pids]
        for path in stale:
            # First of all incomplete, in case the removal is interrupted.
            marker = os.path.join(path, MARKER)
            if os.path.exists(marker):
                os.unlink(marker)
            shutil.rmtree(path)
        return stale

    def _run(self, command, failed, data=None):
        status, output, error = self.module.run_command(
            command, data=data, handle_exceptions=False, environ_update={"PIP_ROOT_USER_ACTION": "ignore"}
        )
        if status != 0:
            lines = [line.strip() for line in redacted(error or output).splitlines() if line.strip()]
            self.module.fail_json(msg=f"{failed}: {' | '.join(lines[-5:]) or f'exit status {status}'}", rc=status)
        return output


def main():
    """Run the module."""
    module = Module(
        argument_spec={
            "path": {"type": "path", "required": True},
            "requirements": {"type": "list", "elements": "str", "required": True},
            "keep_others": {"type": "bool", "default": False},
            "python": {"type": "str", "default": "python3"},
            "find_links": {"type": "path"},
        },
        supports_check_mode=True,
    )
    if not os.path.isabs(module.params["path"]):
        module.fail_json(msg=f"path is {module.params['path']!r}: it must be absolute")
    # The job's user reads what root installs.
    os.umask(0o022)
    environments = Environments(module)
    with contextlib.nullcontext() if module.check_mode else environments.locked():
        result = environments.ensure()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
