# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.to_cli_args; its documentation is in to_cli_args.yml."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def _plain(value):
    """Return a value; the text of one from a vault, for which ansible-core has a type of its own before 2.19."""
    return str(value) if getattr(value, "__ENCRYPTED__", False) else value


def _text(name, value):
    """Return one value of an option as the program is to read it. It may be a secret, so no message has it."""
    value = _plain(value)
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise AnsibleFilterError(
            f"option {name} has a value that is no argument: use a text, a number, true, false, null, or a list of texts and numbers"
        )
    return str(value)


def _joined(name, values):
    """Return a list as one comma-separated value."""
    texts = [_text(name, value) for value in values]
    for text in texts:
        if "," in text:
            raise AnsibleFilterError(
                f"option {name} has an item with a comma: items of a list are joined by commas"
            )
    return ",".join(texts)


def to_cli_args(options):
    """Return a dictionary of options as a program's command-line arguments."""
    if not isinstance(options, Mapping):
        raise AnsibleFilterError("the options of a program must be a dictionary, such as deeptrain_training_options: {train_steps: 100}")
    arguments = []
    seen = {}
    for name, value in options.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise AnsibleFilterError(f"{name!r} is no name of an option: write it as train_steps or train-steps")
        option = name.replace("_", "-")
        if option in seen:
            raise AnsibleFilterError(f"{seen[option]} and {name} are the same option: leave one of them out")
        seen[option] = name
        value = _plain(value)
        if value is None:
            continue
        if isinstance(value, bool):
            arguments.append(f"--{option}" if value else f"--no-{option}")
            continue
        text = _joined(name, value) if isinstance(value, (list, tuple)) else _text(name, value)
        # Apart, a value that starts with a dash would be read as an option.
        arguments += [f"--{option}={text}"] if text.startswith("-") else [f"--{option}", text]
    return arguments


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"to_cli_args": to_cli_args}
