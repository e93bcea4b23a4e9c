# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action plugin deeptrain.cluster.im_infrastructure: runs the module, and shows meanwhile what it waits for."""

from __future__ import annotations

import contextlib
import tempfile
import threading

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

LOOK_SECONDS = 1


class ActionModule(ActionBase):
    """Run the module, which writes its progress to a file."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp=None, task_vars=None):
        """Return the module's result."""
        super().run(tmp, task_vars)
        args = dict(self._task.args)
        # The file of another machine, or of a task in the background, could not be read meanwhile.
        here = self._connection.transport == "local" and not self._task.async_val and "progress_file" not in args
        with self._showing(args, task_vars["inventory_hostname"]) if here else contextlib.nullcontext():
            return self._execute_module(module_args=args, task_vars=task_vars, wrap_async=self._task.async_val)

    @contextlib.contextmanager
    def _showing(self, args, host):
        """Give the module a file, and show each line that comes into it."""
        with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:
            ended = threading.Event()

            def show():
                while True:
                    last = ended.wait(LOOK_SECONDS)
                    for line in file:
                        # Ansible buffers stdout where it is no terminal, stderr it does not.
                        display.display(f"{host}: {line.rstrip()}", stderr=True)
                    if last:
                        return

            args["progress_file"] = file.name
            thread = threading.Thread(target=show)
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
