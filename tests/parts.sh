#!/usr/bin/env bash
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs parts of the tests, each a target of make: two at a time, begun in the order given, since each waits for half
# of its time. Each line that a part prints begins with the part's name. At the end it says how each part ended, and
# of one that failed what it printed last.
set -euo pipefail

export LOGS=.cache/test-logs
rm -rf "$LOGS"
mkdir -p "$LOGS"

# A part that failed keeps none of the later ones from running: one run shows all that is wrong.
run() {
    local began=$SECONDS ended=passed
    set -o pipefail
    make --no-print-directory "$1" 2>&1 | tee "$LOGS/$1.log" | sed --unbuffered "s/^/$1: /" || ended=FAILED
    echo "== $1 $ended after $((SECONDS - began)) s" | tee --append "$LOGS/ends"
}
export -f run

printf '%s\n' "$@" | xargs --max-procs=2 --replace=PART bash -c 'run PART'

cat "$LOGS/ends"
for part in $(sed --quiet 's/^== \(.*\) FAILED after .*/\1/p' "$LOGS/ends"); do
    echo "== the errors of $part, which failed, and its last lines:"
    # Of a scenario the last lines are those of its removal.
    grep --extended-regexp '^(FAILED|ERROR|E  ) |fatal: |ERROR: ' "$LOGS/$part.log" | cut --characters=-400 | tail --lines=40 || true
    echo ...
    tail --lines=30 "$LOGS/$part.log"
done
[ "$(grep --count ' passed after ' "$LOGS/ends")" = "$#" ]
