# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the chief asks of the real Infrastructure Manager at the autostop."""

from __future__ import annotations

import sys
import time

import pytest
from conftest import AUTH, LIMIT, PROJECT

sys.path.append(str(PROJECT / "training/src"))

from deeptrain.autostop import Manager  # noqa: E402
from deeptrain.job import BadInput, JobError  # noqa: E402


@pytest.fixture
def manager(server, modules, radl, tmp_path):
    """Makes what speaks for one infrastructure, a new one unless named."""

    def make(infrastructure=None, path="", user="tester"):
        if infrastructure is None:
            infrastructure = modules.done("im_infrastructure", radl=radl(1))["infrastructure_id"]
        file = tmp_path / "authorization"
        entries = [{**entry, "username": user} if "username" in entry else entry for entry in AUTH]
        file.write_text(r"\n".join("; ".join(f"{name} = {value}" for name, value in entry.items()) for entry in entries))
        im = {"url": server.url + path, "infrastructure_id": infrastructure, "validate_certs": True, "ca_bundle": "", "authorization": str(file)}
        return Manager(im)

    return make


def test_it_destroys_until_the_list_is_without_it(manager, modules):
    one = manager()
    one.check()
    assert one.id in modules.all()
    end = time.monotonic() + LIMIT
    while not one.destroy():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert modules.all() == {}
    assert one.destroy()
    with pytest.raises(BadInput, match="has no infrastructure"):
        one.check()


def test_a_wrong_path_or_user_destroys_nothing(manager, modules):
    one = manager()
    for other in (manager(one.id, path="/im"), manager(one.id, user="another")):
        with pytest.raises(BadInput, match=r"refuses .* \(40[34] .*check autostop_im_url"):
            other.check()
        with pytest.raises(JobError), other.as_job_errors():
            other.destroy()
    assert one.id in modules.all()
    manager(one.id).check()
