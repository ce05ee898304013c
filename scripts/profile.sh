#!/bin/bash
# Leaves CPU, allocation, block, mutex and heap profiles of the scenario c50 of
# shared/bench in ./profile, and prints where the time goes.
set -eu
cd "$(dirname "$0")/.."
: "${BENCH:=../shared/bench}"
if [ ! -x "$BENCH/peers.sh" ]; then
	echo "profile: there is no $BENCH/peers.sh. The harness is not part of this repository; set BENCH to where it is." >&2
	exit 1
fi
[ "$(id -u)" = 0 ] || { echo "profile: must be root (namespaces)" >&2; exit 1; }
export META1=$PWD/meta1 PROFILE_DIR=$PWD/profile
mkdir -p "$PROFILE_DIR"
rm -f "$PROFILE_DIR"/*.pprof
# enough messages that the profiles are taken in the middle of the run
PEERS=ours SCEN=c50 REPS=1 SCALE=${SCALE:-2000} MTA_CMD="$PWD/scripts/bench/serve.sh" \
	"$BENCH/peers.sh" >"$PROFILE_DIR/run.tsv"
for p in cpu allocs heap block mutex; do
	[ -s "$PROFILE_DIR/$p.pprof" ] || { echo "profile: no $p profile came" >&2; exit 1; }
done
go tool pprof -top -nodecount 25 "$META1" "$PROFILE_DIR/cpu.pprof" 2>/dev/null
go tool pprof -sample_index=alloc_space -top -nodecount 15 "$META1" "$PROFILE_DIR/allocs.pprof" 2>/dev/null
echo "profiles are in ./profile: go tool pprof -http=: ./meta1 profile/cpu.pprof"
