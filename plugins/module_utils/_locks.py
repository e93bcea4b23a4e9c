# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks between processes on one host."""

from __future__ import annotations

import fcntl
import time

_INTERVAL = 0.2


def acquire(file, seconds):
    """Take the exclusive lock of an open file (an object or a descriptor), which is released when the file is closed.

    Raises TimeoutError when another process holds it for so many seconds.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise TimeoutError(f"another process has held the lock for {seconds} s") from None
        time.sleep(_INTERVAL)
