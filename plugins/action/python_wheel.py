# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin deeptrain.cluster.python_wheel: pack on the controller, copy to the node."""

from __future__ import annotations

import os
import shutil
import tempfile

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.deeptrain.cluster.plugins.module_utils._wheel import (
    Wheel,
    WheelError,
)


class ActionModule(ActionBase):
    """Put a wheel of a source tree into a directory on the node."""

    def run(self, tmp=None, task_vars=None):
        """Return what ansible.builtin.copy did, and how to install the wheel."""
        super().run(tmp, task_vars)
        _result, arguments = self.validate_argument_spec(
            argument_spec={
                "src": {"type": "str", "required": True},
                "dest": {"type": "str", "required": True},
            }
        )
        directory = tempfile.mkdtemp(dir=C.DEFAULT_LOCAL_TMP)
        try:
            wheel = Wheel(self._loader.path_dwim(arguments["src"]))
            path = os.path.join(arguments["dest"], wheel.filename)
            result = self._copy(wheel.write(directory), path, task_vars)
        except WheelError as error:
            raise AnsibleActionFail(str(error)) from None
        finally:
            shutil.rmtree(directory)
        return {
            **{key: result[key] for key in ("changed", "failed", "msg", "diff", "exception") if key in result},
            "name": wheel.name,
            "version": wheel.version,
            "filename": wheel.filename,
            "path": path,
            "requirement": wheel.requirement,
        }

    def _copy(self, source, dest, task_vars):
        """Have ansible.builtin.copy put one file on the node."""
        task = self._task.copy()
        task.args = {"src": source, "dest": dest, "mode": "0644"}
        copy = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return copy.run(task_vars=task_vars)
