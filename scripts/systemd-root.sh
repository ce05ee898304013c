#!/bin/sh
# Makes a small Debian 12 with systemd in a directory, for "make systemd", unless it is there. Needs root and a mirror of Debian.
# usage: systemd-root.sh DIRECTORY
set -eu
root=$1
apt=$(cd "$(dirname "$0")" && pwd)/apt.sh
[ ! -e "$root/made" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "systemd-root: run this as root" >&2; exit 1; }
command -v debootstrap >/dev/null || { "$apt" update && "$apt" install --no-install-recommends debootstrap; }
rm -rf "$root.new"
mkdir -p "$root.new"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "systemd-root: unpacking Debian 12 into $root"
debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,iproute2,procps,logrotate \
	bookworm "$root.new" "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$log" 2>&1 || { tail -n 20 "$log" >&2; exit 1; }
rm -f "$root.new"/var/cache/apt/archives/*.deb
touch "$root.new/made"
rm -rf "$root"
mv "$root.new" "$root"
