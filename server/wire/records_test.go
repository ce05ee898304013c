package wire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// chunkConn gives what it has as far as there is room, and notes how much that was.
type chunkConn struct {
	net.Conn
	in    []byte
	reads []int
}

func (c *chunkConn) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.in)
	c.in, c.reads = c.in[n:], append(c.reads, n)
	return n, nil
}

func record(n int) []byte {
	return append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, bytes.Repeat([]byte{'x'}, n)...)
}

// TestRecordConn: the end of a large record is the end of a read, small ones come at once.
func TestRecordConn(t *testing.T) {
	in := bytes.Join([][]byte{record(30), record(40), record(16640), record(0), record(16384), record(5)}, nil)
	raw := &chunkConn{in: in}
	c := &recordConn{Conn: raw}
	var got []byte
	for p := make([]byte, 64<<10); ; {
		n, err := c.Read(p)
		got = append(got, p[:n]...)
		if err != nil {
			break
		}
	}
	if !bytes.Equal(got, in) {
		t.Error("what was read is not what came")
	}
	first := 5 + 30 + 5 + 40 + 5 + 16640 // up to the end of the first large one
	second := first + 5 + 5 + 16384
	at, ends := 0, map[int]bool{}
	for _, n := range raw.reads {
		at += n
		ends[at] = true
	}
	if !ends[first] || !ends[second] || len(raw.reads) != 5 {
		t.Errorf("reads of %v, want some that end at %d and %d", raw.reads, first, second)
	}
}

// TestRecordConnPieces: however the input is cut, and whatever it is, it comes whole.
func TestRecordConnPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		in := make([]byte, r.IntN(5000))
		for i := range in {
			in[i] = byte(r.Uint32())
		}
		c := &recordConn{Conn: &chunkConn{in: in}}
		var got []byte
		for {
			p := make([]byte, 1+r.IntN(700))
			n, err := c.Read(p)
			got = append(got, p[:n]...)
			if err != nil {
				break
			}
		}
		if !bytes.Equal(got, in) {
			t.Fatalf("of %d bytes %d came", len(in), len(got))
		}
	}
}
