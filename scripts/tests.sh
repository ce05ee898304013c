#!/bin/sh
# tests.sh FLAG OF GO TEST ... -- PACKAGE ...: go test, which says twice that a test fails.
#
# The tests start servers, wait for sockets and share their machine with others. A test that fails
# runs once more, alone, and one that passes then is printed as unsteady at the end: it is to be
# mended, but stops nobody. At once fail: a data race, a panic, a hang, a package that does not
# compile, more failed tests than $UNSTEADY (3), and everything that fails twice.
#
# The race detector fails by itself now and then: "ThreadSanitizer: CHECK failed", or a signal
# in its own code, which is not Go's. It reports no race then and ends the test program. Such
# a package is tried again with one thread at a time, in which the detector's own threads do not meet
# and races are found all the same. After three of its failures a package goes without.
#
# $TEST is the command, "go test" unless set.
set -u
: "${TEST:=go test}" "${UNSTEADY:=3}"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
flags=
while [ $# -gt 0 ] && [ "$1" != -- ]; do flags="$flags $1"; shift; done
[ $# -gt 1 ] || { echo "usage: tests.sh FLAG ... -- PACKAGE ..." >&2; exit 2; }
shift

# run ARGUMENT ...: the tests; $dir/out has what they print. Status: that of the command.
run() {
	# shellcheck disable=SC2086 # a list of words each
	{ $TEST $flags "$@" 2>&1; echo $? >"$dir/rc"; } | tee "$dir/out"
	return "$(cat "$dir/rc")"
}

# failed: a line for each package that failed, "test PACKAGE NAME|NAME" or "tool PACKAGE". Status 1
# if there is a failure that no second try is for, or none was found.
failed() {
	awk '
		/ThreadSanitizer: CHECK failed|^SIG(SEGV|BUS|ILL|ABRT|TRAP|FPE): / { tool = 1 }
		/WARNING: DATA RACE|^panic: |^fatal error: |^race: limit/ { ours = 1 }
		/^--- FAIL: / { names = names (names == "" ? "" : "|") $3; n++ }
		/^ok  *\t|^\?  *\t/ { tool = ours = 0; names = "" }
		/^FAIL\t/ {
			if (ours || /\[(build|setup) failed\]/) bad = 1
			else if (tool) list = list "tool " $2 "\n"
			else if (names != "") list = list "test " $2 " " names "\n"
			else bad = 1
			tool = ours = 0; names = ""
		}
		END { if (bad || list == "" || n > max) exit 1; printf "%s", list }' max="$UNSTEADY" "$dir/out"
}

run "$@" && exit 0
failed >"$dir/again" || exit 1
while read -r kind package names; do
	if [ "$kind" = test ]; then
		echo "tests.sh: once more: $package $names"
		run -run "^($names)\$" "$package" </dev/null || exit 1
		echo "UNSTEADY $package $names" >>"$dir/notes"
		continue
	fi
	for try in 2 3; do
		echo "tests.sh: the race detector failed, not a test; try $try, on one thread: $package"
		if (export GOMAXPROCS=1; run "$package" </dev/null); then
			echo "DETECTOR FAILED, then did not: $package" >>"$dir/notes"
			break
		fi
		[ "$(failed)" = "tool $package" ] || exit 1
		[ $try = 2 ] || echo "DETECTOR FAILED three times, NO RACE WAS LOOKED FOR: $package" >>"$dir/notes"
	done
done <"$dir/again"
cat "$dir/notes"
