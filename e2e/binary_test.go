package e2e

import (
	"bytes"
	"encoding/base64"
	"strings"
	"sync/atomic"
	"testing"
)

// TestBinaryMIME has Python's smtplib send a body of any octets through two meta1, which speak
// BINARYMIME with each other, to a host that knows nothing of it: the octets arrive as
// base64, and none of them as a line of its own, although the second meta1 is killed while it
// waits for that host. The bounce for a second recipient returns the header alone, whatever was
// asked for.
func TestBinaryMIME(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	var ready atomic.Bool
	s.answer(func(verb, argument string) string {
		switch {
		case verb == "RCPT" && strings.Contains(argument, "bad@"):
			return "550 5.1.1 no such user"
		case verb == "RCPT" && strings.Contains(argument, "b@") && !ready.Load():
			return "451 4.3.0 later"
		}
		return ""
	})
	last := run(t, settings{mailertable: toPort(t, ".", s.addr), flags: ", binarymime"})
	first := run(t, settings{mailertable: toPort(t, ".", last.smtp), flags: ", binarymime", smtpc: "flags = { talk_to_myself };"})
	octets := "\x00\r\n.\r\nMAIL FROM:<evil@client.test>\r\n\n.\n\r\xff"
	message := "Subject: any octets\r\nMIME-Version: 1.0\r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\n" + octets
	host, p, _ := strings.Cut(first.smtp, ":")
	out, err := output(peerCommand(t, "/usr/bin/python3", "-c", `
import smtplib, sys, base64
s = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), "python.test")
s.ehlo()
if not s.has_extn("binarymime"):
    sys.exit("it does not offer BINARYMIME")
def ok(reply, want=2):
    if reply[0] // 100 != want:
        sys.exit(repr(reply))
m = base64.b64decode(sys.argv[3])
ok(s.docmd("MAIL FROM:<a@client.test> BODY=BINARYMIME RET=FULL"))
ok(s.docmd("RCPT TO:<b@sink.test>"))
ok(s.docmd("RCPT TO:<bad@sink.test>"))
ok(s.docmd("DATA"), 5)
s.send(b"BDAT 7\r\n" + m[:7])
ok(s.getreply())
s.send(b"BDAT %d LAST\r\n" % (len(m) - 7) + m[7:])
ok(s.getreply())
ok(s.quit())
`, host, p, base64.StdEncoding.EncodeToString([]byte(message))))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.waitFor(1)
	first.queueEmpty()
	must(t, func() error { return last.queueShows(1, "later") })
	last.kill()
	ready.Store(true)
	last.start()
	last.queueEmpty()
	want := "Content-Transfer-Encoding: base64\r\n\r\n" + base64.StdEncoding.EncodeToString([]byte(octets)) + "\r\n"
	came := map[string]int{} // the bounce may come twice: its host was told, but not yet the disk
	for _, a := range s.arrivals() {
		came[a.rcpts[0]]++
		if a.rcpts[0] == "a@client.test" {
			says(t, string(a.data), "Subject: any octets", "5.1.1")
			if strings.Contains(string(a.data), "evil") || bytes.IndexByte(a.data, 0) >= 0 {
				t.Errorf("the bounce has some of the body:\n%q", a.data)
			}
			continue
		}
		if !bytes.HasSuffix(a.data, []byte(want)) || strings.Count(string(a.data), "Received: ") != 2 || a.rcpts[0] != "b@sink.test" {
			t.Errorf("to %v came\n%q", a.rcpts, a.data)
		}
	}
	if came["a@client.test"] == 0 || came["b@sink.test"] != 1 || len(came) != 2 {
		t.Errorf("there came %v", came)
	}
}
