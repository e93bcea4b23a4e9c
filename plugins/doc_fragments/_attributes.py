# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes of all modules; a module states its exceptions itself."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Can run in check mode and report what it would change.
    support: full
  diff_mode:
    description: Shows the difference in diff mode.
    support: full
"""

    # For modules that change nothing.
    READ_ONLY = r"""
attributes:
  check_mode:
    description: Changes nothing, so that it runs in check mode as otherwise.
    support: full
  diff_mode:
    description: Changes nothing, so that there is no difference to show.
    support: N/A
"""
