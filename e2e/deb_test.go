package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// debScript installs, upgrades, removes and purges the packages in $2, in namespaces of its own in which
// all that dpkg writes goes to the scratch directory $1.
const debScript = `set -eu
ip link set lo up
mount -t tmpfs tmpfs "$1"
for d in etc usr lib var; do
	[ ! -L "/$d" ] || continue
	mkdir -p "$1/$d/upper" "$1/$d/work"
	mount -t overlay -o "lowerdir=/$d,upperdir=$1/$d/upper,workdir=$1/$d/work" overlay "/$d"
done
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
unset META1_CONF
deb() { echo "== $*"; dpkg --force-depends --force-conflicts --force-confold "$@" 2>&1; }
deb -i "$2"/1/meta1_*.deb
stat -c '%U %a %n' /var/spool/meta1 /var/spool/meta1/maildrop /etc/meta1/meta1.conf
[ "$(stat -c %G /var/spool/meta1/maildrop)" = "$(id -gn meta1)" ]
meta1 setup --check
deb -i "$2"/1/meta1-mta_*.deb
printf 'Subject: early\n\nIt was not started yet.\n' | setpriv --reuid=54321 --regid=54321 --clear-groups /usr/sbin/sendmail -i -f early@example.org joe@example.org
ls /var/spool/meta1
echo 'example.org esmtp:[127.0.0.9]' >>/etc/meta1/mt
meta1 config check
meta1 serve &
trap 'kill -9 $! 2>/dev/null || true' EXIT
for i in $(seq 1000); do meta1 healthcheck >/dev/null 2>&1 && break; sleep 0.1; done
printf 'Subject: hello\n\nIt works.\n' | /usr/sbin/sendmail -i -f a@example.org joe@example.org
mailq
kill $!
wait $! || true
echo '# mine' >>/etc/meta1/access
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
printf '#!/bin/sh\necho "systemctl $*"\n' >/usr/bin/systemctl.new
chmod 755 /usr/bin/systemctl.new
mv -f /usr/bin/systemctl.new /usr/bin/systemctl
meta1 serve &
for i in $(seq 1000); do meta1 healthcheck >/dev/null 2>&1 && break; sleep 0.1; done
deb -i "$2"/2/meta1_*.deb
meta1 ctl stop
tail -n 1 /etc/meta1/access
deb -r meta1-mta
ls /usr/sbin/sendmail 2>&1 || true
deb -P meta1-mta meta1
ls -d /etc/meta1 /var/spool/meta1 /usr/sbin/meta1 2>&1 || true
dpkg -e "$2"/1/meta1_*.deb "$1/control"
find /var/spool/meta1 -mindepth 1 -delete
mkdir /var/spool/meta1/maildrop
: >/var/spool/meta1/maildrop/mail.x
echo "== purge of mail that waits"
"$1/control/postrm" purge 2>&1
rm /var/spool/meta1/maildrop/mail.x
echo "== purge of nothing"
"$1/control/postrm" purge 2>&1
[ -e /var/spool/meta1 ] || echo "nothing is left"
`

// TestDeb: the Debian packages are made, installed, used, upgraded and purged.
func TestDeb(t *testing.T) {
	t.Parallel()
	needRoot(t, "it mounts file systems and installs packages")
	dir := testDir(t)
	for _, version := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("../scripts/deb.sh", filepath.Join(dir, version))
		cmd.Env = append(os.Environ(), "META1="+meta1(t), "COMPRESS=-Znone", "VERSION="+version+".0")
		if out, err := output(cmd); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", debScript, "sh", scratch, dir)
	out, err := output(cmd)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	says(t, out,
		"main queue directory /var/spool/meta1: made", "maildrop /var/spool/meta1/maildrop: made", "meta1 751 /var/spool/meta1", "meta1 3733 /var/spool/meta1/maildrop", "root 644 /etc/meta1/meta1.conf", "account meta1: ok",
		"/etc/meta1/meta1.conf: ok", "<joe@example.org>", "<early@example.org>", "upgraded from e2e (process ", "stopped", "# mine", "cannot access '/usr/sbin/sendmail'",
		"/var/spool/meta1 is kept, since there may be mail in it", "cannot access '/etc/meta1'", "cannot access '/usr/sbin/meta1'",
		"/var/spool/meta1/maildrop is kept, since programs of this host have left mail",
		"== purge of nothing\nsystemctl daemon-reload\nnothing is left\n",
	)

	if strings.Contains(out, "systemctl restart") {
		t.Errorf("a meta1 that runs was started again:\n%s", out)
	}
	if strings.Contains(out, "cannot access '/var/spool/meta1'") || strings.Contains(out, "sev=ERR") {
		t.Errorf("the spool is gone, or something went wrong:\n%s", out)
	}
	if _, err := os.Stat("/etc/meta1"); err == nil {
		t.Error("the test has written to this host")
	}
}

// TestMakeInstall: what make install puts below DESTDIR.
func TestMakeInstall(t *testing.T) {
	t.Parallel()
	dir := testDir(t)
	for _, name := range []string{"Makefile", "man", "examples"} {
		if err := os.Symlink(must2(filepath.Abs("../"+name)), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(meta1(t), filepath.Join(dir, "meta1")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("make", "-o", "build", "install", "DESTDIR="+dir+"/to", "PREFIX=/usr")
	cmd.Dir = dir
	if out, err := output(cmd); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range []string{
		"sbin/meta1", "share/man/man1/meta1-setup.1", "share/man/man5/meta1.conf.5", "share/bash-completion/completions/meta1",
		"share/zsh/site-functions/_meta1", "share/fish/vendor_completions.d/meta1.fish",
		"share/doc/meta1/examples/quickstart.conf",
	} {
		if info, err := os.Stat(dir + "/to/usr/" + name); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func must2(s string, err error) string {
	if err != nil {
		panic(err)
	}
	return s
}

// TestLintian: lintian finds nothing in the packages but what contrib/debian/lintian-overrides explains. It takes half a
// minute, so it is made by "make lintian" and not for each change.
func TestLintian(t *testing.T) {
	if os.Getenv("META1_TEST_LINTIAN") == "" {
		t.Skip("META1_TEST_LINTIAN is not set (make lintian)")
	}
	dir := testDir(t)
	cmd := exec.Command("../scripts/deb.sh", dir)
	cmd.Env = append(os.Environ(), "COMPRESS=-Zgzip", "VERSION=1.0") // it builds the binary as it is packed
	if out, err := output(cmd); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	debs, err := filepath.Glob(dir + "/*.deb")
	if err != nil || len(debs) != 2 {
		t.Fatal(debs, err)
	}
	out, err := output(exec.Command("lintian", append([]string{"--allow-root", "--fail-on", "error,warning"}, debs...)...))
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("%v\n%s", err, out)
	}
}
