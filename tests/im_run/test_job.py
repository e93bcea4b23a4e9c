# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every cell of the job's state table, and what may go wrong meanwhile, on the chief; here, since other nodes are busy for longer."""

from __future__ import annotations

import subprocess

from cluster import PROJECT


def test_state_table(cluster):
    done = subprocess.run(
        [PROJECT / "tests/integration/targets/job/runme.sh"],
        env=cluster.environment(JOB_INVENTORY=str(cluster.inventory)),
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
