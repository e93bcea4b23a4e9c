# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils._job import (
    ATTACH,
    DONE,
    FAILED,
    NONE,
    NOTHING,
    REFUSE,
    RUNNING,
    START,
    decide,
    describe,
    differences,
    duration,
    failure,
    job_state,
    name_errors,
    progress_line,
    refusal,
)

SUCCEEDED = {"status": "succeeded"}
ENDED_BADLY = {"status": "failed", "error": "the disk is full: empty it"}


@pytest.mark.parametrize(
    ("active", "result", "has_progress", "state"),
    [
        ("inactive", None, False, NONE),
        ("inactive", None, True, FAILED),
        ("inactive", SUCCEEDED, True, DONE),
        ("inactive", SUCCEEDED, False, DONE),
        ("inactive", ENDED_BADLY, True, FAILED),
        ("failed", None, False, FAILED),
        ("failed", ENDED_BADLY, True, FAILED),
        # A result that is there already, while the process still ends, ends nothing.
        ("active", SUCCEEDED, True, RUNNING),
        ("deactivating", SUCCEEDED, True, RUNNING),
        ("active", None, False, RUNNING),
        ("reloading", None, True, RUNNING),
        # Before its automatic restart.
        ("activating", ENDED_BADLY, True, RUNNING),
    ],
)
def test_state(active, result, has_progress, state):
    assert job_state({"ActiveState": active}, result, has_progress) == state


@pytest.mark.parametrize(
    ("state", "same", "plain", "overwrite", "recheck", "both"),
    [
        (NONE, True, START, START, START, START),
        (NONE, False, START, START, START, START),
        (RUNNING, True, ATTACH, ATTACH, ATTACH, ATTACH),
        (RUNNING, False, REFUSE, REFUSE, REFUSE, REFUSE),
        (DONE, True, NOTHING, NOTHING, START, START),
        (DONE, False, REFUSE, REFUSE, REFUSE, START),
        (FAILED, True, START, START, START, START),
        (FAILED, False, REFUSE, START, REFUSE, START),
    ],
)
def test_every_cell_of_the_table(state, same, plain, overwrite, recheck, both):
    assert decide(state, same) == plain
    assert decide(state, same, overwrite=True) == overwrite
    assert decide(state, same, recheck=True) == recheck
    assert decide(state, same, overwrite=True, recheck=True) == both


@pytest.mark.parametrize(
    ("state", "recheck", "fix"),
    [
        (RUNNING, False, "stop it first with stop.yml, use another deeptrain_run or go back to the old values"),
        (DONE, False, "use another deeptrain_run or go back to the old values"),
        (DONE, True, "use another deeptrain_run, go back to the old values or set deeptrain_resume_changed_training=true to start it with the new ones"),
        (
            FAILED,
            False,
            "use another deeptrain_run, go back to the old values or set deeptrain_resume_changed_training=true to start it with the new ones",
        ),
    ],
)
def test_a_refusal_names_the_difference_and_the_fix(state, recheck, fix):
    words = {RUNNING: "is running", DONE: "is done", FAILED: "has failed"}[state]
    message = refusal("train", "default", state, {"steps": {"was": 100, "is": 200}}, recheck)
    assert message == f"Job train of run default {words} with another configuration (steps was 100, is now 200): {fix}"


def test_differences_are_told_by_path():
    old = {"a": 1, "s3": {"region": "x", "style": "auto"}, "gone": "y", "list": [1, {"b": 2}]}
    new = {"a": 1, "s3": {"region": "z", "style": "auto"}, "list": [1, {"b": 3}], "new": {"c": 0}}
    assert differences(old, new) == {
        "gone": {"was": "y", "is": None},
        "list": {"was": [1, {"b": 2}], "is": [1, {"b": 3}]},
        "new": {"was": None, "is": {"c": 0}},
        "s3.region": {"was": "x", "is": "z"},
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": None}, {}),
        # What a template gives as text or as a number depends on Ansible's version.
        ({"a": "5", "b": [1, "2"], "c": {"d": True}}, {"a": 5, "b": ["1", 2], "c": {"d": "True"}}),
    ],
)
def test_what_counts_as_the_same(old, new):
    assert differences(old, new) == {}
    assert differences(new, old) == {}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": None}, {"a": "None"}),
        ({"a": ""}, {}),
        ({"a": []}, {"a": "[]"}),
        ({"a": {}}, {"a": []}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
    ],
)
def test_what_counts_as_different(old, new):
    assert list(differences(old, new)) == ["a"]
    assert list(differences(new, old)) == ["a"]


@pytest.mark.parametrize(
    ("was", "now", "text"),
    [
        ("s3://a", "s3://b", 'x was "s3://a", is now "s3://b"'),
        (None, 5, "x was not set, is now 5"),
        (["p", "--lr", "1", "--n", "2"], ["p", "--lr", "3", "--n", "2"], 'x was ["--lr", "1"], is now ["--lr", "3"]'),
        (["p", "--n", "2"], ["p", "--n", "2", "--fast"], 'x was ["2"], is now ["2", "--fast"]'),
        (["a", "a"], ["a"], 'x was ["a", "a"], is now ["a"]'),
        ([], ["a"], 'x was [], is now ["a"]'),
    ],
)
def test_a_difference_in_words(was, now, text):
    assert describe({"x": {"was": was, "is": now}}) == text


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ({"Result": "signal", "ExecMainStatus": "9"}, "it was killed by signal 9"),
        ({"Result": "oom-kill", "ExecMainStatus": "9"}, "the node ran out of memory, so give it more or the job less to do"),
        ({"Result": "exit-code", "ExecMainStatus": "203"}, "it ended with status 203"),
        ({"Result": "success", "ExecMainStatus": "0"}, "it was stopped, or the node was restarted"),
        ({"Result": "watchdog", "ExecMainStatus": "6"}, "watchdog, status 6"),
    ],
)
def test_why_a_job_without_a_result_failed(unit, text):
    message = failure("u.service", unit, None, ["one", "two"])
    assert message == f"u.service ended without a result: {text}. When it is restarted, it resumes from where it was. Its journal ends: one | two"
    assert failure("u.service", unit, None, []).endswith("from where it was")


def test_why_a_job_with_a_result_failed():
    assert failure("u.service", {"Result": "exit-code"}, ENDED_BADLY, ["one"]) == "u.service: the disk is full: empty it"


@pytest.mark.parametrize(
    ("run", "kind", "credentials", "wrong"),
    [
        ("a", "train", ["s3"], None),
        ("a" + 62 * "-", "train", [], None),
        ("a" * 64, "train", [], "deeptrain_run is"),
        ("", "train", [], "deeptrain_run is ''"),
        ("../a", "train", [], "deeptrain_run is '../a'"),
        ("A", "train", [], "deeptrain_run is 'A'"),
        ("a\n", "train", [], "deeptrain_run is"),
        ("a", "../x", [], "'../x' is no kind"),
        ("a", "train", ["s3", "../x"], "'../x' is no kind"),
    ],
)
def test_names(run, kind, credentials, wrong):
    errors = name_errors({"run": run, "kind": kind, "credentials": {name: {} for name in credentials}})
    assert (wrong in errors[0]) if wrong else errors == []


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m00s"), (110, "1m50s"), (3600, "1h00m"), (7384, "2h03m"), (180000, "50h00m")])
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            {
                "phase": "train",
                "done": 1200,
                "total": 3000,
                "unit": "steps",
                "rate": 16.42,
                "eta_seconds": 110.3,
                "extra": {"loss": 0.4312, "examples_per_second": 1050.3},
            },
            "1200/3000 steps 40.0 % 16.4 steps/s loss 0.431 examples/s 1050 ETA 1m50s",
        ),
        (
            {"phase": "copy", "done": 5242880, "total": 20971520, "unit": "bytes", "rate": 104857600.0, "eta_seconds": 0, "extra": {}},
            "copy 5/20 MiB 25.0 % 100 MiB/s ETA 0s",
        ),
        ({"phase": "list", "done": 7, "total": None, "unit": "objects", "rate": None, "eta_seconds": None}, "list 7 objects"),
        ({"phase": "evaluate"}, "evaluate"),
        ({"phase": "copy", "done": 0, "total": 0, "unit": "bytes"}, "copy 0 MiB"),
        # What a user's own command may write.
        ({}, ""),
        ({"done": 1, "total": 2}, "1/2 50.0 %"),
        ({"done": "many", "total": float("nan"), "rate": float("inf"), "eta_seconds": float("nan"), "phase": 5}, "5"),
        ({"phase": "a\n\x1b[2Jb", "unit": ["x"], "extra": "none", "eta_seconds": -1}, "a [2Jb"),
        (
            {"extra": {"note": "two\nlines", "list": [1], "big": 123456.7, "small": 1.5e-7, "flag": True}},
            "note two lines big 123457 small 1.5e-07",
        ),
    ],
)
def test_progress_as_a_line(record, line):
    assert progress_line(record, "train") == line
