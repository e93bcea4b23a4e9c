# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds an archive with HDFS alone, in the layout of Apache's own, from Maven artifacts.

Every jar must be in jars.lock with its sha256, so the archive is the same bit for bit wherever it is built.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pathlib
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree
import zipfile
import zlib

HERE = pathlib.Path(__file__).resolve().parent
POM = HERE / "pom.xml"
LOCK = HERE / "jars.lock"
FILES = HERE / "files"

# Seconds since 1970, of every file in the archive: 2026-01-01.
TIME = 1767225600
# A stored deflate block has a 16-bit length.
BLOCK = 65535


class BuildError(Exception):
    """The archive cannot be built; the message names the fix."""


def hadoop_version(pom):
    """Return the Hadoop version that a pom's properties name."""
    space = {"m": "http://maven.apache.org/POM/4.0.0"}
    return xml.etree.ElementTree.parse(pom).findtext("m:properties/m:hadoop.version", namespaces=space)


def fetch(directory, repository=None):
    """Have Maven put all jars of the pom into a directory.

    Raises BuildError when Maven is missing or fails.
    """
    maven = shutil.which("mvn")
    if maven is None:
        raise BuildError("mvn is not on PATH: install Maven (Debian and Ubuntu: apt-get install maven) and Java 17")
    command = [maven, "-B", "-q", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    command.append(f"-DoutputDirectory={directory}")
    if repository is not None:
        command.append(f"-Dmaven.repo.local={repository.resolve()}")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise BuildError(
            "Maven could not fetch the jars; a proxy or a mirror goes into its settings.xml. It said:\n" + "\n".join(done.stdout.splitlines()[:15])
        )


def sha256(content):
    """Return the sha256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def lock_text(jars):
    """Return a lock file's text for {name: content}, as sha256sum writes it."""
    return "".join(f"{sha256(jars[name])}  {name}\n" for name in sorted(jars))


def verify(jars, lock):
    """Compare {name: content} with a lock file's text.

    Raises BuildError that names every jar that differs, is missing, or is not listed.
    """
    expected = {name: digest for digest, name in (line.split() for line in lock.splitlines())}
    problems = [f"{name}: in {LOCK.name}, but not fetched" for name in sorted(expected.keys() - jars.keys())]
    problems += [f"{name}: fetched, but not in {LOCK.name}" for name in sorted(jars.keys() - expected.keys())]
    problems += [
        f"{name}: sha256 is {sha256(jars[name])}, {LOCK.name} has {expected[name]}"
        for name in sorted(expected.keys() & jars.keys())
        if sha256(jars[name]) != expected[name]
    ]
    if problems:
        raise BuildError("the jars are not those of the lock file; after a wanted change of pom.xml run with --update-lock:\n" + "\n".join(problems))


def place(name, version):
    """Return a jar's path in the archive, below its top directory."""
    if name == f"hadoop-common-{version}.jar":
        return f"share/hadoop/common/{name}"
    if name in (f"hadoop-hdfs-{version}.jar", f"hadoop-hdfs-client-{version}.jar"):
        return f"share/hadoop/hdfs/{name}"
    return f"share/hadoop/common/lib/{name}"


def members(jars, version):
    """Return the archive's files, {path below the top directory: content}."""
    pages = f"hadoop-hdfs-{version}-tests.jar"
    result = {place(name, version): content for name, content in jars.items() if name != pages}
    with zipfile.ZipFile(io.BytesIO(jars[pages])) as jar:
        for entry in jar.infolist():
            if entry.filename.startswith("webapps/") and not entry.is_dir():
                result[f"share/hadoop/hdfs/{entry.filename}"] = jar.read(entry)
    with zipfile.ZipFile(io.BytesIO(jars[f"hadoop-common-{version}.jar"])) as jar:
        for name in ("LICENSE.txt", "NOTICE.txt"):
            result[name] = jar.read(f"META-INF/{name}")
    for path in FILES.rglob("*"):
        if path.is_file():
            result[path.relative_to(FILES).as_posix()] = path.read_bytes()
    return result


def tar(files, top):
    """Return a tar archive of {path: content} below a top directory, independent of who makes it and when."""
    directories = {top, f"{top}/share/hadoop/hdfs/lib"}
    for path in files:
        parts = f"{top}/{path}".split("/")
        directories.update("/".join(parts[:end]) for end in range(1, len(parts)))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(directories | {f"{top}/{name}" for name in files}):
            entry = tarfile.TarInfo(path)
            entry.mtime = TIME
            entry.uname = entry.gname = "root"
            if path in directories:
                entry.type, entry.mode, content = tarfile.DIRTYPE, 0o755, b""
            else:
                content = files[path[len(top) + 1 :]]
                entry.size = len(content)
                entry.mode = 0o755 if path.startswith(f"{top}/bin/") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def gzip(content):
    """Return bytes in gzip's format, stored.

    Jars are compressed already, and what a compressor makes of them depends on its library's version.
    """
    parts = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]
    for start in range(0, max(len(content), 1), BLOCK):
        block = content[start : start + BLOCK]
        last = start + BLOCK >= len(content)
        parts += [struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF), block]
    parts.append(struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF))
    return b"".join(parts)


def write(path, content):
    """Write a file under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def build(output, repository=None, update_lock=False):
    """Build the archive and its .sha256 file; return path and sha256.

    Raises BuildError when Maven fails or a jar is not the locked one.
    """
    version = hadoop_version(POM)
    with tempfile.TemporaryDirectory() as directory:
        fetch(directory, repository)
        jars = {path.name: path.read_bytes() for path in pathlib.Path(directory).glob("*.jar")}
    if update_lock:
        write(LOCK, lock_text(jars).encode())
    verify(jars, LOCK.read_text(encoding="ascii"))

    content = gzip(tar(members(jars, version), f"hadoop-{version}"))
    path = output or pathlib.Path(f"hadoop-{version}-hdfs.tar.gz")
    write(path, content)
    digest = sha256(content)
    write(path.with_name(path.name + ".sha256"), f"{digest}  {path.name}\n".encode())
    return path, digest


def main(arguments=None):
    """Build as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(description="Build an archive with HDFS alone from Maven artifacts.")
    parser.add_argument("--output", type=pathlib.Path, metavar="FILE", help="archive to write (default: hadoop-VERSION-hdfs.tar.gz)")
    parser.add_argument(
        "--maven-repository",
        type=pathlib.Path,
        metavar="DIR",
        help="where Maven keeps what it fetched (default: its own)",
    )
    parser.add_argument("--update-lock", action="store_true", help="write jars.lock anew, after a change of pom.xml")
    options = parser.parse_args(arguments)
    try:
        path, digest = build(options.output, options.maven_repository, options.update_lock)
    except (BuildError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{path}\nsha256:{digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
