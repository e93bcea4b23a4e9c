# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small job: counts steps, remembers them, goes on from there, and ends as its configuration says.

config: steps, and end (succeed, fail, bad-input, or crash: once, after the first step). settings: step_seconds, and halt, the
number of steps after which it waits for a file go-on in its directory.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(directory):
    """Do the job in a directory."""
    document = json.loads((directory / "config.json").read_text())
    total, end = int(document["config"]["steps"]), document["config"].get("end")
    halt = int(document["settings"].get("halt", 0)) or total
    json.loads((Path(os.environ["CREDENTIALS_DIRECTORY"]) / "s3.json").read_text())
    (directory / "result.json").unlink(missing_ok=True)
    counter = directory / "steps"
    first = step = int(counter.read_text()) if counter.exists() else 0
    began = time.time()

    def finish(status, error=None):
        result = {
            "status": "failed" if error else "succeeded",
            "changed": step > first,
            "started": began,
            "finished": time.time(),
            "error": error,
            "summary": {"steps": step, "first_step": first, "pid": os.getpid(), "uid": os.getuid()},
        }
        part = directory / "result.part"
        part.write_text(json.dumps(result))
        part.rename(directory / "result.json")
        sys.exit(status)

    signal.signal(signal.SIGTERM, lambda number, frame: finish(143, "stopped"))
    while step < total:
        time.sleep(float(document["settings"].get("step_seconds", 0)))
        step += 1
        counter.write_text(str(step))
        rate = (step - first) / max(time.time() - began, 0.001)
        record = {
            "time": time.time(),
            "phase": "count",
            "done": step,
            "total": total,
            "unit": "steps",
            "rate": rate,
            "eta_seconds": (total - step) / rate,
            "extra": {"loss": 1.0 / step},
        }
        with open(directory / "progress.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        while halt <= step < total and not (directory / "go-on").exists():
            time.sleep(0.1)
        if end == "crash" and step == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    if end == "fail":
        finish(1, "the work failed: mend it")
    if end == "bad-input":
        finish(2, "the input is bad: mend it")
    finish(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
