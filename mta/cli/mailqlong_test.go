package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta1/mta/access"
	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// longQueue has as many recipients as its number, each of a message of its own.
type longQueue struct {
	control.Backend
	n int
}

var arrival = time.Unix(1795314258, 0)

func (q longQueue) Queue(_ context.Context, after string, max int) (control.Page, error) {
	first := 1
	if ta, _, err := smtp.ParseRcptID(after); err == nil {
		first = int(ta.Counter) + 1
	}
	p := control.Page{}
	for i := first; i <= q.n && len(p.Entries) < max; i++ {
		ta := smtp.ID{Counter: uint64(i)}
		p.Entries = append(p.Entries, control.Entry{
			RcptID: smtp.RcptID(ta, 0), TA: ta.String(), State: msg.StateDeferred, Arrival: arrival, Size: 3000, Sender: "sender" + strconv.Itoa(i) + "@example.org",
			Rcpt: "recipient" + strconv.Itoa(i) + "@example.com", Dest: fmt.Sprint("mx:example", i%50, ".com"), NextTry: arrival.Add(time.Hour), Attempts: 3,
			Reason: "451 4.4.1 connect to mx.example.com[192.0.2.1]:25: connection refused",
		})
	}
	p.More = len(p.Entries) > 0 && p.Entries[len(p.Entries)-1].TA != (smtp.ID{Counter: uint64(q.n)}).String()
	return p, nil
}

// anybody lets everybody in.
func anybody(*http.Request) access.Who { return access.Who{Level: access.Change} }

// serveQueue serves a queue at a control socket.
func serveQueue(t testing.TB, n int) *control.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := supervise.NewGroup(context.Background())
	g.Go(func(ctx context.Context) error {
		return control.Serve(ctx, l, control.Handler(longQueue{n: n}, anybody, nil))
	})
	t.Cleanup(func() {
		g.Stop()
		_ = g.Wait()
	})
	c := control.NewClient(path)
	t.Cleanup(c.Close)
	return c
}

// BenchmarkMailq lists a million recipients; first/ms is the time until the first is there.
func BenchmarkMailq(b *testing.B) {
	for _, kind := range []string{"text", "json"} {
		b.Run(kind, func(b *testing.B) {
			c := serveQueue(b, 1_000_000)
			for b.Loop() {
				l := lister{out: bufio.NewWriter(io.Discard), zone: time.UTC}
				if l.print = l.text; kind == "json" {
					l.print = l.json
				}
				began, first := time.Now(), time.Duration(0)
				err := c.Queue(b.Context(), func(e control.Entry) error {
					if first == 0 {
						first = time.Since(began)
					}
					return l.add(e)
				})
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(first.Milliseconds()), "first/ms")
			}
		})
	}
}

// TestQueueEnds: a reader that has enough gets no more, and leaves nothing behind.
func TestQueueEnds(t *testing.T) {
	c, enough, n := serveQueue(t, 25_000), errors.New("enough"), 0
	err := c.Queue(t.Context(), func(control.Entry) error {
		if n++; n == 12_345 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || n != 12_345 {
		t.Errorf("%d entries, %v", n, err)
	}
	n = 0
	if err := c.Queue(t.Context(), func(control.Entry) error { n++; return nil }); err != nil || n != 25_000 {
		t.Errorf("%d entries, %v", n, err)
	}
}

// TestSummary: recipients by destination and age, in qshape's buckets, and by reason.
func TestSummary(t *testing.T) {
	now := arrival.Add(time.Hour)
	s := control.NewSummarizer(now)
	for i, age := range []time.Duration{-time.Minute, 0, 4*time.Minute + 59*time.Second, 5 * time.Minute, 10 * time.Minute, 1279 * time.Minute, 1280 * time.Minute, 1000 * time.Hour} {
		e := msg.ListEntry{TA: smtp.ID{Counter: uint64(i)}, State: msg.StateDeferred, Arrival: now.Add(-age), Size: 100, Dest: "mx:a.test", Reason: "451 4.4.1 a\x1b[1m"}
		if i == 0 {
			e.Dest, e.Reason = "", ""
		}
		s.Add(&e)
	}
	r := s.Summary()
	if d := r.Destinations[0]; d.Destination != "mx:a.test" || d.Ages != [10]int{2, 1, 1, 0, 0, 0, 0, 0, 1, 2} {
		t.Errorf("%+v", r.Destinations)
	}
	if len(r.Destinations) != 2 || r.Messages != 8 || r.Bytes != 800 || r.Recipients != 8 || r.States["deferred"] != 8 || r.Reasons[0].Recipients != 7 || r.Reasons[1].Reason != "deferred" {
		t.Errorf("%+v", r)
	}
	var text strings.Builder
	if err := summaryText(&text, &r); err != nil || strings.Contains(text.String(), "\x1b") {
		t.Errorf("%q, %v", text.String(), err)
	}
	for _, want := range []string{"mx:a.test        7      2      1      1      0", "TOTAL        8      3", "       7 451 4.4.1 a?[1m", "-- 1 Kbytes in 8 messages for 8 recipients"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	for i := range 2 * control.GroupsMax {
		name := strconv.Itoa(i)
		s.Add(&msg.ListEntry{Arrival: now, Dest: name, Reason: name})
	}
	if r := s.Summary(); len(r.Destinations) != control.GroupsMax || len(r.Reasons) != control.GroupsMax || r.Destinations[0].Destination != "(others)" || r.Destinations[0].Recipients < control.GroupsMax {
		t.Errorf("%d destinations, %d reasons", len(r.Destinations), len(r.Reasons))
	}
}
