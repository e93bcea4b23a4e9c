# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.filter.trains import FilterModule

trains = FilterModule().filters()["trains"]
# 1790000000 s since 1970.
DATE = "Mon, 21 Sep 2026 14:13:20 GMT"


@pytest.mark.parametrize(("age", "seconds", "expected"), [(0, 120, True), (119, 120, True), (121, 120, False), (40, 30, False), (-5, 120, True)])
def test_a_mark_is_fresh_for_so_long(age, seconds, expected):
    answer = {"status": 200, "date": DATE, "json": {"FileStatus": {"modificationTime": (1790000000 - age) * 1000}}}
    assert trains(answer, seconds) is expected


@pytest.mark.parametrize("answer", [{"status": 404, "date": DATE}, {"skipped": True}])
def test_without_a_mark_nothing_trains(answer):
    assert trains(answer) is False


@pytest.mark.parametrize("answer", [{"status": 200}, {"status": 200, "date": "today", "json": {"FileStatus": {"modificationTime": 1}}}])
def test_another_answer_is_refused(answer):
    with pytest.raises(AnsibleFilterError, match="GETFILESTATUS"):
        trains(answer)
