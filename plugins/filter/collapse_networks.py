# Copyright (c) 2026, The deeptrain.cluster authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter deeptrain.cluster.collapse_networks; its documentation is in collapse_networks.yml."""

from __future__ import annotations

import ipaddress

from ansible.errors import AnsibleFilterError


def collapse_networks(sources):
    """Return addresses and networks by family, each set in its shortest form."""
    if isinstance(sources, str) or not hasattr(sources, "__iter__"):
        raise AnsibleFilterError(f"collapse_networks takes a list of addresses and networks, not {sources!r}")
    found = {4: [], 6: []}
    for source in sources:
        try:
            network = ipaddress.ip_network(str(source))
        except ValueError as error:
            raise AnsibleFilterError(f"{error}: write an address, or a network such as 192.0.2.0/24 or 2001:db8::/32") from None
        found[network.version].append(network)
    return {f"ipv{version}": [_text(network) for network in ipaddress.collapse_addresses(found[version])] for version in found}


def _text(network):
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


class FilterModule:
    """The filter, by its name."""

    def filters(self):
        """Return the filters of this file."""
        return {"collapse_networks": collapse_networks}
