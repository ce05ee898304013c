package logfmt

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestOpenFile refuses what who may write the folder could have put there.
func TestOpenFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/other", []byte("keep\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Symlink("other", dir+"/link"), os.Symlink("none", dir+"/nowhere"), os.Link(dir+"/other", dir+"/second"),
		os.Mkdir(dir+"/dir", 0o700), syscall.Mkfifo(dir+"/pipe", 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{
		"new": "", "new2": "", "/dev/null": "",
		"link": "is a symbolic link", "nowhere": "is a symbolic link", "second": "a second name", "other": "a second name",
		"dir": "is a directory", "pipe": syscall.ENXIO.Error(), // nobody reads it
	} {
		if name[0] != '/' {
			name = dir + "/" + name
		}
		f, err := OpenFile(name)
		if err == nil {
			err = f.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if text, err := os.ReadFile(dir + "/other"); err != nil || string(text) != "keep\n" {
		t.Errorf("the file was changed: %q, %v", text, err)
	}
	if _, err := os.Stat(dir + "/none"); err == nil {
		t.Error("a link was followed to a new file")
	}
}

// TestChown gives away what is ours alone.
func TestChown(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	path := t.TempDir() + "/log"
	for owner, want := range map[int]string{0: "", 987654: "", 4242: "belongs to user 4242"} {
		if err := os.WriteFile(path, nil, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, owner, owner); err != nil {
			t.Fatal(err)
		}
		f, err := OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Chown(987654, 987654)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("of user %d: %v, want %q", owner, err, want)
		}
		_ = f.Close()
	}
	f, err := OpenFile("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before, _ := os.Stat("/dev/null")
	_ = f.Chown(987654, 987654)
	if after, _ := os.Stat("/dev/null"); after.Sys().(*syscall.Stat_t).Uid != before.Sys().(*syscall.Stat_t).Uid {
		t.Error("/dev/null was given away")
	}
}
