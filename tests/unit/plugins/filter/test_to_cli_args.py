# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import argparse

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.deeptrain.cluster.plugins.filter.to_cli_args import (
    FilterModule,
    to_cli_args,
)


@pytest.mark.parametrize(
    "options, arguments",
    [
        ({}, []),
        (
            {"train_steps": 100, "use_distortion_for_training": True, "batch_norm": None},
            ["--train-steps", "100", "--use-distortion-for-training"],
        ),
        ({"use-distortion": False}, ["--no-use-distortion"]),
        ({"learning_rate": 0.1, "data_dir": "/a b"}, ["--learning-rate", "0.1", "--data-dir", "/a b"]),
        ({"zero": 0, "empty": ""}, ["--zero", "0", "--empty", ""]),
        ({"boundaries": [100, 200.5, "x"]}, ["--boundaries", "100,200.5,x"]),
        ({"none_of_them": []}, ["--none-of-them", ""]),
        ({"shift": -1, "name": "-x"}, ["--shift=-1", "--name=-x"]),
    ],
)
def test_arguments(options, arguments):
    assert to_cli_args(options) == arguments


def test_argparse_reads_back_what_was_said():
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int)
    parser.add_argument("--shift", type=float)
    parser.add_argument("--distort", action=argparse.BooleanOptionalAction, default=True)
    options = {"steps": 5, "shift": -1.5, "distort": False}
    assert vars(parser.parse_args(to_cli_args(options))) == options


@pytest.mark.parametrize(
    "options, words",
    [
        (["train_steps"], "must be a dictionary, such as deeptrain_training_options"),
        ({"--train-steps": 1}, "'--train-steps' is no name of an option"),
        ({3: 1}, "3 is no name of an option"),
        ({"a_b": 1, "a-b": 2}, "a_b and a-b are the same option"),
        ({"shape": {"x": 1}}, "option shape has a value that is no argument"),
        ({"flags": [True]}, "option flags has a value that is no argument"),
        ({"names": ["a,b"]}, "option names has an item with a comma"),
    ],
)
def test_options_that_cannot_be_said(options, words):
    with pytest.raises(AnsibleFilterError, match=words):
        to_cli_args(options)


@pytest.mark.parametrize("options", [["planted"], {"a": {"b": "planted"}}, {"a": ["planted,b"]}, {"a": [["planted"]]}])
def test_no_value_is_in_a_message(options):
    with pytest.raises(AnsibleFilterError) as raised:
        to_cli_args(options)
    assert "planted" not in str(raised.value)


def test_it_is_offered_by_its_name():
    assert FilterModule().filters() == {"to_cli_args": to_cli_args}
