# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's state, what a start of it does, and messages about it: pure functions."""

from __future__ import annotations

import json
import math
import re

# What names a job, and what a start of it is compared by.
READ_ARGUMENT_SPEC = {
    "kind": {"type": "str", "required": True},
    "run": {"type": "str", "required": True},
    "config": {"type": "dict"},
    "overwrite": {"type": "bool", "default": False},
    "recheck": {"type": "bool", "default": False},
    "exclusive": {"type": "bool", "default": False},
    "state_dir": {"type": "path", "default": "/var/lib/deeptrain"},
}
# The arguments of module job, validated on the controller and on the node alike.
ARGUMENT_SPEC = {
    **READ_ARGUMENT_SPEC,
    "state": {"type": "str", "choices": ["started", "armed", "stopped"], "default": "started"},
    "settings": {"type": "dict", "default": {}},
    "credentials": {"type": "dict", "default": {}, "no_log": True},
    "at_boot": {"type": "bool", "default": False},
    "user": {"type": "str", "default": "deeptrain"},
    "credentials_dir": {"type": "path", "default": "/run/deeptrain/credentials", "no_log": False},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 0},
    "poll": {"type": "float", "default": 5},
    "progress_interval": {"type": "float", "default": 5},
    "unreachable_timeout": {"type": "int", "default": 600},
}
REQUIRED_IF = [("state", "started", ["config"]), ("state", "armed", ["config"])]
INFO_ARGUMENT_SPEC = {
    **READ_ARGUMENT_SPEC,
    "progress_offset": {"type": "int", "default": 0},
    "renew_lease": {"type": "bool", "default": False},
}

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")

NONE, RUNNING, DONE, FAILED = "none", "running", "done", "failed"
START, ATTACH, NOTHING, REFUSE = "start", "attach", "nothing", "refuse"

# What is done about a job by its state, and by whether its configuration is the same.
_ACTIONS = {
    (NONE, True): START,
    (NONE, False): START,
    (RUNNING, True): ATTACH,
    (RUNNING, False): REFUSE,
    (DONE, True): NOTHING,
    (DONE, False): REFUSE,
    (FAILED, True): START,
    (FAILED, False): REFUSE,
}

# Why systemd itself ended a start, by systemd.exec(5).
_STATUS = {"243": ", since its credentials are missing, as after a restart of the node"}

# A unit that waits for its automatic restart is "activating".
_AT_WORK = ("active", "activating", "reloading", "deactivating")


def name_errors(arguments):
    """Return what is wrong with the names among a module's arguments: messages, none when all is well."""
    errors = []
    if not RUN_NAME.fullmatch(arguments["run"]):
        errors.append(f"deeptrain_run is '{arguments['run']}': use at most 63 of a-z, 0-9, dot, dash and underscore, a letter or digit first")
    for name in [arguments["kind"], *arguments.get("credentials", ())]:
        if not NAME.fullmatch(name):
            errors.append(f"'{name}' is no kind of job and no name of credentials: use a-z, 0-9 and dash, a letter first")
    return errors


def job_state(unit, result, has_progress):
    """Return the job's state from its unit's properties, its result document (or None) and whether it left progress."""
    if unit.get("ActiveState") in _AT_WORK:
        return RUNNING
    # Its last start has failed, whatever an earlier one has left.
    if unit.get("ActiveState") == "failed":
        return FAILED
    if result is not None and result.get("status") == "succeeded":
        return DONE
    if result is not None or has_progress:
        return FAILED
    return NONE


# Kind of job -> the setting that a user sets for `overwrite`.
OVERWRITE = {"staging": "deeptrain_replace_data", "train": "deeptrain_resume_changed_training", "export": "deeptrain_replace_export"}


def decide(state, same, overwrite=False, recheck=False):
    """Return what starting a job comes to: START, ATTACH, NOTHING or REFUSE.

    ``overwrite`` starts a failed job though its configuration is another;
    ``recheck`` starts a done one again, and both together a done one with
    another configuration: what checks its own work has none to lose.
    """
    if state == DONE and recheck and (same or overwrite):
        return START
    if state == FAILED and overwrite:
        return START
    return _ACTIONS[state, same]


def uses_role(credentials):
    """Return whether credentials are given, and all empty: the job then uses the role of the machine."""
    return bool(credentials) and not any(value for content in credentials.values() for value in content.values())


def occupied(kind, others):
    """Return the message of a job that is refused since other runs have the cluster's servers."""
    return (
        f"Job {kind} of run {', '.join(others)} is running, and the servers of this cluster serve one run at a time: wait for its end, "
        f"or stop it first with stop.yml and deeptrain_run={others[0]}"
    )


def refusal(kind, run, state, difference, recheck=False):
    """Return the message of a job that is refused: the difference, and what to do about it."""
    fixes = ["use another deeptrain_run", "go back to the old values"]
    if state == RUNNING:
        fixes.insert(0, "stop it first with stop.yml")
    elif state == FAILED or recheck:
        fixes.append(f"set {OVERWRITE.get(kind, 'overwrite')}=true to start it with the new ones")
    fix = f"{', '.join(fixes[:-1])} or {fixes[-1]}"
    is_now = {RUNNING: "is running", DONE: "is done", FAILED: "has failed"}[state]
    return f"Job {kind} of run {run} {is_now} with another configuration ({describe(difference)}): {fix}"


def differences(old, new, path=""):
    """Return where two configurations differ, as {path: {"was": …, "is": …}}; what is not set is None."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = {}
        for key in sorted(set(old) | set(new)):
            found.update(differences(old.get(key), new.get(key), path + "." + key if path else key))
        return found
    return {} if _as_text(old) == _as_text(new) else {path: {"was": old, "is": new}}


def _as_text(value):
    """Return a value with its numbers as text: which of both a template gives depends on Ansible's version."""
    if isinstance(value, dict):
        return {key: _as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return value if value is None else str(value)


def describe(difference):
    """Return a difference as one readable line; of lists only what one has and the other has not."""
    parts = []
    for path, pair in difference.items():
        was, now = pair["was"], pair["is"]
        if isinstance(was, list) and isinstance(now, list):
            was, now = _list_change(was, now)
        was, now = ("not set" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True) for value in (was, now))
        parts.append(f"{path} was {was}, is now {now}")
    return "; ".join(parts)


def _list_change(was, now):
    """Return both lists without what they share at their beginning and end."""
    shorter = min(len(was), len(now))
    start = 0
    while start < shorter and was[start] == now[start]:
        start += 1
    end = 0
    while end < shorter - start and was[-1 - end] == now[-1 - end]:
        end += 1
    # The option before a changed value says which one it is.
    start = max(0, start - 1)
    return was[start : len(was) - end], now[start : len(now) - end]


def failure(unit_name, unit, result, log):
    """Return why a job failed: its own words, or else what systemd and the journal know."""
    reason, status = unit.get("Result", ""), unit.get("ExecMainStatus", "")
    # Stopped for want of memory, a job says no more than that it was stopped.
    if result is not None and result.get("error") and reason != "oom-kill":
        return f"{unit_name}: {result['error']}"
    why = {
        "success": "it was stopped, or the node was restarted",
        "oom-kill": "the node ran out of memory, so give it more or the job less to do",
        "signal": f"it was killed by signal {status}",
        "core-dump": f"it crashed with signal {status}",
        "timeout": "it did not end in time and was killed",
        "exit-code": f"it ended with status {status}{_STATUS.get(str(status), '')}",
    }.get(reason, f"{reason}, status {status}")
    message = f"{unit_name} ended without a result: {why}. When it is restarted, it resumes from where it was"
    return f"{message}. Its journal ends: {' | '.join(log)}" if log else message


def _finite(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _number(value):
    """Return a number as text: integers in full, others in three digits."""
    return f"{value:.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.3g}"


def _word(value):
    """Return a text in one line, without what would steer a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())


def duration(seconds):
    """Return seconds as people say them, such as 1m50s."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


def progress_line(record, kind=""):
    """Return a record of progress as a line for people, whatever a command may have written there.

    Bytes are shown as MiB, and the phase only where it is not the job's kind.
    """
    unit, scale = _word(record.get("unit") or ""), None
    if unit == "bytes":
        unit, scale = "MiB", 1048576.0
    done, total, rate = ((value / scale if scale else value) if _finite(value) else None for value in (record.get(name) for name in ("done", "total", "rate")))
    phase = _word(record.get("phase") or "")
    parts = [phase] if phase != kind else []
    if done is not None and total:
        parts.append(f"{_number(done)}/{_number(total)} {unit} {100.0 * done / total:.1f} %")
    elif done is not None:
        parts.append(f"{_number(done)} {unit}")
    if rate:
        parts.append(f"{_number(rate)} {unit}/s")
    extra = record.get("extra")
    for name, value in extra.items() if isinstance(extra, dict) else ():
        if _finite(value) or isinstance(value, str):
            parts.append(f"{_word(name).replace('_per_second', '/s')} {_number(value) if _finite(value) else _word(value)}")
    eta = record.get("eta_seconds")
    if _finite(eta) and eta >= 0:
        parts.append(f"ETA {duration(eta)}")
    return " ".join(" ".join(parts).split())
