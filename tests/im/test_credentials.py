# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The S3 credentials of the roles and of a RADL, from the environment and from variables."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
import yaml
from conftest import PROJECT
from test_inventory import PROGRAMS

NAMES = ("deeptrain_s3_credentials", "__im_cluster_credentials")
FILES = ("deeptrain/vars/main/main.yml", "im_cluster/vars/main/cluster.yml")
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "env-id", "AWS_SECRET_ACCESS_KEY": "env-secret", "AWS_SESSION_TOKEN": "env-token"}
CASES = (
    ({}, ["env-id", "env-secret", "env-token"]),
    ({"deeptrain_s3_access_key_id": "id", "deeptrain_s3_secret_access_key": "s'e\"c{r}et"}, ["id", "s'e\"c{r}et", ""]),
    ({"deeptrain_s3_access_key_id": "", "deeptrain_s3_secret_access_key": ""}, ["", "", ""]),
)


@pytest.mark.parametrize("core", PROGRAMS)
def test_the_token_of_the_environment_is_not_mixed_with_other_keys(tmp_path, core):
    plays = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": "{{ ansible_playbook_python }}", **variables},
            "vars_files": [f"{PROJECT}/roles/{file}" for file in FILES],
            "tasks": [{"ansible.builtin.copy": {"content": f"{{{{ [{', '.join(NAMES)}] | to_json }}}}", "dest": f"{tmp_path}/{number}"}}],
        }
        for number, (variables, _expected) in enumerate(CASES)
    ]
    (tmp_path / "plays.yml").write_text(yaml.safe_dump(plays))
    subprocess.run(
        [PROGRAMS[core] / "ansible-playbook", "--inventory", "localhost,", "--connection", "local", tmp_path / "plays.yml"],
        check=True,
        env={**os.environ, **ENVIRONMENT, "ANSIBLE_CONFIG": f"{PROJECT}/ansible.cfg", "LC_ALL": "C.UTF-8"},
        cwd=PROJECT,
    )
    for number, (_variables, expected) in enumerate(CASES):
        seen = json.loads((tmp_path / f"{number}").read_text())
        assert [list(credentials.values()) for credentials in seen] == [expected] * len(NAMES)
