# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nodes' image: the distribution's packages, our few files, and this machine's settings."""

from __future__ import annotations

import fcntl
import hashlib
import io
import shlex
import tarfile
import tempfile
from contextlib import contextmanager
from pathlib import Path

from . import site
from .host import Host

RECIPE = Path(__file__).parent.parent / "image"
NAME = "localhost/deeptrain-node"


def ensure(host: Host, cache: Path) -> str:
    """Name and tag of the image, which is built unless there is one of the same recipe.

    The tag is the digest of all that goes into it, so a changed recipe builds anew.
    """
    with _lock(cache / "image.lock"):
        sources = site.apt_sources(host)
        packages = (RECIPE / "packages.txt").read_text(encoding="utf-8").split()
        overlay = _overlay(site.files(host))
        hook = (RECIPE / "customize.sh").read_text(encoding="utf-8")
        recipe = "\n".join([*sources, *packages, hook]).encode() + overlay
        digest = hashlib.sha256(recipe).hexdigest()[:12]

        image, archive = f"{NAME}:{digest}", cache / f"{digest}.tar"
        if _exists(host, image):
            return image
        if not archive.exists():
            print("Building the nodes' image from Debian packages, about a minute", flush=True)
            _build(host, sources, packages, overlay, archive)
        host.podman("import", "--quiet", str(archive), image)
        _remove_unused(host, but=image)
        for old in set(cache.glob("*.tar")) - {archive}:
            old.unlink()
        return image


def remove(host: Host, cache: Path) -> None:
    """Remove what was downloaded for nodes, and our images, but for those that other nodes still use."""
    _remove_unused(host)
    if cache.exists():
        host.root("rm", "-rf", str(cache))


def _remove_unused(host: Host, but: str = "") -> None:
    for found in host.podman_list("images", NAME):
        names = set(found.get("Names") or []) - {but}
        used = host.podman("ps", "--all", "--quiet", "--filter", f"ancestor={found['Id']}")
        if names and not used:
            host.podman("rmi", *names)


def _exists(host: Host, image: str) -> bool:
    return bool(host.podman("images", "--quiet", image))


def _overlay(settings: dict[str, bytes]) -> bytes:
    """A tar archive, the same for the same content, of this machine's settings and our own files."""
    ours = RECIPE / "root"
    content = settings | {f"/{path.relative_to(ours)}": path.read_bytes() for path in ours.rglob("*") if path.is_file()}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, data in sorted(content.items()):
            entry = tarfile.TarInfo("." + path)
            entry.size = len(data)
            entry.mode = 0o600 if "/auth.conf" in path else 0o440 if "/sudoers.d/" in path else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _build(host: Host, sources: list[str], packages: list[str], overlay: bytes, archive: Path) -> None:
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        extra, partial = Path(scratch, "overlay.tar"), Path(scratch, "image.tar")
        extra.write_bytes(overlay)
        # Made beforehand, so that it is ours and not root's.
        partial.touch(mode=0o600)
        apt_conf = Path(scratch, "apt.conf")
        apt_conf.write_text(site.apt_settings(), encoding="utf-8")
        host.root(
            "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase",
            f"--include={','.join(packages)}",
            f"--aptopt={apt_conf}",
            '--aptopt=APT::Install-Recommends "false"',
            # The usual places, said in full so that this machine's passwords of mirrors serve too.
            '--aptopt=Dir::Etc::netrc "/etc/apt/auth.conf"',
            '--aptopt=Dir::Etc::netrcparts "/etc/apt/auth.conf.d"',
            # A node that is thrown away needs no fsync for each file.
            "--dpkgopt=force-unsafe-io",
            f"--customize-hook=tar-in {shlex.quote(str(extra))} /",
            f"--customize-hook={shlex.quote(str(RECIPE / 'customize.sh'))} \"$1\"",
            "", str(partial), "-",
            input="".join(f"{line}\n" for line in sources),
        )  # fmt: skip
        partial.rename(archive)


@contextmanager
def _lock(path: Path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
