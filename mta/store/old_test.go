package store

import (
	"archive/zip"
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/vfs/crashfs"
)

// writeStore makes a file for TestOldStores with the Pebble that is pinned at present. Do
// that before the pin is raised:
//
//	go test ./mta/store -run TestOldStores -write-store testdata/pebble-v2.1.7.zip
var writeStore = flag.String("write-store", "", "write a store to this file")

// TestOldStores opens stores that were written by earlier releases of Pebble, as kill -9
// left them: with tables, removals, and records that are in the log alone.
func TestOldStores(t *testing.T) {
	if *writeStore != "" {
		writeOldStore(t, *writeStore)
	}
	files, err := filepath.Glob("testdata/pebble-*.zip")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no old stores: %v", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			disk := unpack(t, name)
			fsys := crashfs.FS(disk, smallDisk)
			o := options(t)
			r, err := OpenToRead(fsys, "db", o) // changes nothing, and refuses what looks damaged
			if err != nil {
				t.Fatal(err)
			}
			checkOldRecords(t, r)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s, err := Open(fsys, "db", o)
				if err != nil {
					t.Fatal(err)
				}
				if s.Suspicion() != nil {
					t.Error("it looks damaged: ", s.Suspicion())
				}
				checkOldRecords(t, s)
				if got := s.FormatMajorVersion(); got != Format {
					t.Errorf("it has format %d", got)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

const oldRecords = 300

func checkOldRecords(t *testing.T, s *Store) {
	t.Helper()
	got, err := readAll(s)
	if err != nil {
		t.Fatal(err)
	}
	for i := range oldRecords {
		k, v := fmt.Sprintf("k%d", i), strings.Repeat(fmt.Sprint(i), 20)
		if gone := i%10 == 3; gone && got[k] != "" || !gone && got[k] != v {
			t.Errorf("record %s is %.20q", k, got[k])
		}
	}
	if len(got) != oldRecords*9/10 {
		t.Errorf("%d records", len(got))
	}
}

func writeOldStore(t *testing.T, file string) {
	disk := crashfs.New()
	s, err := Open(crashfs.FS(disk, smallDisk), "db", options(t))
	if err != nil {
		t.Fatal(err)
	}
	for i := range oldRecords {
		how := pebble.NoSync
		if i == oldRecords-1 {
			how = pebble.Sync
		}
		if err := s.Set(fmt.Append(nil, "k", i), []byte(strings.Repeat(fmt.Sprint(i), 20)), how); err != nil {
			t.Fatal(err)
		}
		if i%10 == 5 {
			if err := s.Delete(fmt.Append(nil, "k", i-2), how); err != nil {
				t.Fatal(err)
			}
		}
		if i%100 == 99 && i < oldRecords-1 {
			if err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	killed := disk.Kill()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	names, err := killed.List("db")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, ballastName) {
			continue // that it is there is enough
		}
		if _, err := f.Write(read(t, killed, "db/"+name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, file string) *crashfs.Disk {
	t.Helper()
	disk := crashfs.New()
	if err := disk.MkdirAll("db", 0o700); err != nil {
		t.Fatal(err)
	}
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, entry := range z.File {
		in, err := entry.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		f, err := disk.Create("db/"+entry.Name, pvfs.WriteCategoryUnspecified)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return disk
}
