package content

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// TestContentPlaces writes messages around the limit in pieces, and checks where the
// content ends up, that it is whole, and that little more memory is held than it
// needs, whatever size the client had announced.
func TestContentPlaces(t *testing.T) {
	top := []byte("Received: x\r\n")
	for _, limit := range []int64{0, 1, 20, 5000, 1 << 20} {
		for _, size := range []int{0, 6, 7, 8, 4000, 4987, 4988, 100000} {
			for _, announced := range []int64{0, int64(size), 10, 1 << 40, math.MaxInt64} {
				for _, piece := range []int{1000, 3000, 1 << 20} {
					store := newFiles(t)
					c := New(Config{TA: smtp.ID{Counter: 1}, Store: store, Pools: &Pools{}, Memory: msg.NewMemory(1 << 40).Reserve(), InlineMax: limit})
					c.Begin(top, announced)
					body := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
					for p := range slices.Chunk(body, piece) {
						c.Write(p)
					}
					inline, r := c.Finish(&msg.Envelope{})
					got := inline
					if inline == nil {
						got, _ = store.read(c.cfg.TA)
					}
					if !r.IsZero() || string(got) != string(top)+string(body) || c.Total() != int64(len(got)) {
						t.Fatalf("limit %d, size %d: %v, %d bytes, total %d", limit, size, r, len(got), c.Total())
					}
					if inline != nil && (int64(len(inline)) > limit || cap(inline) > max(2*len(inline), presizeMin)) {
						t.Errorf("limit %d, size %d, announced %d: %d bytes in %d of memory", limit, size, announced, len(inline), cap(inline))
					}
					if announced == math.MaxInt64 && inline != nil {
						t.Errorf("limit %d, size %d: in memory, though it was to be endless", limit, size)
					}
					if fits := int64(len(got)) <= limit; announced <= int64(size) && fits != (inline != nil) {
						t.Errorf("limit %d, size %d, announced %d: in memory %v", limit, size, announced, inline != nil)
					}
				}
			}
		}
	}
}

// TestContentOwn: what QMGR was given stays as it is when the memory in which it came in is used again, whether there was
// memory for a copy or not, and nothing of the budget is lost.
func TestContentOwn(t *testing.T) {
	shared, memory := &Pools{}, msg.NewMemory(400<<10)
	type given struct {
		inline []byte
		held   *msg.Reservation
		fill   byte
	}
	var all []given
	for fill := byte('a'); fill < 'z'; fill++ {
		c := New(Config{Pools: shared, Memory: memory.Reserve(), InlineMax: 128 << 10, Store: newFiles(t)})
		c.Begin([]byte("x: y\r\n"), 0)
		for range 25 {
			c.Write(bytes.Repeat([]byte{fill}, 4<<10))
		}
		inline, r := c.Finish(&msg.Envelope{})
		if !r.IsZero() {
			t.Fatal(r)
		}
		all = append(all, given{inline, c.cfg.Memory, fill})
		if inline == nil {
			c.Abort()
		}
	}
	kept := 0
	for _, g := range all {
		if g.inline == nil {
			continue
		}
		kept++
		if want := "x: y\r\n" + string(bytes.Repeat([]byte{g.fill}, 100<<10)); string(g.inline) != want {
			t.Errorf("the content of %c is another's", g.fill)
		}
		memory.Give(g.held.TakeOver())
	}
	if kept < 2 || memory.Used() != 0 {
		t.Errorf("%d were kept in memory, %d bytes are missing", kept, memory.Used())
	}
}

// TestContentFailed: nothing is kept of a message that was refused while it came in.
func TestContentFailed(t *testing.T) {
	store := newFiles(t)
	c := New(Config{Store: store, Pools: &Pools{}, Memory: msg.NewMemory(1 << 40).Reserve(), InlineMax: 100, SizeMax: 1000})
	c.Begin(nil, 0)
	for range 50 {
		c.Write(make([]byte, 99))
	}
	inline, r := c.Finish(&msg.Envelope{})
	if _, left := store.read(c.cfg.TA); inline != nil || r.Code != 552 || left || c.size != 4950 {
		t.Errorf("%d bytes, %v, in a file %v, size %d", len(inline), r, left, c.size)
	}
}

// TestContentBeginsWithSpace: a first line with white space does not become a part of
// our Received:.
func TestContentBeginsWithSpace(t *testing.T) {
	for body, want := range map[string]string{
		" x\r\nReceived: y\r\n": "Received: x\r\n\r\n x\r\nReceived: y\r\n",
		"\tx\r\n":               "Received: x\r\n\r\n\tx\r\n",
		"x\r\n y\r\n":           "Received: x\r\nx\r\n y\r\n",
	} {
		c := New(Config{Pools: &Pools{}, Memory: msg.NewMemory(1 << 40).Reserve(), InlineMax: 1000})
		c.Begin([]byte("Received: x\r\n"), 0)
		for i := range len(body) {
			c.Write([]byte(body[i : i+1]))
		}
		if inline, r := c.Finish(&msg.Envelope{}); string(inline) != want || !r.IsZero() || c.Total() != int64(len(want)) || c.header.hops != 0 {
			t.Errorf("%q: %q, %v, total %d, %d hops", body, inline, r, c.Total(), c.header.hops)
		}
	}
}

// TestContentMemory: messages take no more memory than there is, those that get none are in
// files, whole, and all memory comes back.
func TestContentMemory(t *testing.T) {
	const most = 4*fileBuffer + 10_000
	memory, store := msg.NewMemory(most), newFiles(t)
	for _, used := range []int64{0, most / 2, most - fileBuffer, most} {
		if !memory.Take(used) {
			t.Fatal("the memory is not free")
		}
		var all []*Content
		for i := range 20 {
			c := New(Config{TA: smtp.ID{Counter: uint64(used)*100 + uint64(i)}, Store: store, Pools: &Pools{}, Memory: memory.Reserve(), InlineMax: 20_000})
			c.Begin([]byte("Received: x\r\n"), int64(i)*500)
			all = append(all, c)
		}
		for range 15 { // 15 KB each, in turns
			for i, c := range all {
				c.Write(bytes.Repeat([]byte{'a' + byte(i)}, 1000))
				if u := memory.Used(); u > most {
					t.Fatalf("%d of %d bytes are taken", u, int64(most))
				}
			}
		}
		files := 0
		for i, c := range all {
			inline, r := c.Finish(&msg.Envelope{})
			got := inline
			if inline == nil {
				got, _ = store.read(c.cfg.TA)
				files++
			}
			if want := "Received: x\r\n" + string(bytes.Repeat([]byte{'a' + byte(i)}, 15_000)); !r.IsZero() || string(got) != want {
				t.Errorf("message %d: %v, %d bytes", i, r, len(got))
			}
			if i%5 == 0 {
				memory.Give(c.cfg.Memory.TakeOver()) // QMGR has had it
			}
			c.Abort()
		}
		if (used == most) != (files == len(all)) {
			t.Errorf("%d of %d messages are in files, with %d bytes free", files, len(all), most-used)
		}
		memory.Give(used)
		if u := memory.Used(); u != 0 {
			t.Errorf("%d bytes are still taken", u)
		}
	}
}
