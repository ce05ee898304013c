package server

import (
	"bytes"
	"math"
	"slices"
	"testing"
	"time"

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
					store := &memStore{files: map[smtp.ID]*memFile{}}
					c := &content{ta: smtp.ID{Counter: 1}, store: store, pool: &pools{}, memory: msg.NewMemory(1 << 40).Reserve(), inlineMax: limit}
					c.begin(top, announced)
					body := bytes.Repeat([]byte("0123456789"), size/10+1)[:size]
					for p := range slices.Chunk(body, piece) {
						c.write(p)
					}
					inline, r := c.finish(&msg.Envelope{})
					got := inline
					if inline == nil {
						got = store.files[c.ta].data
					}
					if !r.IsZero() || string(got) != string(top)+string(body) || c.total() != int64(len(got)) {
						t.Fatalf("limit %d, size %d: %v, %d bytes, total %d", limit, size, r, len(got), c.total())
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
	shared, memory := &pools{}, msg.NewMemory(400<<10)
	type given struct {
		inline []byte
		held   *msg.Reservation
		fill   byte
	}
	var all []given
	for fill := byte('a'); fill < 'z'; fill++ {
		c := &content{pool: shared, memory: memory.Reserve(), inlineMax: 128 << 10, store: &memStore{files: map[smtp.ID]*memFile{}}}
		c.begin([]byte("x: y\r\n"), 0)
		for range 25 {
			c.write(bytes.Repeat([]byte{fill}, 4<<10))
		}
		inline, r := c.finish(&msg.Envelope{})
		if !r.IsZero() {
			t.Fatal(r)
		}
		all = append(all, given{inline, c.memory, fill})
		if inline == nil {
			c.abort()
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
	store := &memStore{files: map[smtp.ID]*memFile{}}
	c := &content{store: store, pool: &pools{}, memory: msg.NewMemory(1 << 40).Reserve(), inlineMax: 100, sizeMax: 1000}
	c.begin(nil, 0)
	for range 50 {
		c.write(make([]byte, 99))
	}
	inline, r := c.finish(&msg.Envelope{})
	if inline != nil || r.Code != 552 || len(store.files) != 0 || c.size != 4950 {
		t.Errorf("%d bytes, %v, %d files, size %d", len(inline), r, len(store.files), c.size)
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
		c := &content{pool: &pools{}, memory: msg.NewMemory(1 << 40).Reserve(), inlineMax: 1000}
		c.begin([]byte("Received: x\r\n"), 0)
		for i := range len(body) {
			c.write([]byte(body[i : i+1]))
		}
		if inline, r := c.finish(&msg.Envelope{}); string(inline) != want || !r.IsZero() || c.total() != int64(len(want)) || c.header.hops != 0 {
			t.Errorf("%q: %q, %v, total %d, %d hops", body, inline, r, c.total(), c.header.hops)
		}
	}
}

// TestTooMuch: what a refused message may still send is bounded for each
// message_size_max, the largest that the option takes too.
func TestTooMuch(t *testing.T) {
	c := &session{srv: &Server{cfg: Config{IOTimeout: time.Hour}}}
	for _, m := range []struct {
		sizeMax, size int64
		flood         bool
	}{
		{0, math.MaxInt64 / 2, false},
		{1000, 2000 + drainMin, false},
		{1000, 2001 + drainMin, true},
		{1 << 61, 1 << 40, false},
		{1<<62 + 1, 1, false},
		{math.MaxInt64, 1, false},
		{math.MaxInt64, math.MaxInt64, false},
	} {
		err := c.tooMuch(&content{sizeMax: m.sizeMax, size: m.size}, time.Now())
		if (err != nil) != m.flood {
			t.Errorf("message_size_max %d, %d bytes: %v", m.sizeMax, m.size, err)
		}
	}
}

// TestContentMemory: messages take no more memory than there is, those that get none are in
// files, whole, and all memory comes back.
func TestContentMemory(t *testing.T) {
	const most = 4*bigBuffer + 10_000
	memory, store := msg.NewMemory(most), &memStore{files: map[smtp.ID]*memFile{}}
	for _, used := range []int64{0, most / 2, most - bigBuffer, most} {
		if !memory.Take(used) {
			t.Fatal("the memory is not free")
		}
		var all []*content
		for i := range 20 {
			c := &content{ta: smtp.ID{Counter: uint64(used)*100 + uint64(i)}, store: store, pool: &pools{}, memory: memory.Reserve(), inlineMax: 20_000}
			c.begin([]byte("Received: x\r\n"), int64(i)*500)
			all = append(all, c)
		}
		for range 15 { // 15 KB each, in turns
			for i, c := range all {
				c.write(bytes.Repeat([]byte{'a' + byte(i)}, 1000))
				if u := memory.Used(); u > most {
					t.Fatalf("%d of %d bytes are taken", u, int64(most))
				}
			}
		}
		files := 0
		for i, c := range all {
			inline, r := c.finish(&msg.Envelope{})
			got := inline
			if inline == nil {
				got, files = store.files[c.ta].data, files+1
			}
			if want := "Received: x\r\n" + string(bytes.Repeat([]byte{'a' + byte(i)}, 15_000)); !r.IsZero() || string(got) != want {
				t.Errorf("message %d: %v, %d bytes", i, r, len(got))
			}
			if i%5 == 0 {
				memory.Give(c.memory.TakeOver()) // QMGR has had it
			}
			c.abort()
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
