#!/bin/sh
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Run a command with .venv's programs, the S3 server's credentials, and no proxy between us and the nodes.
# The credentials are in the environment, so they stay out of every command line.
set -eu
cd "$(dirname "$0")/.."

PATH="$PWD/.venv/bin:$PATH"
nodes=$(sed -n 's/^ *deeptrain_address: //p' inventories/local/hosts.yml 2>/dev/null | paste -sd,)
no_proxy="${no_proxy:-${NO_PROXY:-}},$nodes"
NO_PROXY=$no_proxy
export PATH no_proxy NO_PROXY
if [ -f .demo/s3.env ]; then
    set -a
    # shellcheck source=/dev/null
    . ./.demo/s3.env
fi
exec "$@"
