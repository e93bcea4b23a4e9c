# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All units have the sandbox of deeptrain_hardening, and only the known exceptions to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
HARDENING = "{{ deeptrain_hardening }}"
TEMPLATES = {path.name: path for pattern in ("roles/*", "demo") for path in PROJECT.glob(f"{pattern}/templates/*.service.j2")}
# GPUs are devices, which ProtectClock restricts too.
GPU = ["PrivateDevices=no", "ProtectClock=no"]
EXCEPTIONS = {
    "deeptrain-autostop-end.service.j2": ["CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_SYS_BOOT"],
    "firewall.service.j2": ["CapabilityBoundingSet=CAP_NET_ADMIN", "PrivateTmp=no"],
    "server.service.j2": GPU,
}


def hardening() -> dict[str, str]:
    text = yaml.safe_load((PROJECT / "roles/deeptrain/vars/main/hardening.yml").read_text())["deeptrain_hardening"]
    return dict(line.split("=", 1) for line in text.splitlines())


def test_all_templates_are_found():
    assert {*EXCEPTIONS, "daemon.service.j2", "deeptrain-autostop.service.j2", "job.service.j2", "versitygw.service.j2"} == set(TEMPLATES)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_every_unit_is_hardened(name):
    lines = TEMPLATES[name].read_text().splitlines()
    assert lines.count(HARDENING) == 1
    place = lines.index(HARDENING)
    assert "[Service]" in lines[:place] and "[Install]" not in lines[:place]
    repeated = [line for line in lines if line.partition("=")[0] in hardening()]
    assert repeated == EXCEPTIONS.get(name, [])
    # systemd takes the last assignment.
    assert all(lines.index(line) > place for line in repeated)
    assert any(line.startswith("RestrictAddressFamilies=") for line in lines)


def test_a_kind_of_job_may_make_exceptions():
    lines = TEMPLATES["job.service.j2"].read_text().splitlines()
    assert lines.index(next(line for line in lines if "node_job_service" in line)) > lines.index(HARDENING)


def test_the_training_alone_reaches_the_gpus():
    found = {}
    for path in PROJECT.glob("roles/*/tasks/*.yml"):
        for task in yaml.safe_load(path.read_text()):
            service = task.get("vars", {}).get("node_job_service", {})
            found.update({task["vars"]["node_job_kind"]: [f"{name}={value}" for name, value in service.items() if name in hardening()]} if service else {})
    assert found == {"train": GPU, "export": []}
