package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"

	"meta1/mta/vfs/crashfs"
)

// flushedStore is a closed store with tables on disk, and what is in it.
func flushedStore(t *testing.T) (*crashfs.Disk, map[string]string) {
	t.Helper()
	mem := crashfs.New()
	want := map[string]string{}
	for round := range 3 {
		s, err := Open(crashfs.FS(mem, smallDisk), "db", options(t))
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
	return mem.Kill(), want
}

func filesOf(t *testing.T, mem *crashfs.Disk, part string) (found []string) {
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

func currentManifest(t *testing.T, disk *crashfs.Disk) string {
	t.Helper()
	name, err := atomicfs.ReadMarker(disk, "db", "manifest")
	if err != nil || name == "" {
		t.Fatalf("the marker names %q: %v", name, err)
	}
	return "db/" + name
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
// records, or refuses and changes nothing, or keeps all files and says so.
func TestDamagedManifest(t *testing.T) {
	base, want := flushedStore(t)
	size := 0
	manifest := currentManifest(t, base)
	rewrite(t, base, manifest, func(b []byte) []byte { size = len(b); return b })
	damages := map[string]func(*crashfs.Disk){
		"no manifest": func(mem *crashfs.Disk) { _ = mem.Remove(manifest) },
		"no marker": func(mem *crashfs.Disk) {
			for _, m := range filesOf(t, mem, "marker.manifest") {
				_ = mem.Remove(m)
			}
		},
		"no markers": func(mem *crashfs.Disk) {
			for _, m := range filesOf(t, mem, "marker.") {
				_ = mem.Remove(m)
			}
		},
		"no reserve and no marker": func(mem *crashfs.Disk) {
			for _, m := range append(filesOf(t, mem, "marker.manifest"), filesOf(t, mem, "BALLAST")...) {
				_ = mem.Remove(m)
			}
		},
	}
	for at := 0; at < size; at += 1 + size/60 {
		damages[fmt.Sprintf("byte %d of %d", at, size)] = func(mem *crashfs.Disk) {
			rewrite(t, mem, manifest, func(b []byte) []byte { b[at] ^= 0x55; return b })
		}
		damages[fmt.Sprintf("cut at %d of %d", at, size)] = func(mem *crashfs.Disk) {
			rewrite(t, mem, manifest, func(b []byte) []byte { return b[:at] })
		}
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			mem := base.Kill()
			damage(mem)
			before, all := len(filesOf(t, mem, ".sst")), len(filesOf(t, mem, ""))
			s, err := Open(crashfs.FS(mem, smallDisk), "db", options(t))
			if err != nil {
				if !errors.Is(err, ErrDamaged) {
					t.Error(err)
				}
				if n := len(filesOf(t, mem, ".sst")); n != before {
					t.Errorf("%d tables of %d are left after a refusal: %v", n, before, err)
				}
				if names, _ := mem.List("."); len(names) != 1 {
					t.Errorf("a refusal left %v", names)
				}
				return
			}
			defer s.Close()
			if s.Suspicion() != nil {
				names, err := mem.List(keptDir(t, mem))
				if own := ballastSegments + 2; err != nil || len(names) != all-own {
					t.Errorf("kept %v of %d files: %v", names, all-own, err)
				}
				return
			}
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
	fsys := crashfs.FS(mem, smallDisk)
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

// TestUnknownRecordInTheManifest: what a later release of Pebble may write is no damage.
func TestUnknownRecordInTheManifest(t *testing.T) {
	mem, want := flushedStore(t)
	rewrite(t, mem, currentManifest(t, mem), func(b []byte) []byte {
		// Tag 113 and an empty value; Pebble itself refuses it, so only our reader sees it.
		record := []byte{113, 0}
		chunk := append(make([]byte, plainHeader), record...)
		binary.LittleEndian.PutUint16(chunk[4:], uint16(len(record)))
		chunk[6] = firstPlain
		binary.LittleEndian.PutUint32(chunk, Mask(crc32.Checksum(chunk[6:], castagnoli)))
		return append(b, chunk...)
	})
	fsys := crashfs.FS(mem, smallDisk)
	if _, err := ReadManifest(fsys, "db"); !errors.Is(err, errUnknown) {
		t.Fatalf("read with %v", err)
	}
	o := options(t)
	s := &Store{name: "TEST", fs: fsys, dirs: []string{"db"}, ballast: newBallast(fsys, "db", 64<<20, o.Log), end: o.ending()}
	if kept := s.examine(o); kept != nil || s.Suspicion() != nil {
		t.Errorf("%d records are suspicious: %v, kept in %v", len(want), s.Suspicion(), kept)
	}
}
