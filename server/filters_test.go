package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"meta1/mta/msg"
)

// pipeFilter connects to a filter that goes on with everything, and says more at the end of a
// message: pieces of the protocol as they are. It ends with its connection.
func pipeFilter(eom ...string) func(context.Context, string, string) (net.Conn, error) {
	reply := func(kind byte, data string) []byte {
		return append(append(binary.BigEndian.AppendUint32(nil, uint32(len(data)+1)), kind), data...)
	}
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer theirs.Close()
			for {
				var head [5]byte
				if _, err := io.ReadFull(theirs, head[:]); err != nil {
					return
				}
				if _, err := io.CopyN(io.Discard, theirs, int64(binary.BigEndian.Uint32(head[:]))-1); err != nil {
					return
				}
				var out []byte
				switch head[4] {
				case 'O':
					out = reply('O', "\x00\x00\x00\x06\x00\x00\x01\xff\x00\x00\x00\x00")
				case 'Q':
					return
				case 'D', 'A', 'K':
					continue
				case 'E':
					for _, s := range eom {
						out = append(out, reply(s[0], s[1:])...)
					}
					out = append(out, reply('c', "")...)
				default:
					out = reply('c', "")
				}
				if _, err := theirs.Write(out); err != nil {
					return
				}
			}
		}()
		return ours, nil
	}
}

// filterConfig has n filters.
func filterConfig(n int) (c Config) {
	for i := range n {
		c.Milters = append(c.Milters, Milter{Name: fmt.Sprintf("f%d", i), Socket: Socket{Type: "inet", Address: netip.MustParseAddr("127.0.0.1"), Port: 1}})
	}
	return c
}

// TestFilteredContent: what filters make of a message is committed, whether it is in memory or
// in a file, however many of them replace its body; and nothing of the budget is lost.
func TestFilteredContent(t *testing.T) {
	for _, inlineMax := range []int64{0, 200, 1 << 20} {
		for n := range 4 {
			synctest.Test(t, func(t *testing.T) {
				l, fake := newPipeListener(), newFakeMTA()
				fake.inlineMax = inlineMax
				deps := fake.deps(l)
				deps.Dial, deps.Memory = pipeFilter("hX-A\x00b\x00", "bnew\n", "bbody"), msg.NewMemory(1<<20)
				b := startDeps(t, filterConfig(n), fake, deps)
				c := l.talker(t)
				c.begin()
				c.say("Subject: x\r\n\r\nold\r\n.", "250")
				c.say("QUIT", "221")
				b.end(t)
				want := "Subject: x\r\n" + strings.Repeat("X-A: b\r\n", n) + "\r\nnew\r\nbody\r\n"
				if n == 0 {
					want = "Subject: x\r\n\r\nold\r\n"
				}
				got, err := fake.content(fake.committed[0])
				if err != nil || !strings.HasSuffix(string(got), "\r\n"+want) || int64(len(got)) != fake.committed[0].Size {
					t.Errorf("inline up to %d, %d filters: %q, %v, size %d", inlineMax, n, got, err, fake.committed[0].Size)
				}
				if used := deps.Memory.Used(); used != 0 || fake.store.unfinished() != 0 {
					t.Errorf("inline up to %d, %d filters: %d bytes of the budget, %d files are left", inlineMax, n, used, fake.store.unfinished())
				}
			})
		}
	}
}

// BenchmarkFilters is one message of 1 KiB with no, one and three filters, in memory.
func BenchmarkFilters(b *testing.B) {
	for _, n := range []int{0, 1, 3} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			benchSessionWith(b, 1, filterConfig(n), pipeFilter())
		})
	}
}
