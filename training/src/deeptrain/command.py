# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command of a training as it is executed."""

from __future__ import annotations

import os


def resolved(command: list[str]) -> list[str]:
    """The command with the real directory of a virtual environment in place of a symbolic link to it.

    A Python that is started through the link would import from another environment once the link is switched.
    """
    directory, name = os.path.split(command[0])
    real = os.path.realpath(directory)
    if os.path.isabs(command[0]) and os.path.isfile(os.path.join(os.path.dirname(real), "pyvenv.cfg")):
        return [os.path.join(real, name), *command[1:]]
    return command
