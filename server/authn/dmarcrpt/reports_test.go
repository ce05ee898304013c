package dmarcrpt

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
	"meta1/mta/vfs"
	"meta1/mta/vfs/crashfs"
	"meta1/server/authn/dmarc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world answers what DNS and QMGR do.
type world struct {
	fs vfs.FS

	mu      sync.Mutex
	zone    map[string]string // "!": no answer
	asked   []string
	refusal smtp.Reply // of the queue
	mails   []*msg.CommitQ
}

func newWorld() *world {
	return &world{fs: crashfs.FS(crashfs.New(), nil), zone: map[string]string{}}
}

func (w *world) set(name, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zone[name] = text
}

func (w *world) refuse(r smtp.Reply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusal = r
}

func (w *world) lookup(_ context.Context, name string) dmarc.TXT {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, name)
	switch text, ok := w.zone[name]; {
	case text == "!":
		return dmarc.TXT{Err: errors.New("timeout")}
	case ok:
		return dmarc.TXT{Texts: []string{text}}
	}
	return dmarc.TXT{NoDomain: true}
}

// sent gives the mails with reports that came since the last time.
func (w *world) sent() (list []*msg.CommitQ) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list, w.mails = w.mails, nil
	return list
}

// to are the recipients of mails.
func to(list []*msg.CommitQ) string {
	var all []string
	for _, q := range list {
		for _, r := range q.Envelope.Rcpts {
			all = append(all, r.To.Addr())
		}
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// answer answers the questions of one port until life ends.
func answer[Q, A any](g *supervise.Group, p *msg.Port[Q, A], f func(*Q) A) {
	requests, stop := p.Open()
	g.Go(func(ctx context.Context) error {
		defer stop()
		for {
			select {
			case r := <-requests:
				r.Answer(f(&r.Q))
			case <-ctx.Done():
				return nil
			}
		}
	})
}

// run runs Reports in the world until stop is called.
func (w *world) run(t *testing.T, cfg Config) (r *Reports, stop func()) {
	t.Helper()
	ports := msg.NewPorts()
	g := supervise.NewGroup(context.Background())
	answer(g, ports.Admit, func(q *msg.AdmitQ) msg.AdmitA { return msg.AdmitA{ID: smtp.ID{Counter: uint64(q.Kind) + 1}} })
	answer(g, ports.Commit, func(q *msg.CommitQ) msg.CommitA {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.refusal.IsZero() {
			w.mails = append(w.mails, q)
		}
		return msg.CommitA{Reply: w.refusal}
	})
	r = New(cfg, Deps{
		Ports: ports, Lookup: w.lookup, Hostname: "MX.us.example.", Version: "9.9", Dir: "/spool/dmarcrpt", FS: w.fs, Metrics: prometheus.NewRegistry(),
		Sign: func(m []byte) ([]byte, error) { return append([]byte("DKIM-Signature: x\r\n"), m...), nil },
	})
	life := supervise.NewGroup(context.Background())
	life.Go(r.Run)
	return r, func() {
		life.Stop()
		if err := life.Wait(); err != nil {
			t.Error(err)
		}
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// value reads a counter.
func value(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// evaluated evaluates DMARC in the world, as SMTPS does.
func (w *world) evaluated(from, client string, spf dmarc.Identifier, sigs ...Signature) *Message {
	in := dmarc.Input{Authors: dmarc.Authors{Domains: []string{from}}, SPF: spf}
	for _, s := range sigs {
		in.DKIM = append(in.DKIM, dmarc.Identifier{Domain: s.Domain, Result: s.Result})
	}
	res := dmarc.Evaluate(context.Background(), &in, w.lookup)
	return &Message{
		Client: netip.MustParseAddr(client), Result: &res[0], Disposition: res[0].Policy, EnvelopeFrom: spf.Domain, SPF: spf, DKIM: sigs,
	}
}

// report takes the report out of a mail, and checks the mail (RFC 9990 section 3.5.2).
func report(t *testing.T, q *msg.CommitQ, domain string) string {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(q.Inline))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" || m.Header.Get("DKIM-Signature") == "" || q.Size != int64(len(q.Inline)) {
		t.Fatalf("%s %v\n%s", kind, err, q.Inline)
	}
	subject := strings.Fields(m.Header.Get("Subject"))
	if len(subject) != 7 || strings.Join(subject[:6], " ") != "Report Domain: "+domain+" Submitter: us.example Report-ID:" {
		t.Fatalf("%q", subject)
	}
	id := strings.Trim(subject[6], "<>")
	if got := m.Header.Get("Message-Id"); got != "<"+id+"@mx.us.example>" {
		t.Errorf("Message-ID %s", got)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if p, err := parts.NextPart(); err != nil || !strings.HasPrefix(p.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%v %v", p, err)
	}
	p, err := parts.NextPart()
	if err != nil || !strings.HasPrefix(p.Header.Get("Content-Type"), "application/gzip;") {
		t.Fatalf("%v %v", p, err)
	}
	name := strings.Split(p.FileName(), "!")
	if len(name) != 5 || name[0] != "us.example" || name[1] != domain || name[4] != id+".xml.gz" || strings.Trim(id, "0123456789abcdef") != "" {
		t.Errorf("the file is %s", p.FileName())
	}
	z, err := gzip.NewReader(base64.NewDecoder(base64.StdEncoding, p))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	valid(t, text)
	return string(text)
}

// valid has xmllint validate a report.
func valid(t *testing.T, text []byte) {
	t.Helper()
	lint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Log("without xmllint the report is not validated")
		return
	}
	file := filepath.Join(t.TempDir(), "report.xml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(lint, "--noout", "--nonet", "--schema", "testdata/report.xsd", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, text)
	}
}

var testConfig = Config{Present: true, Organization: "Us & <Co>", Contact: "https://us.example/dmarc", Sender: "<reports@us.example>"}

func TestReports(t *testing.T) {
	w := newWorld()
	w.set("_dmarc.good.example", "v=DMARC1; p=reject; sp=quarantine; adkim=s; rua=mailto:dmarc@good.example,mailto:dmarc@third.example!10m,https://x.example; bad")
	w.set("good.example._report._dmarc.third.example", "v=DMARC1")
	w.set("_dmarc.testing.example", "v=DMARC1; p=reject; t=y; rua=mailto:r@sub.testing.example")
	w.set("_dmarc.quiet.example", "v=DMARC1; p=none")
	var first, second string
	synctest.Test(t, func(t *testing.T) {
		r, stop := w.run(t, testConfig)
		good := Signature{"good.example", "s1", "pass"}
		for range 3 {
			r.Count(w.evaluated("good.example", "192.0.2.1", dmarc.Identifier{Domain: "good.example", Result: "pass"}, Signature{"list.example", "l", "fail"}, good))
		}
		r.Count(w.evaluated("a.good.example", "2001:db8::1", dmarc.Identifier{Domain: "evil.example", Result: "softfail"}))
		m := w.evaluated("good.example", "::ffff:192.0.2.1", dmarc.Identifier{Result: "none"}, Signature{"x\x01\xff", "<&>", "strange"})
		m.Disposition, m.Override, m.Comment = dmarc.None, "trusted_forwarder", "of our list"
		r.Count(m)
		r.Count(w.evaluated("testing.example", "192.0.2.2", dmarc.Identifier{Domain: "testing.example", Result: "fail"}))
		r.Count(w.evaluated("testing.example", "192.0.2.2", dmarc.Identifier{Domain: "testing.example", Result: "temperror"}))
		r.Count(w.evaluated("quiet.example", "192.0.2.2", dmarc.Identifier{}))
		r.Count(w.evaluated("none.example", "192.0.2.2", dmarc.Identifier{}))
		if n := value(t, r.stats.messages[counted]); n != 7 || value(t, r.stats.messages[unwanted]) != 2 {
			t.Errorf("%v counted", n)
		}
		stop() // what was counted is on disk

		r, stop = w.run(t, testConfig)
		defer func() { stop() }()
		synctest.Wait()
		if list := r.List("good.example."); len(list) != 1 || len(list[0].Report.Records) != 3 || !list[0].Due.IsZero() {
			t.Fatalf("%+v", list)
		}
		r.Count(w.evaluated("good.example", "192.0.2.1", dmarc.Identifier{Domain: "good.example", Result: "pass"}, Signature{"list.example", "l", "fail"}, good))
		time.Sleep(24 * time.Hour)
		if got := w.sent(); len(got) != 0 {
			t.Fatalf("%d reports before the morning", len(got))
		}
		time.Sleep(6*time.Hour + time.Minute)
		mails := w.sent()
		if got := to(mails); got != "dmarc@good.example dmarc@third.example r@sub.testing.example" {
			t.Fatalf("reports to %s", got)
		}
		for _, q := range mails {
			switch q.Envelope.Rcpts[0].To.Domain {
			case "good.example":
				first = report(t, q, "good.example")
			case "sub.testing.example":
				second = report(t, q, "testing.example")
			}
			if q.Envelope.Mail.From.Addr() != "reports@us.example" || q.Envelope.Rcpts[0].Notify != "NEVER" {
				t.Errorf("%+v", q.Envelope)
			}
		}
		time.Sleep(time.Hour)
		if list := r.List(""); len(list) != 0 {
			t.Errorf("what was sent is still there: %+v", list)
		}
		if names, err := w.fs.List("/spool/dmarcrpt"); err != nil || len(names) != 0 {
			t.Errorf("%v %v", names, err)
		}
	})
	golden(t, "testdata/good.xml", first)
	golden(t, "testdata/testing.xml", second)
}

// golden compares a text with a file; UPDATE=1 writes it.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != got {
		t.Errorf("%s: %v\n%s", file, err, got)
	}
}

// TestPlaces: who gets a report, and who does not.
func TestPlaces(t *testing.T) {
	const d = "blue.example.com"
	agrees := d + "._report._dmarc.red.example.net"
	cases := []struct {
		name  string
		zone  map[string]string
		to    string
		ended bool // it is not tried again
	}{
		{"RFC 9990 section 4", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:reports@red.example.net", agrees: "v=DMARC1"}, "reports@red.example.net", true},
		{"not agreed", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:reports@red.example.net"}, "", true},
		{"not agreed in DMARC's words", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:reports@red.example.net", agrees: "v=spf1 -all"}, "", true},
		{"sent to another address", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:reports@red.example.net", agrees: "v=DMARC1; rua=mailto:other@red.example.net"}, "other@red.example.net", true},
		{"sent on to a victim", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:reports@red.example.net", agrees: "v=DMARC1; rua=mailto:a@red.example.net,mailto:victim@example.org"}, "", true},
		{"the same organization", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:r@x.example.com", "_dmarc.example.com": "v=DMARC1; p=none"}, "r@x.example.com", true},
		{"a suffix is no organization", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:r@red.example.com", "_dmarc.example.com": "v=DMARC1; p=none; psd=y"}, "", true},
		{"one of two", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:reports@red.example.net,mailto:a@" + d}, "a@" + d, true},
		{"too large", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:a@" + d + "!1k"}, "", true},
		{"not too large", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:a@" + d + "!10k"}, "a@" + d, true},
		{"by HTTPS only", map[string]string{"_dmarc." + d: "v=DMARC1; rua=https://red.example.net/"}, "", true},
		{"no record any more", map[string]string{}, "", true},
		{"no rua any more", map[string]string{"_dmarc." + d: "v=DMARC1; p=none"}, "", true},
		{"no answer", map[string]string{"_dmarc." + d: "!"}, "", false},
		{"no answer about the place", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:reports@red.example.net", agrees: "!"}, "", false},
		{"no answer about an organization", map[string]string{"_dmarc." + d: "v=DMARC1; rua=mailto:reports@red.example.net", "_dmarc.net": "!"}, "", false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld()
				w.set("_dmarc."+d, "v=DMARC1; p=reject; rua=mailto:a@b.example")
				r, stop := w.run(t, testConfig)
				defer stop()
				r.Count(w.evaluated(d, "192.0.2.1", dmarc.Identifier{Domain: d, Result: "pass"}))
				w.mu.Lock()
				w.zone = c.zone
				w.mu.Unlock()
				n, err := r.Send(t.Context(), d, true)
				if got := to(w.sent()); got != c.to || (n == 1) != (c.to != "") {
					t.Errorf("%d reports to %q: %v", n, got, err)
				}
				list := r.List("")
				if len(list) > 0 && list[0].Sent != c.ended {
					t.Errorf("%+v", list[0])
				}
				if err != nil && len(list) > 0 && list[0].Why == "" {
					t.Error("nobody knows why")
				}
			})
		})
	}
}

// TestRetries: the queue does not take a report for a while.
func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("_dmarc.good.example", "v=DMARC1; p=reject; rua=mailto:a@good.example")
		w.refuse(smtp.NewReply(452, "4.3.1", "Full"))
		r, stop := w.run(t, Config{})
		defer stop()
		r.Count(w.evaluated("good.example", "192.0.2.1", dmarc.Identifier{Domain: "good.example", Result: "pass"}))
		time.Sleep(32 * time.Hour)
		if n := value(t, r.stats.reports[failed]); n < 2 || n > 5 {
			t.Errorf("%v tries", n)
		}
		w.refuse(smtp.Reply{})
		time.Sleep(8 * time.Hour)
		mails := w.sent()
		if len(mails) != 1 || mails[0].Envelope.Mail.From.Addr() != "noreply-dmarc-reports@mx.us.example" {
			t.Fatalf("%d reports", len(mails))
		}
		w.refuse(smtp.NewReply(452, "4.3.1", "Full"))
		r.Count(w.evaluated("good.example", "192.0.2.1", dmarc.Identifier{Domain: "good.example", Result: "pass"}))
		time.Sleep(72 * time.Hour)
		if value(t, r.stats.reports[givenUp]) != 1 || len(r.List("")) != 0 {
			t.Error("it is tried for ever")
		}
	})
}

// TestBounds: strangers cannot make us count without end, nor keep others from being counted.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("_dmarc.good.example", "v=DMARC1; p=reject; rua=mailto:a@good.example")
		r, stop := w.run(t, Config{})
		defer stop()
		m := w.evaluated("good.example", "192.0.2.1", dmarc.Identifier{Domain: "good.example", Result: "pass"})
		for i := range rowsMax + 100 {
			m.DKIM = []Signature{{fmt.Sprintf("d%d.example", i), "s", "fail"}}
			r.Count(m)
		}
		m.Client, m.DKIM = netip.MustParseAddr("192.0.2.99"), nil
		r.Count(m)
		list := r.List("")[0].Report.Records
		if len(list) != rowsMax+2 {
			t.Errorf("%d rows", len(list))
		}
		i := slices.IndexFunc(list, func(r Record) bool { return r.Source == m.Client })
		j := slices.IndexFunc(list, func(r Record) bool { return r.Count == 100 })
		if i < 0 || j < 0 {
			t.Error("rows are missing")
		}
		for i := range 2*rowsMax + 10 {
			m.Client = netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			r.Count(m)
		}
		if list := r.List("")[0].Report.Records; len(list) != 2*rowsMax || value(t, r.stats.messages[dropped]) == 0 {
			t.Errorf("%d rows", len(list))
		}
		for i := range domainsMax + 10 {
			m.Result.Domain = fmt.Sprintf("d%d.example", i)
			r.Count(m)
		}
		if n := len(r.today.Domains); n != domainsMax {
			t.Errorf("%d domains", n)
		}
	})
}

// TestDamaged: a file that is not ours is put aside.
func TestDamaged(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"start":"2000-01-01T00:00:00Z","domains":{"x":null}}`, `{"version":1,"start":"2000-01-01T00:00:00Z","domains":{"x":{"rows":{"[]":1}}}}`} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			if err := vfs.MakeDir(w.fs, "/spool/dmarcrpt", 0o700); err != nil {
				t.Fatal(err)
			}
			if err := vfs.Replace(w.fs, "/spool/dmarcrpt/20000101T000000.json", "/spool/dmarcrpt/20000101T000000.new", []byte(text)); err != nil {
				t.Fatal(err)
			}
			_, stop := w.run(t, Config{})
			synctest.Wait()
			stop()
			if names, err := w.fs.List("/spool/dmarcrpt"); err != nil || len(names) != 1 || names[0] != "20000101T000000.damaged" {
				t.Errorf("%q: %v %v", text, names, err)
			}
		})
	}
}
