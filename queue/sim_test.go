package queue

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/supervise"
)

// The simulation lets the queue live for days, with a network, a disk, a clock and an
// operator that do their worst, and checks that it keeps its promises: each accepted
// recipient is delivered, or bounced with a notice that arrives, or dropped with a word
// in the log, or removed by the operator; nothing else is delivered, and no half of it.
//
// All that happens is made from a seed.

// simSizes are the sizes by name: short for each test run, and long for "make soak". Idle time costs too: the queue looks for work four
// times a second.
func simSizes(name string) (simSize, bool) {
	switch name {
	case "short":
		return simSize{messages: simMessages, length: 8 * time.Hour, faults: 24, giveUp: 14 * time.Hour}, true
	case "long":
		return simSize{messages: 2000, length: 48 * time.Hour, faults: 120, giveUp: 3 * 24 * time.Hour}, true
	}
	return simSize{}, false
}

// simulate runs a seed and returns the digest of all fates.
func simulate(t *testing.T, name string, seed uint64) (digest string) {
	size, ok := simSizes(name)
	if !ok {
		t.Fatalf("no such size: %s", name)
	}
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, newScript(seed, size))
		defer s.report(name)
		s.run()
		digest = s.digest()
	})
	return digest
}

// run is the whole life of a simulated world.
func (s *sim) run() {
	s.boot()
	time.Sleep(time.Second)
	clients := supervise.NewGroup(context.Background())
	for _, m := range s.messages {
		clients.Go(func(context.Context) error { s.submit(m); return nil })
	}
	for _, f := range s.faults {
		s.sleepUntil(f.at)
		s.inflict(f)
	}
	s.sleepUntil(s.size.length + 3*time.Hour)
	s.heal()
	if err := clients.Wait(); err != nil {
		s.fault("%v", err)
	}
	s.settle()
	s.shutDown()
	s.checkFates()
	s.checkRests()
	if err := s.graves.Wait(); err != nil {
		s.note("graves: %v", err)
	}
}

// sleepUntil lets the world go on. If the queue dies meanwhile it is started again.
func (s *sim) sleepUntil(at time.Duration) {
	for {
		timer := time.NewTimer(at - s.at())
		select {
		case <-timer.C:
			return
		case <-s.current().crashed:
			timer.Stop()
			s.bury(s.current())
			time.Sleep(time.Minute)
			s.boot()
		}
	}
}

// inflict lets something go wrong.
func (s *sim) inflict(f fault) {
	s.note("fault %v %v by %v, %d, %s", f.kind, f.dur, f.by, f.n, f.what)
	l := s.current()
	switch f.kind {
	case faultCrash:
		s.arm(func() { l.after = f.n })
		select {
		case <-l.crashed:
		case <-time.After(5 * time.Minute):
			l.crash("at rest")
		}
		s.bury(l)
		s.clock.set(f.by)
		time.Sleep(f.dur)
		s.boot()
	case faultRestart:
		s.shutDown()
		s.clock.set(f.by)
		time.Sleep(f.dur)
		s.boot()
	case faultClock:
		s.clock.set(f.by)
	case faultLow, faultFull:
		s.arm(func() { s.low, s.full = true, f.kind == faultFull })
		s.sleepUntil(s.at() + f.dur)
		s.arm(func() { s.low, s.full, s.noise = false, false, s.at()+time.Minute; clear(s.life.relief) })
	case faultEIO:
		s.arm(func() { l.eio = f.what })
	case faultReload:
		if err := reload(l.q, l.q.conf().Config, nil); err != nil {
			s.fault("reload: %v", err)
		}
	default:
		s.operate(msg.Operation(f.kind.String()), msg.Selection{Domain: f.what})
	}
}

func (s *sim) arm(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// operate lets the operator do something.
func (s *sim) operate(op msg.Operation, sel msg.Selection) {
	l := s.current()
	if l == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	a, err := l.ports.Operate.Ask(ctx, msg.OperateQ{Op: op, Select: sel})
	if !l.isDead() && (err != nil || a.Err != "") {
		s.fault("%s: %v %s", op, err, a.Err)
	}
}

// submit is a client with one message.
func (s *sim) submit(m *simMessage) {
	time.Sleep(m.at)
	for try := 0; ; try++ {
		l := s.current()
		if l != nil && s.attempt(l, m) {
			return
		}
		time.Sleep(10*time.Second + time.Duration(s.luck("client", m.id, try)*float64(5*time.Minute)))
	}
}

// attempt submits a message once. It reports that the client is done with it.
func (s *sim) attempt(l *life, m *simMessage) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	a, err := l.ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewTransaction, Size: int64(m.size)})
	if err != nil || !a.Reply.IsZero() {
		return false
	}
	env := &msg.Envelope{TA: a.ID, Arrival: s.clock.now(), Mail: m.mail, Rcpts: m.rcpts}
	content := m.content()
	q := msg.CommitQ{Envelope: env, Inline: []byte(content), Size: int64(len(content))}
	if int64(len(content)) > a.InlineMax {
		q.Inline = nil
		if done, ok := s.upload(l, m, env, content); !ok {
			return done
		}
	}
	if m.aborted {
		return true
	}
	s.arm(func() { m.unknown++ })
	c, err := l.ports.Commit.Ask(ctx, q)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case l.dead || err != nil || c.Reply.Code == 451:
		s.noteLocked("message %d as %v: nobody knows: %v %v", m.id, a.ID, c.Reply, err)
		return false
	case !c.Reply.IsZero():
		m.unknown--
		return false
	}
	m.unknown--
	m.acked = true
	s.noteLocked("message %d accepted as %v", m.id, a.ID)
	return true
}

// upload brings large content. A client that breaks off does so in the middle.
func (s *sim) upload(l *life, m *simMessage, env *msg.Envelope, content string) (done, ok bool) {
	w, err := l.q.Content().Create(env.TA)
	if err != nil {
		return false, false
	}
	half := len(content) / 2
	_, err = io.WriteString(w, content[:half])
	time.Sleep(time.Duration(s.luck("upload", m.id) * float64(10*time.Second)))
	switch {
	case m.aborted:
		w.Abort()
		return true, false
	case err == nil:
		_, err = io.WriteString(w, content[half:])
	}
	if err == nil {
		err = w.Commit(env)
	}
	if err != nil {
		w.Abort()
	}
	return false, err == nil
}

// heal makes all well, but for the dead host, where mail waits to be given up.
func (s *sim) heal() {
	s.note("all is well")
	s.arm(func() { s.low, s.full, s.life.eio = false, false, "" })
}

// settle waits until the queue is empty.
func (s *sim) settle() {
	s.operate(msg.OpRelease, msg.Selection{})
	limit := s.at() + s.size.giveUp + time.Duration(s.count["lives"])*time.Hour
	for len(s.left()) > 0 && s.at() < limit {
		time.Sleep(30 * time.Minute)
		s.operate(msg.OpRemove, msg.Selection{Domain: "remove.test"})
		s.operate(msg.OpExpire, msg.Selection{Domain: "expire.test"})
	}
	s.arm(func() { s.healed = true })
	time.Sleep(4 * s.cfg.RetryMax)
	for i, e := range s.left() {
		if i < 10 {
			s.fault("still in the queue: %+v", e)
		}
	}
}

// left is what the queue lists.
func (s *sim) left() []msg.ListEntry {
	a, err := s.current().ports.List.Ask(context.Background(), msg.ListQ{})
	if err != nil {
		s.fault("listing: %v", err)
	}
	return a.Entries
}

// checkFates checks what became of every recipient.
func (s *sim) checkFates() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		for _, l := range m.leaves {
			if got, want := l.outcome(), l.expected(); got != want {
				s.faultLocked("%s: %s, expected %s", l.addr, got, want)
			}
			if len(l.told) > 1 && s.crashes == 0 && m.unknown == 0 {
				s.faultLocked("%s: %d notices", l.addr, len(l.told))
			}
		}
	}
}

// expected is what must have become of a recipient.
func (l *leaf) expected() string {
	switch {
	case l.m.aborted:
		return "nothing"
	case l.fate == fateDelivered:
		return "delivered"
	case l.fate == fateRemoved:
		return "removed"
	case !l.tells():
		return "dropped"
	case l.teller.dead:
		return "notice dropped"
	}
	return "bounced"
}

// outcome is what has become of a recipient.
func (l *leaf) outcome() string {
	var all []string
	add := func(word string, yes bool) {
		if yes {
			all = append(all, word)
		}
	}
	add("delivered", len(l.deliveries) > 0)
	add("removed", l.removed > 0)
	add("dropped", l.dropped > 0)
	add("bounced", len(l.told) > 0)
	add("notice dropped", len(all) == 0 && l.fails() && l.tells() && l.teller.dead && l.teller.dropped > 0 && !l.m.aborted)
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, " and ")
}

// checkRests starts the queue once more and expects nothing in its databases.
func (s *sim) checkRests() {
	s.boot()
	l := s.current()
	for _, k := range leftRecords(l.q) {
		s.fault("record %q is left in the store", k)
	}
	time.Sleep(3 * s.cfg.OrphanGrace)
	if err := l.q.cdb.List(func(f cdbFile) error { s.fault("content %v is left", f.TA); return nil }, func(string) {}); err != nil {
		s.fault("%v", err)
	}
	s.shutDown()
	if m, n := l.q.deps.Memory.Used(), l.q.inAQ(); m != 0 || n != 0 {
		s.fault("%d bytes of content and %d entries are still counted", m, n)
	}
}

// digest is one value for the fates of all recipients.
func (s *sim) digest() string {
	h := sha256.New()
	for _, m := range s.messages {
		for _, l := range m.leaves {
			fmt.Fprintln(h, l.addr, l.outcome())
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8])
}

// report tells what happened, and after a failure how to see it again.
func (s *sim) report(name string) {
	s.t.Logf("seed %s-%d: %d messages, %d recipients, %d crashes, %v simulated; %v", name, s.seed,
		len(s.messages), len(s.leaves), s.crashes, s.at().Round(time.Hour), s.count)
	if !s.t.Failed() {
		return
	}
	last := s.events
	if os.Getenv("META1_SOAK_SEED") == "" {
		last = last[max(len(last)-200, 0):]
	}
	s.t.Logf("the last events:\n%s", strings.Join(last, "\n"))
	s.t.Logf("to see it again: make soak SEED=%s-%d", name, s.seed)
}

// TestSimulation runs a seed that is always the same twice: each recipient must have the
// same fate. And it runs a new one.
func TestSimulation(t *testing.T) {
	if !raceDetector { // that the same happens twice is seen without it
		if a, b := simulate(t, "short", 1), simulate(t, "short", 1); a != b {
			t.Errorf("digest %s, and then %s", a, b)
		}
	}
	seed := rand.Uint64N(1e9)
	t.Run(fmt.Sprintf("short-%d", seed), func(t *testing.T) { simulate(t, "short", seed) })
}

// TestSoak is what "make soak" runs: the seed META1_SOAK_SEED, such as long-12, or new
// ones for the time META1_SOAK.
func TestSoak(t *testing.T) {
	if name := os.Getenv("META1_SOAK_SEED"); name != "" {
		size, number, _ := strings.Cut(name, "-")
		seed, err := strconv.ParseUint(number, 10, 64)
		if err != nil {
			t.Fatalf("the seed %q has not the form long-12 or short-12", name)
		}
		simulate(t, size, seed)
		return
	}
	limit, err := time.ParseDuration(os.Getenv("META1_SOAK"))
	if err != nil {
		t.Skip("META1_SOAK says for how long; see make soak")
	}
	for start := time.Now(); time.Since(start) < limit && !t.Failed(); {
		size := [...]string{"short", "short", "short", "long"}[rand.IntN(4)]
		seed := rand.Uint64N(1e9)
		t.Run(fmt.Sprintf("%s-%d", size, seed), func(t *testing.T) { simulate(t, size, seed) })
	}
}
