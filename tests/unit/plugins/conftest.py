# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of plugins and modules share."""

from __future__ import annotations

import pytest
from ansible_collections.deeptrain.cluster.tests.unit.plugins import im_server as fake


@pytest.fixture
def serving():
    """Return a context manager within which an HTTP server answers."""
    return fake.serving


@pytest.fixture
def im_server():
    """Return a fake of the Infrastructure Manager's server."""
    with fake.serving(fake.ImServer()) as server:
        yield server
