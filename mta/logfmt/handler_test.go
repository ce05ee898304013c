package logfmt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"meta1/mta/logfmt"
	"meta1/mta/logline"
	"meta1/mta/smtp"
)

// at is the time of all records of the tests.
var at = time.Date(2026, 11, 20, 13, 0, 0, 123456789, time.FixedZone("", 3600))

func record(level slog.Level, message string, attrs ...slog.Attr) slog.Record {
	r := slog.NewRecord(at, level, message, 0)
	r.AddAttrs(attrs...)
	return r
}

func print(t *testing.T, h func(logfmt.Sink) slog.Handler, r slog.Record) string {
	t.Helper()
	var out bytes.Buffer
	if err := h(logfmt.NewWriter(&out)).Handle(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	line, ok := strings.CutSuffix(out.String(), "\n")
	if !ok {
		t.Fatalf("line %q has no end", out.String())
	}
	return line
}

type valuer struct{ text string }

func (v valuer) LogValue() slog.Value { return slog.StringValue(v.text) }

func TestHandlerText(t *testing.T) {
	id := smtp.ID{Counter: 0x407CE492, Process: 0}
	tests := []struct {
		name  string
		level slog.Level
		msg   string
		attrs []slog.Attr
		want  string
	}{
		{"bare", slog.LevelInfo, "", nil, "sev=INFO, module=smtps"},
		{"event", slog.LevelDebug, "mail accepted", nil, "sev=DEBUG, module=smtps, event=mail accepted"},
		{
			"readme", slog.LevelWarn, "",
			[]slog.Attr{slog.String("reply", "550 5.7.1 no, not now, 99% usage")},
			"sev=WARN, module=smtps, reply=550 5.7.1 no%2C not now%2C 99%25 usage",
		},
		{"types", logfmt.LevelNotice, "e", []slog.Attr{
			slog.Any("ss_ta", id), slog.Any("mail", smtp.Path{}), slog.Any("rcpt", smtp.Path{Local: "a,b", Domain: "c%\n"}),
			slog.Any("reply", smtp.NewReply(550, "5.7.1", "no, no")), slog.Any("client_ip", netip.MustParseAddr("2001:db8::1")),
			slog.Any("to", netip.MustParseAddrPort("192.0.2.1:25")), slog.Int("size", 1177), slog.Bool("ok", true),
			slog.Duration("delay", 1500*time.Millisecond), slog.Duration("xdelay", 0), slog.Float64("f", 0.25), slog.Uint64("u", 7),
			slog.Time("next", at), slog.Any("err", errors.New("a, b")), slog.Any("list", []string{"a", "b"}), slog.Any("nil", nil),
			slog.Any("none", netip.Addr{}), slog.Any("v", valuer{"x,y"}), slog.Any("other", struct{ A int }{3}), slog.Any("bytes", []byte("a\x00")),
		}, "sev=NOTICE, module=smtps, event=e, ss_ta=S00000000407CE49200, mail=<>, rcpt=<a%2Cb@c%25%0A>, " +
			"reply=550 5.7.1 no%2C no, client_ip=2001:db8::1, to=192.0.2.1:25, size=1177, ok=true, delay=1.5, xdelay=0, f=0.25, u=7, " +
			"next=2026-11-20T12:00:00.123Z, err=a%2C b, list=a b, nil=, none=, v=x%2Cy, other={3}, bytes=a%00"},
		{
			"zone", slog.LevelError, "",
			[]slog.Attr{slog.Any("ip", netip.MustParseAddr("fe80::1%e,0"))},
			"sev=ERR, module=smtps, ip=fe80::1%25e%2C0",
		},
		{
			"unicode", logfmt.LevelFatal, "",
			[]slog.Attr{slog.String("a", "grüße"), slog.String("b", "x\xffy\u202ez\x7f\r\n\t")},
			"sev=FATAL, module=smtps, a=grüße, b=x%FFy%E2%80%AEz%7F%0D%0A%09",
		},
		{
			"group", slog.LevelInfo, "",
			[]slog.Attr{slog.Group("g", slog.Int("a", 1), slog.Group("", slog.Int("b", 2))), {}},
			"sev=INFO, module=smtps, g.a=1, g.b=2",
		},
		{
			"long", slog.LevelInfo, "",
			[]slog.Attr{slog.String("a", strings.Repeat("x", 5000))},
			"sev=INFO, module=smtps, a=" + strings.Repeat("x", 1024) + "...",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := print(t, func(s logfmt.Sink) slog.Handler {
				return logfmt.NewHandler(s, logfmt.Options{Module: "smtps"})
			}, record(tt.level, tt.msg, tt.attrs...))
			if want := "2026-11-20T12:00:00.123Z " + tt.want; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestHandlerWith(t *testing.T) {
	got := print(t, func(s logfmt.Sink) slog.Handler {
		h := logfmt.NewHandler(s, logfmt.Options{NoTime: true}).WithAttrs([]slog.Attr{slog.Int("a", 1)})
		return h.WithGroup("g").WithGroup("").WithAttrs([]slog.Attr{slog.Int("b", 2)})
	}, record(slog.LevelInfo, "x", slog.Int("c", 3)))
	if want := "sev=INFO, event=x, a=1, g.b=2, g.c=3"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestHandlerJSON(t *testing.T) {
	got := print(t, func(s logfmt.Sink) slog.Handler {
		return logfmt.NewHandler(s, logfmt.Options{Module: "qmgr", JSON: true}).WithAttrs([]slog.Attr{slog.Int("n", 1)})
	}, record(slog.LevelInfo, `say "hi"`, slog.Any("rcpt", smtp.Path{Local: "a", Domain: "b"}), slog.Bool("ok", false),
		slog.Duration("delay", 250*time.Millisecond), slog.String("t", "a\\\n\xff\u202e\U000e0001,%"), slog.Time("at", at), slog.Float64("f", 2.5)))
	want := `{"time":"2026-11-20T12:00:00.123Z","sev":"INFO","module":"qmgr","event":"say \"hi\"","n":1,"rcpt":"<a@b>","ok":false,` +
		`"delay":0.25,"t":"a\\\u000a\ufffd\u202e\udb40\udc01,%","at":"2026-11-20T12:00:00.123Z","f":2.5}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestEnabled(t *testing.T) {
	tests := []struct {
		logLevel int
		want     slog.Level
	}{
		{-1, logfmt.LevelFatal},
		{0, logfmt.LevelFatal},
		{1, slog.LevelError},
		{2, slog.LevelError},
		{3, slog.LevelWarn},
		{4, slog.LevelWarn},
		{5, logfmt.LevelNotice},
		{8, logfmt.LevelNotice},
		{9, slog.LevelInfo},
		{11, slog.LevelInfo},
		{12, slog.LevelDebug},
		{15, slog.LevelDebug},
		{99, slog.LevelDebug},
	}
	for _, tt := range tests {
		h := logfmt.NewHandler(nil, logfmt.Options{Level: logfmt.Level(tt.logLevel)})
		if !h.Enabled(context.Background(), tt.want) || h.Enabled(context.Background(), tt.want-1) {
			t.Errorf("log_level %d: least level is not %v", tt.logLevel, tt.want)
		}
	}
}

// FuzzHandler checks that no value can end its field or its line, and that JSON
// stays JSON.
func FuzzHandler(f *testing.F) {
	for _, s := range []string{"", "a, b=c", "100%", "\r\nsev=FATAL", "\xff\xfe", "\u2028", "\\\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := record(slog.LevelInfo, s, slog.String("a", s), slog.Any("p", smtp.Path{Local: s, Domain: s}))
		line := print(t, func(k logfmt.Sink) slog.Handler { return logfmt.NewHandler(k, logfmt.Options{Module: s, NoTime: true}) }, r)
		want := 3
		if s != "" {
			want += 2
		}
		if n := len(strings.Split(line, ",")); n != want {
			t.Errorf("line has %d fields, not %d: %q", n, want, line)
		}
		if strings.ContainsAny(line, "\r\n\x00") {
			t.Errorf("line %q has control characters", line)
		}
		line = print(t, func(k logfmt.Sink) slog.Handler { return logfmt.NewHandler(k, logfmt.Options{JSON: true}) }, r)
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	})
}

// nothing is a Sink that costs nothing.
type nothing struct{}

func (nothing) Put(slog.Level, []byte) {}

func TestHandlerAllocs(t *testing.T) {
	log := slog.New(logfmt.NewHandler(nothing{}, logfmt.Options{Module: "smtps"}))
	attrs := hotAttrs()
	ctx := context.Background()
	n := testing.AllocsPerRun(1000, func() { log.LogAttrs(ctx, slog.LevelInfo, "rcpt accepted", attrs...) })
	if n > 1 { // slog itself keeps attributes beyond the fifth in a slice
		t.Errorf("%v allocations a line", n)
	}
}

// frequent counts what comes as logline.Handler wants it.
type frequent struct {
	slog.Handler
	lines *int
}

func (f frequent) HandleAttrs(time.Time, slog.Level, string, []slog.Attr) { *f.lines++ }

func (f frequent) WithAttrs([]slog.Attr) slog.Handler { return f }

// TestSwitchFrequent: a Switch hands the lines of logline.Emit on as they are: a record would cost more.
func TestSwitchFrequent(t *testing.T) {
	var lines int
	h := frequent{logfmt.NewHandler(nothing{}, logfmt.Options{}), &lines}
	s := logfmt.NewSwitch(slog.DiscardHandler)
	log := slog.New(s.WithAttrs(hotAttrs()))
	logline.Emit(log, slog.LevelInfo, "to the former one")
	s.Set(h)
	for want := 1; want <= 2; want++ {
		if logline.Emit(log, slog.LevelInfo, "rcpt accepted", hotAttrs()...); lines != want {
			t.Fatalf("%d lines came, not %d", lines, want)
		}
	}
}

func hotAttrs() []slog.Attr {
	id := smtp.ID{Counter: 42}
	return []slog.Attr{
		slog.Any("ss_se", id), slog.Any("ss_ta", id), slog.Any("rcpt", smtp.Path{Local: "user", Domain: "example.org"}),
		slog.Int("idx", 0), slog.String("stat", "250 2.1.5 ok"),
	}
}

func BenchmarkHandler(b *testing.B) {
	log := slog.New(logfmt.NewHandler(logfmt.NewWriter(io.Discard), logfmt.Options{Module: "smtps"}))
	attrs := hotAttrs()
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		log.LogAttrs(ctx, slog.LevelInfo, "rcpt accepted", attrs...)
	}
}

// BenchmarkReply prints what QMGR logs for each recipient.
func BenchmarkReply(b *testing.B) {
	h := logfmt.NewHandler(nothing{}, logfmt.Options{Module: "qmgr"})
	path, ctx := smtp.Path{Local: "user", Domain: "example.org"}, context.Background()
	attrs := []slog.Attr{slog.String("rcpt_id", "S000000000000000200-000000"), slog.Any("rcpt", path), slog.Any("reply", smtp.NewReply(250, "2.0.0", "ok: queued as 12345"))}
	b.ReportAllocs()
	for b.Loop() {
		r := slog.NewRecord(time.Unix(0, 0), slog.LevelInfo, "delivered", 0)
		r.AddAttrs(attrs...)
		_ = h.Handle(ctx, r)
	}
}
