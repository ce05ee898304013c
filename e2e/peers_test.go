package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// peerCommand makes the command of one of Postfix's test tools, or of any other
// program. A missing one fails the test.
func peerCommand(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cache := os.Getenv("META1_TEST_CACHE")
	if cache == "" {
		cache = "/var/cache/meta1-test"
	}
	for _, dir := range []string{"peers/usr/sbin", "peers/usr/bin"} {
		unpacked := filepath.Join(cache, dir, name)
		if _, err := os.Stat(unpacked); err == nil {
			cmd := exec.Command(unpacked, args...)
			cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+filepath.Join(cache, "peers/usr/lib/postfix"))
			return cmd
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is missing; \"make needs\" installs it", name)
	}
	return exec.Command(path, args...)
}

// smtpSource runs Postfix's smtp-source to its end.
func smtpSource(t *testing.T, args ...string) {
	t.Helper()
	cmd := peerCommand(t, "smtp-source", args...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(hangs, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !timer.Stop() {
		err = fmt.Errorf("not done after %v", hangs)
	}
	if err != nil {
		t.Fatalf("smtp-source: %v\n%s", err, out.String())
	}
}

// smtpSink starts Postfix's smtp-sink, which writes each message to a file of its
// own in the returned folder, and ends with the test.
func smtpSink(t *testing.T, addr string) (dumps string) {
	t.Helper()
	dumps = testDir(t) + "/dumps"
	if err := os.Mkdir(dumps, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dumps, 0o777); err != nil {
		t.Fatal(err)
	}
	args := []string{"-d", dumps + "/", addr, "500"}
	if os.Geteuid() == 0 {
		args = append([]string{"-u", "nobody"}, args...)
	}
	cmd := peerCommand(t, "smtp-sink", args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	must(t, func() error {
		k, err := dial(addr)
		if err == nil {
			k.close()
		}
		return err
	})
	return dumps
}

// files lists the regular files of a folder.
func files(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for i := range names {
		names[i] = filepath.Join(dir, names[i])
	}
	return names, err
}
