package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installScript does what docs/install.md says, in namespaces of its own: the system's
// directories are seen through, and what is written to them goes nowhere. $1 is a scratch
// directory, $2 the commands.
const installScript = `set -eu
ip link set lo up
mount -t tmpfs tmpfs "$1"
for d in etc usr/local var/spool; do
	mkdir -p "$1/$d/upper" "$1/$d/work"
	mount -t overlay -o "lowerdir=/$d,upperdir=$1/$d/upper,workdir=$1/$d/work" overlay "/$d"
done
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
unset META1_CONF
eval "$2"
meta1 serve &
for i in $(seq 1000); do meta1 healthcheck 2>&1 && break; sleep 0.1; done
printf 'Subject: hello\n\nIt works.\n' | meta1 sendmail joe@example.com
meta1 mailq
stat -c '%U %n' /var/spool/meta1 /var/spool/meta1/defedb
kill $!
wait $!
`

// TestInstall does what docs/install.md tells the owner of a server to do.
func TestInstall(t *testing.T) {
	t.Parallel()
	needRoot(t, "it mounts file systems")
	dir := testDir(t)
	if err := os.CopyFS(dir+"/examples", os.DirFS("../examples")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir+"/man", os.DirFS("../man")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(meta1(t), dir+"/meta1"); err != nil {
		t.Fatal(err)
	}
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "--net", "sh", "-c", installScript, "sh", scratch, docBlock(t, "../docs/install.md", "from the checkout:"))
	cmd.Dir = dir
	out, err := output(cmd)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	says(t, out, "/etc/meta1/meta1.conf: ok", "<joe@example.com>", "meta1 /var/spool/meta1/defedb", "event=end")
	if strings.Contains(out, "sev=ERR") {
		t.Errorf("it is not content:\n%s", out)
	}
}
