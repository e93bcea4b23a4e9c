# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kinds of jobs: each is a command ``deeptrain KIND``, which the unit ``deeptrain-KIND@RUN.service`` runs."""

from __future__ import annotations

# Kind of a stage's job, in the order of the stages → the function that runs it, imported when it is called, and what it does.
STAGES = {
    "staging": ("deeptrain.staging:stage", "bring the data from S3 to HDFS"),
    "train": ("deeptrain.train:train", "run the chief's training command"),
    "export": ("deeptrain.export:export", "upload the model to S3 and verify it"),
}
# A check is no stage's: it has no work to lose.
KINDS = {"check": ("deeptrain.check:check", "see that S3 can be read and written"), **STAGES}


def units(kind: str) -> str:
    """The pattern of the units of a kind's jobs."""
    return f"deeptrain-{kind}@*.service"
