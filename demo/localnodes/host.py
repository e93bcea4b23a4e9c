# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this machine offers to containers that run systemd, found by looking."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from functools import cached_property
from pathlib import Path

CAP_SYS_RESOURCE = 24

# What is looked for, and the Debian package that has it.
NEEDS = {
    "podman": "podman",
    "/usr/lib/podman/netavark": "netavark",
    "/usr/lib/podman/aardvark-dns": "aardvark-dns",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
    "ssh": "openssh-client",
}


class Failure(Exception):
    """Something the user can put right; its text says how."""


def find(program: str) -> str | None:
    """Path of a program, also of one that only root's PATH has."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Host:
    """This machine: how to be root on it, and what podman needs to be told."""

    @cached_property
    def sudo(self) -> list[str]:
        if os.geteuid() == 0:
            return []
        if not find("sudo"):
            raise Failure("Run this as root, or install sudo: nodes need rootful podman.")
        return ["sudo"]

    def root(self, *command: str, **options) -> subprocess.CompletedProcess:
        """Run a command as root. Its output is returned, and shown only when it fails."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        done = subprocess.run([*self.sudo, *command], check=False, **options)
        if done.returncode:
            said = (done.stderr or done.stdout or "").strip()
            raise Failure(f"{' '.join(command[:4])} … failed:\n{said[-3000:]}")
        return done

    def podman(self, *arguments: str, **options) -> str:
        """Run podman; returns what it prints."""
        return self.root("podman", *self._engine, *arguments, **options).stdout.strip()

    def podman_list(self, *arguments: str) -> list[dict]:
        """What one of podman's listings says; nothing where there is no podman."""
        if not self.has_podman:
            return []
        return json.loads(self.podman(*arguments, "--format", "json") or "[]") or []

    @cached_property
    def has_podman(self) -> bool:
        return find("podman") is not None

    @cached_property
    def _unified_cgroups(self) -> bool:
        return Path("/sys/fs/cgroup/cgroup.controllers").exists()

    @cached_property
    def _engine(self) -> list[str]:
        if not self._unified_cgroups:
            # crun starts no systemd on the v1 and the hybrid layout.
            return ["--runtime", "runc", "--cgroup-manager", "cgroupfs"]
        if not Path("/run/systemd/system").exists():
            return ["--cgroup-manager", "cgroupfs"]
        return []

    @cached_property
    def run_options(self) -> list[str]:
        """Options of `podman run` that depend on the machine."""
        options = []
        status = Path("/proc/self/status").read_text(encoding="ascii")
        bounding = int(status.split("CapBnd:")[1].split()[0], 16)
        if not bounding >> CAP_SYS_RESOURCE & 1:
            # Podman's own limits are above ours, and we may not raise them.
            for name, kind, wish in (
                ("nofile", resource.RLIMIT_NOFILE, 1048576),
                ("nproc", resource.RLIMIT_NPROC, 32768),
            ):
                hard = resource.getrlimit(kind)[1]
                limit = wish if hard == resource.RLIM_INFINITY else min(wish, hard)
                options += ["--ulimit", f"{name}={limit}:{limit}"]
        apparmor = Path("/sys/module/apparmor/parameters/enabled")
        if apparmor.exists() and apparmor.read_text(encoding="ascii").startswith("Y"):
            # Its profile for containers forbids the mounts of systemd's sandboxes.
            options += ["--security-opt", "apparmor=unconfined"]
        return options

    @cached_property
    def mtu(self) -> int:
        """MTU in bytes of the device that the default route uses, 1500 without one."""
        for line in Path("/proc/net/route").read_text(encoding="ascii").splitlines()[1:]:
            device, destination = line.split()[:2]
            if destination == "00000000":
                return int(Path(f"/sys/class/net/{device}/mtu").read_text(encoding="ascii"))
        return 1500

    def missing_packages(self) -> list[str]:
        """The Debian packages that nodes need and this machine lacks."""
        needs = dict(NEEDS)
        if not self._unified_cgroups:
            needs["runc"] = "runc"
        return [package for program, package in needs.items() if not find(program)]

    def check(self) -> None:
        """Fail, naming the fix, when nodes cannot be made here."""
        missing = self.missing_packages()
        if missing:
            raise Failure(f"Missing Debian packages: apt-get install --no-install-recommends {' '.join(missing)}")
        version = self.podman("version", "--format", "{{.Client.Version}}")
        if int(version.split(".")[0]) < 4:
            raise Failure(f"podman {version} cannot give nodes addresses of their own; 4.0 or newer is needed.")
