# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import itertools
import shlex

import pytest
from ansible_collections.deeptrain.cluster.plugins.filter.variable_errors import RENAMED, SPLIT, options, variable_errors
from jinja2.exceptions import UndefinedError


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("deeptrain_command", ["python", "x.py"]),
        ("deeptrain_command", ("python", "x.py")),
        ("deeptrain_training_options", {"train_steps": 1}),
        ("deeptrain_ssh_sources", []),
        ("deeptrain_destroy_after_export", "yes"),
        ("deeptrain_run", 7),
        ("hadoop_replication", "2"),
        ("deeptrain_autostop_hours", "0.5"),
        ("tensorflow_no_progress_seconds", 0),
        ("hadoop_archive", None),
        ("tensorflow_wheel", "cpu"),
        ("runtime_of_another_project", "x"),
    ],
)
def test_right(name, value):
    assert variable_errors({name: value}) == []


class Encrypted(list):
    """As ansible-core 2.16 hands over a value from a vault: a sequence that is no str."""

    __ENCRYPTED__ = True

    def __str__(self):
        return "".join(self)


def test_a_value_from_a_vault_is_text_and_is_not_shown():
    assert variable_errors({"deeptrain_s3_proxy": Encrypted("http://planted:x@proxy")}) == []
    for name in ("deeptrain_command", "deeptrain_ports", "hadoop_replication", "tensorflow_wheel"):
        [error] = variable_errors({name: Encrypted("planted")})
        assert name in error and "planted" not in error


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("deeptrain_command", "python x.py", 'write deeptrain_command: ["python", "x.py"]'),
        ("deeptrain_command", "python 'my file.py", "not a list"),
        ("deeptrain_ssh_sources", "10.0.0.0/8", 'write deeptrain_ssh_sources: ["10.0.0.0/8"]'),
        ("hadoop_data_dirs", "/data", 'write hadoop_data_dirs: ["/data"]'),
        ("firewall_ssh_ports", 22, "not a list"),
        ("deeptrain_training_options", "train_steps=5", "not a dictionary"),
        ("deeptrain_destroy_after_export", "of course", "true or false"),
        ("hadoop_replication", "two", "a whole number"),
        ("deeptrain_autostop_hours", "12h", "a number, without a unit"),
        ("tensorflow_no_progress_seconds", "-1", "write seconds, or 0 for never"),
        ("deeptrain_autostop_max_hours", [1], "a number, without a unit"),
        ("deeptrain_data_url", ["s3://bucket/data"], "write it as text"),
        ("deeptrain_s3_endpoint_url", {"url": "x"}, "write it as text"),
        ("im_cluster_mode", "pull", "use one of"),
        ("deeptrain_export_ulr", "s3://bucket/models", "write deeptrain_export_url"),
        ("im_cluster_worker_cuont", 2, "write im_cluster_worker_count"),
        ("deeptrain_autostop_hour", 12, "write deeptrain_autostop_hours"),
        ("deeptrain_training_option", {}, "write deeptrain_training_options"),
        ("deeptrain_s3", {}, "is derived from other settings"),
        ("deeptrain_qzx", 1, "ansible-doc -t role deeptrain.cluster.deeptrain lists the settings"),
        ("deadline_state_dir", "/x", "write deeptrain_state_dir"),
        ("deeptrain_deadline_hours", 12, "write deeptrain_autostop_hours"),
        ("deadline_grace_seconds", 12, "write autostop_grace_seconds"),
        ("runtime_requirements", ["x"], "write node_requirements"),
        ("deeptrain_overwrite", True, "write deeptrain_replace_data, deeptrain_resume_changed_training or deeptrain_replace_export"),
        ("data_staging_overwrite", True, "write deeptrain_replace_data"),
        ("tensorflow_command", ["x"], "write deeptrain_command"),
        ("tensorflow_chief_command", 1, "tensorflow_chief_command is int, not a list"),
        ("model_export_target", "s3://x/y", "write deeptrain_export_url"),
        ("tensorflow_chief_checkpoint_minutes", 1, "write tensorflow_checkpoint_minutes"),
        ("preflight_credentials", {}, "write deeptrain_s3_endpoint_url"),
    ],
)
def test_wrong(name, value, words):
    (error,) = variable_errors({name: value})
    assert words in error


def test_the_fix_for_the_command_line_gives_the_list():
    (error,) = variable_errors({"deeptrain_command": "python 'my file.py'"})
    assert shlex.split(error.rpartition("-e ")[2]) == ['{"deeptrain_command": ["python", "my file.py"]}']


def test_no_value_of_a_credential_is_shown():
    assert "word" not in "".join(variable_errors({"deeptrain_s3_secret_access_key": ["word"], "autostop_im_credentials": "word"}))


def test_what_roles_derive_is_no_setting_of_a_host():
    assert variable_errors({}, ["deeptrain_s3", "deeptrain_topology"]) == []
    (error,) = variable_errors({"deeptrain_s3": {}}, ["deeptrain_s3", "deeptrain_topology"])
    assert "deeptrain_s3 is derived" in error


def test_former_names_are_none_of_today():
    assert not options().keys() & (RENAMED.keys() | SPLIT.keys())
    assert {*RENAMED.values(), *itertools.chain(*SPLIT.values())} <= options().keys()


def test_every_list_of_a_role_is_known():
    lists = [name for name, option in options().items() if option.get("type") == "list"]
    assert len(lists) > 10
    for name in lists:
        assert len(variable_errors({name: "a b"})) == 1, name


class Host(dict):
    """Variables of a host, one of which refers to what is not defined there."""

    def __getitem__(self, name):
        if name == "hadoop_archive":
            raise UndefinedError("'inventory_dir' is undefined")
        return super().__getitem__(name)


def test_a_variable_without_a_value_on_this_host_is_validated_by_its_name():
    host = Host(deeptrain_command="python x.py", deeptrain_autostop_hours="{{ hours }}", deeptrain_export_ulr="{{ other }}")
    errors = variable_errors(host, ["hadoop_archive", "deeptrain_command", "deeptrain_autostop_hours", "deeptrain_export_ulr", "deeptrain_run"])
    assert [error.split()[0] for error in errors] == ["deeptrain_command", "deeptrain_export_ulr"]
