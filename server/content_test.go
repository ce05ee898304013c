package server

import (
	"bytes"
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
			for _, announced := range []int64{0, int64(size), 10, 1 << 40} {
				for _, piece := range []int{1000, 3000, 1 << 20} {
					store := &memStore{files: map[smtp.ID]*memFile{}}
					c := &content{ta: smtp.ID{Counter: 1}, store: store, pool: &pools{}, inlineMax: limit}
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
					if fits := int64(len(got)) <= limit; announced <= int64(size) && fits != (inline != nil) {
						t.Errorf("limit %d, size %d, announced %d: in memory %v", limit, size, announced, inline != nil)
					}
				}
			}
		}
	}
}

// TestContentFailed: nothing is kept of a message that was refused while it came in.
func TestContentFailed(t *testing.T) {
	store := &memStore{files: map[smtp.ID]*memFile{}}
	c := &content{store: store, pool: &pools{}, inlineMax: 100, sizeMax: 1000}
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
		c := &content{pool: &pools{}, inlineMax: 1000}
		c.begin([]byte("Received: x\r\n"), 0)
		for i := range len(body) {
			c.write([]byte(body[i : i+1]))
		}
		if inline, r := c.finish(&msg.Envelope{}); string(inline) != want || !r.IsZero() || c.total() != int64(len(want)) || c.header.hops != 0 {
			t.Errorf("%q: %q, %v, total %d, %d hops", body, inline, r, c.total(), c.header.hops)
		}
	}
}
