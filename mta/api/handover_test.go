package api

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/control"
	"meta1/mta/supervise"
)

// TestHandover: what cannot be delivered goes to the peer when all is quiet, or after half of the time; once
// more if recipients were busy; then the drain ends, and mail that is left goes its own way.
func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{values: map[string]int64{"AQ_entries": 5, "deferred": 7}}
		a := w.api()
		g := supervise.NewGroup(t.Context())
		g.Go(a.Run)
		after := func(wait time.Duration, want control.DrainPhase, via string, reroutes ...string) {
			t.Helper()
			time.Sleep(wait)
			synctest.Wait()
			var got []string
			w.change(func() { got = slices.Clone(w.reroutes) })
			if d := a.DrainState(t.Context()); d.Phase != want || w.handover.Via() != via || !slices.Equal(got, reroutes) {
				t.Errorf("%+v, via %q, %q; want %s, %q, %q", d, w.handover.Via(), got, want, via, reroutes)
			}
		}
		begin := func(q control.DrainQuestion) {
			t.Helper()
			if _, err := a.Drain(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := a.Drain(t.Context(), control.DrainQuestion{To: "nobody.test"}); err == nil {
			t.Error("it drains to a host that does not exist")
		}
		if _, closed := a.deps.Gate.Closed(); closed {
			t.Error("a question that was refused has closed the gate")
		}
		begin(control.DrainQuestion{To: "peer.test", Keep: true, Until: 10 * time.Minute})
		after(4*time.Minute, control.Draining, "")
		after(time.Minute+time.Second, control.HandingOver, "peer.test", "peer.test") // half of the time is over
		after(4*time.Minute, control.HandingOver, "peer.test", "peer.test")           // and it is not quiet
		begin(control.DrainQuestion{Cancel: true})
		after(time.Second, control.NotDraining, "", "peer.test", "")

		w.change(func() { w.reroutes, w.busy, w.values["AQ_entries"] = nil, 1, 0 })
		begin(control.DrainQuestion{To: "peer.test"})
		after(2*time.Second, control.HandingOver, "peer.test", "peer.test")
		after(2*time.Second, control.HandingOver, "peer.test", "peer.test", "peer.test") // some were busy
		after(2*time.Second, control.DrainEnds, "", "peer.test", "peer.test")            // no third time
		g.Stop()
		_ = g.Wait()
	})
}
