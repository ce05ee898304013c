#!/bin/bash
# Starts meta1 for shared/bench: MTA_CMD. The variables MTA_PORT, SINK_PORT,
# TARPIT_PORT and RUN come from there, META1 (the binary) from scripts/bench.sh.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
spool=$RUN/spool
mkdir -p "$spool"
chown nobody:nogroup "$spool"
chmod 700 "$spool"
sed -e "s|@SPOOL@|$spool|; s|@USER@|nobody|; s|@GROUP@|nogroup|; s|@MTA_PORT@|$MTA_PORT|" \
	"$here/meta1.conf" >"$RUN/meta1.conf"
cat >"$RUN/mt" <<-T
	hang.test $TARPIT_PORT^esmtp:[127.0.0.2]
	. $SINK_PORT^esmtp:[127.0.0.1]
T
echo "cltaddr:127. relay" >"$RUN/access"
exec "$META1" serve -f "$RUN/meta1.conf"
