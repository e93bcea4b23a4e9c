# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the tests of plugins and modules share."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest


@pytest.fixture
def serving():
    """Return a context manager within which an HTTP server answers."""

    @contextmanager
    def serve(server):
        with server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()

    return serve
