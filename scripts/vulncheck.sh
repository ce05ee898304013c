#!/bin/sh
# Runs govulncheck, and says plainly when its database cannot be reached: that is
# no finding, and no clean bill either.
set -u
# Asked first: it takes a minute to find out otherwise.
db=${GOVULNDB:-https://vuln.go.dev}
case $db in
http*)
	if command -v curl >/dev/null && ! said=$(curl -sS -f -o /dev/null --max-time 20 "$db/index/db.json" 2>&1); then
		echo "govulncheck: NOT CHECKED, the vulnerability database does not answer: $said"
		exit 0
	fi
	;;
esac
out=$(go tool govulncheck ./... 2>&1)
rc=$?
if [ $rc -ne 0 ] && echo "$out" | grep -q 'fetching vulnerabilities'; then
	echo "govulncheck: NOT CHECKED, the vulnerability database does not answer:"
	echo "$out" | grep 'fetching vulnerabilities'
	exit 0
fi
echo "$out"
exit $rc
