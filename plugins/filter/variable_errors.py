# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.variable_errors; its documentation is in variable_errors.yml."""

from __future__ import annotations

import contextlib
import difflib
import json
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence

import yaml
from ansible.errors import AnsibleError
from ansible.module_utils.common.validation import check_type_bool, check_type_float, check_type_int
from jinja2.exceptions import UndefinedError

ROLES = pathlib.Path(__file__).parents[2] / "roles"
# What playbooks and the topology read, and no role's option.
OTHERS = {
    "deeptrain_transient": {"type": "bool"},
    "deeptrain_validate_remote": {"type": "bool"},
    "deeptrain_training": {"type": "dict"},
    "deeptrain_address": {"type": "str"},
    "deeptrain_ports": {"type": "dict"},
    "deeptrain_hdfs_port": {"type": "int"},
    "deeptrain_hdfs_http_port": {"type": "int"},
}
SHARED = re.compile(r"\bdeeptrain_[a-z0-9_]+")
# A default that is another variable's value: that variable has the option's type.
PASSED_ON = re.compile(r"\{\{ (deeptrain_[a-z0-9_]+) \| default\(")
SIMILAR = 0.9
# Type -> what validates it, and what to write.
CHECKS = {
    "bool": (check_type_bool, "true or false"),
    "int": (check_type_int, "a whole number"),
    "float": (check_type_float, "a number, without a unit"),
}
# Numbers of which negative ones mean nothing.
NOT_NEGATIVE = {"tensorflow_chief_no_progress_seconds": "seconds, or 0 for never"}


def options(roles=ROLES):
    """Return all variables of the roles, and those shared by them, with their specs."""
    found = dict(OTHERS)
    for file in sorted(roles.glob("*/meta/argument_specs.yml")):
        text = file.read_text(encoding="utf-8")
        for name in SHARED.findall(text):
            found.setdefault(name, {})
        for entry in yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["argument_specs"].values():
            for name, option in (entry.get("options") or {}).items():
                found[name] = option
                defaults = option.get("default")
                for default in defaults.values() if isinstance(defaults, dict) else [defaults]:
                    passed = PASSED_ON.match(default) if isinstance(default, str) else None
                    if passed and not found[passed[1]]:
                        found[passed[1]] = {"type": "str"} if isinstance(defaults, dict) else {**option, "no_log": option.get("no_log", False)}
    return found


def _is_list(value):
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _error(name, value, option):
    """Return what is wrong with a variable's value, or None."""
    secret = option.get("no_log", False)
    # How ansible-core before 2.19 hands over a value from a vault, which is a sequence, too.
    if getattr(value, "__ENCRYPTED__", False):
        value, secret = str(value), True
    shown = "a value that is not shown" if secret else repr(value)
    wanted = option.get("type", "raw")
    if wanted == "list" and not _is_list(value):
        if not isinstance(value, str) or option.get("elements", "str") == "dict" or secret:
            return f"{name} is {type(value).__name__}, not a list: write it as a list"
        try:
            words = shlex.split(value)
        except ValueError:
            words = [value]
        extra = shlex.quote(json.dumps({name: words}))
        return f"{name} is the text {value!r}, not a list: write {name}: {json.dumps(words)}, or on the command line -e {extra}"
    if wanted == "dict" and not isinstance(value, Mapping):
        return f"{name} is {type(value).__name__}, not a dictionary: write {name}: {{KEY: VALUE}}, on the command line as JSON"
    if wanted in ("str", "path") and (isinstance(value, Mapping) or _is_list(value)):
        return f"{name} is {type(value).__name__}: write it as text"
    if wanted in CHECKS:
        check, words = CHECKS[wanted]
        try:
            number = check(value)
        except (TypeError, ValueError):
            return f"{name} is {shown}: write {words}"
        if name in NOT_NEGATIVE and number < 0:
            return f"{name} is {shown}: write {NOT_NEGATIVE[name]}"
    if option.get("choices") and str(value) not in map(str, option["choices"]):
        return f"{name} is {shown}: use one of {', '.join(map(str, option['choices']))}"
    return None


def _defined(variables, names):
    """Return those of a host's variables that have a value there: one that refers to another host's variable has none."""
    found = {}
    for name in names:
        # ansible-core 2.16 leaves the template as it is, later ones raise, some as late as a value within is read.
        with contextlib.suppress(AnsibleError, KeyError, UndefinedError):
            if "{{" not in str(variables[name]):
                found[name] = variables[name]
    return found


def variable_errors(variables, names=None, roles=ROLES):
    """Return what is wrong with the names and types of variables, a message each; with names, of these among a host's variables."""
    known = options(pathlib.Path(roles))
    errors = []
    if names is not None:
        variables = {**dict.fromkeys(names), **_defined(variables, names)}
    for name, value in sorted(variables.items()):
        if name in known:
            error = None if value is None else _error(name, value, known[name])
        else:
            similar = difflib.get_close_matches(name, known, 1, SIMILAR)
            error = f"{name} is no variable of this collection: write {similar[0]}" if similar else None
        if error:
            errors.append(error)
    return errors


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"variable_errors": variable_errors}
