#!/usr/bin/env bash
# Runs the molecule scenario: create (which prepares too), converge, idempotence, verify, destroy; shows the seconds of each.
# KEEP=1 leaves the nodes; steps given as arguments are run alone, on nodes that an earlier run has left.
set -euo pipefail
cd "$(dirname "$0")/.."

export MOLECULE_CLUSTER=dtmolecule
export MOLECULE_STATE="$PWD/.cache/molecule"
export MOLECULE_HADOOP="$PWD/.cache/hadoop-3.5.0-hdfs.tar.gz"
# Else the nodes' addresses would be asked of a proxy.
export no_proxy="${no_proxy:+$no_proxy,}localhost,127.0.0.1" PY_COLORS=0 NO_COLOR=1
mkdir -p -m 0700 "$MOLECULE_STATE"

step() {
    local began=$SECONDS
    echo "-- $1"
    DEEPTRAIN_STAGES_FILE="$MOLECULE_STATE/$1.json" molecule "$1" --scenario-name site
    echo "-- $1 took $((SECONDS - began)) s"
}

destroy() { step destroy; rm -rf "$MOLECULE_STATE"; }

if [ $# -gt 0 ]; then
    for name; do step "$name"; done
    exit
fi
[ -n "${KEEP:-}" ] || trap destroy EXIT
destroy
mkdir -p -m 0700 "$MOLECULE_STATE"
for name in create converge idempotence verify; do step "$name"; done
