# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parsing of untrusted JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def parse(content: str | bytes, object_hook: Callable[[dict], Any] | None = None) -> Any:
    """Parse a JSON document; ValueError where it is none, also where it is nested too deeply."""
    try:
        return json.loads(content, object_hook=object_hook)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
