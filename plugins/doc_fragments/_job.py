# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options and return values of modules job and job_info, as job.READ_ARGUMENT_SPEC."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments."""

    DOCUMENTATION = r"""
options:
  kind:
    description: Kind of the job, as in the unit's name.
    type: str
    required: true
  run:
    description: Name of the run, at most 63 of a-z, 0-9, dot, dash and underscore, a letter or digit first.
    type: str
    required: true
  config:
    description: The work of the job. It is compared with the configuration of the existing job. Must not contain secrets.
    type: dict
  overwrite:
    description:
      - Whether a failed job is started with a changed configuration.
      - With O(recheck) also a finished one, which has no work to lose since it verifies its own output.
    type: bool
    default: false
  recheck:
    description: Whether to rerun a finished job, so that it verifies its own output.
    type: bool
    default: false
  exclusive:
    description: Whether a start is refused while a job of the same kind of another run is running on the node.
    type: bool
    default: false
  state_dir:
    description: Directory of the runs.
    type: path
    default: /var/lib/deeptrain
"""
