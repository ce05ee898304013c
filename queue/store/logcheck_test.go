package store

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/queue/vfs"
)

// usedStore is a store with records of the size, each synced, as a crash leaves it. It
// returns the disk and the name of its log.
func usedStore(t *testing.T, records, size int) (mem *pvfs.MemFS, log string) {
	t.Helper()
	mem = pvfs.NewCrashableMem()
	s, err := Open(vfs.FromPebble(mem, smallDisk), "db", options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range records {
		if err := s.Set([]byte{'k', byte(i)}, bytes.Repeat([]byte{'v'}, size), pebble.Sync); err != nil {
			t.Fatal(err)
		}
	}
	mem = mem.CrashClone(pvfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))}) // kill -9
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
func rewrite(t *testing.T, mem *pvfs.MemFS, name string, change func([]byte) []byte) {
	t.Helper()
	f, err := mem.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if f, err = mem.Create(name, pvfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(change(b)); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedLog: damage in the middle of the log must not end as a store that is
// smaller than what was synced; a log that ends early is what a crash leaves.
func TestDamagedLog(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0xff; return b }
	}
	tests := []struct {
		name          string
		records, size int
		change        func([]byte) []byte
		damaged       bool
	}{
		{"whole", 20, 100, func(b []byte) []byte { return b }, false},
		{"whole, many blocks", 20, 10000, func(b []byte) []byte { return b }, false},
		{"last record torn", 20, 100, func(b []byte) []byte { return b[:len(b)-5] }, false},
		{"last record zero", 20, 100, func(b []byte) []byte { clear(b[len(b)-50:]); return b }, false},
		{"rest of another log", 20, 100, func(b []byte) []byte { return append(b, bytes.Repeat([]byte{9, 7}, 40000)...) }, false},
		{"payload", 20, 100, flip(1000), true},
		{"payload, many blocks", 20, 10000, flip(40000), true},
		{"length", 20, 100, func(b []byte) []byte { b[4], b[5] = 0xff, 0xff; return b }, true},
		{"zeros", 20, 100, func(b []byte) []byte { clear(b[500:900]); return b }, true},
		{"something else", 20, 100, func([]byte) []byte { return bytes.Repeat([]byte("garbage "), 500) }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mem, log := usedStore(t, tt.records, tt.size)
			rewrite(t, mem, log, tt.change)
			for range 2 { // the first refusal leaves the second start the same
				s, err := Open(vfs.FromPebble(mem, smallDisk), "db", options(t))
				if s != nil {
					defer s.Close()
				}
				if errors.Is(err, ErrDamaged) != tt.damaged || !tt.damaged && err != nil {
					t.Fatalf("opened with %v, want damage %v", err, tt.damaged)
				}
				if !tt.damaged {
					return
				}
			}
		})
	}
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
	if _, err := Open(vfs.FromPebble(mem, smallDisk), "db", options(t)); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened with %v", err)
	}
}
