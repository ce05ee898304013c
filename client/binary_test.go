package client

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"meta1/mta/smtp"
)

// binaryHost offers BINARYMIME or not, and gives what came by BDAT to got. Nothing may come by
// DATA.
func binaryHost(t *testing.T, mail *string, got *[]byte) func(net.Conn) {
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
				say("250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250-8BITMIME\r\n250 BINARYMIME")
			case strings.HasPrefix(line, "MAIL"):
				*mail = line
				say("250 ok")
			case strings.HasPrefix(line, "BDAT"):
				if n, _ := fmt.Sscanf(line, "BDAT %d LAST\r\n", &size); n != 1 {
					t.Errorf("client sent %q", line)
				}
				b := make([]byte, size)
				if _, err := io.ReadFull(r, b); err != nil {
					return
				}
				*got = b
				say("250 ok")
			case strings.HasPrefix(line, "DATA"):
				t.Error("client sent DATA")
				return
			default:
				say("250 ok")
			}
		}
	}
}

// TestBinary: a body of any octets reaches a host that takes it octet for octet, by BDAT,
// however small it is and wherever it lies.
func TestBinary(t *testing.T) {
	small := []byte("A: b\r\n\r\n\x00\r\n.\r\nQUIT\r\n\n.\n\r")
	large := append(bytes.Clone(small), bytes.Repeat([]byte("\r\n.\r\n\x00\xff"), 2*readMax/7)...)
	for name, content := range map[string][]byte{"small": small, "large": large} {
		for place, file := range map[string]bool{"memory": false, "file": true} {
			t.Run(name+"/"+place, func(t *testing.T) {
				var mail string
				var got []byte
				r := start(t, Config{SeparateFinalDotAndQuit: true}, Deps{}, newNetwork(binaryHost(t, &mail, &got)))
				q := question()
				q.Mail.Body, q.Body = smtp.BodyBinary, memBody(content)
				if file {
					q.Body = fileBody{data: content}
				}
				a := r.deliver(t, q)
				if err := r.stop(); err != nil {
					t.Error(err)
				}
				if !a.Rcpts[0].Accepted() || !bytes.Equal(got, content) || !strings.HasSuffix(mail, " BODY=BINARYMIME\r\n") {
					t.Errorf("%v; %d octets of %d arrived after %q", a.Rcpts[0], len(got), len(content), mail)
				}
			})
		}
	}
}

// TestConvertedLog: the log says what was changed for a host, and nothing of what was not.
func TestConvertedLog(t *testing.T) {
	for _, tt := range []struct{ body, content, without string }{
		{smtp.BodyBinary, "A: b\r\n\r\n\x00\n", "BINARYMIME"},
		{smtp.Body8Bit, "A: b\r\n\r\n\xff\r\n", "8BITMIME"},
		{smtp.BodyBinary, "A: b\r\n\r\nc\r\n", ""},
	} {
		t.Run(tt.without, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var logs logLines
				n := newNetwork(acceptAll(func() {}))
				r := start(t, Config{Without8BITMIME: eightBitConvert}, Deps{Log: logs.logger()}, n)
				q := question()
				q.Mail.Body, q.Body = tt.body, memBody(tt.content)
				if a := r.deliver(t, q); !a.Rcpts[0].Accepted() {
					t.Errorf("%v", a.Rcpts[0])
				}
				if err := r.stop(); err != nil {
					t.Error(err)
				}
				if err := n.group.Wait(); err != nil {
					t.Error(err)
				}
				line := logs.event("content converted", 0)
				if tt.without == "" {
					if line != nil {
						t.Errorf("%v", line)
					}
					return
				}
				lineHas(t, line, map[string]any{"without": tt.without, "size": float64(len(tt.content)), "relay": "mx.example[192.0.2.1]:25"})
			})
		})
	}
}
