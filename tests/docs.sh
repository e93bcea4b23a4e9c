#!/bin/sh
# Every role and plugin of the collection can be read with ansible-doc.
set -eu
for file in plugins/modules/*.py; do
    ansible-doc --type module "deeptrain.cluster.$(basename "$file" .py)" >/dev/null
done
for file in plugins/filter/*.yml; do
    ansible-doc --type filter "deeptrain.cluster.$(basename "$file" .yml)" >/dev/null
done
for file in plugins/callback/*.py; do
    ansible-doc --type callback "deeptrain.cluster.$(basename "$file" .py)" >/dev/null
done
for file in plugins/inventory/*.py; do
    ansible-doc --type inventory "deeptrain.cluster.$(basename "$file" .py)" >/dev/null
done
for role in roles/*/; do
    name="deeptrain.cluster.$(basename "$role")"
    ansible-doc --type role "$name" | grep -q "ENTRY POINT" || { echo "ansible-doc does not show role $name" >&2; exit 1; }
done
