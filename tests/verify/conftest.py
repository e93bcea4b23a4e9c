# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The converged cluster of the molecule scenario, as the tests use it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    if "MOLECULE_STATE" not in os.environ:
        pytest.fail("MOLECULE_STATE is not set: run tests/molecule.sh", pytrace=False)
    return Cluster(Path(os.environ["MOLECULE_STATE"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that train other runs come late, the servers being configured for those then; those that end the nodes come last."""
    late = ["test_bad_input", "test_faults", "test_autostop"]
    items.sort(key=lambda item: late.index(item.path.stem) if item.path.stem in late else -1)
