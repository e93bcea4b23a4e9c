# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import re
import subprocess
import sys
import zipfile

import pytest
from ansible_collections.deeptrain.cluster.plugins.module_utils import _wheel as module
from ansible_collections.deeptrain.cluster.plugins.module_utils._wheel import (
    Wheel,
    WheelError,
)

PYPROJECT = """
[project]
name = "Some-Thing"
version = "0.1.0"
description = "Does\\n  something"
requires-python = ">=3.9"
dependencies = ["boto3>=1.34", 'tomli ; python_version < "3.11"']
[project.optional-dependencies]
hdfs = ["hdfs-native", 'extra-thing ; python_version < "3.11" or os_name == "nt"']
[project.scripts]
something = "something.cli:main"
also = "something.cli:main"
"""


@pytest.fixture
def project(tmp_path):
    """Return a project's directory with what belongs into a wheel and what does not."""
    source = tmp_path / "project"
    package = source / "src" / "something"
    (package / "data").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").write_text("")
    (package / "cli.py").write_text("def main():\n    print('it runs')\n")
    (package / "data" / "a,b.txt").write_bytes(b"\x00data")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "cli.cpython-311.pyc").write_text("compiled")
    (package / ".hidden").write_text("hidden")
    (package / "cli.py~").write_text("backup")
    (source / "src" / "something.egg-info").mkdir()
    (source / "src" / "something.egg-info" / "PKG-INFO").write_text("old")
    return source


def written(project, directory):
    directory.mkdir(exist_ok=True)
    return Wheel(str(project)).write(str(directory))


def test_names(project):
    wheel = Wheel(str(project))
    assert re.fullmatch(r"0\.1\.0\+[0-9a-f]{8}", wheel.version)
    assert wheel.filename == f"some_thing-{wheel.version}-py3-none-any.whl"
    assert wheel.requirement == f"Some-Thing=={wheel.version}"


def test_what_is_in_it(project, tmp_path):
    wheel = Wheel(str(project))
    info = f"some_thing-{wheel.version}.dist-info"
    with zipfile.ZipFile(wheel.write(str(tmp_path))) as archive:
        assert archive.namelist() == [
            "something/__init__.py",
            "something/cli.py",
            "something/data/a,b.txt",
            f"{info}/METADATA",
            f"{info}/WHEEL",
            f"{info}/entry_points.txt",
            f"{info}/RECORD",
        ]
        assert archive.read(f"{info}/METADATA").decode() == (
            "Metadata-Version: 2.1\n"
            "Name: Some-Thing\n"
            f"Version: {wheel.version}\n"
            "Summary: Does something\n"
            "Requires-Python: >=3.9\n"
            "Requires-Dist: boto3>=1.34\n"
            'Requires-Dist: tomli ; python_version < "3.11"\n'
            "Provides-Extra: hdfs\n"
            'Requires-Dist: hdfs-native ; extra == "hdfs"\n'
            'Requires-Dist: extra-thing ; (python_version < "3.11" or os_name == "nt") and extra == "hdfs"\n'
        )
        assert archive.read(f"{info}/entry_points.txt").decode() == (
            "[console_scripts]\nalso = something.cli:main\nsomething = something.cli:main\n"
        )
        record = list(csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode())))
        assert [row[0] for row in record] == archive.namelist()
        for name, digest, length in record[:-1]:
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, length) == (f"sha256={expected}", str(len(data)))
        assert record[-1][1:] == ["", ""]


def test_the_same_sources_make_the_same_bytes(project, tmp_path):
    first = written(project, tmp_path / "first")
    cli = project / "src" / "something" / "cli.py"
    os.utime(cli, (1, 1))
    cli.chmod(0o700)
    (project / "src" / "something" / "__pycache__" / "new.pyc").write_text("other")
    second = written(project, tmp_path / "second")
    assert os.path.basename(first) == os.path.basename(second)
    with open(first, "rb") as one, open(second, "rb") as two:
        assert one.read() == two.read()


@pytest.mark.parametrize(
    "path, old, new",
    [
        ("src/something/cli.py", "it runs", "it flies"),
        ("pyproject.toml", "boto3>=1.34", "boto3>=1.35"),
        ("pyproject.toml", "also = ", "too = "),
    ],
)
def test_changed_sources_are_another_version(project, path, old, new):
    before = Wheel(str(project)).version
    file = project / path
    file.write_text(file.read_text().replace(old, new))
    assert Wheel(str(project)).version != before


def test_a_moved_file_is_another_version(project):
    before = Wheel(str(project)).version
    (project / "src" / "something" / "cli.py").rename(project / "src" / "something" / "main.py")
    assert Wheel(str(project)).version != before


def test_pip_installs_it_by_its_requirement(project, tmp_path):
    pytest.importorskip("pip")
    wheels = tmp_path / "wheels"
    written(project, wheels)
    target = tmp_path / "target"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
        + ["--target", str(target), Wheel(str(project)).requirement],
        env={**os.environ, "PIP_FIND_LINKS": str(wheels), "PYTHONPATH": ""},
        check=True,
        timeout=600,
    )
    (installed,) = importlib.metadata.distributions(path=[str(target)])
    assert installed.version == Wheel(str(project)).version
    assert len(installed.requires) == 4
    script = subprocess.run(
        [str(target / "bin" / "something")],
        env={**os.environ, "PYTHONPATH": str(target)},
        check=True,
        timeout=600,
        stdout=subprocess.PIPE,
    )
    assert script.stdout == b"it runs\n"


@pytest.mark.parametrize(
    "old, new, words",
    [
        ('version = "0.1.0"', "", "None as version in [project]"),
        ('version = "0.1.0"', 'version = "0.1.0+mine"', "'0.1.0+mine' as version"),
        ('name = "Some-Thing"', 'name = "no name"', "'no name' as name"),
        ("[project]", "[project", "no legal TOML"),
    ],
)
def test_a_project_file_that_will_not_do(project, old, new, words):
    file = project / "pyproject.toml"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(WheelError) as caught:
        Wheel(str(project))
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


def test_no_project(tmp_path):
    with pytest.raises(WheelError, match="cannot read .*No such file.*pyproject.toml"):
        Wheel(str(tmp_path))


def test_no_package(project):
    (project / "src" / "something" / "__init__.py").unlink()
    with pytest.raises(WheelError, match="has no package"):
        Wheel(str(project))


def test_no_reader_of_toml(project, monkeypatch):
    monkeypatch.setattr(module, "_TOML_READERS", ("no_such_module",))
    with pytest.raises(WheelError, match="Python 3.11"):
        Wheel(str(project))


def test_pips_reader_of_toml_serves_too(project, monkeypatch):
    pytest.importorskip("pip._vendor.tomli")
    expected = Wheel(str(project)).version
    monkeypatch.setattr(module, "_TOML_READERS", ("no_such_module", "pip._vendor.tomli"))
    assert Wheel(str(project)).version == expected
