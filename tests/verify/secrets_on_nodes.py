# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks for a secret in all that others than root could read on a node."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

# The needle comes on standard input, so the search itself shows it to nobody.
SEARCH = r"""
# The needle comes on standard input and goes into a file of root's alone, so the search itself shows it to nobody.
pattern=$(mktemp)
trap 'rm -f "$pattern"' EXIT
cat >"$pattern" <<'NEEDLE'
%s
NEEDLE
has() { grep --quiet --no-messages --text --fixed-strings --file "$pattern" "$@"; }
for process in /proc/[0-9]*; do
    if has "$process/cmdline"; then echo "argv $(cat "$process/comm")"; fi
    # A process of another user than root tells its environment to all of that user's.
    if [ "$(stat --format %%u "$process" 2>/dev/null)" != 0 ] && has "$process/environ"; then
        echo "environ $(cat "$process/comm")"
    fi
done
if journalctl --no-pager --output export --all | has; then echo journal; fi
# The journal is searched above; pip's cache is the host's, shared by its nodes.
find /etc /run /var /opt /tmp /home /root /srv /usr/local \( -path '*/log/journal' -o -path /var/cache/pip \) -prune -o \
    -type f -size -64M -print0 |
    xargs --null --no-run-if-empty grep --files-with-matches --no-messages --text --fixed-strings --file "$pattern" |
    while read -r file; do
        case "$file $(stat --format %%U:%%a "$file")" in
            *" root:600" | *" root:400") ;;
            # What systemd hands to a unit, for that unit's own user.
            "/run/credentials/deeptrain-"*" deeptrain:400") ;;
            *) echo "file $file $(stat --format '%%U %%a' "$file")" ;;
        esac
    done
"""


def find(cluster, host: str, needle: str) -> list[str]:
    """Where a string is, other than in files of root alone and in systemd's credentials; sorted."""
    return sorted(cluster.sh(host, SEARCH % needle).splitlines())


@contextlib.contextmanager
def plant(cluster, host: str, needle: str) -> Iterator[list[str]]:
    """Put a string where it must not be, and once where it may; gives what find() must find."""
    cluster.sh(
        host,
        f"""set -e
        cd /etc/deeptrain
        echo 'PLANTED={needle}' | install --mode 0600 /dev/stdin kept
        install --mode 0644 kept /var/tmp/planted
        install --mode 0640 --group deeptrain kept planted
        systemd-run --quiet --unit planted --property User=deeptrain --property EnvironmentFile=/etc/deeptrain/kept \
            sh -c 'echo "$PLANTED"; sleep 300; true' {needle}
        """,
    )
    try:
        yield [
            "argv sh",
            "environ sh",
            "environ sleep",
            "file /etc/deeptrain/planted root 640",
            "file /run/systemd/transient/planted.service root 644",
            "file /var/tmp/planted root 644",
            "journal",
        ]
    finally:
        cluster.sh(host, "systemctl stop planted; rm -f /var/tmp/planted /etc/deeptrain/planted /etc/deeptrain/kept")
