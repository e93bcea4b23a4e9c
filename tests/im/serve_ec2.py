# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Infrastructure Manager as tools/im_server runs it, with EC2's kinds of machines said here and not in the web."""

from __future__ import annotations

import runpy
from pathlib import Path

from dry_run import offer

offer()
runpy.run_path(str(Path(__file__).parents[2] / "tools/im_server/serve.py"), run_name="__main__")
