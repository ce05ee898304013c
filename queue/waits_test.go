package queue

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// attempts notes when deliveries began, by domain.
type attempts struct{ at map[string][]time.Time }

func (w *world) note(a *attempts, domain string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if a.at == nil {
		a.at = map[string][]time.Time{}
	}
	a.at[domain] = append(a.at[domain], time.Now())
}

// since counts the attempts from a moment on.
func (w *world) since(a *attempts, domain string, from time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(slices.DeleteFunc(slices.Clone(a.at[domain]), func(t time.Time) bool { return t.Before(from) }))
}

// TestOneProbeFindsARecoveredHost: while a host is down, it sees one attempt at a time,
// and mail that comes is deferred without one; when it is up, all mail comes within
// seconds, the oldest first.
func TestOneProbeFindsARecoveredHost(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const n = 1000
		w.cfg.SMTPC.Initial = 2
		var tried attempts
		var order []string
		up := false
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			w.note(&tried, q.Rcpts[0].To.Domain)
			w.mu.Lock()
			open := up || q.Rcpts[0].To.Domain != "d.test"
			if open {
				order = append(order, q.Rcpts[0].To.Local)
			}
			w.mu.Unlock()
			if !open {
				return failedHost(q)
			}
			time.Sleep(20 * time.Millisecond)
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		for i := range n {
			w.mustSend(q, "s@x.test", "m", fmt.Sprintf("r%04d@d.test", i))
		}
		time.Sleep(time.Second)
		down := time.Now()
		time.Sleep(3 * time.Hour)
		if got := w.since(&tried, "d.test", down); got < 3 || got > 20 {
			t.Errorf("%d attempts within three hours of a host that is down", got)
		}
		for _, e := range w.listAll()[:3] {
			if e.State != msg.StateDeferred || e.Attempts == 0 && !strings.Contains(e.Reason, "waits for the probe of mx.d.test[192.0.2.") {
				t.Errorf("%+v", e)
			}
		}
		w.mu.Lock()
		up, order = true, nil
		w.mu.Unlock()
		var first time.Time
		for first.IsZero() {
			time.Sleep(time.Second)
			if w.served() > 0 {
				first = time.Now()
			}
		}
		time.Sleep(10 * time.Second)
		if got := w.served(); got < n-20 {
			t.Errorf("%d of %d were served ten seconds after the first", got, n)
		}
		w.mu.Lock()
		// Deliveries overtake each other within the window of the host, and what was just
		// being written down when it recovered comes in the next pass. By chance it would
		// be a third of n for each.
		moved := 0
		for i, rcpt := range order {
			rank, err := strconv.Atoi(rcpt[1:])
			if err != nil {
				t.Fatal(err)
			}
			moved += max(rank-i, i-rank)
		}
		if moved > n/5*len(order) {
			t.Errorf("%d came %d places away from their order: %v", len(order), moved, order[:50])
		}
		w.mu.Unlock()
		time.Sleep(2 * time.Hour)
		if got := w.served(); got != n {
			t.Errorf("%d of %d were served", got, n)
		}
		for i := range n {
			if got := w.got(fmt.Sprintf("r%04d@d.test", i), "m"); got != 1 {
				t.Errorf("recipient %d got it %d times", i, got)
			}
		}
		w.checkEmpty()
	})
}

// TestWaitingMailSurvivesARestart: what waited for a host is tried soon after a start.
func TestWaitingMailSurvivesARestart(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		up := false
		q := downWorld(w, &up)
		for i := range 100 {
			w.mustSend(q, "s@x.test", "m", fmt.Sprintf("r%d@no.test", i)) // it is down, too
		}
		time.Sleep(time.Minute / 2)
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		set(w, &up)
		w.start()
		time.Sleep(10 * time.Second)
		if got := w.served(); got < 90 {
			t.Errorf("%d of 120 were served soon after the start", got)
		}
		time.Sleep(2 * time.Hour)
		if got := w.served(); got != 120 {
			t.Errorf("%d of 120 were served", got)
		}
		w.checkEmpty()
	})
}

// TestAFailingRouteIsAskedForOnce: mail for a domain without route waits for one probe;
// a recipient whose alias or map fails is alone.
func TestAFailingRouteIsAskedForOnce(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const n = 300
		asked, up := map[string]int{}, false
		w.route = func(q msg.RouteQ) msg.RouteA {
			w.mu.Lock()
			defer w.mu.Unlock()
			if asked[q.Rcpt.Domain]++; up || q.Rcpt.Domain == "ok.test" && q.Rcpt.Local != "bad" {
				return routeTo(q.Rcpt.Domain)
			}
			a := msg.RouteA{Reply: smtp.NewReply(451, "4.4.3", "no name server answers")}
			if q.Rcpt.Domain == "d.test" {
				a.Dest = "mx:d.test"
			}
			return a
		}
		times := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return asked["d.test"]
		}
		q := w.start()
		w.mustSend(q, "s@x.test", "m", "first@d.test")
		time.Sleep(time.Second)
		for i := range n {
			w.mustSend(q, fmt.Sprintf("s%d@x.test", i), "m", fmt.Sprintf("r%d@d.test", i))
		}
		w.mustSend(q, "s@x.test", "m", "bad@ok.test")
		time.Sleep(time.Second)
		w.mustSend(q, "s@x.test", "m", "good@ok.test")
		time.Sleep(time.Second)
		if n := times(); n != 1 || w.got("good@ok.test", "m") != 1 {
			t.Errorf("asked %d times for d.test, and the good one came %d times", n, w.got("good@ok.test", "m"))
		}
		if e := w.listAll()[5]; !strings.Contains(e.Reason, "waits for the probe of the route to d.test at ") || !strings.Contains(e.Reason, "no name server answers") || time.Until(e.NextTry) > 2*w.cfg.RetryMin {
			t.Errorf("%+v", e)
		}
		time.Sleep(30 * time.Minute)
		if n := times(); n > 20 {
			t.Errorf("asked %d times within half an hour", n)
		}
		set(w, &up)
		for w.served() < 2 {
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Second)
		if got := w.served(); got < n {
			t.Errorf("%d of %d were served ten seconds after the first", got, n)
		}
		time.Sleep(2 * time.Hour)
		w.checkEmpty()
	})
}

// TestRoutesAreUsedUntilTheyExpire: README 7.2.
func TestRoutesAreUsedUntilTheyExpire(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.RetryMin, w.cfg.RetryMax = 10*time.Minute, 10*time.Minute
		asked := 0
		w.route = func(q msg.RouteQ) msg.RouteA {
			w.mu.Lock()
			defer w.mu.Unlock()
			asked++
			a := routeTo(q.Rcpt.Domain)
			a.Expires = time.Now().Add(25 * time.Minute)
			return a
		}
		var tried attempts
		fails := false
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			w.note(&tried, "d.test")
			w.mu.Lock()
			down := fails
			w.mu.Unlock()
			if down {
				return failedHost(q)
			}
			return w.take(q, smtp.NewReply(451, "4.7.1", "later"))
		}
		q := w.start()
		w.mustSend(q, "s@x.test", "m", "a@d.test")
		step := func(what string, attempts, questions int) {
			t.Helper()
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(tried.at["d.test"]) != attempts || asked != questions {
				t.Errorf("%s: %d attempts and %d questions, want %d and %d", what, len(tried.at["d.test"]), asked, attempts, questions)
			}
		}
		time.Sleep(time.Minute)
		step("first", 1, 1)
		time.Sleep(20 * time.Minute)
		step("within the TTL", 3, 1)
		time.Sleep(10 * time.Minute)
		step("after the TTL", 4, 2)
		if err := w.reconfigure(q); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		step("after a reload", 5, 3)
		set(w, &fails)
		time.Sleep(10 * time.Minute)
		step("the host fails", 6, 3)
		w.mu.Lock()
		fails = false
		w.mu.Unlock()
		time.Sleep(10 * time.Minute)
		step("after its failure", 7, 4)
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
		w.start()
		time.Sleep(11 * time.Minute)
		step("after a restart", 8, 5)
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestHangingNameServersHoldNobodyUp: a list of addresses at domains whose routes hang.
func TestHangingNameServersHoldNobodyUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.route = func(q msg.RouteQ) msg.RouteA {
			if strings.HasPrefix(q.Rcpt.Domain, "dead") {
				time.Sleep(time.Minute)
				return msg.RouteA{Reply: smtp.NewReply(451, "4.4.3", "no answer"), Dest: "mx:" + q.Rcpt.Domain}
			}
			return routeTo(q.Rcpt.Domain)
		}
		q := w.start()
		var dead []string
		for i := range 1000 {
			dead = append(dead, fmt.Sprintf("r@dead%d.test", i))
		}
		w.mustSend(q, "list@x.test", "m", append(dead, "r@dead7.test", "good@g.test")...)
		time.Sleep(time.Second)
		w.mustSend(q, "s@x.test", "m", "one@ok.test", "two@g.test")
		time.Sleep(time.Second)
		if w.got("one@ok.test", "m") != 1 || w.got("two@g.test", "m") != 1 {
			t.Error("mail waits for the name servers of others")
		}
		time.Sleep(20 * time.Minute)
		if w.got("good@g.test", "m") != 1 {
			t.Error("a recipient waits for the name servers of others")
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestSurplusComesBackInTurn: a destination with more mail than its share of the active
// queue gets it all, and others are not held up.
func TestSurplusComesBackInTurn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const n = 500
		w.cfg.AQEntriesMax, w.cfg.SMTPC.SMTPRcpts = 100, 1
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			if q.Rcpts[0].To.Domain == "slow.test" {
				time.Sleep(time.Second)
			}
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		w.cfg.SMTPC.Initial, w.cfg.SMTPC.Max = 5, 5
		q := w.start()
		for i := 0; i < n; i += 50 {
			var rcpts []string
			for k := range 50 {
				rcpts = append(rcpts, fmt.Sprintf("r%d@slow.test", i+k))
			}
			w.mustSend(q, "s@x.test", "m", rcpts...)
		}
		w.mustSend(q, "o@x.test", "m", "one@fast.test")
		time.Sleep(30 * time.Second)
		if w.got("one@fast.test", "m") != 1 {
			t.Error("mail waits for the surplus of others")
		}
		time.Sleep(10 * time.Minute)
		if got := w.served(); got != n+1 {
			t.Errorf("%d of %d were served", got, n+1)
		}
		w.checkEmpty()
	})
}

// TestASlowMapIsAskedInParallel: lookups that take their time are under way at once,
// and those that hang are not.
func TestASlowMapIsAskedInParallel(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		open, most, hanging := 0, 0, 0
		w.route = func(q msg.RouteQ) msg.RouteA {
			w.mu.Lock()
			if q.Rcpt.Domain == "dead.test" {
				hanging++
				w.mu.Unlock()
				time.Sleep(time.Hour)
				return msg.RouteA{}
			}
			open++
			most = max(most, open)
			w.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
			w.mu.Lock()
			open--
			w.mu.Unlock()
			return routeTo(q.Rcpt.Domain)
		}
		q := w.start()
		for i := range 40 {
			var rcpts []string
			for k := range 50 {
				rcpts = append(rcpts, fmt.Sprintf("r%d-%d@d.test", i, k))
			}
			w.mustSend(q, fmt.Sprintf("s%d@x.test", i), "m", append(rcpts, "r@dead.test")...)
		}
		time.Sleep(5 * time.Second)
		w.mu.Lock()
		if most > 16 || hanging != 1 {
			t.Errorf("%d questions at once, and %d for a domain that hangs", most, hanging)
		}
		w.mu.Unlock()
		if got := w.served(); got != 2000 {
			t.Errorf("%d of 2000 were served, with %d questions at once", got, most)
		}
		if err := w.stop(); err != nil {
			t.Fatal(err)
		}
	})
}
