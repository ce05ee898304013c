package tracing

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

func config() Config {
	return Config{Present: true, Endpoint: "http://127.0.0.1:4318/v1/traces", OneIn: 1, TokenHeader: "Authorization", Timeout: 10 * time.Second, QueueMax: 1000, ServiceName: "meta1"}
}

func newTracer(t testing.TB, cfg Config, answer func(*http.Request) (*http.Response, error)) (*Tracer, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	tr, err := New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Metrics: reg, Hostname: "mx.test", Version: "1", Spool: "/spool", ReadFile: os.ReadFile})
	if err != nil {
		t.Fatal(err)
	}
	if answer != nil {
		tr.last.Load().export.client.Transport = roundTripper(answer)
	}
	return tr, reg
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

// reply is an answer of a collector.
func reply(code int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: code, Status: strconv.Itoa(code), Header: h, Body: io.NopCloser(strings.NewReader(body))}
}

// counts are the metrics, by name and reason.
func counts(t testing.TB, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "meta1_trace_")
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue()
			if f.GetType() == dto.MetricType_GAUGE {
				all[name] = m.GetGauge().GetValue()
			}
		}
	}
	return all
}

func ta(n uint64) smtp.ID { return smtp.ID{Counter: n, Process: 3} }

func some(n int) (list []Span) {
	for i := range n {
		list = append(list, Span{TA: ta(uint64(i + 1)), Name: "queue", Start: time.Unix(1700000000, 5), End: time.Unix(1700000001, 0)})
	}
	return list
}

// TestEncoding checks a request by the rules of OTLP's JSON encoding, with what is awkward in it.
func TestEncoding(t *testing.T) {
	cfg := config()
	cfg.Attributes = []string{"deployment.environment.name=te\"st"}
	tr, _ := newTracer(t, cfg, nil)
	parent := NewSpanID()
	body := tr.encode(tr.last.Load(), []Span{
		{TA: ta(1), Name: "receive", ID: parent, Kind: Server, Start: time.Unix(1, 2), End: time.Unix(3, 4), Attrs: []Attr{{Key: "a", Text: "\xff\x00é"}, {Key: "n", Number: -7}}},
		{TA: ta(1), Name: "check mail", Parent: parent, Start: time.Unix(5, 0), End: time.Unix(4, 0), Failed: strings.Repeat("x", 10_000)},
		{TA: ta(1), Name: "message", Start: time.Unix(-5, 0), whole: true},
	})
	spans, err := CheckRequest(body)
	if err != nil {
		t.Fatalf("%v\n%s", err, body)
	}
	if len(spans) != 3 || spans[0].Parent != spans[2].ID || spans[1].Parent != spans[0].ID || spans[2].Parent != "" {
		t.Errorf("%+v", spans)
	}
	if spans[0].Trace != spans[1].Trace || spans[0].Trace != spans[2].Trace {
		t.Error("one message has several traces")
	}
	if len(body) > 4000 {
		t.Errorf("%d bytes: something is not bounded", len(body))
	}
	again, _ := newTracer(t, cfg, nil) // after a restart
	if next, err := CheckRequest(again.encode(tr.last.Load(), []Span{{TA: ta(1), Name: "attempt"}})); err != nil || next[0].Trace != spans[0].Trace || next[0].Parent != spans[2].ID {
		t.Errorf("after a restart %+v, %v", next, err)
	}
}

// CheckedSpan is a span as CheckRequest has found it.
type CheckedSpan struct{ Trace, ID, Parent, Name string }

// CheckRequest reads an ExportTraceServiceRequest in JSON as strictly as the specification allows.
func CheckRequest(body []byte) (spans []CheckedSpan, err error) {
	var q request
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return nil, err
	}
	if len(q.ResourceSpans) != 1 || len(q.ResourceSpans[0].ScopeSpans) != 1 || len(q.ResourceSpans[0].Resource.Attributes) < 4 {
		return nil, errors.New("not one resource with one scope")
	}
	id := func(s string, n int) error {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != n || bytes.Count(b, []byte{0}) == n {
			return fmt.Errorf("%q is no id of %d bytes", s, n)
		}
		return nil
	}
	for _, s := range q.ResourceSpans[0].ScopeSpans[0].Spans {
		err = errors.Join(err, id(s.TraceID, 16), id(s.SpanID, 8))
		if s.Parent != "" {
			err = errors.Join(err, id(s.Parent, 8))
		}
		begin, err1 := strconv.ParseUint(s.Start, 10, 64)
		end, err2 := strconv.ParseUint(s.End, 10, 64)
		err = errors.Join(err, err1, err2)
		if end < begin || s.Name == "" || s.Kind < Internal || s.Kind > 5 {
			err = errors.Join(err, fmt.Errorf("%+v", s))
		}
		for _, a := range s.Attributes {
			if a.Key == "" || (a.Value.String == nil) == (a.Value.Int == nil) {
				err = errors.Join(err, fmt.Errorf("attribute %+v", a))
			}
		}
		spans = append(spans, CheckedSpan{s.TraceID, s.SpanID, s.Parent, s.Name})
	}
	return spans, err
}

// TestCollectors has collectors behave in all ways, and looks at what becomes of ten spans within a time.
func TestCollectors(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(n int, q *http.Request) (*http.Response, error) // to the nth request
		within time.Duration
		want   map[string]float64
	}{
		"good":    {func(int, *http.Request) (*http.Response, error) { return reply(200, "{}"), nil }, 5 * time.Second, map[string]float64{"spans_sent_total": 10}},
		"garbage": {func(int, *http.Request) (*http.Response, error) { return reply(200, "\x00<html>{{{"), nil }, 5 * time.Second, map[string]float64{"spans_sent_total": 10}},
		"endless": {func(int, *http.Request) (*http.Response, error) { return endless(), nil }, 5 * time.Second, map[string]float64{"spans_sent_total": 10}},
		"partial": {func(int, *http.Request) (*http.Response, error) {
			return reply(200, `{"partialSuccess":{"rejectedSpans":"4","errorMessage":"no"}}`), nil
		}, 5 * time.Second, map[string]float64{"spans_sent_total": 6, "spans_dropped_total refused": 4}},
		"partial lies": {func(int, *http.Request) (*http.Response, error) {
			return reply(200, `{"partialSuccess":{"rejectedSpans":-99999}}`), nil
		}, 5 * time.Second, map[string]float64{"spans_sent_total": 10}},
		"partial too far": {func(int, *http.Request) (*http.Response, error) {
			return reply(200, `{"partialSuccess":{"rejectedSpans":99999}}`), nil
		}, 5 * time.Second, map[string]float64{"spans_dropped_total refused": 10}},
		"400": {func(int, *http.Request) (*http.Response, error) { return reply(400, "bad"), nil }, 5 * time.Second, map[string]float64{"spans_dropped_total refused": 10, "requests_failed_total": 1}},
		"500": {func(int, *http.Request) (*http.Response, error) { return reply(500, ""), nil }, 5 * time.Second, map[string]float64{"spans_dropped_total refused": 10, "requests_failed_total": 1}},
		"redirect": {func(int, *http.Request) (*http.Response, error) {
			return reply(307, "", "Location", "http://evil.test/"), nil
		}, 5 * time.Second, map[string]float64{"spans_dropped_total refused": 10, "requests_failed_total": 1}},
		"429 once, then good": {func(n int, _ *http.Request) (*http.Response, error) {
			if n == 1 {
				return reply(429, "", "Retry-After", "30"), nil
			}
			return reply(200, ""), nil
		}, time.Minute, map[string]float64{"spans_sent_total": 10, "requests_failed_total": 1}},
		"429, too early": {func(n int, _ *http.Request) (*http.Response, error) {
			return reply(429, "", "Retry-After", "30"), nil
		}, 29 * time.Second, map[string]float64{"requests_failed_total": 1}},
		"429, a year": {func(n int, _ *http.Request) (*http.Response, error) {
			return reply(429, "", "Retry-After", "31536000"), nil
		}, 11 * time.Minute, map[string]float64{"requests_failed_total": 3, "spans_dropped_total unreachable": 10}},
		"503 for ever": {func(int, *http.Request) (*http.Response, error) { return reply(503, ""), nil }, 20 * time.Minute, map[string]float64{"spans_dropped_total unreachable": 10}},
		"hangs": {func(_ int, q *http.Request) (*http.Response, error) {
			<-q.Context().Done()
			return nil, q.Context().Err()
		}, 20 * time.Minute, map[string]float64{"spans_dropped_total unreachable": 10}},
		"refuses": {func(int, *http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, 20 * time.Minute, map[string]float64{"spans_dropped_total unreachable": 10}},
		"comes back": {func(n int, _ *http.Request) (*http.Response, error) {
			if n < 5 {
				return nil, errors.New("connection refused")
			}
			return reply(202, ""), nil
		}, 3 * time.Minute, map[string]float64{"spans_sent_total": 10, "requests_failed_total": 4}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				tr, reg := newTracer(t, config(), func(q *http.Request) (*http.Response, error) {
					n++
					if n > 1000 {
						t.Fatal("it never gives up")
					}
					return c.answer(n, q)
				})
				g := supervise.NewGroup(t.Context())
				g.Go(tr.Run)
				tr.Record(some(10)...)
				time.Sleep(c.within)
				synctest.Wait()
				got := counts(t, reg)
				for name, v := range c.want {
					if got[name] != v {
						t.Errorf("%s is %v, want %v: %v", name, got[name], v, got)
					}
				}
				g.Stop()
				if err := g.Wait(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// endless is an answer without end.
func endless() *http.Response {
	r := reply(200, "")
	r.Body = io.NopCloser(zeros{})
	return r
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestFull: a collector that hangs makes nobody wait. What has no room is counted, and the end comes soon.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, reg := newTracer(t, config(), func(q *http.Request) (*http.Response, error) {
			<-q.Context().Done()
			return nil, q.Context().Err()
		})
		g := supervise.NewGroup(t.Context())
		g.Go(tr.Run)
		begun := time.Now()
		for range 100 {
			tr.Record(some(100)...)
		}
		if time.Since(begun) != 0 {
			t.Error("Record has waited")
		}
		if got := counts(t, reg); got["spans_dropped_total full"] < 8000 || got["spans_waiting"] > 1000 {
			t.Errorf("%v", got)
		}
		time.Sleep(3 * time.Second)
		begun = time.Now()
		g.Stop()
		if err := g.Wait(); err != nil || time.Since(begun) > lastTime {
			t.Errorf("it ended after %v: %v", time.Since(begun), err)
		}
	})
}

// TestEndSends: what waits at the end is sent.
func TestEndSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr, reg := newTracer(t, config(), func(*http.Request) (*http.Response, error) { return reply(200, ""), nil })
		g := supervise.NewGroup(t.Context())
		g.Go(tr.Run)
		tr.Record(some(7)...)
		g.Stop()
		if err := g.Wait(); err != nil || counts(t, reg)["spans_sent_total"] != 7 {
			t.Errorf("%v %v", counts(t, reg), err)
		}
	})
}

// TestToken: it is read for each request, sent in the field that was asked for, and one that is none is never sent.
func TestToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	cfg := config()
	cfg.TokenFile = path
	var got http.Header
	send := func(header string) outcome {
		cfg.TokenHeader = header
		tr, _ := newTracer(t, cfg, func(q *http.Request) (*http.Response, error) { got = q.Header; return reply(200, ""), nil })
		got = nil
		return tr.last.Load().export.post(context.Background(), []byte("{}"))
	}
	if o := send("Authorization"); o.err == nil || !o.again || got != nil {
		t.Errorf("without a file: %+v, %v", o, got)
	}
	for _, content := range []string{"secret\n", "another"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if o := send("Authorization"); o.err != nil || got.Get("Authorization") != "Bearer "+strings.TrimSpace(content) {
			t.Errorf("%+v, %v", o, got)
		}
		if o := send("X-Api-Key"); o.err != nil || got.Get("X-Api-Key") != strings.TrimSpace(content) || got.Get("Authorization") != "" {
			t.Errorf("%+v, %v", o, got)
		}
	}
	for _, content := range []string{"", "two words", "a\r\nX-Evil: 1", strings.Repeat("x", tokenMax+1), "ä"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if o := send("Authorization"); o.err == nil || got != nil || len(content) > 3 && strings.Contains(o.err.Error(), content) {
			t.Errorf("%.20q was sent, or told: %v", content, o.err)
		}
	}
}

// TestTLS: the collector's certificate is verified, by the authorities of the file.
func TestTLS(t *testing.T) {
	var mu sync.Mutex
	var bodies [][]byte
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		bodies = append(bodies, body)
	}))
	defer srv.Close()
	srv.Config.ErrorLog = nil
	cfg := config()
	cfg.Endpoint = srv.URL + "/v1/traces"
	tr, _ := newTracer(t, cfg, nil)
	if o := tr.last.Load().export.post(context.Background(), []byte("{}")); o.err == nil || !strings.Contains(o.err.Error(), "certificate") {
		t.Errorf("an unknown authority: %v", o.err)
	}
	cfg.CAFile = filepath.Join(t.TempDir(), "ca.pem")
	if _, err := New(cfg, Deps{ReadFile: os.ReadFile}); err == nil {
		t.Error("no file of authorities, and no error")
	}
	if err := os.WriteFile(cfg.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	tr, _ = newTracer(t, cfg, nil)
	if o := tr.last.Load().export.post(context.Background(), tr.encode(tr.last.Load(), some(2))); o.err != nil {
		t.Fatal(o.err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(bodies) != 1 {
		t.Fatalf("%d requests", len(bodies))
	}
	if spans, err := CheckRequest(bodies[0]); err != nil || len(spans) != 2 {
		t.Errorf("%+v, %v", spans, err)
	}
}

// TestSampling: one message in so many is traced, the same ones after a restart; without a tracer none is, and
// asking costs nothing.
func TestSampling(t *testing.T) {
	for _, oneIn := range []int{1, 10, 1_000_000_000} {
		cfg := config()
		cfg.OneIn = oneIn
		a, _ := newTracer(t, cfg, nil)
		b, _ := newTracer(t, cfg, nil)
		n, of := 0, 20_000
		for i := range of {
			if a.Sampled(ta(uint64(i + 1))) {
				n++
			}
			if a.Sampled(ta(uint64(i+1))) != b.Sampled(ta(uint64(i+1))) {
				t.Fatal("a restart changes who is traced")
			}
		}
		if want := of / oneIn; n < want*9/10 || n > want*11/10 {
			t.Errorf("%d of %d, want about %d", n, of, want)
		}
	}
	var none *Tracer
	if n := testing.AllocsPerRun(100, func() {
		if none.Sampled(ta(1)) || none.On() {
			t.Error("traced")
		}
	}); n > 0 {
		t.Errorf("%v allocations without a tracer", n)
	}
	none.Record(some(1)...)
}

// TestRetryAfter reads the field in both of its forms.
func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "99999999999999999999": 0, "99999999": afterMax, "x": 0,
		"Thu, 01 Jan 2026 00:00:20 GMT": 20 * time.Second, "Thu, 01 Jan 2099 00:00:20 GMT": afterMax, "Thu, 01 Jan 1970 00:00:00 GMT": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	}
}

// FuzzAnswer: no answer of a collector does harm.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"partialSuccess":{"rejectedSpans":"4"}}`), "30")
	f.Add([]byte(`{"partialSuccess":null}`), "Thu, 01 Jan 2026 00:00:20 GMT")
	f.Fuzz(func(t *testing.T, answer []byte, after string) {
		rejected(answer)
		if d := retryAfter(after, time.Unix(1700000000, 0)); d < 0 || d > afterMax {
			t.Errorf("%v", d)
		}
	})
}
