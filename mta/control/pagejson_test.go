package control

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
)

// full is an entry in which every member has a value.
func full(t testing.TB, text string) Entry {
	e := Entry{
		RcptID: "S000000000000000100-000000", TA: "S000000000000000100", State: msg.StateDeferred, Arrival: time.Date(2026, 11, 22, 2, 24, 18, 225e6, time.UTC), Size: 1 << 40,
		Sender: "a" + text + "@b.test", Rcpt: text, Dest: "mx:" + text, NextTry: time.Date(2026, 11, 22, 3, 24, 18, 0, time.FixedZone("", 3600)), Attempts: 7, Reason: "451 " + text,
	}
	v := reflect.ValueOf(e)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Fatalf("%s of an entry has no value here: do writeJSON and readPage know it?", v.Type().Field(i).Name)
		}
	}
	return e
}

// writes is a page as it is sent.
func writes(t testing.TB, p *Page) string {
	var b strings.Builder
	if err := p.writeJSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// same reports whether two pages are the same; times may have other locations.
func same(a, b Page) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// TestPageJSON: a page is written as encoding/json would, and what either writes is read.
func TestPageJSON(t *testing.T) {
	for _, text := range []string{
		"x", `"`, `\`, `\"`, `a"b\\"c`, "\x00\x1f\x7f", "ü€😀", "\xff", "\u2028", "<&>", "a\xc3", strings.Repeat(`\"`, 40_000), strings.Repeat("x", 3*chunk),
	} {
		want := Page{Entries: []Entry{full(t, text), {TA: "S", Arrival: time.Unix(1, 0).UTC()}, full(t, text+text)}, More: true}
		written := writes(t, &want)
		std, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got, plain Page
		if err := json.Unmarshal([]byte(written), &got); err != nil || json.Unmarshal(std, &plain) != nil || !same(got, plain) {
			t.Errorf("%.40q: written as %.300s\nnot %.300s\n%v", text, written, std, err)
		}
		if fast, err := readPage(written); err != nil || !same(fast, plain) {
			t.Errorf("%.40q: read as %+.300v, %v", text, fast, err)
		}
		r := pageReader{rest: written}
		if err := r.page(new(Page)); err != nil {
			t.Errorf("%.40q: what was written by hand is not read by hand: %v", text, err)
		}
		if slow, err := readPage(string(std)); err != nil || !same(slow, plain) {
			t.Errorf("%.40q: what encoding/json wrote is read as %+.300v, %v", text, slow, err)
		}
	}
	for _, p := range []Page{{}, {Entries: []Entry{}, More: true}} {
		if got, err := readPage(writes(t, &p)); err != nil || len(got.Entries) != 0 || got.More != p.More {
			t.Errorf("an empty page is read as %+v, %v", got, err)
		}
	}
}

// FuzzReadPage: what is read by hand is what encoding/json reads, and what it refuses is refused.
func FuzzReadPage(f *testing.F) {
	f.Add(writes(f, &Page{Entries: []Entry{full(f, `a\"ü`), full(f, "b")}}))
	f.Add(`{"entries":[{}],"more":1}`)
	f.Add(`{"entries":[],"more":false}` + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := readPage(text)
		var want Page
		if wrong := json.Unmarshal([]byte(text), &want); wrong != nil {
			// By hand, control characters within a string and odd numbers pass: the server writes none.
			return
		}
		if err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if clean := strings.ToValidUTF8(text, ""); clean == text && !same(got, want) {
			t.Errorf("%q is read as %+v, want %+v", text, got, want)
		}
	})
}

func BenchmarkPage(b *testing.B) {
	p := Page{}
	for range PageMax {
		p.Entries = append(p.Entries, full(b, "recipient"))
	}
	text := writes(b, &p)
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			writes(b, &p)
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			if _, err := readPage(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}
