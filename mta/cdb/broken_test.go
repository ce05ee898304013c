package cdb

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
	"meta1/mta/vfs/crashfs"
)

// broken is a store on a disk whose calls fail as fail says. The ends come by ended.
func broken(t *testing.T, fail func(op errorfs.Op) error) (s *Store, on *bool, ended *[]error) {
	t.Helper()
	var mu sync.Mutex
	on, ended = new(bool), new([]error)
	disk := crashfs.New()
	if err := disk.MkdirAll("spool", 0o750); err != nil {
		t.Fatal(err)
	}
	s = open(t, crashfs.FS(errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if !*on {
			return nil
		}
		return fail(op)
	})), nil), "spool")
	s.Fatal = func(err error) { *ended = append(*ended, err) }
	return s, on, ended
}

// TestFailures: what a failure of each call to the disk means.
func TestFailures(t *testing.T) {
	const file, dir = "spool/1/S000000000000000100", "spool/1"
	ta := smtp.ID{Counter: 1}
	for _, c := range []struct {
		kind  errorfs.OpKind
		path  string
		errno syscall.Errno
		ends  bool
	}{
		{errorfs.OpCreate, file, syscall.EIO, true},
		{errorfs.OpCreate, file, syscall.EROFS, true},
		{errorfs.OpCreate, file, syscall.ENOSPC, false},
		{errorfs.OpCreate, file, syscall.EMFILE, false},
		{errorfs.OpCreate, file, syscall.EACCES, false},
		{errorfs.OpFileWrite, file, syscall.EIO, true},
		{errorfs.OpFileWrite, file, syscall.ENOSPC, false},
		{errorfs.OpFileWrite, file, syscall.EDQUOT, false},
		{errorfs.OpFileWrite, file, syscall.EFBIG, false},
		{errorfs.OpFileSync, file, syscall.EIO, true},
		{errorfs.OpFileSync, file, syscall.ENOSPC, false},
		{errorfs.OpFileSync, dir, syscall.EIO, true},
		{errorfs.OpFileSync, dir, syscall.ENOSPC, true},
		{errorfs.OpOpenDir, dir, syscall.EMFILE, false},
		{errorfs.OpOpenDir, dir, syscall.ENFILE, false},
		{errorfs.OpOpenDir, dir, syscall.EACCES, false},
		{errorfs.OpOpenDir, dir, syscall.EIO, true},
	} {
		t.Run(fmt.Sprintf("%d %s %v", c.kind, c.path, c.errno), func(t *testing.T) {
			hits := 0
			s, on, ended := broken(t, func(op errorfs.Op) error {
				if op.Kind == c.kind && op.Path == c.path && hits == 0 {
					hits++
					return c.errno
				}
				return nil
			})
			*on = true
			if err := write(s, ta, []byte("x")); !errors.Is(err, c.errno) {
				t.Errorf("the failure is reported as %v", err)
			}
			if hits == 0 {
				t.Fatal("no call has failed")
			}
			if got := len(*ended) > 0; got != c.ends || got != (s.Err() != nil) {
				t.Errorf("ended with %v, state %v, want an end: %v", *ended, s.Err(), c.ends)
			}
			// The next message is on a disk that works again: only an end keeps it out.
			if err := write(s, smtp.ID{Counter: 2}, []byte("y")); (err != nil) != c.ends {
				t.Errorf("the next message: %v", err)
			}
			if err := write(s, ta, []byte("x")); (err != nil) != c.ends {
				t.Errorf("the same message again: %v", err)
			}
			if len(*ended) > 1 {
				t.Errorf("ended %d times", len(*ended))
			}
		})
	}
}

// TestDirectoryRemoved: a directory that is missing is made again, and a file in one that
// was removed while it was written is no success.
func TestDirectoryRemoved(t *testing.T) {
	base := t.TempDir()
	s := open(t, vfs.Real(), base)
	s.Fatal = func(err error) { t.Error("fatal: ", err) }
	for i := range shards {
		if err := os.RemoveAll(s.dirs[i].dir); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.List(func(File) error { return nil }, func(string) {}); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for i := range 64 { // some make the same directory at once
		wg.Go(func() {
			if err := write(s, smtp.ID{Counter: uint64(i)}, []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	info, err := os.Stat(s.dirs[3].dir)
	if err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("the directory is %v, %v", info, err)
	}

	for name, again := range map[string]bool{"and made again": true, "for good": false} {
		ta := smtp.ID{Counter: 0x105}
		w, err := s.Create(ta)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(s.dirs[5].dir); err != nil {
			t.Fatal(err)
		}
		if again {
			if err := write(s, smtp.ID{Counter: 0x205}, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(&msg.Envelope{TA: ta}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removed %s: committed with %v", name, err)
		}
	}

	if err := os.RemoveAll(base); err != nil {
		t.Fatal(err)
	}
	if err := write(s, smtp.ID{Counter: 1}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without the spool: %v", err)
	}
	if _, err := os.Stat(base); err == nil {
		t.Error("the spool was made again, which may be one that is not mounted")
	}
}

// TestDirectoryWithoutPermission: one that was made inaccessible refuses its own mail.
func TestDirectoryWithoutPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere; TestFailures has EACCES")
	}
	base := t.TempDir()
	s := open(t, vfs.Real(), base)
	s.Fatal = func(err error) { t.Error("fatal: ", err) }
	if err := os.Chmod(filepath.Join(base, "1"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(filepath.Join(base, "1"), 0o700)
	if err := write(s, smtp.ID{Counter: 1}, nil); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), filepath.Join(base, "1")) {
		t.Errorf("got %v", err)
	}
	if err := write(s, smtp.ID{Counter: 2}, nil); err != nil {
		t.Errorf("another directory: %v", err)
	}
}

// TestCrashes: whenever the power goes, what was committed is there, whole, with its
// envelope; also in directories that were made again.
func TestCrashes(t *testing.T) {
	disk, rnd := crashfs.New(), rand.New(rand.NewPCG(1, 2))
	if err := errors.Join(disk.MkdirAll("spool", 0o750), crashfs.FS(disk, nil).SyncDir(".")); err != nil {
		t.Fatal(err)
	}
	type crash struct {
		disk *crashfs.Disk
		want []smtp.ID
	}
	var crashes []crash
	var committed []smtp.ID
	look := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			for _, d := range disk.States(8, rnd) {
				crashes = append(crashes, crash{d, committed})
			}
		}
		return nil
	})
	s := open(t, crashfs.FS(errorfs.Wrap(disk, look), nil), "spool")
	for i := range 40 {
		ta := smtp.ID{Counter: uint64(i % 3), Process: uint8(i)}
		if err := write(s, ta, []byte(strings.Repeat("content", 1000))); err != nil {
			t.Fatal(err)
		}
		committed = append(committed[:len(committed):len(committed)], ta)
		if i == 20 {
			if err := disk.RemoveAll("spool/2"); err != nil {
				t.Fatal(err)
			}
			var left []smtp.ID
			for _, ta := range committed {
				if ta.Shard() != 2 {
					left = append(left, ta)
				}
			}
			committed = left
		}
	}
	for i, c := range crashes {
		s := open(t, crashfs.FS(c.disk, nil), "spool")
		for _, ta := range c.want {
			if err := verify(s, ta); err != nil {
				t.Fatalf("crash %d of %d: %v", i, len(crashes), err)
			}
		}
	}
}
