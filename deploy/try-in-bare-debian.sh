#!/usr/bin/env bash
# try-in-bare-debian.sh [COMMAND...]: runs `make demo ONCE=1` and `make test`, or COMMAND, on a clone
# of HEAD in a fresh Debian 12 that has git, make and CA certificates. Needs root and debootstrap.
# TREE=DIR keeps the system in DIR and takes it up again. What this machine knows about its package
# indexes (pip's configuration, certificates, names) is lent to the system.
set -euo pipefail
cd "$(dirname "$0")/.."

tree=${TREE:-$(mktemp -d)}
[[ -n ${TREE:-} ]] || trap 'rm -rf "$tree"' EXIT
(($#)) || set -- sh -c 'date; make demo ONCE=1 && date && make test && date'

if [[ ! -e $tree/etc/debian_version ]]; then
  debootstrap --variant=minbase --include=git,make,ca-certificates bookworm "$tree"
fi
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  [[ -e $file ]] && cp -L "$file" "$tree$file"
done
rm -rf "$tree/root/dimmer"
git clone --quiet --no-hardlinks . "$tree/root/dimmer"

mapfile -t lent < <(env | grep -E '^(PIP_(INDEX_URL|EXTRA_INDEX_URL|CERT)|[a-z]*_proxy)=' || true)
# Mounts live in a namespace of their own and end with it.
# shellcheck disable=SC2016  # the inner shell's own variables
unshare --mount --pid --fork --kill-child bash -c '
  tree=$1
  shift
  mount -t proc proc "$tree/proc"
  mount --rbind /dev "$tree/dev"
  mount -t tmpfs tmpfs "$tree/tmp"
  exec chroot "$tree" "$@"
' - "$tree" /usr/bin/env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  "${lent[@]}" bash -c 'cd /root/dimmer && exec "$@"' - "$@"
