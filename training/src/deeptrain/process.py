# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The process of a training command, and how it is ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

# Below DEEPTRAIN_CACHE_DIR: where a command's relative paths lead, and its HOME.
WORK = "work"


def work_directory(cache_dir: str | os.PathLike) -> Path:
    """The directory in which a command runs; made where it does not exist."""
    directory = Path(cache_dir, WORK)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def resolved(command: list[str]) -> list[str]:
    """The command with the real directory of a virtual environment in place of a symbolic link to it.

    A Python that is started through the link would import from another environment once the link is switched.
    """
    directory, name = os.path.split(command[0])
    real = os.path.realpath(directory)
    if os.path.isabs(command[0]) and os.path.isfile(os.path.join(os.path.dirname(real), "pyvenv.cfg")):
        return [os.path.join(real, name), *command[1:]]
    return command


class Command:
    """A running command, the leader of a process group."""

    def __init__(self, command: list[str], environment: dict[str, str]):
        cache_dir = environment.get("DEEPTRAIN_CACHE_DIR")
        self.process = subprocess.Popen(resolved(command), env=environment, cwd=cache_dir and work_directory(cache_dir), start_new_session=True)
        self._signalled = False

    def terminate(self) -> None:
        """Sends SIGTERM, once, to the command alone: a second one would end a program that saves on the first."""
        if not self._signalled:
            self._signalled = True
            self.process.send_signal(signal.SIGTERM)

    def end(self, seconds: float) -> int:
        """Ends the command, with SIGKILL when the time is up; returns its exit status."""
        end = time.monotonic() + seconds
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
            # What ended and left others, such as a shell, did not pass the signal on.
            self._signal_group(signal.SIGTERM)
            while self._signal_group(0) and time.monotonic() < end:
                time.sleep(0.1)
        return self.kill()

    def kill(self) -> int:
        """Kills what is left of the command; returns its exit status."""
        self._signal_group(signal.SIGKILL)
        return self.process.wait()

    def _signal_group(self, number: int) -> bool:
        """Signals the process group; returns whether it has processes."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return False
        return True
