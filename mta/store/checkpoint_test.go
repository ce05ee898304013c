package store

import (
	"errors"
	"log/slog"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/copies"
	"meta1/mta/vfs/crashfs"
)

// TestCheckpoint: a copy that cannot be written fails alone, whichever call fails, and the store goes on; what is copied is all that was
// committed, in tables and in the log.
func TestCheckpoint(t *testing.T) {
	s, f, disk, ended := faultyStore(t)
	if err := errors.Join(fill(s, 40), disk.MkdirAll("copy", 0o750)); err != nil {
		t.Fatal(err)
	}
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EIO} {
		for fails := 1; ; fails++ {
			n := 0
			f.set(func(op errorfs.Op) error {
				if !strings.HasPrefix(op.Path, "copy") || op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
					return nil
				}
				if n++; n == fails {
					return errno
				}
				return nil
			})
			err := s.Checkpoint("copy/db", copies.New(t.Context()))
			f.set(nil)
			if n < fails {
				if fails < 4 || err != nil {
					t.Errorf("%d calls wrote to the copy: %v", n, err)
				}
				if err := disk.RemoveAll("copy/db"); err != nil {
					t.Fatal(err)
				}
				break
			}
			select {
			case end := <-ended:
				t.Fatalf("call %d: %v ended the store: %v", fails, errno, end)
			default:
			}
			if err := disk.RemoveAll("copy/db"); err != nil {
				t.Fatal(err)
			}
		}
	}
	given, why := copies.New(t.Context()), errors.New("nobody wants it")
	f.set(func(op errorfs.Op) error {
		if strings.HasPrefix(op.Path, "copy/db/MANIFEST") {
			given.End(why)
		}
		return nil
	})
	if err := s.Checkpoint("copy/db", given); !errors.Is(err, why) {
		t.Errorf("a copy that was given: %v", err)
	}
	if files, bytes := given.Made(); files == 0 || bytes == 0 {
		t.Errorf("it had made %d files with %d bytes", files, bytes)
	}
	f.set(nil)
	if err := errors.Join(disk.RemoveAll("copy/db"), fill(s, 45)); err != nil {
		t.Fatal(err)
	}
	if err := s.Checkpoint("copy/db", copies.New(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fill(s, 50), s.Close()); err != nil {
		t.Fatal(err)
	}
	o := options(t)
	o.Log = slog.New(slog.DiscardHandler)
	o.Fatal = func(err error) { t.Error(err) }
	c, err := Open(crashfs.FS(disk, smallDisk), "copy/db", o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := 0
	if err := c.Reader().Scan([]byte("k"), []byte("l"), func(_, _ []byte) (bool, error) { n++; return true, nil }); err != nil || n != 45 || c.Suspicion() != nil {
		t.Errorf("the copy has %d records: %v, %v", n, err, c.Suspicion())
	}
}
