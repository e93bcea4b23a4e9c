# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares each role's argument specs with its defaults, both ways."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml


def problems(role: str, specs: dict, defaults: dict, private: dict) -> list[str]:
    """What does not agree in a role, a line each."""
    found = []
    specified = {}
    for entry, spec in specs.items():
        for name, option in (spec.get("options") or {}).items():
            where = f"{role}: {name} of entry point {entry}"
            if not name.startswith(f"{role}_"):
                found.append(f"{where} does not start with the role's name")
            if "default" in option:
                specified.setdefault(name, option["default"])
                if name not in defaults:
                    found.append(f"{where} has a default in the specs alone")
                elif defaults[name] != option["default"]:
                    found.append(f"{where}: the specs say {option['default']!r}, the defaults {defaults[name]!r}")
            elif name in defaults:
                found.append(f"{where} has a default that the specs do not tell")
    for name in defaults:
        if name not in specified:
            found.append(f"{role}: default {name} is not in the specs")
    for name in private:
        # Those without underscores are derived from the options, for other roles too.
        if name in specified or not name.removeprefix("__").startswith(f"{role}_"):
            found.append(f"{role}: variable {name} in vars is an option, or does not start with __{role}_ or {role}_")
    return found


def load(*paths: Path) -> dict:
    """All variables of some YAML files."""
    found: dict = {}
    for path in paths:
        found.update(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    return found


def main(roles: Path) -> int:
    count, found = 0, []
    for role in sorted(path for path in roles.iterdir() if path.is_dir()):
        count += 1
        specs = role / "meta" / "argument_specs.yml"
        if not specs.is_file():
            found.append(f"{role.name}: has no meta/argument_specs.yml")
            continue
        found += problems(
            role.name,
            load(specs)["argument_specs"],
            load(*sorted(role.glob("defaults/**/*.yml"))),
            load(*sorted(role.glob("vars/**/*.yml"))),
        )
    for line in found:
        print(line, file=sys.stderr)
    print(f"{count} roles, {len(found)} disagreements")
    return 1 if found or not count else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "roles")))
