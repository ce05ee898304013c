package control_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta1/client/tlsrpt"
	"meta1/confparse"
	"meta1/mta/access"
	"meta1/mta/control"
	"meta1/mta/explain"
	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/server/authn/dmarcrpt"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestValueJSON: a number is a number, and a text of digits stays a text.
func TestValueJSON(t *testing.T) {
	for v, want := range map[control.Value]string{
		{Name: "n", Number: 12}:        `{"name":"n","value":12}`,
		{Name: "n"}:                    `{"name":"n","value":0}`,
		{Name: "t", Text: "12"}:        `{"name":"t","value":"12"}`,
		{Name: "n", Number: 1<<62 + 1}: `{"name":"n","value":4611686018427387905}`,
	} {
		data, err := json.Marshal(v)
		if err != nil || string(data) != want {
			t.Errorf("%+v: %s %v", v, data, err)
		}
		var back control.Value
		if err := json.Unmarshal(data, &back); err != nil || back != v {
			t.Errorf("%s: %+v %v", data, back, err)
		}
	}
	var v control.Value
	for _, bad := range []string{`{"name":"x","value":1.5}`, `{"name":"x","value":{}}`, `[]`} {
		if err := json.Unmarshal([]byte(bad), &v); err == nil {
			t.Errorf("%s is read as %+v", bad, v)
		}
	}
}

// backend has a queue of n recipients.
type backend struct {
	n      int
	asked  []string
	health control.Health
	report control.ReloadReport
	err    error
}

func (b *backend) Status(context.Context) control.Status {
	return control.Status{Version: "1", Hostname: "mx.test", PID: 7, Started: time.Unix(1, 0).UTC(), Modules: []control.Module{
		{Name: "qmgr", State: "up", Since: time.Unix(2, 0).UTC(), Values: []control.Value{{Name: "a", Text: "b"}, {Name: "n", Number: 1 << 60}, {Name: "zero"}, {Name: "digits", Text: "7"}}},
	}}
}

func (b *backend) Queue(_ context.Context, after string, max int) (control.Page, error) {
	b.asked = append(b.asked, fmt.Sprintf("%s %d", after, max))
	first := 0
	if after != "" {
		_, _ = fmt.Sscanf(after, "id%d", &first)
		first++
	}
	var p control.Page
	for i := first; i < b.n && len(p.Entries) < max; i++ {
		p.Entries = append(p.Entries, control.Entry{RcptID: fmt.Sprintf("id%d", i), Rcpt: "a@b"})
	}
	p.More = first+len(p.Entries) < b.n
	return p, b.err
}

func (b *backend) Operate(_ context.Context, o control.Operation) (control.Operated, error) {
	b.asked = append(b.asked, fmt.Sprintf("%+v", o))
	return control.Operated{Done: 3, Busy: 1}, b.err
}

func (b *backend) Hosts(_ context.Context, closed bool) (control.Hosts, error) {
	all := []control.Host{{Host: "mx[192.0.2.1]:25", State: msg.HostClosed, Window: 3, Reason: "451 no", Until: time.Unix(9, 0).UTC()}}
	if !closed {
		all = append(all, control.Host{Host: "mx[192.0.2.2]:25", State: msg.HostServes})
	}
	return control.Hosts{Hosts: all}, b.err
}

func (b *backend) Stop(context.Context) {}

func (b *backend) Stats(context.Context) (control.Stats, error) {
	return control.Stats{Accepting: "yes"}, b.err
}

func (b *backend) Summary(context.Context, control.SummaryQuestion) (control.Summary, error) {
	return control.NewSummarizer(time.Unix(1, 0)).Summary(), b.err
}

func (b *backend) Message(_ context.Context, id string) (control.Message, error) {
	if id == "none" {
		return control.Message{}, control.ErrNoMessage
	}
	return control.Message{TA: id}, b.err
}

func (b *backend) Config(_ context.Context, defaults bool) []confparse.Shown {
	return []confparse.Shown{{Name: "hostname", Value: "h", Set: !defaults}}
}

func (b *backend) Connections(context.Context) (control.Connections, error) {
	return control.Connections{Connections: []control.Connection{{ID: "S1", Direction: "in", State: "ready"}}}, b.err
}

func (b *backend) CloseConnection(_ context.Context, q control.CloseConnection) (control.Closed, error) {
	return control.Closed{Closed: q.ID == "S1"}, b.err
}
func (b *backend) Throttles(context.Context) []control.Throttle { return nil }
func (b *backend) Throttle(_ context.Context, q control.ThrottleQuestion) ([]control.Throttle, error) {
	return []control.Throttle{{Kind: q.Kind, Max: q.Max}}, b.err
}

func (b *backend) DrainState(context.Context) control.Drain {
	return control.Drain{Phase: control.NotDraining}
}

func (b *backend) Drain(_ context.Context, q control.DrainQuestion) (control.Drain, error) {
	return control.Drain{Phase: control.Draining, Reason: q.Reason}, b.err
}

// anybody lets everybody in.
func anybody(*http.Request) access.Who { return access.Who{Level: access.Change} }

func (b *backend) Explain(_ context.Context, q explain.Question) (*explain.Report, error) {
	return &explain.Report{Server: q.Server, Verdict: explain.Accepted}, b.err
}

func (b *backend) Fsck(_ context.Context, q control.FsckQuestion) (control.FsckAnswer, error) {
	b.asked = append(b.asked, fmt.Sprintf("%+v", q))
	a := control.FsckAnswer{Findings: []control.Finding{{Code: "c" + q.Cursor}}, Examined: 5}
	if q.Cursor == "" {
		a.Cursor = "next"
	}
	return a, b.err
}

func (b *backend) Backup(_ context.Context, q control.BackupQuestion, _ func(control.BackupProgress)) (control.BackupReport, error) {
	return control.BackupReport{Directory: q.Directory}, b.err
}

func (b *backend) Health(context.Context) control.Health { return b.health }
func (b *backend) Reload(_ context.Context, check bool) control.ReloadReport {
	r := b.report
	r.Check = check
	return r
}

func (b *backend) Upgrade(_ context.Context, q control.UpgradeQuestion) control.UpgradeReport {
	r := control.UpgradeReport{Old: control.Process{Version: "1", PID: 1}, Error: strings.Join(b.report.Errors, "; ")}
	if r.Done = r.Error == "" && !q.OrReload; q.OrReload {
		r.Reload = &b.report
	}
	return r
}

// serve serves a backend until the test ends and gives the socket's path.
func serve(t *testing.T, b *backend) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(func(ctx context.Context) error { return control.Serve(ctx, l, control.Handler(b, anybody, nil)) })
	t.Cleanup(func() {
		g.Stop()
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	})
	return path
}

func client(t *testing.T, path string) *control.Client {
	c := control.NewClient(path)
	t.Cleanup(c.Close)
	return c
}

func TestHosts(t *testing.T) {
	b := &backend{}
	c := client(t, serve(t, b))
	for _, closed := range []bool{false, true} {
		want, _ := b.Hosts(t.Context(), closed)
		if got, err := c.Hosts(t.Context(), closed); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("closed %v: %+v, %v", closed, got, err)
		}
	}
	b.err = errors.New("module is down")
	if _, err := c.Hosts(t.Context(), false); err == nil || !strings.Contains(err.Error(), "module is down") {
		t.Errorf("error %v", err)
	}
}

func TestQueue(t *testing.T) {
	b := &backend{n: 25000}
	c := client(t, serve(t, b))
	n := 0
	err := c.Queue(t.Context(), func(e control.Entry) error {
		if e.RcptID != fmt.Sprintf("id%d", n) {
			return fmt.Errorf("%s is number %d", e.RcptID, n)
		}
		n++
		return nil
	})
	if err != nil || n != b.n {
		t.Fatalf("%d entries, error %v", n, err)
	}
	if want := []string{" 200", "id199 10000", "id10199 10000", "id20199 10000"}; !reflect.DeepEqual(b.asked, want) {
		t.Errorf("asked %q, want %q", b.asked, want)
	}
	stop := errors.New("stop")
	if err := c.Queue(t.Context(), func(control.Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v", err)
	}
	down := client(t, serve(t, &backend{err: errors.New("module is down")})) // b may still be asked for a page
	if err := down.Queue(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "module is down") {
		t.Errorf("error %v", err)
	}
}

func TestStatus(t *testing.T) {
	b := &backend{}
	s, err := client(t, serve(t, b)).Status(t.Context())
	if want := b.Status(t.Context()); err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v (%v), want %+v", s, err, want)
	}
}

func TestUpgrade(t *testing.T) {
	b := &backend{}
	c := client(t, serve(t, b))
	if r, err := c.Upgrade(t.Context(), control.UpgradeQuestion{}); err != nil || !r.Done || !r.OK() {
		t.Errorf("%+v, %v", r, err)
	}
	b.report.Errors = []string{"no"}
	if r, err := c.Upgrade(t.Context(), control.UpgradeQuestion{}); err != nil || r.Done || r.OK() || r.Error != "no" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := c.Upgrade(t.Context(), control.UpgradeQuestion{OrReload: true}); err != nil || r.OK() || r.Reload == nil {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestHealthAndReload(t *testing.T) {
	b := &backend{health: control.Health{OK: true}}
	c := client(t, serve(t, b))
	if h, err := c.Health(t.Context()); err != nil || !h.OK {
		t.Errorf("health %+v, %v", h, err)
	}
	b.health = control.Health{Reasons: []string{"qmgr is down"}}
	if h, err := c.Health(t.Context()); err != nil || h.OK || len(h.Reasons) != 1 {
		t.Errorf("health %+v, %v", h, err)
	}
	b.report = control.ReloadReport{Reloaded: []string{"smar"}}
	if r, err := c.Reload(t.Context()); err != nil || len(r.Reloaded) != 1 {
		t.Errorf("report %+v, %v", r, err)
	}
	b.report = control.ReloadReport{Errors: []string{"mt:3: no"}}
	if r, err := c.CheckReload(t.Context()); err != nil || len(r.Errors) != 1 || !r.Check {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := c.Reload(t.Context()); err != nil || len(r.Errors) != 1 || r.Check {
		t.Errorf("report %+v, %v", r, err)
	}
}

func TestOperate(t *testing.T) {
	b := &backend{}
	c := client(t, serve(t, b))
	o := control.Operation{Op: msg.OpHold, Sender: "<>", Domain: "a.test", MinAge: time.Hour, Unheld: true}
	done, err := c.Operate(t.Context(), o)
	if err != nil || done.Done != 3 || done.Busy != 1 || len(b.asked) != 1 || b.asked[0] != fmt.Sprintf("%+v", o) {
		t.Errorf("%+v, %v, asked %q", done, err, b.asked)
	}
	b.err = errors.New("no such operation")
	if _, err := c.Operate(t.Context(), o); err == nil || !strings.Contains(err.Error(), "no such operation") {
		t.Errorf("error %v", err)
	}
}

func TestNotRunning(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control")
	c := client(t, path)
	if _, err := c.Status(t.Context()); !errors.Is(err, control.ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v", err)
	}
}

func TestRefused(t *testing.T) {
	path := serve(t, &backend{})
	h := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	tests := []struct {
		method, path string
		status       int
	}{
		{"GET", "/queue?max=0", 400},
		{"GET", "/queue?max=x", 400},
		{"GET", "/queue/summary?max=-1", 400},
		{"GET", "/queue/summary?max=5&fresh=true", 200},
		{"GET", "/queue?max=999999999", 200},
		{"GET", "/reload", 405},
		{"POST", "/queue", 400},
		{"PUT", "/queue", 405},
		{"GET", "/nothing", 404},
	}
	for _, tt := range tests {
		r, _ := http.NewRequest(tt.method, "http://x"+tt.path, nil)
		a, err := h.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, a.Body)
		_ = a.Body.Close()
		if a.StatusCode != tt.status {
			t.Errorf("%s %s: status %d, want %d", tt.method, tt.path, a.StatusCode, tt.status)
		}
	}
}

func TestFsckAsksOn(t *testing.T) {
	b := &backend{}
	c := control.NewClient(serve(t, b))
	defer c.Close()
	var codes []string
	n, err := c.Fsck(context.Background(), true, func(f control.Finding) { codes = append(codes, f.Code) })
	if err != nil || n != 5 || !slices.Equal(codes, []string{"c", "cnext"}) {
		t.Errorf("%d %v %v", n, codes, err)
	}
	if want := []string{"{Cursor: Content:true}", "{Cursor:next Content:true}"}; !slices.Equal(b.asked, want) {
		t.Errorf("asked %q", b.asked)
	}
}

func (b *backend) TLSReports(_ context.Context, domain string) ([]tlsrpt.Entry, error) {
	return []tlsrpt.Entry{{Domain: domain, Report: &tlsrpt.Report{ID: "id@host.example", Policies: []tlsrpt.Policy{}}}}, nil
}

func (b *backend) SendTLSReports(_ context.Context, q control.SendReports) (control.ReportsSent, error) {
	if q.Domain == "" {
		return control.ReportsSent{}, errors.New("no domain")
	}
	return control.ReportsSent{Sent: 1, Err: q.Domain}, nil
}

func (b *backend) DMARCReports(_ context.Context, domain string) ([]dmarcrpt.Entry, error) {
	return []dmarcrpt.Entry{{Domain: domain, Report: &dmarcrpt.Report{Records: []dmarcrpt.Record{{Source: netip.MustParseAddr("192.0.2.1"), Count: 7}}}}}, nil
}

func (b *backend) SendDMARCReports(_ context.Context, q control.SendReports) (control.ReportsSent, error) {
	if q.Domain == "" {
		return control.ReportsSent{}, errors.New("no domain")
	}
	return control.ReportsSent{Sent: 2, Err: q.Domain}, nil
}

// TestDMARCReports: the same for reports about DMARC.
func TestDMARCReports(t *testing.T) {
	c := client(t, serve(t, &backend{}))
	list, err := c.DMARCReports(t.Context(), "a.example")
	if err != nil || len(list) != 1 || list[0].Domain != "a.example" || list[0].Report.Records[0].Count != 7 {
		t.Errorf("%+v %v", list, err)
	}
	done, err := c.SendDMARCReports(t.Context(), control.SendReports{Domain: "a.example", Today: true})
	if err != nil || done != (control.ReportsSent{Sent: 2, Err: "a.example"}) {
		t.Errorf("%+v %v", done, err)
	}
	if _, err := c.SendDMARCReports(t.Context(), control.SendReports{}); err == nil || !strings.Contains(err.Error(), "no domain") {
		t.Error(err)
	}
}

// TestTLSReports: questions about reports arrive as they were asked, and so do the answers.
func TestTLSReports(t *testing.T) {
	c := client(t, serve(t, &backend{}))
	list, err := c.TLSReports(t.Context(), "a.example")
	if err != nil || len(list) != 1 || list[0].Domain != "a.example" || list[0].Report.ID != "id@host.example" {
		t.Errorf("%+v %v", list, err)
	}
	done, err := c.SendTLSReports(t.Context(), control.SendReports{Domain: "a.example", Today: true})
	if err != nil || done != (control.ReportsSent{Sent: 1, Err: "a.example"}) {
		t.Errorf("%+v %v", done, err)
	}
	if _, err := c.SendTLSReports(t.Context(), control.SendReports{}); err == nil || !strings.Contains(err.Error(), "no domain") {
		t.Error(err)
	}
}
