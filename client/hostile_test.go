package client

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/client/wire"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// flood sends text until the client has had enough.
func flood(prefix, text string) func(net.Conn) {
	return func(nc net.Conn) {
		b := bytes.Repeat([]byte(text), 100)
		if _, err := io.WriteString(nc, prefix); err != nil {
			return
		}
		for {
			if _, err := nc.Write(b); err != nil {
				return
			}
		}
	}
}

// TestHostileServers: whatever a server sends, the delivery ends soon, with a reply
// for each recipient, and little is kept of it.
func TestHostileServers(t *testing.T) {
	cases := []struct {
		name   string
		server func(net.Conn)
		stage  msg.DeliverStage
		text   string // in the reply
	}{
		{"endless line", flood("220 ", "x"), msg.DeliverGreeting, "line that is too long"},
		{"endless line without a code", flood("", "x"), msg.DeliverGreeting, "line that is too long"},
		{"endless reply", flood("", "220-more\r\n"), msg.DeliverGreeting, "reply that is too long"},
		{"endless empty lines", flood("", "\r\n"), msg.DeliverGreeting, "not an SMTP reply"},
		{"endless reply of codes alone", flood("", "220-\n"), msg.DeliverGreeting, "reply that is too long"},
		{"endless NUL", flood("", "\x00"), msg.DeliverGreeting, "line that is too long"},
		{"endless greetings", flood("", "220 hello\r\n"), msg.DeliverEhlo, "before its command"},
		{"code of one digit", flood("2 hello\r\n", ""), msg.DeliverGreeting, "not an SMTP reply"},
		{"code 600", flood("600 hello\r\n", ""), msg.DeliverGreeting, "not an SMTP reply"},
		{"code 199", flood("199 hello\r\n", ""), msg.DeliverGreeting, "not an SMTP reply"},
		{"354 as greeting", flood("354 hello\r\n", ""), msg.DeliverGreeting, "unexpected reply 354"},
		{"negative size limit", stall("S: 220 mx", "EHLO", "S: 250-mx", "S: 250 SIZE -5", "MAIL", "S: 550 no"), msg.DeliverMail, "no"},
		{"huge size limit", stall("S: 220 mx", "EHLO", "S: 250-mx", "S: 250 SIZE 99999999999999999999", "MAIL", "S: 550 no"), msg.DeliverMail, "no"},
		{"354 to MAIL", stall("S: 220 mx", "EHLO", "S: 250 mx", "MAIL", "S: 354 go"), msg.DeliverMail, "unexpected reply 354"},
		{"354 to RCPT", stall("S: 220 mx", "EHLO", "S: 250 mx", "MAIL", "S: 250 ok", "RCPT", "S: 354 go"), msg.DeliverRcpt, "unexpected reply 354"},
		{"354 to the dot", stall("S: 220 mx", "EHLO", "S: 250 mx", "MAIL", "S: 250 ok", "RCPT", "S: 250 ok", "DATA", "S: 354 go", ".\r\n", "S: 354 go on"), msg.DeliverDot, "unexpected reply 354"},
		{"replies before commands", preemptive, msg.DeliverEhlo, "before its command"},
		{"354 before the envelope", stall("S: 220 mx", "EHLO", "S: 250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go"), msg.DeliverMail, "before its command"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, Config{}, Deps{ReuseConnections: true}, newNetwork(c.server))
				begin := time.Now()
				a := r.deliver(t, question())
				if took := time.Since(begin); took > 11*time.Minute {
					t.Errorf("took %v", took)
				}
				if a.Stage != c.stage || !strings.Contains(a.Rcpts[0].Text(), c.text) {
					t.Errorf("answer %+v", a)
				}
				if n := len(a.Rcpts[0].Text()); n > 2*wire.ReplyTextMax || a.Rcpts[0].IsZero() {
					t.Errorf("reply of %d bytes: %v", n, a.Rcpts[0])
				}
				if idle, _, _ := r.pool.counts(); idle != 0 && a.HostFailed {
					t.Errorf("the connection was kept")
				}
			})
		})
	}
}

// preemptive sends all replies of a successful delivery before it has read anything.
func preemptive(nc net.Conn) {
	if _, err := io.WriteString(nc, "220 mx\r\n250-mx\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n250 ok\r\n"); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, nc)
}

// TestManyReplyLines: of a long reply the first lines are kept.
func TestManyReplyLines(t *testing.T) {
	server := func(nc net.Conn) {
		_, _ = io.WriteString(nc, strings.Repeat("554-5.7.1 line\r\n", 500)+"554 5.7.1 end\r\n")
	}
	r := start(t, Config{}, Deps{}, newNetwork(server))
	a := r.deliver(t, question())
	if !strings.HasPrefix(a.Rcpts[0].Text(), "host mx.example[192.0.2.1]:25 refused to talk to me: 554 5.7.1 line line") ||
		strings.Contains(a.Rcpts[0].Text(), "end") {
		t.Errorf("reply %v", a.Rcpts[0])
	}
}

// TestManyRecipients: a thousand recipients, more than one pipelined group.
func TestManyRecipients(t *testing.T) {
	const n = 1000
	server := func(nc net.Conn) {
		r := bufio.NewReader(nc)
		say := func(s string) { _, _ = io.WriteString(nc, s+"\r\n") }
		say("220 mx")
		for rcpts := 0; ; {
			line, err := r.ReadString('\n')
			switch {
			case err != nil:
				return
			case strings.HasPrefix(line, "EHLO"):
				say("250-mx\r\n250 PIPELINING")
			case strings.HasPrefix(line, "RCPT"):
				if rcpts++; rcpts%3 == 0 {
					say("550 5.1.1 no such user")
				} else {
					say("250 2.1.5 ok")
				}
			case strings.HasPrefix(line, "DATA"):
				say("354 go on")
				for line != ".\r\n" {
					if line, err = r.ReadString('\n'); err != nil {
						return
					}
				}
				say("250 2.0.0 queued")
			default:
				say("250 2.1.0 ok")
			}
		}
	}
	r := start(t, Config{}, Deps{}, nil)
	q := question()
	q.Hop.Addr = listen(t, server)
	q.Rcpts = nil
	for range n {
		q.Rcpts = append(q.Rcpts, question().Rcpts[0])
	}
	a := r.deliver(t, q)
	if a.Stage != msg.DeliverDone || len(a.Rcpts) != n {
		t.Fatalf("stage %v, %d replies", a.Stage, len(a.Rcpts))
	}
	for i, got := range a.Rcpts {
		want := smtp.NewReply(250, "2.0.0", "queued")
		if i%3 == 2 {
			want = smtp.NewReply(550, "5.1.1", "no such user")
		}
		if got.String() != want.String() {
			t.Fatalf("recipient %d: %v, want %v", i, got, want)
		}
	}
}
