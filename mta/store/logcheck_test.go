package store

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/vfs/crashfs"
)

// usedStore is a store with records of the size, each synced, as a crash leaves it. It
// returns the disk and the name of its log.
func usedStore(t *testing.T, records, size int) (mem *crashfs.Disk, log string) {
	t.Helper()
	mem = crashfs.New()
	s, err := Open(crashfs.FS(mem, smallDisk), "db", options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range records {
		if err := s.Set([]byte{'k', byte(i)}, bytes.Repeat([]byte{'v'}, size), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	mem = mem.Kill() // kill -9
	names, err := mem.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".log") {
			log = max(log, "db/"+name)
		}
	}
	return mem, log
}

// rewrite changes a file.
func rewrite(t *testing.T, mem *crashfs.Disk, name string, change func([]byte) []byte) {
	t.Helper()
	b := read(t, mem, name)
	f, err := mem.Create(name, pvfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(change(b)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, disk *crashfs.Disk, name string) []byte {
	t.Helper()
	f, err := disk.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDamagedLog: Pebble opens a store whose log is damaged in the middle, without the
// records behind that. So be it, but not silently, and not without keeping the log. A log
// that ends early is what a crash leaves.
func TestDamagedLog(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0xff; return b }
	}
	tests := []struct {
		name          string
		records, size int
		change        func([]byte) []byte
		damaged       bool // and Pebble does not see it
	}{
		{"whole", 20, 100, func(b []byte) []byte { return b }, false},
		{"whole, many blocks", 20, 10000, func(b []byte) []byte { return b }, false},
		{"last record torn", 20, 100, func(b []byte) []byte { return b[:len(b)-5] }, false},
		{"last record zero", 20, 100, func(b []byte) []byte { clear(b[len(b)-50:]); return b }, false},
		{"rest of another log", 20, 100, func(b []byte) []byte { return append(b, bytes.Repeat([]byte{9, 7}, 40000)...) }, false},
		{"payload", 20, 100, flip(1000), true},
		{"length", 20, 100, func(b []byte) []byte { b[4], b[5] = 0xff, 0xff; return b }, true},
		{"zeros", 20, 100, func(b []byte) []byte { clear(b[500:900]); return b }, true},
		{"something else", 20, 100, func([]byte) []byte { return bytes.Repeat([]byte("garbage "), 500) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mem, log := usedStore(t, tt.records, tt.size)
			rewrite(t, mem, log, tt.change)
			before := string(read(t, mem, log))
			openSuspicious(t, mem, tt.damaged)
			if tt.damaged {
				dir := keptDir(t, mem)
				if got := string(read(t, mem, dir+strings.TrimPrefix(log, "db"))); got != before {
					t.Errorf("the log that was kept has %d bytes, not the %d from before", len(got), len(before))
				}
			}
			openSuspicious(t, mem, false) // it is said once
		})
	}
}

// openSuspicious opens a store and closes it again.
func openSuspicious(t *testing.T, disk *crashfs.Disk, suspicious bool) {
	t.Helper()
	s, err := Open(crashfs.FS(disk, smallDisk), "db", options(t))
	if err != nil {
		t.Fatal(err)
	}
	if (s.Suspicion() != nil) != suspicious {
		t.Errorf("suspicion: %v, want one: %v", s.Suspicion(), suspicious)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// keptDir is the directory in which the files of a damaged store were kept.
func keptDir(t *testing.T, disk *crashfs.Disk) (dir string) {
	t.Helper()
	names, err := disk.List(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "db.damaged-") {
			if dir != "" {
				t.Errorf("kept twice: %s and %s", dir, name)
			}
			dir = name
		}
	}
	if dir == "" {
		t.Fatalf("nothing was kept: %v", names)
	}
	return dir
}

// TestMissingLog: a store that was in use has a log.
func TestMissingLog(t *testing.T) {
	mem, _ := usedStore(t, 20, 100)
	logs, err := mem.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range logs {
		if !strings.HasSuffix(name, ".log") {
			continue
		}
		if err := mem.Remove("db/" + name); err != nil {
			t.Fatal(err)
		}
	}
	openSuspicious(t, mem, true)
	keptDir(t, mem)
}

// TestLogThatPebbleRefuses: what Pebble takes for damage is refused, and nothing is
// changed.
func TestLogThatPebbleRefuses(t *testing.T) {
	mem, log := usedStore(t, 20, 10000)
	rewrite(t, mem, log, func(b []byte) []byte { b[40000] ^= 0xff; return b })
	before := string(read(t, mem, log))
	for range 2 {
		if _, err := Open(crashfs.FS(mem, smallDisk), "db", options(t)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("opened with %v", err)
		}
		if names, _ := mem.List("."); len(names) != 1 || string(read(t, mem, log)) != before {
			t.Errorf("the refusal left %v", names)
		}
	}
}
