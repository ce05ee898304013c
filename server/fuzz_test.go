package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/server/content"
)

// scriptConn is a client that sends what it has in pieces of a given size and
// then closes, and that keeps what it gets.
type scriptConn struct {
	addrConn
	in    []byte
	piece int
	out   bytes.Buffer
}

func (c *scriptConn) Read(p []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.piece)], c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *scriptConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *scriptConn) Close() error                     { return nil }
func (c *scriptConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptConn) SetWriteDeadline(time.Time) error { return nil }

var _ net.Conn = (*scriptConn)(nil)

// replyLine is what each line of ours looks like.
var replyLine = regexp.MustCompile(`^[245][0-9][0-9][ -]|^354 `)

// FuzzSession plays any input to a session, in pieces of any size. It must end, not
// fail, send nothing but replies of printable ASCII, and leave nothing behind. What it
// accepts must be free of bare CR and LF.
func FuzzSession(f *testing.F) {
	for _, s := range dialogueInputs(f) {
		f.Add([]byte(s), uint16(1000), uint16(0), uint16(7))
		f.Add([]byte(s), uint16(3), uint16(500), uint16(3))
		f.Add([]byte(s), uint16(7), uint16(500), uint16(1<<9))
		f.Add([]byte(s), uint16(1000), uint16(0), uint16(3<<13))
		f.Add([]byte(s), uint16(3), uint16(500), uint16(1<<15))
	}
	f.Fuzz(func(t *testing.T, in []byte, piece, inlineMax, flags uint16) {
		fake := newFakeMTA()
		fake.inlineMax = int64(inlineMax)
		g := supervise.NewGroup(context.Background())
		fake.serve(g.Context(), g)
		cfg := Config{MessageSizeMax: 20000, LineLengthMax: 2000, Limits: Limits{
			BadCommandsSession: 20, NopsBetween: 50, NopsInTransaction: 20, RecipientsTransaction: 10, Hops: 5,
		}}
		cfg.Flags = Flags{
			AllowSpaceAfterColon: flags&4 != 0,
			UntrustedRouting:     flags&128 != 0, DelayChecks: flags&256 != 0,
			Offers: Offers{
				EightBitMIME: flags&1 != 0, XVERP: flags&2 != 0, Chunking: flags&2048 == 0, Binary: flags&32768 != 0, UTF8: flags&4096 == 0, PRDR: flags&8192 != 0,
			},
			Access: flags&8 != 0, StrictEHLO: flags&16 != 0, SoftBounce: flags&32 != 0, RequireEHLO: flags&64 != 0,
		}
		cfg.NUL = [...]string{content.RejectNUL, content.StripNUL, content.AcceptNUL}[flags>>9%3]
		if flags&8192 != 0 {
			cfg.Checks = fuzzChecks
		}
		if flags&16384 != 0 {
			cfg.Flags.LookupSessionConf = true
			cfg.SessionFeatures = []SessionFeatures{{Name: "x", Flags: []string{"no_pipelining", "no_dsn", "xverp", "no_chunking"}}}
			fake.check = func(q msg.CheckQ) msg.Verdict {
				return msg.Verdict{SessionConf: &msg.Conf{SessionFeature: "x"}}
			}
		}
		s := mustNew(t, cfg, fake.deps())
		conn := &scriptConn{addrConn: addrConn{peer: "192.0.2.1"}, in: in, piece: int(piece) + 1}
		if err := supervise.Call(g.Context(), s.newSession(conn).run); err != nil {
			t.Fatalf("%v\n%s", err, err.(*supervise.PanicError).Stack)
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		checkOutput(t, conn.out.Bytes())
		checkAccepted(t, fake, cfg.NUL == content.AcceptNUL)
	})
}

// fuzzChecks are sections check of each stage, which a client can trip.
var fuzzChecks = []Check{
	{Stage: "connect", Action: actionAbort, Condition: `client_ip =~ "^198" || strcmp(client_name, hostname) == 0`},
	{Stage: "mail", Action: actionPermfail, Condition: `mail =~ "(a|b)+@" && 100 / message_size > transactions`},
	{Stage: "rcpt", Action: actionTempfail, Condition: `strcasecmp(rcpt, mail) == 0 || session_rcpts_total * message_size < 0`},
	{Stage: "data", Action: actionPermfail, Condition: `transaction_rcpts_total - transaction_rcpts_ok > 1`},
	{Stage: "eom", Action: actionAbort, Condition: `hops > 3 || message_id =~ "^<[^@]*>$" || hops =~ "0" && message_size == 1`},
}

func checkOutput(t *testing.T, out []byte) {
	for line := range strings.Lines(string(out)) {
		text, ok := strings.CutSuffix(line, "\r\n")
		if !ok || !replyLine.MatchString(line) || len(line) > 512 {
			t.Fatalf("not a reply: %q", line)
		}
		for _, c := range []byte(text) {
			if c < ' ' || c > '~' {
				t.Fatalf("byte %#x in reply %q", c, line)
			}
		}
	}
}

func checkAccepted(t *testing.T, fake *fakeMTA, nul bool) {
	if n := fake.store.unfinished(); n > 0 {
		t.Fatalf("%d content files are left", n)
	}
	if fake.sessions != 0 {
		t.Fatalf("%d sessions were not ended", fake.sessions)
	}
	for _, q := range fake.committed {
		data, err := fake.content(q)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(data)) != q.Size || q.Inline != nil && q.Size > fake.inlineMax {
			t.Fatalf("content of %d bytes with size %d, in memory: %v", len(data), q.Size, q.Inline != nil)
		}
		lines := data
		if q.Envelope.Mail.Binary() { // lines are in its header alone
			lines, _, _ = bytes.Cut(data, []byte("\r\n\r\n"))
		}
		if !nul && bytes.IndexByte(lines, 0) >= 0 {
			t.Fatalf("NUL in %q", data)
		}
		if bareEnds(lines) {
			t.Fatalf("bare CR or LF in %q", data)
		}
		if len(q.Envelope.Rcpts) == 0 || len(q.Envelope.Rcpts) > 10 {
			t.Fatalf("%d recipients", len(q.Envelope.Rcpts))
		}
	}
}

// dialogueInputs are the clients' sides of the dialogues in testdata.
func dialogueInputs(t testing.TB) []string {
	files, err := filepath.Glob("testdata/dialogue/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var in strings.Builder
		for line := range strings.Lines(string(text)) {
			value, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "C: ")
			if !ok {
				continue
			}
			if raw, err := strconv.Unquote(value); err == nil && value[0] == '"' {
				in.WriteString(raw)
			} else {
				in.WriteString(value + "\r\n")
			}
		}
		all = append(all, in.String())
	}
	return all
}
