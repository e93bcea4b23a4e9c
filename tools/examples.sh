#!/bin/sh
# Writes examples/*.radl and *.yaml from the templates of roles/im_cluster, or into another directory.
set -eu
to=$(realpath "${1:-examples}")
cd "$(dirname "$0")/.."
render() { # FILE NAME, then options
    name=$2 file=$1
    shift 2
    ansible-playbook playbooks/radl.yml --inventory inventories/static --extra-vars @examples/common.yml --extra-vars "@examples/$name.yml" \
        --extra-vars "im_cluster_file=$to/$file" "$@" >"$to/.log" || { cat "$to/.log" >&2; exit 1; }
}
for cloud in ec2 openstack egi gce azure opennebula; do
    render $cloud.radl $cloud --extra-vars im_cluster_mode=im
done
render existing.radl existing
# The machines alone, for a controller that goes on.
render ec2-push.radl ec2
render egi-tosca.yaml egi --extra-vars im_cluster_format=tosca
rm "$to/.log"
chmod 0644 "$to"/*.radl "$to"/*.yaml
