# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.im_authorization; its documentation is in im_authorization.yml."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.module_utils._im import ImError, authorization


def im_authorization(entries):
    """Return the header that carries an authorization."""
    try:
        plain = [{str(key): None if value is None else str(value) for key, value in entry.items()} for entry in entries]
    except (AttributeError, TypeError):
        raise AnsibleFilterError("im_authorization takes a list of dictionaries") from None
    try:
        return authorization(plain)
    except ImError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"im_authorization": im_authorization}
