#!/bin/sh
# Last step of the image: what neither packages nor plain files can say. $1: the image's root.
set -eu
root=$1

chroot "$root" update-ca-certificates >/dev/null
chroot "$root" useradd --create-home --shell /bin/bash admin
# A key is the only way in; '*' is no password, where '!' would lock the account.
chroot "$root" usermod --password '*' admin

# Each node makes its own when it starts.
rm -f "$root"/etc/ssh/ssh_host_*
: >"$root/etc/machine-id"

# Where sshd is started by a socket, there is none to answer until somebody calls.
chroot "$root" systemctl --quiet disable ssh.socket
chroot "$root" systemctl --quiet enable ssh.service

# Nothing may take apt's lock while Ansible wants it.
chroot "$root" systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer \
    dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
