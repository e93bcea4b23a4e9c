# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible.module_utils import basic


class Ended(Exception):
    """The module's end, with what it returned."""


@pytest.fixture
def run_module(monkeypatch):
    """Return a function that runs a module's main() with arguments and gives what it returned."""

    def end(dummy, **result):
        raise Ended(result)

    def fail(dummy, msg, **result):
        raise Ended({"failed": True, "msg": msg, **result})

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", end)
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", fail)

    def call(module, check_mode=False, **arguments):
        monkeypatch.setattr(basic, "_load_params", lambda: {**arguments, "_ansible_check_mode": check_mode})
        with pytest.raises(Ended) as caught:
            module.main()
        return caught.value.args[0]

    return call
