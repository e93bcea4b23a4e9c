# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""tools/hdfs_archive/build.py, with a stand-in for Maven, and the launcher, with one for Java."""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import pathlib
import subprocess
import tarfile
import zipfile

import pytest

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools" / "hdfs_archive"

spec = importlib.util.spec_from_file_location("hdfs_archive_build", TOOL / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

VERSION = build.hadoop_version(build.POM)


def jar(**files):
    """Return the bytes of a jar with {name: text}; __ stands for a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name.replace("__", "/")), text)
    return buffer.getvalue()


@pytest.fixture
def jars():
    """Jars such as Maven brings, {name: content}."""
    return {
        f"hadoop-common-{VERSION}.jar": jar(**{"META-INF__LICENSE.txt": "license", "META-INF__NOTICE.txt": "notice"}),
        f"hadoop-hdfs-{VERSION}.jar": jar(a="hdfs"),
        f"hadoop-hdfs-client-{VERSION}.jar": jar(a="client"),
        f"hadoop-hdfs-{VERSION}-tests.jar": jar(webapps__hdfs__index="page", org__Test="class"),
        "guava-1.jar": jar(a="guava"),
    }


@pytest.fixture
def maven(tmp_path, monkeypatch, jars):
    """A Maven on PATH that puts the jars where it is told to, and writes down its arguments."""
    store = tmp_path / "store"
    store.mkdir()
    for name, content in jars.items():
        (store / name).write_bytes(content)
    program = tmp_path / "bin" / "mvn"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >{tmp_path}/arguments\nfor a; do case $a in -DoutputDirectory=*) to=${{a#*=}};; esac; done\ncp {store}/* "$to"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(build, "LOCK", tmp_path / "jars.lock")
    build.LOCK.write_text(build.lock_text(jars))
    return store


def test_layout(maven, tmp_path, capsys):
    output = tmp_path / "out" / "hdfs.tar.gz"
    assert build.main(["--output", str(output)]) == 0

    digest = build.sha256(output.read_bytes())
    assert capsys.readouterr().out == f"{output}\nsha256:{digest}\n"
    assert (tmp_path / "out" / "hdfs.tar.gz.sha256").read_text() == f"{digest}  hdfs.tar.gz\n"
    top = f"hadoop-{VERSION}"
    with tarfile.open(output) as archive:
        entries = {entry.name: entry for entry in archive}
        text = {name: archive.extractfile(entry).read() for name, entry in entries.items() if entry.isfile()}
    assert {
        f"{top}/share/hadoop/{name}"
        for name in (
            f"common/hadoop-common-{VERSION}.jar",
            f"hdfs/hadoop-hdfs-{VERSION}.jar",
            f"hdfs/hadoop-hdfs-client-{VERSION}.jar",
            "common/lib/guava-1.jar",
            "hdfs/webapps/hdfs/index",
        )
    } == {name for name in text if "/share/" in name}
    assert text[f"{top}/LICENSE.txt"] == b"license" and text[f"{top}/NOTICE.txt"] == b"notice"
    assert entries[f"{top}/bin/hdfs"].mode == 0o755
    assert entries[f"{top}/etc/hadoop/log4j.properties"].mode == 0o644
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries.values()} == {(0, 0, build.TIME)}
    # A directory comes before what is in it.
    assert list(entries) == sorted(entries)


def test_same_again_whatever_the_files_times(maven, tmp_path):
    first, second = tmp_path / "a.tar.gz", tmp_path / "b.tar.gz"
    build.build(first)
    for path in maven.iterdir():
        os.utime(path, (1, 1))
    build.build(second)
    assert first.read_bytes() == second.read_bytes()


def test_repository_is_handed_to_maven(maven, tmp_path):
    build.build(tmp_path / "a.tar.gz", repository=tmp_path / "repository")
    assert f"-Dmaven.repo.local={tmp_path}/repository" in (tmp_path / "arguments").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda store: (store / "guava-1.jar").write_bytes(b"x"), "guava-1.jar: sha256 is"),
        (lambda store: (store / "guava-1.jar").unlink(), "guava-1.jar: in jars.lock, but not fetched"),
        (lambda store: (store / "more.jar").write_bytes(b"x"), "more.jar: fetched, but not in jars.lock"),
    ],
)
def test_refuses_other_jars(maven, tmp_path, capsys, change, message):
    change(maven)
    output = tmp_path / "a.tar.gz"
    assert build.main(["--output", str(output)]) == 1
    assert message in capsys.readouterr().err
    assert not output.exists()
    # A wanted change is taken over.
    assert build.main(["--output", str(output), "--update-lock"]) == 0
    assert build.main(["--output", str(output)]) == 0


def test_says_that_maven_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.main([]) == 1
    assert "install Maven" in capsys.readouterr().err


def test_says_what_maven_said(maven, tmp_path, capsys):
    (tmp_path / "bin" / "mvn").write_text("#!/bin/sh\necho no such artifact; exit 1\n")
    assert build.main(["--output", str(tmp_path / "a.tar.gz")]) == 1
    assert "no such artifact" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 1, build.BLOCK, build.BLOCK + 1, 3 * build.BLOCK])
def test_gzip(size):
    content = os.urandom(size)
    assert gzip.decompress(build.gzip(content)) == content


def test_lock_has_the_pom_s_version():
    names = [line.split()[1] for line in build.LOCK.read_text().splitlines()]
    assert names == sorted(names)
    assert f"hadoop-hdfs-{VERSION}.jar" in names


@pytest.fixture
def launch(tmp_path):
    """Run the launcher with a Java that prints its class path and arguments; return what it prints."""
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text('#!/bin/sh\necho "$CLASSPATH"\necho "$@"\n')
    java.chmod(0o755)
    home = tmp_path / "hadoop-1"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "hdfs").write_bytes((TOOL / "files" / "bin" / "hdfs").read_bytes())
    (tmp_path / "hadoop").symlink_to(home)

    def run(*arguments, **environment):
        done = subprocess.run(
            ["bash", str(tmp_path / "hadoop" / "bin" / "hdfs"), *arguments],
            env={"PATH": os.environ["PATH"], "JAVA_HOME": str(java.parents[1]), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout.splitlines(), done.stderr

    run.home = home
    return run


def test_launcher_runs_a_daemon_with_its_options(launch):
    status, (classpath, arguments), _error = launch(
        "namenode",
        "-format",
        HADOOP_CONF_DIR="/etc/hadoop",
        HADOOP_HEAPSIZE_MAX="300",
        HADOOP_OPTS="-Da=1 -Db=2",
        HDFS_NAMENODE_OPTS="-Xmx100m",
        HDFS_DATANODE_OPTS="-Dno",
        HADOOP_CLIENT_OPTS="-Dno",
    )
    assert status == 0
    # Of two heaps, Java takes the last.
    assert arguments == ("-Dproc_namenode -Xmx300m -Da=1 -Db=2 -Xmx100m org.apache.hadoop.hdfs.server.namenode.NameNode -format")
    share = f"{launch.home}/share/hadoop"
    assert classpath.split(":")[0] == "/etc/hadoop"
    assert {f"{share}/common/*", f"{share}/common/lib/*", f"{share}/hdfs", f"{share}/hdfs/*"} <= set(classpath.split(":"))


def test_launcher_runs_a_command_with_the_client_s_options(launch):
    _status, (classpath, arguments), _error = launch("dfs", "-ls", "/a b", HADOOP_CLIENT_OPTS="-Xmx1g")
    assert arguments == "-Dproc_dfs -Xmx1g org.apache.hadoop.fs.FsShell -ls /a b"
    assert classpath.startswith(f"{launch.home}/etc/hadoop:")


def test_launcher_reads_hadoop_env(launch, tmp_path):
    (tmp_path / "hadoop-env.sh").write_text('export HADOOP_OPTS="-Dfrom=env"\n')
    _status, (_classpath, arguments), _error = launch("--config", str(tmp_path), "fsck", "/")
    assert arguments == "-Dproc_fsck -Dfrom=env org.apache.hadoop.hdfs.tools.DFSck /"


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("--daemon", "start", "namenode")])
def test_launcher_says_how_it_is_used(launch, arguments):
    status, output, error = launch(*arguments)
    assert status == 2 and output == [] and error.startswith("usage: hdfs")
