#!/bin/bash
# Measures meta1 and Postfix in turn in one run of shared/bench, and writes the
# result into docs/performance.md. Root; some twenty minutes.
#
#   BENCH   where shared/bench is (../shared/bench)
#   REPS    repetitions (3); SCALE percent of the message counts (100)
set -eu
cd "$(dirname "$0")/.."
: "${BENCH:=../shared/bench}" "${REPS:=3}" "${SCALE:=100}"
if [ ! -x "$BENCH/peers.sh" ]; then
	echo "bench: there is no $BENCH/peers.sh. The harness is not part of this repository; set BENCH to where it is." >&2
	exit 1
fi
[ "$(id -u)" = 0 ] || { echo "bench: must be root (namespaces, Postfix)" >&2; exit 1; }
META1=$PWD/meta1
export META1 REPS SCALE PEERS="postfix ours" MTA_CMD="$PWD/scripts/bench/serve.sh"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
echo "bench: the disk" >&2
"$BENCH/peers.sh" disk >"$out/disk.tsv"
echo "bench: throughput and latency" >&2
SCEN="c1 c50 c50nr 100k lat good hang" "$BENCH/peers.sh" >"$out/plain.tsv"
if command -v perf >/dev/null; then
	echo "bench: syncs" >&2
	COUNT_FSYNC=1 REPS=1 SCEN="c1 c50 c50nr 100k lat good hang" "$BENCH/peers.sh" >"$out/syncs.tsv"
fi
if command -v strace >/dev/null; then
	echo "bench: each sync 5 ms longer" >&2
	FSYNC_DELAY_US=5000 SCEN=c50 "$BENCH/peers.sh" >"$out/slow.tsv"
fi
echo "bench: a next hop that is down" >&2
MTA_FLUSH='$META1 queue flush --all -f "$RUN/meta1.conf"' MTA_LIST='$META1 mailq -f "$RUN/meta1.conf" >/dev/null' \
	RUN_MAX=900 SCEN=defer "$BENCH/peers.sh" >"$out/defer.tsv"
go run ./scripts/benchreport -dir "$out" -version "$("$META1" version)" docs/performance.md
