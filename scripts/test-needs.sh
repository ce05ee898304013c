#!/bin/sh
# Installs what the tests need, on Debian and as root; otherwise says what is
# missing and fails. Nothing that listens on a port is installed: Postfix's tools
# are unpacked under $META1_TEST_CACHE.
set -eu
apt=$(cd "$(dirname "$0")" && pwd)/apt.sh
cache=${META1_TEST_CACHE:-/var/cache/meta1-test}
peers=$cache/peers

say() { echo "test-needs: $*"; }
die() { say "$*" >&2; exit 1; }
# install PACKAGE ...: with new lists if the packages of the old ones are gone.
install() {
	"$apt" install --no-install-recommends "$@" || { "$apt" update && "$apt" install --no-install-recommends "$@"; }
}
have() { command -v "$1" >/dev/null 2>&1; }

missing=
need() { have "$1" || missing="$missing $2"; }
need git git
need curl curl    # the README's quick start
need gcc gcc      # the race detector
need swaks swaks
perl -MNet::SSLeay -e 1 2>/dev/null || missing="$missing libnet-ssleay-perl" # TLS of swaks
need openssl openssl
need gnutls-cli gnutls-bin
need msmtp msmtp
need sslscan sslscan
need mkfs.ext4 e2fsprogs
need mkfs.xfs xfsprogs
need mount mount
need strace strace # counts calls of the system
need ip iproute2
need cdb tinycdb
need spamc spamc   # of spamass-milter
need xmllint libxml2-utils
need systemd-analyze systemd
[ -e /usr/include/stdlib.h ] || missing="$missing libc6-dev"
# They read our DSNs.
perl -MSisimai -e 1 2>/dev/null || missing="$missing libsisimai-perl"
/usr/bin/python3 -c 'import flufl.bounce' 2>/dev/null || missing="$missing python3-flufl.bounce"
# It judges by SPF.
/usr/bin/python3 -c 'import yaml' 2>/dev/null || missing="$missing python3-yaml" # it reads examples/compose.yaml and examples/kubernetes
/usr/bin/python3 -c 'import spf' 2>/dev/null || missing="$missing python3-spf"
# Clients that authenticate.
need msmtp msmtp
need gsasl gsasl
need dovecot dovecot-core # without any protocol: it listens on no port
perl -MAuthen::SASL -MDigest::HMAC_MD5 -MIO::Socket::SSL -e 1 2>/dev/null || missing="$missing libauthen-sasl-perl libdigest-hmac-perl libio-socket-ssl-perl"
# What Mail::DKIM and Mail::SRS are written with.
perl -MCrypt::OpenSSL::RSA -MNet::DNS -MMail::Address -MMail::AuthenticationResults -MDigest::HMAC_SHA1 -e 1 2>/dev/null ||
	missing="$missing libcrypt-openssl-rsa-perl libnet-dns-perl libmailtools-perl libmail-authenticationresults-perl libdigest-hmac-perl"
# What postgrey is written with.
perl -MBerkeleyDB -MNetAddr::IP -MNet::DNS -MNet::Server -e 1 2>/dev/null || missing="$missing libberkeleydb-perl libnetaddr-ip-perl libnet-dns-perl libnet-server-perl"
# What spamd and policyd-spf are written with.
perl -MHTML::Parser -MNet::DNS -MNetAddr::IP -MHTTP::Date -MMail::DKIM -MIO::String -MSys::Hostname::Long -e 1 2>/dev/null ||
	missing="$missing libhtml-parser-perl libhttp-date-perl libmail-dkim-perl libio-string-perl libsys-hostname-long-perl"
/usr/bin/python3 -c 'import spf, authres' 2>/dev/null || missing="$missing python3-spf python3-authres"
[ -n "$(find /usr/lib -name libplain.so 2>/dev/null)" ] || missing="$missing libsasl2-modules"
tools=
[ -x "$peers/usr/sbin/smtp-source" ] && [ -x "$peers/usr/sbin/smtp-sink" ] && [ -e "$peers/usr/lib/postfix/postfix-cdb.so" ] ||
	tools="postfix postfix-cdb"
have microsocks || [ -x "$peers/usr/bin/microsocks" ] || tools="$tools microsocks"
have danted || [ -x "$peers/usr/sbin/danted" ] || tools="$tools dante-server"
[ -x "$peers/usr/sbin/saslauthd" ] || tools="$tools sasl2-bin"
[ -x "$peers/usr/bin/fail2ban-regex" ] || tools="$tools fail2ban"
have unbound || [ -x "$peers/usr/sbin/unbound" ] || tools="$tools unbound"
[ -x "$peers/usr/sbin/knotd" ] || tools="$tools knot"
[ -x "$peers/usr/bin/kzonesign" ] || [ -x "$peers/usr/sbin/kzonesign" ] || tools="$tools knot-dnssecutils"
have haproxy || [ -x "$peers/usr/sbin/haproxy" ] || tools="$tools haproxy"
[ -x "$peers/usr/sbin/opendkim" ] || tools="$tools opendkim"
[ -x "$peers/usr/bin/dkimverify" ] || tools="$tools python3-dkim"
[ -e "$peers/usr/share/perl5/Mail/DKIM.pm" ] || tools="$tools libmail-dkim-perl"
[ -e "$peers/usr/share/perl5/Mail/SRS.pm" ] || tools="$tools libmail-srs-perl"
[ -x "$peers/usr/sbin/exim4" ] || tools="$tools exim4-daemon-light"
[ -x "$peers/opensmtpd/usr/sbin/smtpd" ] || tools="$tools opensmtpd"
# It scrapes /metrics and evaluates contrib/prometheus.
[ -x "$peers/usr/bin/promtool" ] && [ -x "$peers/usr/bin/prometheus" ] || tools="$tools prometheus"
[ -x "$peers/usr/sbin/rsyslogd" ] || tools="$tools rsyslog"
# Callers of sendmail.
[ -x "$peers/usr/bin/mail.mailutils" ] || tools="$tools mailutils"
[ -x "$peers/usr/sbin/cron" ] || tools="$tools cron"
# Mail filters, and a policy server.
[ -x "$peers/usr/sbin/opendkim-testmsg" ] || [ -x "$peers/usr/bin/opendkim-testmsg" ] || tools="$tools opendkim-tools"
[ -x "$peers/usr/sbin/mailfromd" ] || tools="$tools mailfromd"
[ -x "$peers/usr/sbin/postgrey" ] || tools="$tools postgrey"
[ -x "$peers/usr/bin/rspamd" ] || tools="$tools rspamd"
[ -x "$peers/usr/sbin/spamass-milter" ] || tools="$tools spamass-milter"
[ -x "$peers/usr/sbin/spamd" ] || tools="$tools spamassassin spamd"
[ -x "$peers/usr/sbin/clamav-milter" ] || tools="$tools clamav-milter"
[ -x "$peers/usr/sbin/clamd" ] || tools="$tools clamav-daemon"
[ -x "$peers/usr/sbin/opendmarc" ] || tools="$tools opendmarc"
[ -x "$peers/usr/bin/miltertest" ] || tools="$tools miltertest"
[ -x "$peers/usr/bin/policyd-spf" ] || tools="$tools postfix-policyd-spf-python python3-spf-engine"
[ -x "$peers/usr/lib/dovecot/lmtp" ] || tools="$tools dovecot-lmtpd" # of the version of dovecot-core

if [ -n "$missing$tools" ]; then
	have apt-get || die "install these, then try again:$missing $tools (smtp-source and smtp-sink of Postfix)"
	[ "$(id -u)" = 0 ] || die "run this as root, or install: apt-get install$missing; missing too: ${tools:-nothing} in $peers"
	apt-cache policy postfix 2>/dev/null | grep -q 'Candidate: [0-9]' || "$apt" update
fi
if [ -n "$missing" ]; then
	say "installing$missing"
	# shellcheck disable=SC2086
	install $missing
fi
if [ -n "$tools" ]; then
	say "unpacking $tools into $peers"
	mkdir -p "$peers"
	debs=$(mktemp -d "$cache/debs.XXXXXX")
	chmod 755 "$debs"
	# shellcheck disable=SC2086
	( cd "$debs" && "$apt" download $tools ) || die "these cannot be downloaded: $tools"
	for p in $tools; do
		into=$peers
		[ "$p" != opensmtpd ] || into=$peers/opensmtpd # its sendmail is not Postfix's
		dpkg -x "$debs/${p}"_*.deb "$into" || die "$p cannot be unpacked into $into"
	done
	rm -rf "$debs"
fi
lacking=
# libraries PACKAGE PROGRAM: notes the libraries that an unpacked program lacks.
libraries() {
	[ -x "$2" ] || return 0
	LD_LIBRARY_PATH=$peers/usr/lib/postfix:$peers/usr/lib/rspamd ldd "$2" | grep -q 'not found' || return 0
	lacking="$lacking $(apt-cache depends "$1" | sed -n '/-perl$/d; /libjs-/d; s/^ *Depends: \(lib[^ ]*\)$/\1/p')"
}
libraries postfix "$peers/usr/sbin/smtp-sink"
libraries postfix "$peers/usr/lib/postfix/sbin/smtpd"
libraries rsyslog "$peers/usr/sbin/rsyslogd"
libraries mailutils "$peers/usr/bin/mail.mailutils"
libraries cron "$peers/usr/sbin/cron"
libraries unbound "$peers/usr/sbin/unbound"
libraries haproxy "$peers/usr/sbin/haproxy"
libraries knot "$peers/usr/sbin/knotd"
libraries opendkim "$peers/usr/sbin/opendkim"
libraries exim4-daemon-light "$peers/usr/sbin/exim4"
libraries opensmtpd "$peers/opensmtpd/usr/sbin/smtpd"
libraries sasl2-bin "$peers/usr/sbin/saslauthd"
libraries dante-server "$peers/usr/sbin/danted"
libraries opendkim "$peers/usr/sbin/opendkim"
libraries mailfromd "$peers/usr/sbin/mailfromd"
libraries rspamd "$peers/usr/bin/rspamd"
libraries spamass-milter "$peers/usr/sbin/spamass-milter"
libraries clamav-milter "$peers/usr/sbin/clamav-milter"
libraries clamav-daemon "$peers/usr/sbin/clamd"
libraries opendmarc "$peers/usr/sbin/opendmarc"
libraries miltertest "$peers/usr/bin/miltertest"
if [ -n "$lacking" ]; then
	[ "$(id -u)" = 0 ] || die "programs in $peers lack libraries; run this as root"
	say "installing libraries:" $lacking
	# shellcheck disable=SC2086
	install $lacking
fi
if ! id Debian-exim >/dev/null 2>&1; then # exim4 does not start without the account of its package
	[ "$(id -u)" = 0 ] || die "the account Debian-exim is missing; run this as root"
	say "making the account Debian-exim"
	useradd --system --user-group --no-create-home --shell /usr/sbin/nologin Debian-exim
fi
say "everything is there"
