# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long work may fail without progress before it has failed."""

from __future__ import annotations

import time


class Patience:
    """A budget of seconds without progress. Time in which the work moves is not counted, so the work may take as long as it needs."""

    def __init__(self, seconds: float):
        self._seconds = self._left = seconds
        self._since = time.monotonic()
        self._furthest = 0

    def moved(self, position: int) -> None:
        """Notes how far the work is. Only what is further than any try before restores the budget, or tries would never end."""
        if position > self._furthest:
            self._furthest, self._left = position, self._seconds
        self._since = time.monotonic()

    def lasts(self) -> bool:
        """Charges the time since the last movement; returns whether any of the budget is left."""
        now = time.monotonic()
        self._left -= now - self._since
        self._since = now
        return self._left > 0
