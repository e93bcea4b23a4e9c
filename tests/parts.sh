#!/usr/bin/env bash
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs parts of the tests, each a target of make: those of one argument after each other, and the arguments side by
# side, since most of the time is spent waiting. Each line that a part prints begins with the part's name.
set -euo pipefail

run() {
    local part began
    for part; do
        began=$SECONDS
        make --no-print-directory "$part" 2>&1 | sed --unbuffered "s/^/$part: /" || { echo "make test: $part failed"; return 1; }
        echo "== $part took $((SECONDS - began)) s"
    done
}

jobs=()
for parts; do
    # shellcheck disable=SC2086
    run $parts &
    jobs+=($!)
done
status=0
for job in "${jobs[@]}"; do wait "$job" || status=1; done
exit "$status"
