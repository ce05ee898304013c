package logfmt_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta1/mta/logfmt"
)

// awkward are values that each protocol has to escape in its own way.
var awkward = []slog.Attr{
	slog.String("ss_ta", "S00000000407CE49200"), slog.String("reply", `550 "no", [a\b] 99%`),
	slog.String("input", "two\r\nlines\x00"), slog.String("rcpt", "<grüße@b.example>"), slog.String("bad", "\xff"), slog.String("empty", ""),
}

// sent logs a line through a Syslog that is not run, so that it is sent at once.
func sent(t *testing.T, c logfmt.SyslogConfig, attrs ...slog.Attr) {
	t.Helper()
	s, err := logfmt.NewSyslog(c)
	if err != nil {
		t.Fatal(err)
	}
	r := record(slog.LevelWarn, "mail refused", attrs...)
	_ = logfmt.NewHandler(s, logfmt.Options{Module: "smtps", NoTime: true}).Handle(t.Context(), r)
}

// TestRFC5424 reads what is sent as a collector does.
func TestRFC5424(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c := daemon(t, path)
	conf := logfmt.SyslogConfig{Protocol: logfmt.ProtocolRFC5424, Facility: "mail", Ident: "meta1 MTA", Hostname: "mx.example.org", Server: "unix:" + path}
	sent(t, conf, awkward...)
	want := regexp.MustCompile(`^<20>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d) mx\.example\.org meta1_MTA \d+ mail_refused ` +
		regexp.QuoteMeta(`[meta1@32473 sev="WARN" module="smtps" event="mail refused" ss_ta="S00000000407CE49200" reply="550 \"no\", [a\\b\] 99%" input="two%0D%0Alines%00" `+
			`rcpt="<grüße@b.example>" bad="`+"\uFFFD"+`" empty=""] sev=WARN, module=smtps, event=mail refused, ss_ta=S00000000407CE49200, reply=550 "no"%2C [a\b] 99%25, `) + `.*$`)
	if got := receive(t, c); !want.MatchString(got) {
		t.Errorf("sent %s", got)
	}

	// A long line is cut behind its structured data.
	var many []slog.Attr
	for i := range 12 {
		many = append(many, slog.String("field"+strconv.Itoa(i), strings.Repeat("ü]", 400)))
	}
	sent(t, conf, many...)
	got := receive(t, c)
	data := regexp.MustCompile(`\[meta1@32473( [!-<>-~]+="([^"\\\]]|\\.)*")+\] sev=WARN, `)
	if len(got) > 8<<10 || len(got) < 8000 || !data.MatchString(got) || !strings.Contains(got, "field1=") {
		t.Errorf("%d bytes: %.300s", len(got), got)
	}
}

// TestTCP: octets are counted, and a collector that was started again gets what comes then.
func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := logfmt.NewSyslog(logfmt.SyslogConfig{Protocol: logfmt.ProtocolRFC5424, Ident: "x", Server: "tcp:" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		s.Put(slog.LevelInfo, []byte("sev=INFO, event=e"+strconv.Itoa(i)+"\n"))
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if got := frame(t, bufio.NewReader(conn)); !strings.HasSuffix(got, " e"+strconv.Itoa(i)+` [meta1@32473 sev="INFO" event="e`+strconv.Itoa(i)+`"] sev=INFO, event=e`+strconv.Itoa(i)) {
			t.Errorf("sent %q", got)
		}
		_ = conn.Close() // it is started again
	}
	if n := s.Dropped(); n > 0 {
		t.Errorf("%d lines were dropped", n)
	}
}

// frame reads a frame of RFC 6587.
func frame(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	head, err := r.ReadString(' ')
	n, e := strconv.Atoi(strings.TrimSuffix(head, " "))
	if err != nil || e != nil {
		t.Fatalf("%q: %v %v", head, err, e)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestUDP(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	sent(t, logfmt.SyslogConfig{Ident: "x", Server: "udp:" + c.LocalAddr().String()})
	b := make([]byte, 4096)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Minute))
	n, _, err := c.ReadFrom(b)
	if err != nil || !bytes.HasPrefix(b[:n], []byte("<20>")) || !bytes.HasSuffix(b[:n], []byte(": sev=WARN, module=smtps, event=mail refused")) {
		t.Errorf("%q %v", b[:n], err)
	}
}

// entry reads an entry of the journal's native protocol.
func entry(b []byte) (map[string]string, error) {
	e := map[string]string{}
	for len(b) > 0 {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if !ok {
			return e, fmt.Errorf("no line feed behind %q", line)
		}
		name, value, plain := strings.Cut(string(line), "=")
		if !plain {
			if len(rest) < 8 {
				return e, fmt.Errorf("no length of %q", line)
			}
			n := binary.LittleEndian.Uint64(rest)
			if rest = rest[8:]; n >= uint64(len(rest)) || rest[n] != '\n' {
				return e, fmt.Errorf("%q has no %d bytes", line, n)
			}
			value, rest = string(rest[:n]), rest[n+1:]
		}
		if !regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`).MatchString(name) {
			return e, fmt.Errorf("bad name %q", name)
		}
		e[name], b = value, rest
	}
	return e, nil
}

// TestJournal: an entry in a datagram has each field.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	c := daemon(t, path)
	conf := logfmt.SyslogConfig{Protocol: logfmt.ProtocolJournal, Ident: "meta1", Server: path}
	sent(t, conf, append(slices.Clone(awkward), slog.String("client.ip-1", "x"))...)
	e, err := entry([]byte(receive(t, c)))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"PRIORITY": "4", "SYSLOG_FACILITY": "2", "SYSLOG_IDENTIFIER": "meta1", "META1_SEV": "WARN", "META1_MODULE": "smtps", "META1_EVENT": "mail refused",
		"META1_SS_TA": "S00000000407CE49200", "META1_REPLY": `550 "no", [a\b] 99%`, "META1_INPUT": "two\r\nlines\x00", "META1_RCPT": "<grüße@b.example>",
		"META1_BAD": "\xff", "META1_EMPTY": "", "META1_CLIENT_IP_1": "x",
	} {
		if got, ok := e[name]; !ok || got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(e["MESSAGE"], "sev=WARN, module=smtps, event=mail refused, ") || e["META1_TIME"] == "" || e["SYSLOG_PID"] == "" || len(e) != 16 {
		t.Errorf("%q", e)
	}
}

func TestServers(t *testing.T) {
	for server, protocols := range map[string]string{
		"": "syslog rfc5424 journald", "/dev/log": "syslog rfc5424 journald", "unix:/x": "syslog rfc5424 journald", "udp:h:514": "syslog rfc5424",
		"tcp:[::1]:601": "syslog rfc5424", "tcp:h": "", "udp:h:0": "", "udp::514": "", "h:514": "", "x": "", "unix:x": "", "tcp:h:99999": "",
	} {
		for _, p := range logfmt.Protocols() {
			err := logfmt.CheckServer(p, server)
			if (err == nil) != strings.Contains(protocols, p) {
				t.Errorf("%s to %q: %v", p, server, err)
			}
		}
	}
	if _, err := logfmt.NewSyslog(logfmt.SyslogConfig{Server: "x"}); err == nil {
		t.Error("a server that is none was accepted")
	}
}

// FuzzPackets: no value can end its field, its frame or its line, and each protocol says the same.
func FuzzPackets(f *testing.F) {
	for _, s := range []string{"", "a, b=c", "100%", "\r\nsev=FATAL", "\xff\xfe", "\"]\\", "%0A"} {
		f.Add(s)
	}
	path := filepath.Join(f.TempDir(), "log")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.Close() })
	data := regexp.MustCompile(`^<\d+>1 [!-~]+ [!-~]+ [!-~]+ [!-~]+ [!-~]+ \[meta1@32473( [!-<>-~]+="([^"\\\]\x00-\x1f]|\\["\\\]])*")+\] [^\x00-\x1f]*$`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, p := range []string{logfmt.ProtocolJournal, logfmt.ProtocolRFC5424} {
			sent(t, logfmt.SyslogConfig{Protocol: p, Ident: "x", Server: path}, slog.String("a", s), slog.String("z", "end"))
			got := receive(t, c)
			if p == logfmt.ProtocolRFC5424 {
				if !data.MatchString(got) || !strings.Contains(got, ` z="end"] sev=`) {
					t.Errorf("%q", got)
				}
				continue
			}
			e, err := entry([]byte(got))
			if err != nil || e["META1_Z"] != "end" || len(s) <= 1024 && e["META1_A"] != s {
				t.Errorf("%v %q", err, e)
			}
		}
	})
}
