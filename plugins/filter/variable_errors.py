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
# The role that owns the shared variables.
SETTINGS = "deeptrain"
# Minimum similarity of an unknown name to a known one. Variables of other collections may begin with runtime_ and the like.
SIMILAR = 0.9
SIMILAR_SETTING = 0.8
# Former names that are not those of a role's copy of a setting.
RENAMED = {
    "deeptrain_cluster": "im_cluster_name",
    "deeptrain_cluster_id": "hadoop_cluster_id",
    "deeptrain_runtime_ready": "node_ready",
    "deeptrain_training": "deeptrain_training_options",
    "deeptrain_transient": "deeptrain_destroy_after_export",
    "data_staging_source": "deeptrain_data_url",
    "data_staging_overwrite": "deeptrain_replace_data",
    "deadline_hours": "deeptrain_autostop_hours",
    "deadline_max_hours": "deeptrain_autostop_max_hours",
    "firewall_enabled": "deeptrain_firewall",
    "firewall_ssh_sources": "deeptrain_ssh_sources",
    "hadoop_home_user": "deeptrain_user",
    "im_cluster_carry_credentials": "im_cluster_embed_credentials",
    "im_cluster_own_namenode": "im_cluster_dedicated_namenode",
    "im_cluster_way": "im_cluster_mode",
    "model_export_overwrite": "deeptrain_replace_export",
    "model_export_target": "deeptrain_export_url",
    "preflight_archive": "hadoop_archive",
    "preflight_archive_checksum": "hadoop_archive_checksum",
    "preflight_connect_timeout": "deeptrain_connect_timeout",
    "preflight_remote": "deeptrain_validate_remote",
    "preflight_source": "deeptrain_data_url",
    "preflight_target": "deeptrain_export_url",
    "preflight_wheel": "tensorflow_wheel",
    "runtime_ca_bundle": "deeptrain_s3_ca_bundle",
    "tensorflow_chief_checkpoint_minutes": "tensorflow_checkpoint_minutes",
    "tensorflow_chief_overwrite": "deeptrain_resume_changed_training",
    "tensorflow_chief_no_progress_seconds": "tensorflow_no_progress_seconds",
    "tensorflow_chief_target": "deeptrain_export_url",
    "tensorflow_chief_timeout": "tensorflow_timeout",
    "tensorflow_overwrite": "deeptrain_resume_changed_training",
}
# A former name of several settings.
SPLIT = {"deeptrain_overwrite": ("deeptrain_replace_data", "deeptrain_resume_changed_training", "deeptrain_replace_export")}
# Former prefixes of names whose rest is unchanged.
RENAMED_PREFIXES = {"deadline_": "autostop_", "deeptrain_deadline_": "deeptrain_autostop_", "runtime_": "node_"}
COPY = re.compile(
    r"(?:data_staging|deadline|model_export|preflight|runtime|tensorflow|tensorflow_chief)"
    r"_(run|user|home|state_dir|cache_dir|replace_export|data_dir|command)"
)
# These were a role's copy of several settings.
COPIES = re.compile(r"(?:data_staging|model_export|preflight|tensorflow_chief)_(s3|credentials)")
# Type -> what validates it, and what to write.
CHECKS = {
    "bool": (check_type_bool, "true or false"),
    "int": (check_type_int, "a whole number"),
    "float": (check_type_float, "a number, without a unit"),
}
# Numbers of which negative ones mean nothing.
NOT_NEGATIVE = {"tensorflow_no_progress_seconds": "seconds, or 0 for never"}


def _load(file):
    return yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def options(roles=ROLES):
    """Return the variables of all roles with their specs."""
    found = {}
    for file in sorted(roles.glob("*/meta/argument_specs.yml")):
        for entry in _load(file)["argument_specs"].values():
            found.update(entry.get("options") or {})
    return found


def computed(roles=ROLES):
    """Return the names that the roles derive from the settings."""
    return {name for file in (roles / SETTINGS / "vars" / "main").glob("*.yml") for name in _load(file)}


def _is_setting(name):
    return name.startswith(f"{SETTINGS}_")


def _name_error(name, known):
    """Return what is wrong with an unknown name, or None."""
    if copy := COPY.fullmatch(name):
        return f"{name} does not exist: write {SETTINGS}_{copy[1]}"
    if COPIES.fullmatch(name):
        return f"{name} does not exist: write {SETTINGS}_s3_endpoint_url, {SETTINGS}_s3_access_key_id and so on"
    if name in SPLIT:
        return f"{name} does not exist: write {', '.join(SPLIT[name][:-1])} or {SPLIT[name][-1]}"
    if name in RENAMED:
        return f"{name} does not exist: write {RENAMED[name]}"
    for former, prefix in RENAMED_PREFIXES.items():
        if name.startswith(former) and (present := prefix + name.removeprefix(former)) in known:
            return f"{name} does not exist: write {present}"
    similar = difflib.get_close_matches(name, known, 1, SIMILAR_SETTING if _is_setting(name) else SIMILAR)
    if similar:
        return f"{name} does not exist: write {similar[0]}"
    if _is_setting(name):
        return f"{name} does not exist: ansible-doc -t role deeptrain.cluster.{SETTINGS} lists the settings"
    return None


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


def problem(name, value, known, derived):
    """Return what is wrong with a variable, by what options() and computed() return, or None."""
    if name in derived:
        return f"{name} is derived from other settings: leave it out, and set those that ansible-doc -t role deeptrain.cluster.{SETTINGS} lists"
    if name not in known:
        return _name_error(name, known)
    return None if value is None else _error(name, value, known[name])


def variable_errors(variables, names=None, roles=ROLES):
    """Return what is wrong with the names and types of variables, a message each; with names, of these among a host's variables."""
    roles = pathlib.Path(roles)
    known, computed_names = options(roles), computed(roles)
    if names is not None:
        given = _defined(variables, names)
        # The roles themselves have these, too.
        variables = {**dict.fromkeys(name for name in names if name not in computed_names), **given}
    return [error for name, value in sorted(variables.items()) if (error := problem(name, value, known, computed_names))]


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"variable_errors": variable_errors}
