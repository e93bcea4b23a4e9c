#!/usr/bin/env bash
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs parts of the tests, each a target of make: those of one argument after each other, and the arguments side by
# side, since most of the time is spent waiting. Each line that a part prints begins with the part's name. At the
# end it says how each part ended, and of one that failed what it printed last.
set -euo pipefail

logs=.cache/test-logs
rm -rf "$logs"
mkdir -p "$logs"

# A part that failed keeps none of the later ones from running: one run shows all that is wrong.
run() {
    local part began ended
    for part; do
        began=$SECONDS
        ended=passed
        make --no-print-directory "$part" 2>&1 | tee "$logs/$part.log" | sed --unbuffered "s/^/$part: /" || ended=FAILED
        echo "== $part $ended after $((SECONDS - began)) s" | tee --append "$logs/ends"
    done
}

for parts; do
    # shellcheck disable=SC2086
    run $parts &
done
wait

cat "$logs/ends"
for part in $(sed --quiet 's/^== \(.*\) FAILED after .*/\1/p' "$logs/ends"); do
    echo "== the last lines of $part, which failed:"
    tail --lines=40 "$logs/$part.log"
done
[ "$(grep --count ' passed after ' "$logs/ends")" = "$(wc --words <<<"$*")" ]
