# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.deeptrain.cluster.plugins.filter.own_variables import FilterModule

own_variables = FilterModule().filters()["own_variables"]


def test_variables_of_other_collections_are_left_out():
    names = ["node_exporter_basic_auth_users", "node_python", "deeptrain_run", "runtime_of_another_project", "hadoop_archive"]
    assert own_variables(names) == ["node_python", "deeptrain_run", "hadoop_archive"]


def test_names_that_are_refused_are_kept():
    names = ["deeptrain_autostop_hour", "hadoop_archiv", "deadline_hours", "deeptrain_topology"]
    assert own_variables(names) == names
