# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pathlib

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.filter.variable_errors import ROLES, options
from ansible_collections.deeptrain.cluster.plugins.filter.variable_prefixes import FilterModule

variable_prefixes = FilterModule().filters()["variable_prefixes"]


def test_roles_settings_and_former_prefixes():
    stages = [{"plays": [{"role": "firewall"}, {"role": "hadoop", "entry": "ready"}]}, {"plays": [{"role": "hadoop"}]}]
    assert variable_prefixes(stages) == ["deadline", "deeptrain", "deeptrain_deadline", "firewall", "hadoop", "runtime"]


def test_they_are_those_of_all_variables():
    stages = yaml.safe_load(pathlib.Path(ROLES, "deeptrain/vars/main/stages.yml").read_text(encoding="utf-8"))["deeptrain_stages"]
    prefixes = tuple(f"{prefix}_" for prefix in variable_prefixes(stages))
    assert [name for name in options() if not name.startswith(prefixes)] == []


@pytest.mark.parametrize("stages", ["train", ["train"], [{"name": "train"}]])
def test_stages_of_a_user_are_refused(stages):
    with pytest.raises(AnsibleFilterError, match="leave it out"):
        variable_prefixes(stages)
