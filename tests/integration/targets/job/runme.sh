#!/usr/bin/env bash
# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Every cell of the job's state table, and what may go wrong while a job runs.
# The first host of group chief in the inventory JOB_INVENTORY is a node with systemd, with become; the test puts a
# user, units and directories named deeptrain-test there, and removes them at its end.

set -eux
cd "$(dirname "$0")"

trap 'ansible-playbook -i "$JOB_INVENTORY" cleanup.yml' EXIT
ansible-playbook -i "$JOB_INVENTORY" setup.yml
ansible-playbook -i "$JOB_INVENTORY" table.yml "$@"
ansible-playbook -i "$JOB_INVENTORY" life.yml "$@"
python faults.py
