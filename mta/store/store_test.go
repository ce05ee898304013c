package store

import (
	"errors"
	"io/fs"
	"log/slog"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"meta1/mta/vfs/crashfs"
)

func smallDisk() (int64, int64) { return 1 << 30, 64 << 20 }

func options(t *testing.T) Options {
	return Options{Name: "TEST", Version: 7, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }}
}

// fullDisk fails every write to the store as long as a part of the reserve named
// here exists.
type fullDisk struct {
	mem     *crashfs.Disk
	until   string
	enabled atomic.Bool
}

func (d *fullDisk) String() string { return "full disk" }

func (d *fullDisk) MaybeError(op errorfs.Op) error {
	if !d.enabled.Load() || op.Kind.ReadOrWrite() == errorfs.OpIsRead || strings.Contains(op.Path, "BALLAST") {
		return nil
	}
	switch op.Kind {
	case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileClose, errorfs.OpRemove, errorfs.OpMkdirAll:
		return nil
	}
	if _, err := d.mem.Stat(d.until); err == nil {
		return syscall.ENOSPC
	}
	return nil
}

func TestReserveServesAFullDisk(t *testing.T) {
	mem := crashfs.New()
	disk := &fullDisk{mem: mem, until: "db/BALLAST.0"}
	fsys := crashfs.FS(errorfs.Wrap(mem, disk), smallDisk)
	var fulls atomic.Int32
	o := options(t)
	o.OnFull = func() { fulls.Add(1) }
	s, err := Open(fsys, "db", o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ballastSegments {
		if _, err := mem.Stat("db/BALLAST." + string("0123456789"[i])); err != nil {
			t.Error("the reserve is not there: ", err)
		}
	}
	disk.enabled.Store(true)
	if err := s.Set([]byte("k"), []byte("v"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if fulls.Load() != 1 {
		t.Errorf("OnFull was called %d times", fulls.Load())
	}
	if _, err := mem.Stat("db/BALLAST.0"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the reserve was not given up: ", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// A start while the disk is still full takes the next part.
	disk.until = "db/BALLAST.1"
	s, err = Open(fsys, "db", o)
	if err != nil {
		t.Fatal("start on a full disk: ", err)
	}
	defer s.Close()
	if v, closer, err := s.Get([]byte("k")); err != nil || string(v) != "v" {
		t.Errorf("got %q, %v", v, err)
	} else {
		closer.Close()
	}
	disk.enabled.Store(false)
	s.Refill()
	for i := range ballastSegments {
		if _, err := mem.Stat("db/BALLAST." + string("0123456789"[i])); err != nil {
			t.Error("the reserve was not made again: ", err)
		}
	}
}

func TestUnknownVersionIsRefused(t *testing.T) {
	fsys := crashfs.FS(crashfs.New(), smallDisk)
	s, err := Open(fsys, "db", options(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o := options(t)
	o.Version = 8
	if _, err := Open(fsys, "db", o); !errors.Is(err, ErrVersion) {
		t.Errorf("got %v, want ErrVersion", err)
	}
	s, err = Open(fsys, "db", options(t)) // and it is as it was
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
