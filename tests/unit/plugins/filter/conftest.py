# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pathlib

import pytest
import yaml

ROLE = pathlib.Path(__file__).resolve().parents[4] / "roles/im_cluster"


def load(file):
    return yaml.safe_load((ROLE / file).read_text(encoding="utf-8"))


@pytest.fixture
def clouds():
    """Return role im_cluster's table of clouds."""
    return load("vars/main/clouds.yml")["__im_cluster_clouds"]


@pytest.fixture
def options():
    """Return a function that gives the role's options: its defaults, and what is set."""
    defaults = {**load("defaults/main.yml"), "im_cluster_cloud": "EC2", "im_cluster_ssh_sources": []}
    return lambda **given: {**defaults, **{f"im_cluster_{name}": value for name, value in given.items()}}
