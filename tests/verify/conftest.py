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
    """Those that train other runs come last: the servers are configured for those then."""
    items.sort(key=lambda item: item.path.stem in ("test_bad_input", "test_faults"))
