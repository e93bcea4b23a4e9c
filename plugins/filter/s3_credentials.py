# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.s3_credentials; its documentation is in s3_credentials.yml."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError


def s3_credentials(environment, access_key_id=None, secret_access_key=None, session_token=None):
    """Return S3 credentials from variables, which may be None, and from the environment's three values."""
    if not isinstance(environment, (list, tuple)) or len(environment) != 3:
        raise AnsibleFilterError(
            "s3_credentials takes the list of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN of the environment"
        )
    keys = (access_key_id, secret_access_key)
    # A session token is valid with the keys that it was issued with alone.
    if session_token is None and any(key is not None for key in keys):
        session_token = ""
    given = zip((*keys, session_token), environment, strict=True)
    # str() decrypts a vaulted value.
    values = [str(default if value is None else value) for value, default in given]
    return dict(zip(("aws_access_key_id", "aws_secret_access_key", "aws_session_token"), values, strict=True))


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"s3_credentials": s3_credentials}
