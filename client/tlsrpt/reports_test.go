package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/netip"
	"reflect"
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
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world answers what SMAR and QMGR do.
type world struct {
	fs vfs.FS

	mu      sync.Mutex
	answers map[string]msg.TLSReportA
	asked   int
	refusal smtp.Reply // of the queue
	mails   []*msg.CommitQ
}

func newWorld() *world {
	return &world{fs: crashfs.FS(crashfs.New(), nil), answers: map[string]msg.TLSReportA{}}
}

func (w *world) set(name string, a msg.TLSReportA) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[name] = a
}

func (w *world) refuse(r smtp.Reply) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusal = r
}

func (w *world) got() []*msg.CommitQ {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]*msg.CommitQ(nil), w.mails...)
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
	answer(g, ports.Report, func(q *msg.TLSReportQ) msg.TLSReportA {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.asked++
		return w.answers[q.Domain]
	})
	answer(g, ports.Admit, func(q *msg.AdmitQ) msg.AdmitA { return msg.AdmitA{ID: smtp.ID{Counter: uint64(q.Kind) + 1}} })
	answer(g, ports.Commit, func(q *msg.CommitQ) msg.CommitA {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.refusal.IsZero() {
			w.mails = append(w.mails, q)
		}
		return msg.CommitA{Reply: w.refusal}
	})
	r = New(cfg, Deps{Ports: ports, Hostname: "MX.us.example.", Dir: "/spool/tlsrpt", FS: w.fs, Metrics: prometheus.NewRegistry()})
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

// The sessions of all tests.
var (
	wanted = msg.TLSReportA{
		RUA:      []string{"mailto:tls@d.example?subject=x"},
		STSLines: []string{"version: STSv1", "mode: testing", "mx: *.d.example", "max_age: 86400"}, STSHosts: []string{"*.d.example"},
	}
	good = msg.TLSSession{
		Domain: "D.example.", Policy: msg.TLSPolicySTS, MX: "mx.d.example", Helo: "mx.d.example",
		Local: netip.MustParseAddr("192.0.2.1"), Remote: netip.MustParseAddr("2001:db8::25"),
	}
)

func bad(result msg.TLSResult, reason string) *msg.TLSSession {
	s := good
	s.Result, s.Reason = result, reason
	return &s
}

// opened takes a mail with a report apart.
func opened(t *testing.T, content []byte) (header mail.Header, file string, rep Report) {
	t.Helper()
	if bytes.Contains(bytes.ReplaceAll(content, []byte("\r\n"), nil), []byte("\n")) {
		t.Error("a bare LF in the message")
	}
	m, err := mail.ReadMessage(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Fatalf("%s %v %v", kind, params, err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	text, err := parts.NextPart()
	if err != nil || !strings.HasPrefix(text.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%v %v", text, err)
	}
	part, err := parts.NextRawPart()
	if err != nil || part.Header.Get("Content-Type") != "application/tlsrpt+gzip" {
		t.Fatalf("%v %v", part, err)
	}
	packed, err := io.ReadAll(base64Reader(part))
	if err != nil {
		t.Fatal(err)
	}
	return m.Header, part.FileName(), unpacked(t, packed)
}

func unpacked(t *testing.T, packed []byte) (rep Report) {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&rep); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return rep
}

// TestDay: what is counted on a day is mailed in the next morning, once, over a restart as well.
func TestDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the bubble begins at midnight (UTC) on 2000-01-01
		w := newWorld()
		w.set("d.example", wanted)
		r, stop := w.run(t, Config{Organization: "Us", Contact: "tls@us.example", Sender: "reports@us.example"})
		for range 3 {
			r.CountTLS(&good)
		}
		r.CountTLS(bad(msg.TLSHostMismatch, "it is not for that name"))
		none := good
		none.Domain = "none.example"
		r.CountTLS(&none)
		synctest.Wait()
		r.CountTLS(bad(msg.TLSHostMismatch, "it is not for that name"))
		stop()

		r, stop = w.run(t, Config{Organization: "Us", Contact: "tls@us.example", Sender: "reports@us.example"})
		r.CountTLS(bad(msg.TLSNotSupported, ""))
		time.Sleep(24*time.Hour + 50*time.Minute)
		if got := w.got(); len(got) > 0 {
			t.Fatalf("%d reports in the night", len(got))
		}
		time.Sleep(24 * time.Hour)
		stop()
		got := w.got()
		if len(got) != 1 {
			t.Fatalf("%d reports", len(got))
		}
		e := got[0].Envelope
		if e.Mail.From.Addr() != "reports@us.example" || len(e.Rcpts) != 1 || e.Rcpts[0].To.Addr() != "tls@d.example" || e.Rcpts[0].Notify != "NEVER" || !e.Mail.TLSOptional {
			t.Errorf("%+v", e)
		}
		h, file, rep := opened(t, got[0].Inline)
		start := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
		end := start.Add(24*time.Hour - time.Second)
		id := rep.ID
		for name, want := range map[string]string{
			"From": "<reports@us.example>", "To": "<tls@d.example>", "TLS-Report-Domain": "d.example", "TLS-Report-Submitter": "us.example",
			"TLS-Required": "No", "Message-Id": "<" + id + ">",
			"Subject": "Report Domain: d.example Submitter: us.example Report-ID: <" + id + ">",
		} {
			if got := h.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if want := fmt.Sprintf("us.example!d.example!%d!%d!%s.json.gz", start.Unix(), end.Unix(), strings.TrimSuffix(id, "@mx.us.example")); file != want {
			t.Errorf("file %s, want %s", file, want)
		}
		want := Report{
			Organization: "Us", Contact: "tls@us.example", ID: id, DateRange: DateRange{start, end},
			Policies: []Policy{{
				Policy:  PolicyDetails{Type: "sts", Strings: wanted.STSLines, Domain: "d.example", MXHosts: wanted.STSHosts},
				Summary: Summary{3, 3},
				Failures: []FailureDetails{
					{Result: "certificate-host-mismatch", Local: "192.0.2.1", MX: "mx.d.example", Helo: "mx.d.example", Remote: "2001:db8::25", Count: 2, Reason: "it is not for that name"},
					{Result: "starttls-not-supported", Local: "192.0.2.1", MX: "mx.d.example", Helo: "mx.d.example", Remote: "2001:db8::25", Count: 1},
				},
			}},
		}
		if !reflect.DeepEqual(rep, want) {
			t.Errorf("%+v, want %+v", rep, want)
		}
		if names, err := w.fs.List("/spool/tlsrpt"); err != nil || len(names) != 0 {
			t.Errorf("left over: %v %v", names, err)
		}
	})
}

// TestRefused: a report that is refused is tried again under the same id, and given up after a
// day.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("d.example", wanted)
		w.refuse(smtp.NewReply(452, "4.3.1", "the disk is full"))
		r, stop := w.run(t, Config{})
		r.CountTLS(&good)
		time.Sleep(30 * time.Hour)
		list := r.List("d.example")
		if len(list) != 1 || list[0].Tries == 0 || !strings.Contains(list[0].Why, "the disk is full") || list[0].Sent {
			t.Fatalf("%+v", list)
		}
		stop()
		r, stop = w.run(t, Config{})
		synctest.Wait()
		if again := r.List(""); len(again) != 1 || again[0].Tries != list[0].Tries || again[0].Report.ID != list[0].Report.ID {
			t.Errorf("after a restart: %+v", again)
		}
		time.Sleep(30 * time.Hour)
		if list := r.List(""); len(list) != 0 {
			t.Errorf("it is tried for ever: %+v", list)
		}
		if n := value(t, r.stats.reports[givenUp]); n != 1 {
			t.Errorf("%v given up", n)
		}
		stop()
	})
}

// TestSendNow: an operator ends the day, and sends its report.
func TestSendNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("d.example", wanted)
		w.set("e.example", wanted)
		r, stop := w.run(t, Config{})
		defer stop()
		other := good
		other.Domain = "e.example"
		r.CountTLS(&good)
		r.CountTLS(&other)
		time.Sleep(10 * time.Hour)
		if n, err := r.Send(t.Context(), "", false); n != 0 || err != nil {
			t.Errorf("%d sent, %v", n, err)
		}
		if n, err := r.Send(t.Context(), "D.example", true); n != 1 || err != nil {
			t.Errorf("%d sent, %v", n, err)
		}
		r.CountTLS(&good)
		synctest.Wait()
		list := r.List("d.example")
		if len(list) != 2 || !list[0].Sent || list[1].Sent || list[1].Report.ID == list[0].Report.ID {
			t.Errorf("%+v", list)
		}
		_, _, rep := opened(t, w.got()[0].Inline)
		if d := rep.DateRange; d.End.Sub(d.Start) != 10*time.Hour || rep.Contact != "noreply-tls-reports@mx.us.example" || rep.Organization != "mx.us.example" {
			t.Errorf("%+v", rep)
		}
		time.Sleep(48 * time.Hour)
		if n := len(w.got()); n != 3 {
			t.Errorf("%d reports", n)
		}
	})
}

// TestDescribe: under which policy a session counts, and as what.
func TestDescribe(t *testing.T) {
	tlsa := good
	tlsa.Policy, tlsa.Base, tlsa.Records = msg.TLSPolicyTLSA, "mx.d.example", []msg.TLSA{{Usage: 3, Selector: 1, Matching: 1, Data: "\xab\x01"}}
	none := good
	none.Policy = msg.TLSPolicyNone
	broken := msg.TLSReportA{RUA: wanted.RUA, STSFailure: msg.TLSPolicyFetchError, STSReason: "the policy host replied 404"}
	for name, c := range map[string]struct {
		s    msg.TLSSession
		a    msg.TLSReportA
		want string
	}{
		"sts":          {good, wanted, `{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: testing","mx: *.d.example","max_age: 86400"],"policy-domain":"d.example","mx-host":["*.d.example"]},"summary":{"total-successful-session-count":1,"total-failure-session-count":0}}`},
		"tlsa":         {tlsa, wanted, `{"policy":{"policy-type":"tlsa","policy-string":["3 1 1 AB01"],"policy-domain":"mx.d.example"},"summary":{"total-successful-session-count":1,"total-failure-session-count":0}}`},
		"none":         {none, msg.TLSReportA{RUA: wanted.RUA}, `{"policy":{"policy-type":"no-policy-found","policy-domain":"d.example"},"summary":{"total-successful-session-count":1,"total-failure-session-count":0}}`},
		"sts unknown":  {none, broken, `{"policy":{"policy-type":"sts","policy-domain":"d.example"},"summary":{"total-successful-session-count":0,"total-failure-session-count":1},"failure-details":[{"result-type":"sts-policy-fetch-error","failed-session-count":1,"failure-reason-code":"the policy host replied 404"}]}`},
		"tlsa and sts": {tlsa, broken, `{"policy":{"policy-type":"tlsa","policy-string":["3 1 1 AB01"],"policy-domain":"mx.d.example"},"summary":{"total-successful-session-count":1,"total-failure-session-count":0}}`},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			w.set("d.example", c.a)
			r, stop := w.run(t, Config{})
			defer stop()
			r.CountTLS(&c.s)
			synctest.Wait()
			list := r.List("")
			if len(list) != 1 {
				t.Fatalf("%s: %+v", name, list)
			}
			if got, err := json.Marshal(list[0].Report.Policies[0]); err != nil || string(got) != c.want {
				t.Errorf("%s: %s %v\nwant %s", name, got, err, c.want)
			}
		})
	}
}

// TestBounds: whatever is counted, what is kept is bounded, and no session is lost in the sums.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("d.example", wanted)
		r, stop := w.run(t, Config{})
		defer stop()
		r.CountTLS(&good)
		synctest.Wait()
		for i := range 1000 {
			r.CountTLS(bad(msg.TLSValidationFailure, fmt.Sprintf("%d %s", i, strings.Repeat("x", 1000))))
		}
		p := r.List("")[0].Report.Policies[0]
		total := uint64(0)
		for _, f := range p.Failures {
			total += f.Count
			if len(f.Reason) > textMax {
				t.Errorf("%d bytes", len(f.Reason))
			}
		}
		if p.Summary.Bad != 1000 || total != 1000 || len(p.Failures) > failuresMax+1 {
			t.Errorf("%+v: %d in %d failures", p.Summary, total, len(p.Failures))
		}
		w.set("silent.example", msg.TLSReportA{Err: "SERVFAIL"})
		silent := good
		silent.Domain = "silent.example"
		for range 1000 {
			r.CountTLS(&silent)
		}
		if n := value(t, r.stats.sessions[dropped]); n != 1000-sessionsMax {
			t.Errorf("%v dropped", n)
		}
		time.Sleep(2 * time.Hour)
		r.mu.Lock()
		if len(r.waiting) > 0 {
			t.Errorf("%d domains wait for ever", len(r.waiting))
		}
		r.mu.Unlock()
		for i := range 2 * waitingMax {
			s := good
			s.Domain = fmt.Sprintf("d%d.example", i)
			r.CountTLS(&s)
		}
		for _, odd := range []string{"", "a b.example", "ä.example", "[192.0.2.1]", strings.Repeat("a.", 200) + "b"} {
			s := good
			s.Domain = odd
			r.CountTLS(&s)
		}
		r.mu.Lock()
		if len(r.waiting) > waitingMax {
			t.Errorf("%d domains wait", len(r.waiting))
		}
		r.mu.Unlock()
	})
}

// brokenFS fails every change of names.
type brokenFS struct{ vfs.FS }

func (brokenFS) Create(string) (vfs.File, error) { return nil, errors.New("the disk is broken") }

// TestBrokenStore: a disk that fails costs the file, and nothing else; what cannot be read is
// put aside.
func TestBrokenStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.set("d.example", wanted)
		whole := w.fs
		w.fs = brokenFS{whole}
		r, stop := w.run(t, Config{})
		r.CountTLS(&good)
		time.Sleep(5 * time.Minute)
		if n, err := r.Send(t.Context(), "", true); n != 1 || err != nil {
			t.Errorf("%d sent, %v", n, err)
		}
		stop()
		w.fs = whole
		for name, text := range map[string]string{
			"20000101T000000.json": "{", "19991231T000000.json": "null", "19991230T000000.json": `{"version":1,"start":"1999-12-30T00:00:00Z","domains":{"a.example":null}}`,
			"x.json": `{"version":1,"start":"2000-01-01T00:00:00Z"}`, "y.new": "", "other": "",
		} {
			f, err := w.fs.Create("/spool/tlsrpt/" + name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write([]byte(text)); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		r, stop = w.run(t, Config{})
		r.CountTLS(&good)
		time.Sleep(2 * time.Minute)
		if list := r.List(""); len(list) != 1 {
			t.Errorf("%+v", list)
		}
		stop()
		names, err := w.fs.List("/spool/tlsrpt")
		if err != nil {
			t.Fatal(err)
		}
		aside := 0
		for _, name := range names {
			if strings.HasSuffix(name, ".damaged") {
				aside++
			}
		}
		if aside != 4 || len(names) != 6 { // with "other" and the file of today
			t.Errorf("%v", names)
		}
	})
}

// TestCrash: a power cut leaves the last file that was written whole.
func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		disk := crashfs.New()
		w.fs = crashfs.FS(disk, nil)
		if err := vfs.MakeDir(w.fs, "/spool", 0o700); err != nil {
			t.Fatal(err)
		}
		w.set("d.example", wanted)
		r, stop := w.run(t, Config{})
		r.CountTLS(&good)
		time.Sleep(saveEvery + time.Second)
		r.CountTLS(&good)
		after := disk.Crash(crashfs.Nothing)
		stop()
		w.fs = crashfs.FS(after, nil)
		r, stop = w.run(t, Config{})
		synctest.Wait()
		if list := r.List(""); len(list) != 1 || list[0].Report.Policies[0].Summary.Good != 1 {
			t.Errorf("%+v", list)
		}
		stop()
	})
}
