package cdb

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/vfs"
)

func envelope(ta smtp.ID) *msg.Envelope {
	return &msg.Envelope{
		TA: ta, Arrival: time.Unix(1, 0), Mail: msg.Mail{From: smtp.Path{Local: "s", Domain: "x.test"}},
		Rcpts: []msg.Rcpt{{To: smtp.Path{Local: "a", Domain: "d.test"}}, {To: smtp.Path{Local: "b", Domain: "d.test"}}},
	}
}

// writeKept makes a file of content and envelope, with the second recipient ended.
func writeKept(t *testing.T, s *Store, ta smtp.ID, content []byte) {
	t.Helper()
	w, err := s.Create(ta)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.CommitRest(envelope(ta), []int{1}); err != nil {
		t.Fatal(err)
	}
}

func TestEnvelopeIsKeptBehindTheContent(t *testing.T) {
	s := open(t, vfs.Real(), t.TempDir())
	for i, content := range []string{"", "x", "content\r\n" + magic} {
		ta := smtp.ID{Counter: uint64(i)}
		writeKept(t, s, ta, []byte(content))
		k, err := s.Envelope(ta)
		if err != nil || !reflect.DeepEqual(k, Kept{Envelope: envelope(ta), Ended: []int{1}, Size: int64(len(content))}) {
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
		if err := errors.Join(r.Close(), s.Verify(ta)); err != nil {
			t.Error(err)
		}
	}
}

// TestDamageIsNoticed changes each byte of a file in turn, and cuts it at each.
func TestDamageIsNoticed(t *testing.T) {
	s := open(t, vfs.Real(), t.TempDir())
	ta := smtp.ID{Counter: 9}
	content := []byte("the content\r\n")
	writeKept(t, s, ta, content)
	whole, err := os.ReadFile(s.Path(ta))
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what string, i int, b []byte) {
		t.Helper()
		if err := os.WriteFile(s.Path(ta), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(ta); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s %d: %v", what, i, err)
		}
		if r, err := s.Open(ta); err == nil {
			// A reader that knows the size must not get all of it either.
			if n, _ := io.ReadFull(r, make([]byte, len(content))); n == len(content) && !bytes.Equal(b[:n], content) {
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
	e := envelope(smtp.ID{Counter: 3})
	b := appendTrailer(nil, e, []int{0, 1}, 5, 6)
	f.Add(b[:len(b)-footerLen])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := decodeRecord(b)
		if err == nil && k.Envelope == nil {
			t.Error("neither an envelope nor an error")
		}
	})
}
