# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A session token is never used with another pair of keys."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.filter.s3_credentials import (
    FilterModule,
    s3_credentials,
)

ENVIRONMENT = ["env-id", "env-secret", "env-token"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((), ("env-id", "env-secret", "env-token")),
        (("id", "secret"), ("id", "secret", "")),
        (("id", "secret", "token"), ("id", "secret", "token")),
        (("id",), ("id", "env-secret", "")),
        ((None, "secret"), ("env-id", "secret", "")),
        ((None, None, "token"), ("env-id", "env-secret", "token")),
        ((None, None, ""), ("env-id", "env-secret", "")),
        (("", ""), ("", "", "")),
    ],
)
def test_the_token_belongs_to_its_keys(given, expected):
    assert tuple(FilterModule().filters()["s3_credentials"](ENVIRONMENT, *given).values()) == expected


def test_the_environment_has_three_values():
    with pytest.raises(AnsibleFilterError, match="AWS_SESSION_TOKEN"):
        s3_credentials(["id", "secret"])
