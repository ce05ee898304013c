package server

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"meta1/mta/msg"
	"meta1/server/dkim"
)

// testSigner has one key.
func testSigner(t *testing.T, c dkim.Config) *dkim.Signer {
	t.Helper()
	_, text, err := dkim.MakePrivate(dkim.KindEd25519, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := t.TempDir() + "/key"
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c.TotalHeaderLen, c.HeaderValLenMax = 1<<10, 1<<10
	c.Sign = []dkim.Section{{KeyFile: file, Domain: "d.test", Selector: "s"}}
	s, err := dkim.New(c, dkim.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSignedFor: mail of clients that may relay is signed, that of others only if everybody's
// is; what cannot be signed is refused, or accepted without a signature.
func TestSignedFor(t *testing.T) {
	const good, bad = "From: a@d.test\r\n\r\nx", "From: a@d.test\r\nFrom: b@d.test\r\n\r\nx"
	long := "From: a@d.test\r\n" + strings.Repeat("X: y\r\n", 300) + "\r\nx"
	for _, c := range []struct {
		name, signFor, content, reply string
		relay, ignore, inFile, signed bool
	}{
		{name: "relaying", signFor: dkim.ForRelaying, content: good, relay: true, reply: "250", signed: true},
		{name: "in a file", signFor: dkim.ForRelaying, content: good, relay: true, inFile: true, reply: "250", signed: true},
		{name: "stranger", signFor: dkim.ForRelaying, content: good, reply: "250"},
		{name: "everybody", signFor: dkim.ForAll, content: good, reply: "250", signed: true},
		{name: "two From", signFor: dkim.ForRelaying, content: bad, relay: true, reply: "554 5.6.0"},
		{name: "no From", signFor: dkim.ForRelaying, content: "To: a@d.test\r\n\r\nx", relay: true, reply: "250"},
		{name: "two From of a stranger", signFor: dkim.ForRelaying, content: bad, reply: "250"},
		{name: "ignored", signFor: dkim.ForRelaying, content: bad, relay: true, ignore: true, reply: "250"},
		{name: "long header", signFor: dkim.ForRelaying, content: long, relay: true, reply: "554 5.6.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			signer := testSigner(t, dkim.Config{SignFor: c.signFor, IgnoreErrors: c.ignore})
			synctest.Test(t, func(t *testing.T) {
				l, fake := newPipeListener(), newFakeMTA()
				fake.check = func(msg.CheckQ) msg.Verdict { return msg.Verdict{Relay: c.relay} }
				if c.inFile {
					fake.inlineMax = 1
				}
				deps := fake.deps(l)
				deps.DKIM = signer
				b := startDeps(t, Config{Flags: Flags{Access: true}}, fake, deps)
				k := l.talker(t)
				k.begin()
				k.say(c.content+"\r\n.", c.reply)
				k.say("QUIT", "221")
				b.end(t)
				if len(fake.committed) == 0 {
					if c.reply == "250" {
						t.Error("nothing was committed")
					}
					return
				}
				q := fake.committed[0]
				content, err := fake.content(q)
				if err != nil || int64(len(content)) != q.Size || (q.Inline == nil) != c.inFile {
					t.Fatalf("%d bytes of %d in line %v: %v", len(content), q.Size, q.Inline != nil, err)
				}
				if signed := bytes.HasPrefix(content, []byte("DKIM-Signature: v=1; a=ed25519-sha256;")); signed != c.signed || bytes.Count(content, []byte("Received: ")) != 1 {
					t.Errorf("content %q", content)
				}
			})
		})
	}
}
