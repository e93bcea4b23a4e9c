# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job's state means and what is to be done about it: pure functions."""

from __future__ import annotations

import re

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
KIND_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")

NONE, RUNNING, DONE, FAILED = "none", "running", "done", "failed"

# What a unit's ActiveState says of a job that is at work; "activating" is one
# that waits for its automatic restart, too.
_AT_WORK = ("active", "activating", "reloading", "deactivating")


class Refused(Exception):
    """The job cannot be started as asked; the message names the fix."""


def job_state(unit, result, has_progress):
    """Return the job's state from its unit's properties, its result document (or None) and whether it left progress."""
    if unit.get("ActiveState") in _AT_WORK:
        return RUNNING
    if result is not None and result.get("status") == "succeeded":
        return DONE
    if result is not None or has_progress or unit.get("ActiveState") == "failed":
        return FAILED
    return NONE


def differences(old, new, path=""):
    """Return the settings in which two configurations differ, as {path: {"was": …, "is": …}}."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in sorted(set(old) | set(new)):
            found.update(differences(old.get(key), new.get(key), path + "." + key if path else key))
        return found
    return {} if old == new else {path: {"was": old, "is": new}}


def describe(difference):
    """Return a difference as one readable line; of lists only what one has and the other has not."""
    parts = []
    for path, pair in difference.items():
        was, now = pair["was"], pair["is"]
        if isinstance(was, list) and isinstance(now, list):
            was, now = _list_change(was, now)
        parts.append("%s was %s and is now %s" % (path, was, now))
    return "; ".join(parts)


def _list_change(was, now):
    """Return both lists without what they share at their beginning and end."""
    start = 0
    while start < min(len(was), len(now)) and was[start] == now[start]:
        start += 1
    end = 0
    while end < min(len(was), len(now)) - start and was[-1 - end] == now[-1 - end]:
        end += 1
    # The option before a changed value says which one it is.
    start = max(0, start - 1)
    return was[start : len(was) - end], now[start : len(now) - end]


def decide(state, difference, overwrite=False, recheck=False):
    """Return what starting a job comes to: "start", "attach" or "nothing".

    The table of the design, by the state of the job of this run and kind and
    the difference of its configuration; raises Refused where it refuses.
    """
    if state == NONE:
        return "start"
    if not difference:
        if state == RUNNING:
            return "attach"
        if state == DONE:
            return "start" if recheck else "nothing"
        return "start"
    if state == RUNNING:
        fix = "stop it with stop.yml, or go on with the same configuration"
    elif state == DONE:
        fix = "choose another deeptrain_run, or go back to the same configuration"
        if recheck and overwrite:
            return "start"
    else:
        if overwrite:
            return "start"
        fix = "choose another deeptrain_run, go back to the same configuration, or set deeptrain_overwrite to true"
    raise Refused("%s with another configuration (%s): %s" % (state, describe(difference), fix))


def _amount(value, unit):
    if unit == "bytes":
        return "%.1f" % (value / 1048576.0)
    return "%d" % value if float(value).is_integer() else "%.1f" % value


def _duration(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return "%dh%02dm" % (hours, minutes)
    return "%dm%02ds" % (minutes, seconds) if minutes else "%ds" % seconds


def progress_line(record):
    """Return a progress record as a line for people."""
    unit = record.get("unit") or ""
    shown = "MiB" if unit == "bytes" else unit
    parts = [str(record.get("phase") or "")]
    done, total, rate = record.get("done"), record.get("total"), record.get("rate")
    if done is not None:
        if total:
            parts.append("%s/%s %s (%.0f %%)" % (_amount(done, unit), _amount(total, unit), shown, 100.0 * done / total))
        else:
            parts.append("%s %s" % (_amount(done, unit), shown))
    if rate:
        parts.append("%.1f %s/s" % (rate / 1048576.0 if unit == "bytes" else rate, shown))
    for name, value in (record.get("extra") or {}).items():
        parts.append("%s %s" % (name.replace("_per_second", "/s"), "%.4g" % value if isinstance(value, float) else value))
    if record.get("eta_seconds") is not None:
        parts.append("ETA %s" % _duration(record["eta_seconds"]))
    return "  ".join(part for part in parts if part)
