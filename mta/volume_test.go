package mta

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestVolumes starts meta1 again and again on volumes as Kubernetes and OpenShift mount
// them: root's, for a group of the pod alone, to which all files are given at each mount,
// and with another user number now and then.
func TestVolumes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const fsGroup = 1000680000
	tests := map[string]struct {
		spoolGID int
		mount    bool // give all to the group before each start, as kubelet does
		who      []syscall.Credential
	}{
		"fsGroup": {fsGroup, true, []syscall.Credential{
			{Uid: 10025, Gid: 10025, Groups: []uint32{fsGroup}}, {Uid: 10025, Gid: 10025, Groups: []uint32{fsGroup}}, {Uid: 10025, Gid: 10025, Groups: []uint32{fsGroup}},
		}},
		"arbitrary user": {fsGroup, true, []syscall.Credential{
			{Uid: 1000680000, Groups: []uint32{fsGroup}}, {Uid: 1000680000, Groups: []uint32{fsGroup}}, {Uid: 1000770000, Groups: []uint32{fsGroup}},
		}},
		"directory of an image": {0, false, []syscall.Credential{{Uid: 1000680000}, {Uid: 1000680000}}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := shortDir(t)
			spool := dir + "/spool"
			write(t, dir+"/meta1.conf", strings.Replace(config(dir, ""), "allow_root = true;", "", 1))
			write(t, dir+"/mt", "")
			copyTest(t, dir+"/test")
			write(t, dir+"/access", "")
			err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(spool, 0o770), os.Chown(spool, 0, tt.spoolGID), os.Chmod(spool, 0o770))
			if err != nil {
				t.Fatal(err)
			}
			for i := range tt.who {
				if tt.mount {
					giveToGroup(t, spool, tt.spoolGID)
				}
				serveAs(t, dir, &tt.who[i])
			}
		})
	}
}

// copyTest puts this program where every account can execute it.
func copyTest(t *testing.T, path string) {
	t.Helper()
	if os.Link(os.Args[0], path) == nil {
		return
	}
	text, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(path, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// giveToGroup does "chgrp -R; chmod -R g+rwX" and sets the bit of folders by which new
// files have their group.
func giveToGroup(t *testing.T, dir string, gid int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode() | 0o060
		if d.IsDir() {
			mode |= 0o070 | fs.ModeSetgid
		}
		return errors.Join(os.Lchown(path, -1, gid), os.Chmod(path, mode))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// serveAs starts meta1 under an account, and stops it when it is ready.
func serveAs(t *testing.T, dir string, who *syscall.Credential) {
	t.Helper()
	cmd := exec.Command(dir+"/test", "SERVE", dir+"/meta1.conf")
	var log logBuffer
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, _ := io.ReadAll(out)
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil || len(ready) == 0 {
		t.Fatalf("user %d: %v\n%s", who.Uid, err, &log)
	}
}
