package trial

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseRule(t *testing.T) {
	for text, want := range map[string]string{
		"rcpt 10% reply 450 4.2.1 try later": `{rcpt reply 10 "450 4.2.1 try later\r\n" 0s}`,
		"DOT delay 2s":                       `{dot delay 100 "" 2s}`,
		"connect cut":                        `{connect cut 100 "" 0s}`,
		"starttls 0.5% garble":               `{starttls garble 0.5 "" 0s}`,
		"quit hang":                          `{quit hang 100 "" 0s}`,
		"":                                   "! too short",
		"rcpt":                               "! too short",
		"foo cut":                            `! unknown stage "foo"`,
		"rcpt 10%":                           "! no action",
		"rcpt 101% cut":                      `! no percentage: "101%"`,
		"rcpt NaN% cut":                      `! no percentage: "NaN%"`,
		"rcpt cut now":                       "! too many words",
		"rcpt reply":                         "! a reply begins",
		"rcpt reply 99 x":                    "! a reply begins",
		"rcpt delay":                         "! no duration",
		"rcpt delay -1s":                     "! no duration",
		"rcpt jump":                          `! unknown action "jump"`,
	} {
		r, err := ParseRule(text)
		got := fmt.Sprintf("{%s %s %v %q %v}", r.stage, r.action, r.percent, r.reply, r.delay)
		if err != nil {
			_, why, _ := strings.Cut(err.Error(), ": ")
			got = "! " + why
		}
		if err == nil && got != want || err != nil && !strings.HasPrefix(got, want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// together runs a source against a sink.
func together(t *testing.T, sink SinkConfig, source SourceConfig, rules ...string) (SourceResult, SinkStats) {
	t.Helper()
	for _, text := range rules {
		r, err := ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		sink.Rules = append(sink.Rules, r)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewSink(sink)
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- s.Serve(ctx, l) }()
	source.Network, source.Addr, source.LMTP = "tcp", l.Addr().String(), sink.LMTP
	source.From, source.To = "a@source.test", "u%d@sink.test"
	if source.Timeout == 0 {
		source.Timeout = 10 * time.Second
	}
	r := Send(ctx, source)
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	return r, s.Stats()
}

// TestTogether: what a source says it has sent is what a sink has seen.
func TestTogether(t *testing.T) {
	cert, err := SelfSigned("sink.test")
	if err != nil {
		t.Fatal(err)
	}
	server := &tls.Config{Certificates: []tls.Certificate{cert}}
	client := &tls.Config{InsecureSkipVerify: true}
	for name, c := range map[string]struct {
		sink   SinkConfig
		source SourceConfig
		rules  []string
		want   string // accepted, recipients, failed; messages, recipients, refusals, cuts; kinds of replies
	}{
		"plain":          {source: SourceConfig{Messages: 20, Sessions: 4}, want: "20 20 0; 20 20 0 0; []"},
		"pipelined":      {source: SourceConfig{Messages: 20, Rcpts: 5, Pipeline: true}, want: "20 100 0; 20 100 0 0; []"},
		"each its own":   {source: SourceConfig{Messages: 5, Each: 1}, want: "5 5 0; 5 5 0 0; []"},
		"large":          {source: SourceConfig{Messages: 2, Size: 200_000}, want: "2 2 0; 2 2 0 0; []"},
		"lmtp":           {sink: SinkConfig{LMTP: true}, source: SourceConfig{Messages: 3, Rcpts: 4}, want: "3 12 0; 3 12 0 0; []"},
		"starttls":       {sink: SinkConfig{TLS: server}, source: SourceConfig{Messages: 3, TLS: client}, want: "3 3 0; 3 3 0 0; []"},
		"implicit":       {sink: SinkConfig{TLS: server, Implicit: true}, source: SourceConfig{Messages: 3, TLS: client, Implicit: true}, want: "3 3 0; 3 3 0 0; []"},
		"no starttls":    {source: SourceConfig{Messages: 2, TLS: client}, want: `0 0 2; 0 0 2 0; [starttls: "502 5.5.1 no TLS here"]`},
		"mail refused":   {source: SourceConfig{Messages: 2}, rules: []string{"mail reply 451 no"}, want: `0 0 2; 0 0 2 0; [mail: "451 no"]`},
		"mail, together": {source: SourceConfig{Messages: 2, Pipeline: true}, rules: []string{"mail reply 451 no"}, want: `0 0 2; 0 0 6 0; [mail: "451 no"]`},
		"rcpt refused":   {source: SourceConfig{Messages: 2, Pipeline: true}, rules: []string{"rcpt reply 550 no"}, want: `0 0 2; 0 0 4 0; [rcpt: "550 no"]`},
		"dot refused":    {source: SourceConfig{Messages: 2}, rules: []string{"dot reply 552 no"}, want: `0 0 2; 0 0 2 0; [dot: "552 no"]`},
		"greeting":       {source: SourceConfig{Messages: 1}, rules: []string{"connect reply 421 no"}, want: `0 0 1; 0 0 1 0; [connect: "421 no"]`},
		"cut":            {source: SourceConfig{Messages: 2}, rules: []string{"dot cut"}, want: `0 0 2; 0 0 0 2; [dot: unexpected EOF]`},
		"garbled":        {source: SourceConfig{Messages: 1}, rules: []string{"ehlo garble"}, want: `0 0 1; 0 0 0 0; [ehlo: "\x00\xff garbage" is no reply]`},
		"delayed":        {source: SourceConfig{Messages: 1}, rules: []string{"rcpt delay 10ms", "rcpt reply 450 later"}, want: `0 0 1; 0 0 1 0; [rcpt: "450 later"]`},
	} {
		t.Run(name, func(t *testing.T) {
			r, st := together(t, c.sink, c.source, c.rules...)
			kinds := []string{}
			for text := range r.Replies {
				kinds = append(kinds, text)
			}
			got := fmt.Sprintf("%d %d %d; %d %d %d %d; %v", r.Accepted, r.Rcpts, r.Failed, st.Messages, st.Recipients, st.Refusals, st.Cuts, kinds)
			if got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			if c.sink.TLS != nil && st.Handshakes != st.Connections {
				t.Errorf("%d of %d connections with TLS", st.Handshakes, st.Connections)
			}
		})
	}
}

// TestHang: a sink that hangs ends with its context, and a source after its time.
func TestHang(t *testing.T) {
	r, st := together(t, SinkConfig{}, SourceConfig{Messages: 1, Timeout: 50 * time.Millisecond}, "data hang")
	if r.Failed != 1 || st.Messages != 0 {
		t.Errorf("%+v %+v", r, st)
	}
}

// TestChance: a rule with a percentage hits about as often as it says, and the same each time.
func TestChance(t *testing.T) {
	source := SourceConfig{Messages: 400}
	r, _ := together(t, SinkConfig{Seed: 7}, source, "rcpt 25% reply 450 later")
	again, _ := together(t, SinkConfig{Seed: 7}, source, "rcpt 25% reply 450 later")
	if r.Failed < 70 || r.Failed > 130 || again.Failed != r.Failed {
		t.Errorf("%d of 400 refused, then %d", r.Failed, again.Failed)
	}
}

func TestRate(t *testing.T) {
	r, _ := together(t, SinkConfig{}, SourceConfig{Messages: 11, Sessions: 2, Rate: 100})
	if r.Accepted != 11 || r.Elapsed < 100*time.Millisecond {
		t.Errorf("%d in %v", r.Accepted, r.Elapsed)
	}
}

// TestDump: a message is dumped as it was sent, without the doubled dots, and behind what an
// earlier sink has left.
func TestDump(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error)
	if err := os.WriteFile(filepath.Join(dir, "00000001"), []byte("earlier"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := NewSink(SinkConfig{Dump: dir})
	go func() { served <- s.Serve(ctx, l) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 10_000)
	fmt.Fprintf(nc, "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n..one\r\n%s\r\n\r\n.\r\nQUIT\r\n", long)
	var got []byte
	for deadline := time.Now().Add(10 * time.Second); s.Stats().Messages == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if got, err = os.ReadFile(filepath.Join(dir, "00000002")); err != nil || string(got) != ".one\r\n"+long+"\r\n\r\n" {
		t.Errorf("%.60q %v", got, err)
	}
	_ = nc.Close()
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestDumpFails: a sink that cannot keep a message ends and says why.
func TestDumpFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	s := NewSink(SinkConfig{Dump: dir})
	go func() { served <- s.Serve(t.Context(), l) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintf(nc, "EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\none\r\n.\r\n")
	if err := <-served; err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("the sink ended with %v", err)
	}
	if st := s.Stats(); st.Messages != 0 {
		t.Errorf("%d messages counted", st.Messages)
	}
}
