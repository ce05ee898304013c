package client

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"meta1/client/content"
	"meta1/mta/smtp"
)

// chunkHost takes one message by BDAT and gives what it got to got.
func chunkHost(t *testing.T, got *[]byte, reply string) func(net.Conn) {
	return func(nc net.Conn) {
		r := bufio.NewReader(nc)
		say := func(s string) { io.WriteString(nc, s+"\r\n") }
		say("220 mx.example ESMTP")
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			var size int
			switch {
			case strings.HasPrefix(line, "EHLO"):
				say("250-mx.example\r\n250-PIPELINING\r\n250 CHUNKING")
			case strings.HasPrefix(line, "BDAT"):
				if n, _ := fmt.Sscanf(line, "BDAT %d LAST\r\n", &size); n != 1 {
					t.Errorf("client sent %q", line)
				}
				b := make([]byte, size)
				if _, err := io.ReadFull(r, b); err != nil {
					return
				}
				*got = b
				say(reply)
			case strings.HasPrefix(line, "DATA"):
				t.Error("client sent DATA")
				return
			default:
				say("250 ok")
			}
		}
	}
}

// TestLargeChunk: large content goes out as one chunk of just its size, from memory and
// from a file.
func TestLargeChunk(t *testing.T) {
	for _, size := range []int{content.SmallMax + 1, readMax, chunkMax, chunkMax + 1, 2*chunkMax + 7} {
		content := bytes.Repeat([]byte(".\r\n..\r\n.x\n\r"), size/11+1)[:size]
		for name, file := range map[string]bool{"memory": false, "file": true} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				var got []byte
				r := start(t, Config{SeparateFinalDotAndQuit: true}, Deps{}, newNetwork(chunkHost(t, &got, "250 2.0.0 ok")))
				q := question()
				q.Body = memBody(content)
				if file {
					q.Body = fileBody{data: content}
				}
				a := r.deliver(t, q)
				if err := r.stop(); err != nil {
					t.Error(err)
				}
				if !a.Rcpts[0].Accepted() || !bytes.Equal(got, content) {
					t.Errorf("%v; %d octets of %d arrived", a.Rcpts[0], len(got), len(content))
				}
			})
		}
	}
}

// TestChunkCut: content that cannot be read to its end never becomes a message.
func TestChunkCut(t *testing.T) {
	var got []byte
	r := start(t, Config{SeparateFinalDotAndQuit: true}, Deps{}, newNetwork(chunkHost(t, &got, "250 2.0.0 ok")))
	q := question()
	q.Body = fileBody{data: bytes.Repeat([]byte("x"), 3*readMax), failAfter: 2*readMax + 1}
	a := r.deliver(t, q)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if got != nil || a.Unknown || a.HostFailed || a.Rcpts[0].Enhanced != (smtp.EnhancedCode{4, 3, 0}) {
		t.Errorf("%+v, %d octets arrived", a, len(got))
	}
}
