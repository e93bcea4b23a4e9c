# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How this machine reaches apt and pip, in the form that a node needs it."""

from __future__ import annotations

import configparser
import io
import os
import re
import subprocess
from pathlib import Path

from .host import Failure, Host

CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
CA_DIRECTORY = Path("/usr/local/share/ca-certificates")
PIP_CACHE = "/var/cache/pip"
DISTRIBUTIONS = ("Debian", "Ubuntu")
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
# What says how packages are reached, and nothing that says where they go.
PIP_SETTINGS = {
    "index-url", "extra-index-url", "trusted-host", "proxy", "cert",
    "default-timeout", "timeout", "retries",
}  # fmt: skip
APT_SETTINGS = re.compile(r'Acquire::(https?(::[\w.-]+)*|Retries|ForceIPv[46]|Check-Valid-Until|Check-Date) "[^"]')


def proxies() -> dict[str, str]:
    """The proxy variables of this environment, by their names in small letters."""
    found = {name: os.environ.get(name) or os.environ.get(name.upper()) for name in PROXIES}
    return {name: value for name, value in found.items() if value}


def apt_sources(host: Host) -> list[str]:
    """This machine's sources of the distribution's own packages, as lines of a sources.list.

    Third-party repositories are left out.
    """
    lines = _apt_sources()
    if not lines:
        # Who is behind a source is known only when its lists have been fetched.
        host.root("apt-get", "update")
        lines = _apt_sources()
    if not lines:
        raise Failure("apt has no source of Debian's or Ubuntu's packages: see /etc/apt/sources.list.d/.")
    return lines


def _apt_sources() -> list[str]:
    fields = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SOURCESENTRY)"
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", fields, "Created-By: Packages"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    components: dict[tuple[str, str, str], list[str]] = {}
    for line in targets.splitlines():
        origin, uri, suite, component, entry = line.split("|")
        if origin in DISTRIBUTIONS:
            known = components.setdefault((_mirror(uri), suite, _keyring(entry)), [])
            if component not in known:
                known.append(component)
    return [
        " ".join(["deb", *([f"[signed-by={keyring}]"] if keyring else []), uri, suite, *names])
        for (uri, suite, keyring), names in components.items()
    ]


def _mirror(uri: str) -> str:
    """The address itself where apt is given a file of mirrors, as cloud images do."""
    if not uri.startswith("mirror+file:"):
        return uri
    listed = Path(uri.removeprefix("mirror+file:").rstrip("/")).read_text(encoding="utf-8")
    return listed.split()[0]


def _keyring(entry: str) -> str:
    """File of the key that a source names, "" when it names none.

    `entry` is FILE:NUMBER, of a line in a .list file and of a stanza in a .sources file.
    """
    file, number = entry.rsplit(":", 1)
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    if file.endswith(".sources"):
        stanzas = "\n".join(line for line in lines if not line.startswith("#")).strip()
        lines = re.split(r"\n\s*\n", stanzas)
    named = re.search(r"(?i)\bsigned-by\s*[:=]\s*(/[^\s\],]+)", lines[int(number) - 1])
    return named[1] if named else ""


def apt_settings() -> str:
    """apt's proxies, certificates and the like, as a file of /etc/apt/apt.conf.d/."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    lines = [line for line in dump.splitlines() if APT_SETTINGS.match(line) and "Auto-Detect" not in line]
    for scheme in ("http", "https"):
        proxy = proxies().get(f"{scheme}_proxy")
        if proxy and not any(line.startswith(f"Acquire::{scheme}::Proxy ") for line in lines):
            lines.append(f'Acquire::{scheme}::Proxy "{proxy}";')
    return "".join(f"{line}\n" for line in lines)


def pip_settings() -> str:
    """pip's indexes, proxy and certificates, and the nodes' common cache, as /etc/pip.conf."""
    files = [Path("/etc/pip.conf"), Path("~/.pip/pip.conf"), Path("~/.config/pip/pip.conf")]
    if os.environ.get("PIP_CONFIG_FILE"):
        files.append(Path(os.environ["PIP_CONFIG_FILE"]))
    parser = configparser.RawConfigParser()
    parser.read([file.expanduser() for file in files])
    settings = {
        name.replace("_", "-"): value
        for section in ("global", "install")
        if parser.has_section(section)
        for name, value in parser.items(section)
    }
    settings |= {
        name[4:].lower().replace("_", "-"): value for name, value in os.environ.items() if name.startswith("PIP_")
    }
    settings = {name: value for name, value in settings.items() if name in PIP_SETTINGS and value}
    if "cert" not in settings:
        bundle = os.environ.get("REQUESTS_CA_BUNDLE")
        if not bundle and any(CA_DIRECTORY.rglob("*.crt")):
            bundle = CA_BUNDLE
        if bundle:
            settings["cert"] = bundle
    proxy = proxies().get("https_proxy") or proxies().get("http_proxy")
    if proxy:
        settings.setdefault("proxy", proxy)
    settings["cache-dir"] = PIP_CACHE

    written = configparser.RawConfigParser()
    written["global"] = dict(sorted(settings.items()))
    text = io.StringIO()
    written.write(text)
    return text.getvalue()


def files(host: Host) -> dict[str, bytes]:
    """Contents of the files, by their path on the node, that make it reach what this machine reaches."""
    apt, pip = apt_settings(), pip_settings()
    environment = "".join(f"{key}={value}\n" for name, value in proxies().items() for key in (name, name.upper()))
    found = {
        "/etc/apt/apt.conf.d/80host": apt.encode(),
        "/etc/pip.conf": pip.encode(),
        "/etc/environment": environment.encode(),
    }
    named = re.findall(r"signed-by=([^\]]+)", "".join(apt_sources(host)))
    named += re.findall(r'(?i)::(?:CaInfo|SslCert|SslKey) "([^"]+)"', apt)
    named += re.findall(r"(?m)^cert = (.+)$", pip)
    copied = [Path(name) for name in named if name != CA_BUNDLE]
    copied += CA_DIRECTORY.rglob("*.crt")
    copied += Path("/etc/apt/trusted.gpg.d").glob("*")
    copied += [Path("/etc/apt/auth.conf"), *Path("/etc/apt/auth.conf.d").glob("*")]
    for path in copied:
        if path.is_file():
            # Passwords of mirrors are for root alone, here as there.
            found[str(path)] = host.root("cat", str(path), text=False).stdout
    return found
