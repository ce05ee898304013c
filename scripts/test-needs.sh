#!/bin/sh
# Installs what the tests need, on Debian and as root; otherwise says what is
# missing and fails. Nothing that listens on a port is installed: Postfix's tools
# are unpacked under $META1_TEST_CACHE.
set -eu
cache=${META1_TEST_CACHE:-/var/cache/meta1-test}
peers=$cache/peers

say() { echo "test-needs: $*"; }
die() { say "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The Go image stands behind the test of the container, where an engine answers.
image=${GO_IMAGE:-golang:1.26-bookworm}
engine() { have docker && docker version >/dev/null 2>&1; }

missing=
need() { have "$1" || missing="$missing $2"; }
need git git
need gcc gcc      # the race detector
need swaks swaks
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need mount mount
need ip iproute2
need cdb tinycdb
[ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"
# They read our DSNs.
perl -MSisimai -e 1 2>/dev/null || missing="$missing libsisimai-perl"
/usr/bin/python3 -c 'import flufl.bounce' 2>/dev/null || missing="$missing python3-flufl.bounce"
if engine && ! docker image inspect "$image" >/dev/null 2>&1; then need debootstrap debootstrap; fi
tools=
[ -x "$peers/usr/sbin/smtp-source" ] && [ -x "$peers/usr/sbin/smtp-sink" ] && [ -e "$peers/usr/lib/postfix/postfix-cdb.so" ] ||
	tools="postfix postfix-cdb"
have unbound || [ -x "$peers/usr/sbin/unbound" ] || tools="$tools unbound"

if [ -n "$missing$tools" ]; then
	have apt-get || die "install these, then try again:$missing $tools (smtp-source and smtp-sink of Postfix)"
	[ "$(id -u)" = 0 ] || die "run this as root, or install: apt-get install$missing; missing too: ${tools:-nothing} in $peers"
	apt-cache policy postfix 2>/dev/null | grep -q 'Candidate: [0-9]' || apt-get -q update
fi
if [ -n "$missing" ]; then
	say "installing$missing"
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing >"/tmp/test-needs.$$" 2>&1 ||
		{ cat "/tmp/test-needs.$$" >&2; rm -f "/tmp/test-needs.$$"; die "apt-get failed"; }
	rm -f "/tmp/test-needs.$$"
fi
if [ -n "$tools" ]; then
	say "unpacking $tools into $peers"
	mkdir -p "$cache/debs" "$peers"
	for p in $tools; do
		( cd "$cache/debs" && rm -f "${p}"_*.deb && apt-get -q download "$p" 2>/dev/null && dpkg -x "${p}"_*.deb "$peers" ) ||
			die "apt-get download $p failed"
	done
fi
# libraries PACKAGE PROGRAM: installs what an unpacked program lacks.
libraries() {
	[ -x "$2" ] || return 0
	LD_LIBRARY_PATH=$peers/usr/lib/postfix ldd "$2" | grep -q 'not found' || return 0
	[ "$(id -u)" = 0 ] || die "$2 lacks libraries; run this as root"
	libs=$(apt-cache depends "$1" | sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p')
	say "installing the libraries of $1:" $libs
	# shellcheck disable=SC2086
	DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $libs >/dev/null
}
libraries postfix "$peers/usr/sbin/smtp-sink"
libraries postfix "$peers/usr/lib/postfix/sbin/smtpd"
libraries unbound "$peers/usr/sbin/unbound"
say "everything is there"
