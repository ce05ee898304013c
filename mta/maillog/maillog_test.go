package maillog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestParse has the same line in every form.
func TestParse(t *testing.T) {
	const text = `sev=INFO, module=smtps, event=refused, ss_se=S000000000000000300, reply=550 5.7.1 100%25%2C no%0A`
	const object = `{"time":"2026-11-22T02:24:18.225Z","sev":"INFO","module":"smtps","event":"refused","ss_se":"S000000000000000300","reply":"550 5.7.1 100%, no\n"}`
	at := time.Date(2026, 11, 22, 2, 24, 18, 225e6, time.UTC)
	inside, _ := json.Marshal(text)
	for name, c := range map[string]struct {
		line string
		time time.Time
	}{
		"text":       {"2026-11-22T02:24:18.225Z " + text + "\r\n", at},
		"no time":    {text, time.Time{}},
		"syslog":     {"Nov 22 02:24:18 host meta1[12]: " + text, time.Time{}},
		"rsyslog":    {"2026-11-22T02:24:18.225+00:00 host meta1[12]: " + text, at},
		"JSON":       {object, at},
		"syslogJSON": {"Nov 22 02:24:18 host meta1: " + object, at},
		"journal":    {`{"_PID":"1","MESSAGE":` + string(inside) + `,"__REALTIME_TIMESTAMP":"1795314258225000"}`, at},
		"bytes":      {`{"__REALTIME_TIMESTAMP":"1795314258225000","MESSAGE":` + strings.ReplaceAll(fmt.Sprint([]byte(text)), " ", ",") + `}`, at},
	} {
		l, ok := Parse([]byte(c.line))
		if !ok || !l.Time.Equal(c.time) || l.Get("event") != "refused" || l.Get("reply") != "550 5.7.1 100%, no\n" || len(l.Fields) != 5 {
			t.Errorf("%s: %v %+v", name, ok, l)
		}
	}
	for _, line := range []string{
		"", "x", "kernel: oops", "sev=", "sev=INFO, =", `{"a":1}`, `{"sev":`, `{"__REALTIME_TIMESTAMP":"1","MESSAGE":"kernel"}`, "{", "[1]", "sev",
	} {
		if l, ok := Parse([]byte(line)); ok && l.Get("sev") != "" {
			t.Errorf("%q is read as %+v", line, l)
		}
	}
	deep := `{"__REALTIME_TIMESTAMP":"1","MESSAGE":"x"}`
	for range 3 {
		s, _ := json.Marshal(deep)
		deep = `{"__REALTIME_TIMESTAMP":"1","MESSAGE":` + string(s) + `}`
	}
	if _, ok := Parse([]byte(deep)); ok {
		t.Error("a line in a line in a line is read")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`sev=INFO, a=%41`))
	f.Add([]byte(`{"sev":"INFO","x":[1,2]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := Parse(b)
		if !ok {
			return
		}
		text, err := json.Marshal(&l)
		if err != nil || !json.Valid(text) {
			t.Errorf("%q becomes %q: %v", b, text, err)
		}
	})
}

// log makes a log of short lines: "seconds module event field=value ...".
func log(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		w := strings.Fields(l)
		fmt.Fprintf(&b, "2026-11-22T00:00:%sZ sev=INFO, module=%s, event=%s", w[0], w[1], w[2])
		for _, f := range w[3:] {
			b.WriteString(", " + f)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

const (
	one, two, three = "S000000000000000100", "S000000000000000200", "S000000000000000300"
)

// TestStory: two messages come in one session; each goes with the lines of its sessions.
func TestStory(t *testing.T) {
	smtps := log("01 smtps session ss_se=S1 client_ip=192.0.2.1", "02 smtps mail ss_se=S1 ss_ta="+one+" mail=<a@x>", "03 smtps rcpt ss_se=S1 ss_ta="+one+" rcpt=<b@y>",
		"04 smtps message ss_se=S1 ss_ta="+one, "05 smtps mail ss_se=S1 ss_ta="+two+" mail=<c@x>", "06 smtps message ss_se=S1 ss_ta="+two, "07 smtps refused ss_se=S9 rcpt=<B@y>")
	client := log("04 smtpc connected da_se=C1", "05 smtpc starttls da_se=C1 starttls=TLSv1.3", "06 smtpc failed ss_ta="+one+" da_se=C1 rcpt=<b@y> relay=h reply=451", "07 smtpc connected da_se=C2", "08 smtpc delivered da_se=C2 ss_ta="+two)
	qmgr := log("07 qmgr bounced rcpt_id="+one+"-000000 by="+three+" stat=0", "08 qmgr expanded rcpt_id="+three+"-000000 rcpt=<a@x>", "09 qmgr delivered rcpt_id="+two+"-000000 stat=0")
	for what, want := range map[string]string{
		one:              "smtps session, smtps mail, smtps rcpt, smtps message, smtpc connected, smtpc starttls, smtpc failed, qmgr bounced, qmgr expanded",
		two:              "smtps session, smtps mail, smtps message, smtpc connected, smtpc delivered, qmgr delivered",
		two + "-000000":  "smtps session, smtps mail, smtps message, smtpc connected, smtpc delivered, qmgr delivered",
		"b@Y":            "smtps session, smtps mail, smtps rcpt, smtps message, smtpc connected, smtpc starttls, smtpc failed, smtps refused, qmgr bounced, qmgr expanded",
		"C1":             "smtpc connected, smtpc starttls, smtps session, smtps mail, smtps rcpt, smtps message, smtpc failed, qmgr bounced, qmgr expanded",
		"nobody@nowhere": "",
	} {
		var got []string
		s := NewStory(what, func(l *Line) error {
			got = append(got, l.Get("module")+" "+l.Get("event"))
			return nil
		})
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = io.WriteString(w, qmgr)
		_ = w.Close()
		if err := Read(t.Context(), []io.Reader{strings.NewReader(smtps), strings.NewReader(client), &z}, s.Add); err != nil {
			t.Fatal(err)
		}
		words := strings.Split(want, ", ")
		if want == "" {
			words = nil
		}
		slices.Sort(got) // of two logs, lines of one moment have no order
		slices.Sort(words)
		if !slices.Equal(got, words) {
			t.Errorf("%s: %q, want %q", what, got, words)
		}
	}
}

// TestStoryIsBounded: lines that belong to nothing do not pile up.
func TestStoryIsBounded(t *testing.T) {
	s := NewStory(one, func(*Line) error { return nil })
	for n := range 3 * pendingMax {
		if err := s.Add(&Line{Fields: []Field{{"ss_se", fmt.Sprint(n)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.pending) != pendingMax {
		t.Errorf("%d lines are kept", len(s.pending))
	}
	seen := 0
	s.emit = func(l *Line) error { seen++; return nil }
	if err := s.Add(&Line{Fields: []Field{{"ss_ta", one}, {"ss_se", fmt.Sprint(3*pendingMax - 1)}}}); err != nil || seen != 2 {
		t.Errorf("%d lines, %v", seen, err)
	}
}

// TestReadOdd: long lines and garbage are passed over.
func TestReadOdd(t *testing.T) {
	text := "garbage\n" + log("01 a b") + "sev=" + strings.Repeat("x", 2*lineMax) + "\n" + log("02 a c") + "sev=INFO, module=a, event=d"
	var got []string
	err := Read(t.Context(), []io.Reader{strings.NewReader(text)}, func(l *Line) error {
		got = append(got, l.Get("event"))
		return nil
	})
	if err != nil || strings.Join(got, "") != "bcd" {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Read(ctx, []io.Reader{strings.NewReader(text)}, func(*Line) error { return nil }); err == nil {
		t.Error("a reading that nobody waits for goes on")
	}
}

// TestFollow: a file that is not there yet, grows, is rotated, and is truncated.
func TestFollow(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := make(chan string)
	ended := make(chan error, 1)
	go func() {
		ended <- Follow(ctx, []string{name}, true, func(l *Line) error {
			select {
			case events <- l.Get("event"):
			case <-ctx.Done():
			}
			return nil
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-events:
			if got != want {
				t.Fatalf("%s, want %s", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("no line %s", want)
		}
	}
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, err = f.WriteString(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	add(log("01 a one"))
	expect("one")
	line := log("02 a two")
	add(line[:20])
	add(line[20:])
	expect("two")
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	add(log("03 a three"))
	expect("three")
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	add(log("04 a four"))
	expect("four")
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTell(t *testing.T) {
	var lines []Line
	err := Read(t.Context(), []io.Reader{strings.NewReader(log(
		"01 smtps session ss_se=S1 client_ip=192.0.2.1", "02 smtps mail ss_se=S1 ss_ta="+one+" mail=<a@x> ehlo=h", "03 smtps message ss_se=S1 ss_ta="+one+" size=5",
		"04 smtpc starttls da_se=C1 starttls=TLSv1.3 cipher=X", "05 smtpc failed da_se=C1 ss_ta="+one+" rcpt=<b@y> relay=h[1] where=rcpt reply=451",
		"06 qmgr deferred rcpt_id="+one+"-000000 rcpt=<b@y> reply=451", "07 qmgr delivered rcpt_id="+one+"-000000 rcpt=<b@y> reply=250 stat=0",
	))}, func(l *Line) error {
		lines = append(lines, *l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a := Tell(one, lines)
	if a.Accepted == nil || a.Accepted.Fields["client_ip"] != "192.0.2.1" || a.Accepted.Fields["ehlo"] != "h" || len(a.Attempts) != 1 ||
		a.Attempts[0].TLS != "TLSv1.3 X" || a.Attempts[0].Relay != "h[1]" {
		t.Errorf("%+v", a)
	}
	if o := a.Outcomes[one+"-000000"]; o == nil || o.Event != "delivered" || !o.Ended {
		t.Errorf("%+v", o)
	}
}
