#!/bin/sh
# Runs tests as on a slow and busy machine: each on one processor, of which a busy loop
# takes nine tenths. Two packages run at once if there are two processors.
# usage: slow.sh ARGUMENT OF GO TEST ...
set -eu
n=1
[ "$(nproc 2>/dev/null || echo 1)" -lt 2 ] || n=2
busy=
wrap=
for cpu in $(seq 0 $((n - 1))); do
	one=
	if command -v taskset >/dev/null; then
		one="taskset -c $cpu"
		wrap="taskset -c 0-$((n - 1))"
	fi
	$one sh -c 'while :; do :; done' &
	busy="$busy $!"
done
# shellcheck disable=SC2064 # a list of processes
trap "kill $busy" EXIT
trap 'exit 1' INT TERM
go test -p $n -exec "env GOMAXPROCS=1 nice -n 10 $wrap" "$@"
