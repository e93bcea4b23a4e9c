# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""README's picture is drawn from its source, and shows the stages of site.yml."""

from __future__ import annotations

import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from draw import SOURCE, draw


@pytest.fixture(scope="module")
def source():
    return yaml.safe_load(SOURCE.read_text(encoding="utf-8"))


def test_the_picture_is_that_of_its_source(source):
    assert SOURCE.with_suffix(".svg").read_text(encoding="utf-8") == draw(source), "run: make picture"


def test_the_picture_is_valid_xml(source):
    assert xml.etree.ElementTree.fromstring(draw(source)).tag == "{http://www.w3.org/2000/svg}svg"


def test_the_stages_are_those_of_site(source):
    plays = yaml.safe_load((SOURCE.parents[1] / "playbooks/site.yml").read_text(encoding="utf-8"))
    assert [f"{stage}.yml" for stage in source["stages"]["list"]] == [play["ansible.builtin.import_playbook"] for play in plays]
