# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pack a pure-Python project into a wheel, the same bit for bit each time.

The project is a directory with pyproject.toml, whose table [project] is read,
and its packages under src/. No build tool takes part. The version gets a local
label from the content's digest, so that changed sources are another version.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import re
import zipfile

# Python 3.10 has no TOML reader of its own, but its pip has one.
_TOML_READERS = ("tomllib", "tomli", "pip._vendor.tomli")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"([0-9]+!)?[0-9]+(\.[0-9]+)*((a|b|rc)[0-9]+)?(\.post[0-9]+)?(\.dev[0-9]+)?")
# The first moment that a zip archive can name.
_TIME = (1980, 1, 1, 0, 0, 0)


class WheelError(ValueError):
    """The sources make no wheel; the message names the fix."""


class Wheel:
    """A wheel in memory: name, version, filename, requirement, and its files."""

    def __init__(self, source):
        """Read the project in the directory `source`; raise WheelError where it makes no wheel."""
        project = _read_project(source)
        files = _read_packages(os.path.join(source, "src"))
        entry_points = _entry_points(project)
        metadata = _metadata(project)
        content = {**files, "/METADATA": metadata.encode(), "/entry_points.txt": entry_points.encode()}

        self.name = project["name"]
        self.version = f"{project['version']}+{_digest(content)[:8]}"
        stem = f"{re.sub(r'[-_.]+', '_', self.name).lower()}-{self.version}"
        self.filename = f"{stem}-py3-none-any.whl"
        self.requirement = f"{self.name}=={self.version}"

        info = f"{stem}.dist-info"
        self._files = {
            **files,
            f"{info}/METADATA": metadata.replace(
                f"\nVersion: {project['version']}\n", f"\nVersion: {self.version}\n", 1
            ).encode(),
            f"{info}/WHEEL": b"Wheel-Version: 1.0\n"
            b"Generator: deeptrain.cluster\n"
            b"Root-Is-Purelib: true\n"
            b"Tag: py3-none-any\n",
        }
        if entry_points:
            self._files[f"{info}/entry_points.txt"] = entry_points.encode()
        self._files[f"{info}/RECORD"] = _record(self._files, f"{info}/RECORD")

    def write(self, directory):
        """Write the wheel into a directory and return its path."""
        path = os.path.join(directory, self.filename)
        # Stored, not deflated: compressed bytes differ between versions of zlib.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, data in self._files.items():
                entry = zipfile.ZipInfo(name, _TIME)
                entry.create_system = 3
                entry.external_attr = 0o100644 << 16
                archive.writestr(entry, data)
        return path


def _read_project(source):
    path = os.path.join(source, "pyproject.toml")
    reader = _toml_reader()
    try:
        with open(path, "rb") as file:
            document = reader.load(file)
    except OSError as error:
        raise WheelError(
            f"cannot read {path}: {error.strerror}; src must be a directory with a pyproject.toml"
        ) from error
    except ValueError as error:
        raise WheelError(f"{path} is no legal TOML: {error}") from error
    project = document.get("project", {})
    for key, pattern in (("name", _NAME), ("version", _VERSION)):
        if not pattern.fullmatch(str(project.get(key, ""))):
            raise WheelError(
                f"{path} has {project.get(key)!r} as {key} in [project]: write a plain {key} there, without a local label"
            )
    return project


def _toml_reader():
    for name in _TOML_READERS:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise WheelError("reading pyproject.toml takes Python 3.11 or newer on the controller, or its package tomli")


def _read_packages(source):
    """Return the bytes of all files below `source` by their archive names, in sorted order."""
    files = {}
    for directory, subdirectories, names in os.walk(source):
        subdirectories[:] = [
            name
            for name in subdirectories
            if name != "__pycache__" and not name.startswith(".") and not name.endswith(".egg-info")
        ]
        for name in names:
            if name.startswith(".") or name.endswith((".pyc", "~")):
                continue
            path = os.path.join(directory, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, source).replace(os.sep, "/")] = file.read()
    if not any(name.endswith("/__init__.py") for name in files):
        raise WheelError(f"{source} has no package: there must be a directory with an __init__.py in it")
    return dict(sorted(files.items()))


def _metadata(project):
    lines = ["Metadata-Version: 2.1", f"Name: {project['name']}", f"Version: {project['version']}"]
    if "description" in project:
        lines.append(f"Summary: {' '.join(project['description'].split())}")
    if "requires-python" in project:
        lines.append(f"Requires-Python: {project['requires-python']}")
    lines += [f"Requires-Dist: {requirement}" for requirement in project.get("dependencies", [])]
    for extra, requirements in project.get("optional-dependencies", {}).items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {_of_extra(requirement, extra)}" for requirement in requirements]
    return "\n".join(lines) + "\n"


def _of_extra(requirement, extra):
    """Return a requirement that counts only when its extra is wanted."""
    what, separator, marker = requirement.partition(";")
    condition = f'extra == "{extra}"'
    if separator:
        condition = f"({marker.strip()}) and {condition}"
    return f"{what.strip()} ; {condition}"


def _entry_points(project):
    scripts = project.get("scripts", {})
    if not scripts:
        return ""
    return "\n".join(["[console_scripts]", *(f"{name} = {target}" for name, target in sorted(scripts.items()))]) + "\n"


def _digest(files):
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{len(name.encode())} {len(data)} {name}".encode())
        digest.update(data)
    return digest.hexdigest()


def _record(files, own_name):
    lines = []
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        quoted = '"' + name.replace('"', '""') + '"' if set(name) & set(',"') else name
        lines.append(f"{quoted},sha256={digest},{len(data)}")
    return "\n".join([*lines, f"{own_name},,", ""]).encode()
