#!/usr/bin/env bash
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Runs the molecule scenario: create (which prepares too), check mode, converge, idempotence, verify, destroy, and shows the
# seconds of each. Steps given as arguments are run alone, on nodes that are there or are left there.
set -euo pipefail
cd "$(dirname "$0")/.."

export MOLECULE_CLUSTER=dtnine
export MOLECULE_STATE="$PWD/.cache/molecule"
export MOLECULE_HADOOP="$PWD/.cache/hadoop-3.5.0-hdfs.tar.gz"
export PY_COLORS=0 NO_COLOR=1

step() {
    local began=$SECONDS status=0
    echo "-- $1"
    DEEPTRAIN_STAGES_FILE="$MOLECULE_STATE/$1.json" molecule "$1" || status=$?
    echo "-- $1 took $((SECONDS - began)) s"
    return "$status"
}

# Shows what the tests say while they run, which Ansible does not.
verify() {
    : >"$MOLECULE_STATE/verify.log"
    tail --lines=+1 --follow "$MOLECULE_STATE/verify.log" &
    local follower=$! status=0
    step verify || status=$?
    kill "$follower"
    return "$status"
}

destroy() {
    step destroy
    rm -rf "$MOLECULE_STATE"
}

run() {
    mkdir -p -m 0700 "$MOLECULE_STATE"
    case $1 in
        verify | destroy) "$1" ;;
        *) step "$1" ;;
    esac
}

if [ $# -gt 0 ]; then
    for name; do run "$name"; done
    exit
fi
# What an earlier run has left.
run destroy
trap 'run destroy' EXIT
for name in create check converge idempotence verify; do run "$name"; done
