#!/bin/sh
# apt-get that waits up to ten minutes while another one has its locks: apt-get itself
# does so for those of dpkg alone. It prints only what went wrong.
# usage: apt.sh ARGUMENT ...
set -u
export DEBIAN_FRONTEND=noninteractive
tries=0
until out=$(apt-get -q -y -o DPkg::Lock::Timeout=600 "$@" 2>&1); do
	tries=$((tries + 1))
	if [ $tries -gt 300 ] || ! echo "$out" | grep -q 'Could not get lock'; then
		echo "$out" >&2
		echo "apt.sh: apt-get $* failed" >&2
		exit 1
	fi
	[ $tries -gt 1 ] || echo "apt.sh: waiting for another apt" >&2
	sleep 2
done
