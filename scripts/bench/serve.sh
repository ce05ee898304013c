#!/bin/bash
# Starts meta1 for shared/bench: MTA_CMD. The variables MTA_PORT, SINK_PORT,
# TARPIT_PORT and RUN come from there, META1 (the binary) from scripts/bench.sh. With
# PROFILE_DIR profiles of the run are left there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
spool=$RUN/spool
mkdir -p "$spool"
chown nobody:nogroup "$spool"
chmod 700 "$spool"
pprof=false
[ -z "${PROFILE_DIR:-}" ] || pprof=true
sed -e "s|@SPOOL@|$spool|; s|@USER@|nobody|; s|@GROUP@|nogroup|; s|@MTA_PORT@|$MTA_PORT|; s|@PPROF@|$pprof|" \
	"$here/meta1.conf" >"$RUN/meta1.conf"
cat >"$RUN/mt" <<-T
	hang.test $TARPIT_PORT^esmtp:[127.0.0.2]
	. $SINK_PORT^esmtp:[127.0.0.1]
T
echo "cltaddr:127. relay" >"$RUN/access"

# get PATH: fetches a page from the metrics port; only this shell is sure to be there.
get() {
	exec 3<>/dev/tcp/127.0.0.1/9025
	printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
	while IFS= read -r line <&3 && [ "$line" != $'\r' ]; do :; done
	cat <&3
	exec 3>&-
}
profiles() {
	until (exec 3<>/dev/tcp/127.0.0.1/9025) 2>/dev/null; do sleep 0.1; done
	sleep 1
	get '/debug/pprof/profile?seconds=4' >"$PROFILE_DIR/cpu.pprof"
	for p in allocs heap block mutex goroutine; do get "/debug/pprof/$p" >"$PROFILE_DIR/$p.pprof"; done
}
[ $pprof = false ] || profiles &
exec "$META1" serve -f "$RUN/meta1.conf"
