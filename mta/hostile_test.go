package mta

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meta1/mta/exit"
)

// hostileUser is nobody: the account that serves in TestHostileSpool, and that was taken
// over before.
const hostileUser = 65534

// TestHostileSpool starts meta1 and fsck as root in a main queue directory that its account
// has prepared: links stand where a start opens, makes or removes something. Whatever
// becomes of the start, no file of root's may change.
func TestHostileSpool(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	links := map[string]func(foreign, path string) error{
		"link to a file":      func(foreign, path string) error { return os.Symlink(foreign+"/file", path) },
		"link to a directory": func(foreign, path string) error { return os.Symlink(foreign+"/dir", path) },
		"link to a socket":    func(foreign, path string) error { return os.Symlink(foreign+"/socket", path) },
		"link to nothing":     func(foreign, path string) error { return os.Symlink(foreign+"/dir/none", path) },
		"hard link":           func(foreign, path string) error { return os.Link(foreign+"/file", path) },
		"hard link to socket": func(foreign, path string) error { return os.Link(foreign+"/socket", path) },
	}
	names := []string{"lock", "meta1.log", "control", "sock", "sub", "defedb", "0", "greylist", "lost+found", "logs", "logs/mta.log", "logs/who.log", "logs/smtps.log"}
	if raceEnabled || testing.Short() { // other names are opened in the same way by the same goroutines
		names = []string{"control", "logs/mta.log"}
	}
	for _, name := range names {
		for how, link := range links {
			t.Run(name+"/"+how, func(t *testing.T) {
				log := "log_file = meta1.log;"
				if strings.HasPrefix(name, "logs") {
					log = "log_directory = logs;"
				}
				testHostile(t, log, func(foreign, spool string) error {
					if dir := filepath.Dir(name); dir != "." {
						if err := errors.Join(os.Mkdir(spool+"/"+dir, 0o751), os.Chown(spool+"/"+dir, hostileUser, hostileUser)); err != nil {
							return err
						}
					}
					return link(foreign, spool+"/"+name)
				})
			})
		}
	}
	t.Run("left alone", func(t *testing.T) { // what the others rest on: without links it works
		if ended := testHostile(t, "log_file = meta1.log;", func(string, string) error { return nil }); ended != "serve: ready\n" {
			t.Errorf("it says\n%s", ended)
		}
	})
}

// testHostile prepares a spool, serves and checks it, and returns what serve said.
func testHostile(t *testing.T, log string, prepare func(foreign, spool string) error) string {
	dir := shortDir(t)
	foreign, spool := dir+"/foreign", dir+"/spool"
	for _, d := range []string{foreign + "/dir/sub", spool} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"file", "dir/meta1.log", "dir/mta.log", "dir/sock", "dir/CURRENT", "dir/lock"} {
		write(t, foreign+"/"+f, "root's\n")
	}
	if err := makeSocket(foreign+"/socket", foreign+"/dir/second"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(spool, 0o751), prepare(foreign, spool)); err != nil {
		t.Fatal(err)
	}
	err := os.Mkdir(spool+"/sub", 0o751)
	if err == nil {
		err = os.Chown(spool+"/sub", hostileUser, hostileUser)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := os.Chown(spool, hostileUser, hostileUser); err != nil {
		t.Fatal(err)
	}
	conf := strings.Replace(config(dir, log+`
		who { start_action = accept; user = daemon; path = "/usr/bin/id"; listen_socket { type = unix; path = sock; user = daemon; } }
		two { start_action = accept; user = daemon; path = "/usr/bin/id"; listen_socket { type = unix; path = "sub/second"; group = daemon; } }`),
		"allow_root = true;", "user = nobody;", 1)
	write(t, dir+"/meta1.conf", conf)
	write(t, dir+"/mt", "")
	write(t, dir+"/access", "")
	before := tree(t, foreign)
	ended := ""
	for _, what := range []string{"SERVE", "FSCK"} {
		cmd := exec.Command(os.Args[0], what, dir+"/meta1.conf")
		var said logBuffer
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ready, _ := io.ReadAll(out)
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // some of them are refused
		switch {
		case what == "SERVE" && len(ready) > 0:
			ended = "serve: ready\n"
		case what == "SERVE":
			ended = "serve: " + said.String()
		}
		if after := tree(t, foreign); after != before {
			t.Errorf("%s has changed what is root's:\n%swas\n%s\nit says\n%s", what, after, before, &said)
		}
	}
	return ended
}

// makeSocket makes sockets that nobody serves.
func makeSocket(paths ...string) error {
	for _, path := range paths {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		err = syscall.Bind(fd, &syscall.SockaddrUnix{Name: path})
		if err = errors.Join(err, syscall.Close(fd)); err != nil {
			return err
		}
	}
	return nil
}

// tree tells all that can be known of the files below a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := []byte(nil)
		if info.Mode().IsRegular() {
			if text, err = os.ReadFile(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&b, "%s %v %d:%d %q\n", strings.TrimPrefix(path, dir), info.Mode(), st.Uid, st.Gid, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestHostilePrograms starts as root with services whose programs others can replace.
func TestHostilePrograms(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := shortDir(t)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(dir+"/spool", 0o751), os.Mkdir(dir+"/root", 0o755)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir + "/spool/agent", dir + "/root/agent", dir + "/root/open"} {
		write(t, path, "#!/bin/sh\n")
	}
	err := errors.Join(os.Chown(dir+"/spool", hostileUser, hostileUser), os.Chmod(dir+"/root/agent", 0o755), os.Chmod(dir+"/root/open", 0o777),
		os.Symlink(dir+"/spool/agent", dir+"/root/link"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir + "/root/agent":             "",
		dir + "/root/none":              "", // only root can make it
		"meta1":                         "",
		"agent":                         "path of service x is relative to the main queue directory",
		dir + "/spool/agent":            "spool belongs to user 65534",
		dir + "/root/../spool/agent":    "spool belongs to user 65534",
		dir + "/root/link":              "spool belongs to user 65534",
		dir + "/root/open":              "everybody may write",
		dir + "/spool/../spool/../root": "",
	} {
		write(t, dir+"/mt", "")
		write(t, dir+"/access", "")
		extra := `x { start_action = wait; path = "` + path + `"; }`
		write(t, dir+"/meta1.conf", strings.Replace(config(dir, extra), "allow_root = true;", "user = nobody;", 1))
		_, _, err := Check(dir + "/meta1.conf")
		if want == "" && err != nil || want != "" && (exit.Status(err) != exit.Config || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
