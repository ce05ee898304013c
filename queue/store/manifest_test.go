package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/queue/vfs"
)

// flushedStore is a closed store with tables on disk, and what is in it.
func flushedStore(t *testing.T) (*pvfs.MemFS, map[string]string) {
	t.Helper()
	mem := pvfs.NewCrashableMem()
	want := map[string]string{}
	for round := range 3 {
		s, err := Open(vfs.FromPebble(mem, smallDisk), "db", options(t))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			k, v := fmt.Sprintf("k%d.%d", i, round), strings.Repeat(fmt.Sprint(i), 50)
			want[k] = v
			if err := s.Set([]byte(k), []byte(v), pebble.NoSync); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return mem.CrashClone(pvfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))}), want
}

func filesOf(t *testing.T, mem *pvfs.MemFS, part string) (found []string) {
	t.Helper()
	names, err := mem.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.Contains(name, part) {
			found = append(found, "db/"+name)
		}
	}
	if len(found) == 0 {
		t.Fatalf("no %s among %v", part, names)
	}
	return found
}

func readAll(s *Store) (map[string]string, error) {
	got := map[string]string{}
	it, err := s.NewIter(nil)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	for it.First(); it.Valid(); it.Next() {
		got[string(it.Key())] = string(it.Value())
	}
	delete(got, string(versionKey))
	return got, it.Error()
}

// TestDamagedManifest: whatever happens to the manifest, a start either finds all
// records or refuses and changes nothing.
func TestDamagedManifest(t *testing.T) {
	base, want := flushedStore(t)
	size := 0
	manifest := filesOf(t, base, "MANIFEST-")[0]
	rewrite(t, base, manifest, func(b []byte) []byte { size = len(b); return b })
	damages := map[string]func(*pvfs.MemFS){
		"no manifest": func(mem *pvfs.MemFS) { _ = mem.Remove(manifest) },
		"no marker": func(mem *pvfs.MemFS) {
			for _, m := range filesOf(t, mem, "marker.manifest") {
				_ = mem.Remove(m)
			}
		},
		"no markers": func(mem *pvfs.MemFS) {
			for _, m := range filesOf(t, mem, "marker.") {
				_ = mem.Remove(m)
			}
		},
		"no reserve and no marker": func(mem *pvfs.MemFS) {
			for _, m := range append(filesOf(t, mem, "marker.manifest"), filesOf(t, mem, "BALLAST")...) {
				_ = mem.Remove(m)
			}
		},
	}
	for at := 0; at < size; at += 1 + size/60 {
		damages[fmt.Sprintf("byte %d of %d", at, size)] = func(mem *pvfs.MemFS) {
			rewrite(t, mem, manifest, func(b []byte) []byte { b[at] ^= 0x55; return b })
		}
		damages[fmt.Sprintf("cut at %d of %d", at, size)] = func(mem *pvfs.MemFS) {
			rewrite(t, mem, manifest, func(b []byte) []byte { return b[:at] })
		}
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			mem := base.CrashClone(pvfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 2))})
			damage(mem)
			before := len(filesOf(t, mem, ".sst"))
			s, err := Open(vfs.FromPebble(mem, smallDisk), "db", options(t))
			if err != nil {
				if !errors.Is(err, ErrDamaged) {
					t.Error(err)
				}
				if n := len(filesOf(t, mem, ".sst")); n != before {
					t.Errorf("%d tables of %d are left after a refusal: %v", n, before, err)
				}
				return
			}
			defer s.Close()
			got, err := readAll(s)
			if err != nil || len(got) != len(want) {
				t.Errorf("%d records of %d: %v", len(got), len(want), err)
			}
		})
	}
}

// TestReadManifest: what we read agrees with what Pebble has.
func TestReadManifest(t *testing.T) {
	mem, _ := flushedStore(t)
	fsys := vfs.FromPebble(mem, smallDisk)
	s, err := Open(fsys, "db", options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m, err := ReadManifest(fsys, "db")
	if err != nil {
		t.Fatal(err)
	}
	levels, err := s.SSTables()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, level := range levels {
		for _, table := range level {
			n++
			got := m.Tables[uint64(table.FileNum)]
			if got.Size != int64(table.Size) || !bytes.Equal(got.Lower, table.Smallest.UserKey) || !bytes.Equal(got.Upper, table.Largest.UserKey) {
				t.Errorf("table %v: %+v", table.FileNum, got)
			}
		}
	}
	if n == 0 || n != len(m.Tables) {
		t.Errorf("%d tables, the manifest was read to have %d", n, len(m.Tables))
	}
}
