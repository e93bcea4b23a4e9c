# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On the ready cluster nothing is left to do."""

from __future__ import annotations

import json
import re

from stages import SITE

# Of the demo's training the target is 1/8. Here the training is a tenth as long, and the packages come from a cache,
# so that the first run is short; the bound is one that a second run which did the work again would not keep.
SECOND_RUN_SHARE = 1 / 2


def test_second_run_is_short(cluster):
    first, second = (json.loads((cluster.state / f"{name}.json").read_text()) for name in ("converge", "idempotence"))
    share = sum(second.values()) / sum(first.values())
    print(f"first run {first}, second run {second}: {share:.3f} of the first's time, 1/{1 / share:.1f}")
    assert list(first) == list(second) == SITE
    assert share <= SECOND_RUN_SHARE


def test_check_mode_changes_nothing_and_tells_no_secret(cluster):
    run = cluster.play("site", "--check", "--diff", "-vvv").succeeded()
    # The controller itself deploys and destroys nothing here.
    assert set(run.recap()) - {"localhost"} == set(cluster.nodes)
    assert run.changed() == {}
    assert cluster.secret not in run.text()
    # What runs is what was installed.
    paths = re.findall(r"^task path: (.*):\d+$", run.text(), re.MULTILINE)
    assert paths
    assert all(path.startswith(f"{cluster.state}/collections/ansible_collections/deeptrain/cluster/") for path in paths)


# A machine whose image has cloud-init, which is to write /etc/hosts at each boot, and lines as images have them.
# The services of cloud-init are masked and never finish, so cloud-init is marked as disabled.
CLOUD_INIT = """cp --archive /etc/hosts /root/hosts
printf '127.0.1.1\\t%s.example.org\\t%s\\n::1 localhost %s\\n' "$(hostname)" "$(hostname)" "$(hostname)" >>/etc/hosts
DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null
DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends cloud-init </dev/null
systemctl mask cloud-init-local cloud-init cloud-config cloud-final
printf 'manage_etc_hosts: true\\ndatasource_list: [None]\\n' >/etc/cloud/cloud.cfg.d/99-test.cfg
touch /etc/cloud/cloud-init.disabled
"""
BOOT = "cloud-init init --local; cloud-init single --name update_etc_hosts --frequency always; rm --force /run/cloud-init/status.json"
REMOVE = """DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 purge --yes cloud-init </dev/null
systemctl unmask cloud-init-local cloud-init cloud-config cloud-final
rm -rf /etc/cloud /var/lib/cloud /run/cloud-init
cat /root/hosts >/etc/hosts
"""


def test_names_outlive_cloud_init(cluster):
    host = cluster.groups["worker"][-1]
    names = {name: variables["deeptrain_address"] for name, variables in cluster.hosts.items() if name in cluster.nodes}

    def resolved() -> dict:
        # The network of the nodes has a resolver that knows them too.
        return {name: cluster.sh(host, f"getent --service=files ahostsv4 {name}").split()[0] for name in names}

    try:
        cluster.sh(host, CLOUD_INIT)
        arguments = ("host.yml", "--limit", host)
        assert cluster.play(*arguments, verify_role="node", verify_entry="main").succeeded().changed() != {}
        assert resolved() == names
        cluster.sh(host, BOOT)
        assert "manage_etc_hosts" in cluster.sh(host, "cat /etc/hosts"), "cloud-init has not written the file"
        assert resolved() == names
        assert cluster.play(*arguments, verify_role="node", verify_entry="main").succeeded().changed() == {}
    finally:
        cluster.sh(host, REMOVE)
    assert resolved() == names
