package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"meta1/client/content"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// plainDots is the rule of RFC 5321 section 4.5.2 in its plainest form.
func plainDots(content string) string {
	if content != "" && !strings.HasSuffix(content, "\r\n") {
		content += "\r\n"
	}
	if strings.HasPrefix(content, ".") {
		content = "." + content
	}
	return strings.ReplaceAll(content, "\r\n.", "\r\n..") + ".\r\n"
}

// TestContentSizes sends content of every kind and size over TCP, from memory and from
// a file, and compares what arrives.
func TestContentSizes(t *testing.T) {
	var mu sync.Mutex
	var got []byte
	addr := listen(t, func(nc net.Conn) { receive(nc, func(b []byte) { mu.Lock(); got = b; mu.Unlock() }) })
	r := start(t, Config{}, Deps{ReuseConnections: true}, nil)
	lines := map[string]string{
		"text": "just a line of some text that is not very long\r\n", "dots": ".\r\n", "few dots": strings.Repeat("x", 900) + "\r\n.y\r\n",
	}
	for name, line := range lines {
		for _, size := range []int{1, 2, 3, content.SmallMax - 1, content.SmallMax, content.SmallMax + 1, chunkMax, chunkMax + 1, 3*chunkMax + 17} {
			content := strings.Repeat(line, size/len(line)+1)[:size]
			for _, body := range []msg.Body{memBody(content), fileBody{data: []byte(content)}, &briefBody{fileBody: fileBody{data: []byte(content)}}} {
				q := question()
				q.Hop.Addr = addr
				q.Body = body
				a := r.deliver(t, q)
				mu.Lock()
				same := string(got) == plainDots(content)
				mu.Unlock()
				if !a.Rcpts[0].Accepted() || !same {
					t.Errorf("%s of %d bytes, %T: %v, %d bytes arrived", name, size, body, a.Rcpts[0], len(got))
				}
			}
		}
	}
}

// receive is a server that gives each content, as it came over the wire, to done.
func receive(nc net.Conn, done func([]byte)) {
	r := bufio.NewReader(nc)
	_, _ = io.WriteString(nc, "220 mx\r\n")
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		reply := "250 ok\r\n"
		switch {
		case strings.HasPrefix(line, "EHLO"):
			reply = "250-mx\r\n250 PIPELINING\r\n"
		case line == "DATA\r\n":
			reply = "354 go on\r\n"
			if r.Buffered() > 0 {
				return // content before 354
			}
			_, _ = io.WriteString(nc, reply)
			var b bytes.Buffer
			for line != ".\r\n" {
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
				b.WriteString(line)
			}
			done(b.Bytes())
			reply = "250 queued\r\n"
		}
		if _, err := io.WriteString(nc, reply); err != nil {
			return
		}
	}
}

// TestContentUnreadable: content that cannot be read is no fault of the host, and no
// part of it may ever be accepted as a message.
func TestContentUnreadable(t *testing.T) {
	content := []byte(strings.Repeat("x\r\n", 200_000))
	for _, c := range []struct {
		name  string
		body  fileBody
		stage msg.DeliverStage
		dials int
	}{
		{"open", fileBody{data: content, openErr: errors.New("no such file")}, msg.DeliverMail, 1},
		{"first read", fileBody{data: content, failAfter: 1}, msg.DeliverData, 2},
		{"later", fileBody{data: content, failAfter: chunkMax + 1}, msg.DeliverData, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNetwork(func(nc net.Conn) {
				receive(nc, func(b []byte) {
					if len(b) < len(content) && len(b) > 100 {
						t.Errorf("accepted %d bytes", len(b))
					}
				})
			})
			r := start(t, Config{}, Deps{ReuseConnections: true}, n)
			q := question()
			q.Body = c.body
			a := r.deliver(t, q)
			want := smtp.NewReply(451, "4.3.0", "cannot read the content of the message from the queue")
			if a.Rcpts[0].String() != want.String() || a.HostFailed || a.Unknown || a.Stage != c.stage {
				t.Errorf("answer %+v", a)
			}
			if a = r.deliver(t, question()); !a.Rcpts[0].Accepted() || n.dialed() != c.dials {
				t.Errorf("next: %+v over connection %d", a, n.dialed())
			}
		})
	}
}

// TestRefusedEarly: a host that refuses inside of the content and closes is heard.
func TestRefusedEarly(t *testing.T) {
	heard := 0
	for range 10 { // the reply may be lost when the connection is reset
		q := question()
		q.Hop.Addr = listen(t, refuseEarly)
		q.Body = memBody(strings.Repeat("x\r\n", 5_000_000))
		a := start(t, Config{}, Deps{}, nil).deliver(t, q)
		if a.Unknown || a.Stage != msg.DeliverData || a.Rcpts[0].Accepted() {
			t.Errorf("answer %+v", a)
		}
		if a.Rcpts[0].Enhanced == (smtp.EnhancedCode{5, 3, 4}) {
			heard++
		}
	}
	if heard == 0 {
		t.Error("never heard")
	}
}

// refuseEarly replies to the first line of the content and closes.
func refuseEarly(nc net.Conn) {
	r := bufio.NewReader(nc)
	_, _ = io.WriteString(nc, "220 mx\r\n")
	for _, reply := range []string{"250 mx", "250 ok", "250 ok", "354 go on", "552 5.3.4 enough of that"} {
		if _, err := r.ReadString('\n'); err != nil {
			return
		}
		_, _ = io.WriteString(nc, reply+"\r\n")
	}
	_ = nc.(*net.TCPConn).CloseWrite()
	_, _ = io.CopyN(io.Discard, r, 1<<20)
}

// speakEarly is a host that says something inside of the content, takes the rest and
// goes on. It reports whether the final dot came.
func speakEarly(early string, dot *atomic.Bool) func(net.Conn) {
	return func(nc net.Conn) {
		r := bufio.NewReader(nc)
		_, _ = io.WriteString(nc, "220 mx\r\n")
		for _, reply := range []string{"250 mx", "250 ok", "250 ok", "354 go on", early} {
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
			_, _ = io.WriteString(nc, reply+"\r\n")
		}
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == ".\r\n" {
				dot.Store(true)
			}
		}
	}
}

// TestSpeaksEarly: a success that comes while the content is still being sent is no
// reply to it, and the final dot is not sent; a refusal is believed, and the rest of the
// content is not sent. The sockets hold less than the content, so that the host has
// spoken before all of it is sent.
func TestSpeaksEarly(t *testing.T) {
	for _, c := range []struct{ early, want string }{
		{"250 2.0.0 all is well", "451 4.5.0 protocol error: peer sent a reply before its command: " +
			"mx.example[127.0.0.1]:PORT while sending the message"},
		{"354 go on", "451 4.5.0 protocol error: peer sent a reply before its command: " +
			"mx.example[127.0.0.1]:PORT while sending the message"},
		{"552 5.3.4 enough of that", "552 5.3.4 enough of that"},
		{"452 4.3.1 disk full", "452 4.3.1 disk full"},
	} {
		for _, inFile := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s in file %v", c.early[:3], inFile), func(t *testing.T) {
				var dot atomic.Bool
				q := question()
				q.Hop.Addr = listen(t, speakEarly(c.early, &dot))
				content := []byte(strings.Repeat("x\r\n", 12_000_000))
				q.Body = memBody(content)
				if inFile {
					q.Body = fileBody{data: content}
				}
				r := start(t, Config{}, Deps{}, nil)
				a := r.deliver(t, q)
				want := strings.Replace(c.want, "PORT", strconv.Itoa(int(q.Hop.Addr.Port())), 1)
				if got := a.Rcpts[0].String(); got != want || a.Unknown || a.Stage != msg.DeliverData {
					t.Errorf("answer %+v", a)
				}
				if err := r.stop(); err != nil {
					t.Error(err)
				}
				if dot.Load() {
					t.Error("the final dot was sent")
				}
			})
		}
	}
}
