package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAptWaits holds a lock of apt: what installs the needs of the tests waits for it.
func TestAptWaits(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		t.Skip("there is no apt-get here, or it may not be used")
	}
	lists := testDir(t)
	lock, err := os.Create(filepath.Join(lists, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.FcntlFlock(lock.Fd(), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("timeout", "300", "../scripts/apt.sh", "-o", "Dir::State::Lists="+lists,
		"-o", "Dir::Etc::SourceList=/dev/null", "-o", "Dir::Etc::SourceParts=/dev/null", "update")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 1000)
	n, _ := said.Read(out)
	lock.Close() // which releases it
	if err := cmd.Wait(); err != nil || !strings.Contains(string(out[:n]), "waiting for another apt") {
		t.Errorf("%v: %s", err, out[:n])
	}
}
