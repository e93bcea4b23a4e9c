# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seconds of each stage, a stage being a playbook file that site.yml imports."""

from __future__ import annotations

DOCUMENTATION = r"""
name: stages
type: aggregate
short_description: Shows how long each stage of the pipeline took
version_added: 0.1.0
description:
  - Adds up the seconds of the plays by the playbook file that holds them, and shows one line at the end.
  - The stages of C(deeptrain.cluster.site) are the files that it imports.
author:
  - The deeptrain.cluster authors (@deeptrain)
options:
  file:
    description: File to which the stages are written at the end, as a JSON object of seconds by stage.
    type: path
    env:
      - name: DEEPTRAIN_STAGES_FILE
    ini:
      - section: callback_stages
        key: file
requirements:
  - enabled in configuration, C(callbacks_enabled = deeptrain.cluster.stages)
"""

import json
import os
import time

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "deeptrain.cluster.stages"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display=None):
        super().__init__(display=display)
        self._seconds = {}
        self._stage = None
        self._since = 0.0

    def _leave(self):
        now = time.monotonic()
        if self._stage is not None:
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._since = now

    def v2_playbook_on_play_start(self, play):
        self._leave()
        # The path ends with the line, as in ".../hdfs.yml:3".
        name = os.path.basename(play.get_path().rsplit(":", 1)[0])
        self._stage = os.path.splitext(name)[0]

    def v2_playbook_on_stats(self, stats):
        self._leave()
        seconds = {stage: round(value, 1) for stage, value in self._seconds.items()}
        self._display.display("Stages: " + ", ".join("%s %.1f s" % item for item in seconds.items()))
        path = self.get_option("file")
        if path:
            with open(path, "w", encoding="utf-8") as file:
                json.dump(seconds, file, indent=2)
                file.write("\n")
