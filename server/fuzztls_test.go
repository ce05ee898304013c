package server

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/supervise"
)

// pieceEnd separates what a fuzzed client sends at a time.
const pieceEnd = "\xff"

// FuzzSTARTTLS plays any input in plain text and, if that ends with a STARTTLS that is
// accepted, makes a handshake and plays any input by TLS. Nothing that was sent in plain text
// may be answered or have an effect inside of TLS (RFC 3207 section 4.2), and no reply may go
// out in plain text once TLS was to begin.
func FuzzSTARTTLS(f *testing.F) {
	message := "EHLO in.example\r\n" + pieceEnd + "MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + pieceEnd + "x\r\n.\r\nQUIT\r\n"
	start := "EHLO out.example\r\n" + pieceEnd + "STARTTLS\r\n"
	for _, plain := range []string{
		start, start + "MAIL FROM:<m@example.net>\r\n", start + pieceEnd + "MAIL FROM:<m@example.net>\r\n",
		start + pieceEnd + "\x16\x03\x01\x00\x05hello", "STARTTLS\r\n", "HELO x\r\n" + pieceEnd + "STARTTLS\r\n",
		"EHLO out.example\r\n" + pieceEnd + "MAIL FROM:<a@example.net>\r\nRSET\r\nSTARTTLS\r\n", start + pieceEnd + "\n", "\x16\x03\x01",
		"EHLO out.example\r\n" + pieceEnd + "STARTTLS x\r\n" + pieceEnd + "STARTTLS \r\n",
	} {
		f.Add([]byte(plain), []byte(message), uint8(0))
		f.Add([]byte(plain), []byte("MAIL FROM:<a@example.net>\r\nRCPT TO:<b@example.org>\r\n"), uint8(1))
		f.Add([]byte(plain), []byte("STARTTLS\r\n"+pieceEnd+message), uint8(2))
		f.Add([]byte(plain), []byte("\x16\x03\x01\x00"), uint8(3))
	}
	f.Fuzz(func(t *testing.T, plain, secret []byte, flags uint8) {
		synctest.Test(t, func(t *testing.T) { playTLS(t, plain, secret, flags) })
	})
}

// playTLS plays one session.
func playTLS(t *testing.T, plain, secret []byte, flags uint8) {
	fake := newFakeMTA()
	g := supervise.NewGroup(context.Background())
	mta := supervise.NewGroup(context.Background())
	fake.serve(mta.Context(), mta)
	cfg := loadConfig(t, "tls { }")
	cfg.Limits.BadCommandsSession, cfg.Limits.NopsBetween, cfg.Limits.RecipientsTransaction = 20, 50, 10
	cfg.Flags.RequireEHLO, cfg.Flags.DelayChecks, cfg.Flags.AllowDataBeforeGreeting = flags&1 != 0, flags&2 != 0, flags&4 != 0
	l := newPipeListener()
	deps := fake.deps(l)
	deps.TLS = newFakeTLS(&cfg.TLS)
	ctx, stop := context.WithCancel(context.Background())
	run := supervise.NewGroup(ctx)
	run.Go(mustNew(t, cfg, deps).Run)
	conn, err := l.dial("192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(conn, g)
	said := sendPieces(c, plain)
	said, after, ready := strings.Cut(said, "220 2.0.0 Ready to start TLS\r\n")
	checkOutput(t, []byte(said))
	if after != "" && after[0] != alertRefused[0] {
		t.Errorf("said in plain text when TLS was to begin: %q", after)
	}
	before := len(fake.committed)
	if ready && after == "" {
		playSecret(t, fake, c, g, secret)
	}
	_ = conn.Close()
	synctest.Wait()
	for _, q := range fake.committed[before:] {
		if q.Envelope.Client.TLS == nil || !bytes.Contains(secret, []byte(q.Envelope.Client.Helo)) {
			t.Errorf("accepted after STARTTLS of the client %+v", q.Envelope.Client)
		}
	}
	stop()
	if err := run.Wait(); err != nil {
		t.Error(err)
	}
	checkAccepted(t, fake, false)
	mta.Stop()
	if err := mta.Wait(); err != nil {
		t.Error(err)
	}
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}

// playSecret makes the handshake and plays what the client says by TLS.
func playSecret(t *testing.T, fake *fakeMTA, raw *client, g *supervise.Group, secret []byte) {
	c, err := clientTLS(raw, g, nil)
	if err != nil {
		return // the plain text went on behind STARTTLS
	}
	synctest.Wait()
	if said, _ := c.take(); said != "" {
		t.Fatalf("said by TLS before the client said anything: %q", said)
	}
	checkOutput(t, []byte(sendPieces(c, secret)))
	_ = c.conn.Close()
}

// sendPieces sends what stands between separators at a time, and returns what was said to it.
func sendPieces(c *client, in []byte) string {
	synctest.Wait()
	said, _ := c.take() // the greeting
	var all strings.Builder
	all.WriteString(said)
	for piece := range bytes.SplitSeq(in, []byte(pieceEnd)) {
		_ = c.conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := c.conn.Write(piece); err != nil {
			break
		}
		synctest.Wait()
		said, _ = c.take()
		all.WriteString(said)
	}
	return all.String()
}
