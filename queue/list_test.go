package queue

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/entry"
)

// list asks for the whole listing in pages of a size.
func (w *world) list(size int) (all []string) {
	w.t.Helper()
	for after := ""; ; {
		a, err := w.ports.List.Ask(context.Background(), msg.ListQ{After: after, Max: size})
		if err != nil || a.Err != "" {
			w.t.Fatal(err, a.Err)
		}
		if len(a.Entries) > size || a.More && len(a.Entries) != size {
			w.t.Fatalf("a page of %d entries has %d", size, len(a.Entries))
		}
		for i := range a.Entries {
			e := &a.Entries[i]
			after = smtp.RcptID(e.TA, e.Index)
			all = append(all, after+" "+string(e.State))
		}
		if !a.More {
			return all
		}
	}
}

// TestListInPages lists a queue with deferred, waiting and hanging recipients: each is
// in it once, and in order, whatever the size of the pages is.
func TestListInPages(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "slow.test" {
				time.Sleep(50 * time.Minute)
			}
			return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
		}
		w.cfg.RetryMin, w.cfg.RetryMax = time.Hour, time.Hour
		q := w.start()
		const n = 40
		for i := range n {
			w.mustSend(q, "s@here.test", "m", fmt.Sprintf("a%d@d.test", i), fmt.Sprintf("b%d@slow.test", i), fmt.Sprintf("c%d@e.test", i))
		}
		time.Sleep(time.Minute)
		whole := w.list(10_000)
		states := map[string]int{}
		for _, e := range whole {
			states[e[len(e)-8:]]++
		}
		if len(whole) != 3*n || states["deferred"] != 2*n || states["inflight"] == 0 {
			t.Fatalf("%d entries: %v", len(whole), states)
		}
		if !slices.IsSortedFunc(whole, compareListed(t)) {
			t.Errorf("not in order: %q", whole)
		}
		for _, size := range []int{1, 2, 7, 3*n - 1, 3 * n} {
			if got := w.list(size); !slices.Equal(got, whole) {
				t.Errorf("in pages of %d:\n%q, want\n%q", size, got, whole)
			}
		}
		if a, err := w.ports.List.Ask(context.Background(), msg.ListQ{After: "nonsense"}); err != nil || a.Err == "" {
			t.Errorf("a listing behind nonsense: %+v, %v", a, err)
		}
		if err := w.stop(); err != nil {
			t.Error(err)
		}
	})
}

func compareListed(t *testing.T) func(a, b string) int {
	id := func(s string) (smtp.ID, int) {
		ta, i, err := smtp.ParseRcptID(s[:26])
		if err != nil {
			t.Fatal(err)
		}
		return ta, i
	}
	return func(a, b string) int {
		ta, i := id(a)
		tb, j := id(b)
		return entry.Ref{TA: ta, Index: i}.Compare(entry.Ref{TA: tb, Index: j})
	}
}
