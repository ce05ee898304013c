package cdb

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
	"meta1/mta/vfs/crashfs"
)

func open(t *testing.T, f vfs.FS, base string) *Store {
	t.Helper()
	s, err := Open(f, base)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// write stores the content of a transaction.
func write(s *Store, ta smtp.ID, content []byte) error {
	w, err := s.Create(ta)
	if err != nil {
		return err
	}
	defer w.Abort()
	if _, err := w.Write(content); err != nil {
		return err
	}
	return w.Commit(&msg.Envelope{TA: ta, Arrival: time.Unix(0, 0)})
}

func TestWriteReadRemove(t *testing.T) {
	base := t.TempDir()
	s := open(t, vfs.Real(), base)
	ta := smtp.ID{Counter: 0x6B1D2, Process: 0}
	if err := write(s, ta, []byte("hello\r\n")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(base, "2", "S000000000006B1D200")
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal("the file is not where README 2.4.1 says: ", err)
	}
	if fi.Mode().Perm()&0o007 != 0 {
		t.Errorf("mode %v lets others in", fi.Mode())
	}
	if err := write(s, ta, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second content of one transaction: %v, want ErrExist", err)
	}
	r, err := s.Open(ta)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != "hello\r\n" {
		t.Errorf("read %q, %v", b, err)
	}
	for range 2 { // removing twice is no error
		if err := s.Remove(ta); err != nil {
			t.Error(err)
		}
	}
}

func TestSymlinkIsNotFollowed(t *testing.T) {
	base := t.TempDir()
	s := open(t, vfs.Real(), base)
	ta := smtp.ID{Counter: 7}
	victim := filepath.Join(base, "victim")
	if err := os.WriteFile(victim, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, s.Path(ta)); err != nil {
		t.Fatal(err)
	}
	if err := write(s, ta, []byte("x")); err == nil {
		t.Error("content was written through a symbolic link")
	}
	if r, err := s.Open(ta); err == nil {
		r.Close()
		t.Error("content was read through a symbolic link")
	}
	if b, _ := os.ReadFile(victim); string(b) != "keep" {
		t.Errorf("the link's target became %q", b)
	}
}

// TestDetach: another content takes the place of one that can still be read, and only that
// one is kept.
func TestDetach(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"real": vfs.Real(), "crashfs": crashfs.FS(crashfs.New(), nil)} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			if err := fsys.MkdirAll(base, 0o750); err != nil {
				t.Fatal(err)
			}
			s := open(t, fsys, base)
			ta := smtp.ID{Counter: 1}
			first, err := s.Create(ta)
			if err != nil {
				t.Fatal(err)
			}
			defer first.Abort()
			if _, err := first.Write([]byte("the first")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Create(ta); err == nil {
				t.Error("two contents of one transaction")
			}
			if err := errors.Join(first.Detach(), first.Detach()); err != nil {
				t.Fatal(err)
			}
			second, err := s.Create(ta)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 5)
			if _, err := first.ReadAt(got, 4); err != nil || string(got) != "first" {
				t.Errorf("read %q, %v", got, err)
			}
			if _, err := first.Write(got); err == nil {
				t.Error("a detached content was written")
			}
			if err := first.Commit(envelope(ta)); err == nil {
				t.Error("a detached content was committed")
			}
			if _, err := second.Write([]byte("the second")); err != nil {
				t.Fatal(err)
			}
			first.Abort()
			if err := second.Commit(envelope(ta)); err != nil {
				t.Fatal(err)
			}
			if size, err := s.Stat(ta); err != nil || size != 10 {
				t.Errorf("%d bytes, %v", size, err)
			}
		})
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	s := open(t, vfs.Real(), t.TempDir())
	w, err := s.Create(smtp.ID{Counter: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	w.Abort()
	n := 0
	if err := s.List(func(File) error { n++; return nil }, func(p string) { t.Error("stranger", p) }); err != nil || n != 0 {
		t.Errorf("%d files left, %v", n, err)
	}
}

func TestCommittedContentSurvivesACrash(t *testing.T) {
	mem := crashfs.New()
	disk := crashfs.FS(mem, nil)
	if err := vfs.MakeDir(disk, "spool", 0o750); err != nil {
		t.Fatal(err)
	}
	s := open(t, disk, "spool")
	content := bytes.Repeat([]byte("0123456789abcdef"), 100)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			if err := write(s, smtp.ID{Counter: uint64(i)}, content); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	half, err := s.Create(smtp.ID{Counter: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := half.Write(content); err != nil {
		t.Fatal(err)
	}
	s = open(t, crashfs.FS(mem.Crash(crashfs.Nothing), nil), "spool")
	for i := range 64 {
		r, err := s.Open(smtp.ID{Counter: uint64(i)})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, content) {
			t.Fatalf("content %d after the crash: %d bytes, %v", i, len(b), err)
		}
		r.Close()
	}
}

func TestListTellsStrangers(t *testing.T) {
	base := t.TempDir()
	s := open(t, vfs.Real(), base)
	for _, name := range []string{"0/core", "1/S000000000000000200", "2/S00000000000000020"} {
		if err := os.WriteFile(filepath.Join(base, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(base, "3/S000000000000000300"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := write(s, smtp.ID{Counter: 4}, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	var strangers []string
	var files []File
	err := s.List(func(f File) error { files = append(files, f); return nil }, func(p string) {
		rel, _ := filepath.Rel(base, p)
		strangers = append(strangers, rel)
	})
	if err != nil {
		t.Fatal(err)
	}
	sort.Strings(strangers)
	want := []string{"0/core", "1/S000000000000000200", "2/S00000000000000020", "3/S000000000000000300"}
	if len(strangers) != len(want) {
		t.Fatalf("strangers %q, want %q", strangers, want)
	}
	for i := range want {
		if strangers[i] != want[i] {
			t.Errorf("strangers %q, want %q", strangers, want)
		}
	}
	if len(files) != 1 || files[0].TA.Counter != 4 || files[0].Size < 3 {
		t.Errorf("files %+v", files)
	}
}
