#!/bin/sh
# deb.sh [DIRECTORY]: makes the Debian packages meta1 and meta1-mta in DIRECTORY (.).
#
# $META1 is a binary to pack, else one is built for $ARCH (that of this machine). The version is that of the
# newest tag ($VERSION if set), or else one before all releases, with the day and the commit. Needs dpkg-deb and gzip; not root.
set -eu
out=$(cd "${1:-.}" && pwd)
cd "$(dirname "$0")/.."
die() { echo "deb: $*" >&2; exit 1; }
command -v dpkg-deb >/dev/null || die "dpkg-deb is missing"
arch=${ARCH:-$(dpkg --print-architecture)}
: "${COMPRESS:=-Zxz}"
compress=$COMPRESS # an option of dpkg-deb
version=${VERSION:-}
[ -n "$version" ] || version=$(git describe --tags --match 'v[0-9]*' 2>/dev/null | sed 's/^v//; s/-/+/; s/-/./g') || version=
[ -n "$version" ] || version="0~$(git log -1 --format=%cd.%h --date=format:%Y%m%d 2>/dev/null || echo 0)"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
umask 022

p=$tree/meta1
mkdir -p "$p/DEBIAN" "$p/usr/sbin" "$p/etc/meta1" "$p/lib/systemd/system" "$p/usr/share/bash-completion/completions" \
	"$p/usr/share/zsh/vendor-completions" "$p/usr/share/fish/vendor_completions.d" "$p/usr/share/man/man1" "$p/usr/share/man/man5" \
	"$p/usr/share/doc/meta1" "$p/usr/share/lintian/overrides"
if [ -n "${META1:-}" ]; then
	cp -L "$META1" "$p/usr/sbin/meta1"
else
	CGO_ENABLED=0 GOOS=linux GOARCH="$arch" go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$p/usr/sbin/meta1" .
fi
chmod 755 "$p/usr/sbin/meta1"
run=$p/usr/sbin/meta1
"$run" version >/dev/null 2>&1 || run=$(mktemp "$tree/host.XXXXXX") && [ "$run" = "$p/usr/sbin/meta1" ] || go build -o "$run" . # another architecture
"$run" completion bash >"$p/usr/share/bash-completion/completions/meta1"
"$run" completion zsh >"$p/usr/share/zsh/vendor-completions/_meta1"
"$run" completion fish >"$p/usr/share/fish/vendor_completions.d/meta1.fish"
for m in man/*.[15]; do gzip -9n <"$m" >"$p/usr/share/man/man${m##*.}/${m##*/}.gz"; done
cp contrib/debian/meta1.conf contrib/debian/access contrib/debian/mt contrib/debian/aliases "$p/etc/meta1/"
sed 's|/usr/local/sbin/|/usr/sbin/|' examples/meta1.service >"$p/lib/systemd/system/meta1.service"
cp -r docs examples "$p/usr/share/doc/meta1/"
cp -r contrib/systemd contrib/fail2ban contrib/logrotate contrib/prometheus contrib/grafana "$p/usr/share/doc/meta1/examples/"
gzip -9n <CHANGELOG.md >"$p/usr/share/doc/meta1/NEWS.gz"
: "${MAINTAINER:=The meta1 developers <meta1@localhost>}" # who builds it for others names himself
printf 'meta1 (%s) unstable; urgency=medium\n\n  * What has changed is in NEWS.gz.\n\n -- %s  %s\n' "$version" "$MAINTAINER" \
	"$(git log -1 --format=%cD 2>/dev/null || LC_ALL=C date -u -R)" | gzip -9n >"$p/usr/share/doc/meta1/changelog.gz"
cp contrib/debian/copyright "$p/usr/share/doc/meta1/copyright"
cp contrib/debian/lintian-overrides "$p/usr/share/lintian/overrides/meta1"
for f in meta1.conf access mt aliases; do echo "/etc/meta1/$f"; done >"$p/DEBIAN/conffiles"
for f in postinst prerm postrm; do install -m 755 "contrib/debian/$f" "$p/DEBIAN/$f"; done
(cd "$p" && find usr lib -type f -exec md5sum {} +) >"$p/DEBIAN/md5sums"
cat >"$p/DEBIAN/control" <<-C
	Package: meta1
	Version: $version
	Architecture: $arch
	Maintainer: $MAINTAINER
	Section: mail
	Priority: optional
	Depends: passwd
	Suggests: ca-certificates
	Installed-Size: $(du -sk "$p" | cut -f1)
	Description: mail gateway that loses nothing and says why
	 meta1 is an MTA in one program: it takes mail by SMTP, keeps it safe on
	 disk, and hands it on by SMTP or LMTP. Each decision can be explained.
	 .
	 The package takes mail from this host alone until its configuration says
	 otherwise. meta1-mta makes it the sendmail of the host.
C

q=$tree/meta1-mta
mkdir -p "$q/DEBIAN" "$q/usr/sbin" "$q/usr/bin" "$q/usr/lib" "$q/usr/share/doc/meta1-mta" "$q/usr/share/lintian/overrides" "$q/usr/share/man/man8" "$q/usr/share/man/man1"
ln -s meta1 "$q/usr/sbin/sendmail"
ln -s ../sbin/sendmail "$q/usr/lib/sendmail"
ln -s ../sbin/meta1 "$q/usr/bin/mailq"
ln -s ../sbin/meta1 "$q/usr/bin/newaliases"
ln -s ../man1/meta1-sendmail.1.gz "$q/usr/share/man/man8/sendmail.8.gz"
ln -s meta1-mailq.1.gz "$q/usr/share/man/man1/mailq.1.gz"
ln -s meta1-ctl-reload.1.gz "$q/usr/share/man/man1/newaliases.1.gz"
cp "$p/usr/share/doc/meta1/copyright" "$p/usr/share/doc/meta1/changelog.gz" "$q/usr/share/doc/meta1-mta/"
sed -n '/bogus-mail-host/s/^meta1:/meta1-mta:/p' contrib/debian/lintian-overrides >"$q/usr/share/lintian/overrides/meta1-mta"
cat >"$q/DEBIAN/control" <<-C
	Package: meta1-mta
	Version: $version
	Architecture: all
	Maintainer: $MAINTAINER
	Section: mail
	Priority: optional
	Depends: meta1 (>= $version)
	Provides: mail-transport-agent
	Conflicts: mail-transport-agent
	Replaces: mail-transport-agent
	Description: meta1 as the sendmail of the host
	 The names sendmail, mailq and newaliases for meta1, which programs of the
	 host use to send mail and to look at the queue.
C
dpkg-deb --root-owner-group $compress --build "$p" "$out/meta1_${version}_$arch.deb"
dpkg-deb --root-owner-group $compress --build "$q" "$out/meta1-mta_${version}_all.deb"
