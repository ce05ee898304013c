package cdb

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"reflect"
	"testing"
	"testing/iotest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs"
)

func envelope(ta smtp.ID) *msg.Envelope {
	return &msg.Envelope{
		TA: ta, Arrival: time.Unix(1, 0), Mail: msg.Mail{From: smtp.Path{Local: "s", Domain: "x.test"}},
		Rcpts: []msg.Rcpt{{To: smtp.Path{Local: "a", Domain: "d.test"}}, {To: smtp.Path{Local: "b", Domain: "d.test"}}},
	}
}

// writeKept makes a file of content and envelope.
func writeKept(t *testing.T, s *Store, ta smtp.ID, content []byte) {
	t.Helper()
	writeTop(t, s, ta, content, 0, nil)
}

// writeTop makes a file of content and envelope, with a head in place of drop bytes.
func writeTop(t *testing.T, s *Store, ta smtp.ID, content []byte, drop int64, head []byte) {
	t.Helper()
	w, err := s.Create(ta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Top(drop, head); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(envelope(ta)); err != nil {
		t.Fatal(err)
	}
}

func TestEnvelopeIsKeptBehindTheContent(t *testing.T) {
	s := open(t, vfs.Real(), t.TempDir())
	for i, content := range []string{"", "x", "content\r\n" + magic} {
		ta := smtp.ID{Counter: uint64(i)}
		writeKept(t, s, ta, []byte(content))
		k, err := s.Envelope(ta)
		if err != nil || !reflect.DeepEqual(k, Kept{Envelope: envelope(ta), Size: int64(len(content))}) {
			t.Errorf("%+v, %v", k, err)
		}
		if size, err := s.Stat(ta); err != nil || size != int64(len(content)) {
			t.Errorf("size %d, %v", size, err)
		}
		r, err := s.Open(ta)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != content {
			t.Errorf("content %q, %v", b, err)
		}
		if err := errors.Join(r.Close(), verify(s, ta)); err != nil {
			t.Error(err)
		}
	}
}

// TestTop: readers find a head in place of the first bytes, whatever the size of their reads.
func TestTop(t *testing.T) {
	s := open(t, vfs.Real(), t.TempDir())
	long := bytes.Repeat([]byte("0123456789"), 1000)
	for i, c := range []struct {
		content, head []byte
		drop          int64
	}{
		{[]byte("body"), []byte("head"), 0},
		{[]byte("old body"), []byte("new "), 4},
		{[]byte("old body"), nil, 4},
		{[]byte("all"), []byte("other"), 3},
		{[]byte("all"), nil, 3},
		{long, long, int64(len(long)) - 7},
	} {
		ta := smtp.ID{Counter: uint64(i)}
		writeTop(t, s, ta, c.content, c.drop, c.head)
		want := string(c.head) + string(c.content[c.drop:])
		if size, err := s.Stat(ta); err != nil || size != int64(len(want)) {
			t.Errorf("case %d: size %d, %v", i, size, err)
		}
		if k, err := s.Envelope(ta); err != nil || !reflect.DeepEqual(k, Kept{Envelope: envelope(ta), Size: int64(len(want))}) {
			t.Errorf("case %d: %+v, %v", i, k, err)
		}
		for _, one := range []bool{false, true} {
			r, err := s.Open(ta)
			if err != nil {
				t.Fatal(err)
			}
			in := io.Reader(r)
			if one {
				in = iotest.OneByteReader(r)
			}
			if b, err := io.ReadAll(in); err != nil || string(b) != want {
				t.Errorf("case %d: content %q, %v", i, b, err)
			}
			r.Close()
		}
	}
}

func TestTopOutOfBounds(t *testing.T) {
	s := open(t, vfs.Real(), t.TempDir())
	w, err := s.Create(smtp.ID{Counter: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Top(-1, nil); err == nil {
		t.Error("a negative number of bytes was replaced")
	}
	if err := w.Top(0, make([]byte, msg.MaxTop+1)); err == nil {
		t.Error("a head without bounds was taken")
	}
	if err := w.Top(1, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(envelope(smtp.ID{Counter: 1})); err == nil {
		t.Error("more was replaced than was written")
	}
	if _, err := s.Stat(smtp.ID{Counter: 1}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is left: %v", err)
	}
}

func TestDamageIsNoticed(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testDamage(t, []byte("the content\r\n"), top{}) })
	t.Run("head", func(t *testing.T) {
		testDamage(t, []byte("lost the content\r\n"), top{drop: 5, head: []byte("head: x\r\n")})
	})
}

// testDamage changes each byte of a file in turn, and cuts it at each.
func testDamage(t *testing.T, written []byte, top top) {
	s := open(t, vfs.Real(), t.TempDir())
	ta := smtp.ID{Counter: 9}
	content := append(bytes.Clone(top.head), written[top.drop:]...)
	writeTop(t, s, ta, written, top.drop, top.head)
	whole, err := os.ReadFile(s.Path(ta))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what string, i int, b []byte) {
		t.Helper()
		if err := os.WriteFile(s.Path(ta), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := verify(s, ta); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s %d: %v", what, i, err)
		}
		if r, err := s.Open(ta); err == nil {
			// A reader that knows the size must not get all of it either.
			got := make([]byte, len(content))
			if n, _ := io.ReadFull(r, got); n == len(content) && !bytes.Equal(got, content) {
				t.Errorf("%s %d: damaged content was given out", what, i)
			}
			r.Close()
		}
	}
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 0x20
		expect("changed byte", i, b)
		expect("cut at", i, whole[:i])
	}
	expect("longer by", 1, append(bytes.Clone(whole), 0))
}

func TestEnvelopeOfAnotherFileIsRefused(t *testing.T) {
	s := open(t, vfs.Real(), t.TempDir())
	from, to := smtp.ID{Counter: 1}, smtp.ID{Counter: 2}
	writeKept(t, s, from, []byte("x"))
	if err := os.Rename(s.Path(from), s.Path(to)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Envelope(to); !errors.Is(err, ErrIncomplete) {
		t.Errorf("%v", err)
	}
}

func FuzzRecord(f *testing.F) {
	b := append([]byte("text\r\n"), newTrailer(envelope(smtp.ID{Counter: 3}), 6, 6, top{})...)
	f.Add(append([]byte("text\r\n"), newTrailer(envelope(smtp.ID{Counter: 3}), 6, 6, top{2, []byte("head")})...))
	f.Add(b)
	f.Add(b[len(b)-footerLen:])
	f.Fuzz(func(t *testing.T, b []byte) {
		trailer, err := readFooter(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		k, err := trailer.read(bytes.NewReader(b))
		if err == nil && (k.Envelope == nil || k.Size > int64(len(b))) {
			t.Errorf("%+v", k)
		}
	})
}

// verify reads a whole file. The error is ErrIncomplete if content or envelope are not as
// they were written.
func verify(s *Store, ta smtp.ID) error {
	if _, err := s.Envelope(ta); err != nil {
		return err
	}
	r, err := s.Open(ta)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}
