package aq

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/budget"
	"meta1/queue/entry"
	"meta1/queue/intake"
	"meta1/queue/pace"
	"meta1/queue/retry"
	"meta1/queue/sched"
)

// TestScripts plays the files in testdata: each step is an event, and below ---- stands what
// the core decides. "go test ./queue/aq -rewrite" writes the decisions anew; read the diff.
//
//	new [log] [connections=2] [rate=10] [aq=100] [slots=10] [retry=1m] [retry-max=1h] [return=5d] [share=25] [window=2] [double-bounce=a@b] [merge=0s] [delay=0s] [dane-return=5d] [dane-delay=0s]
//	accept ID from=a@b to=(c@d,e@f) [file]     a message became durable
//	routed [domain=d.test] [hosts=(h1,h2)] [dest=x] [reply=(451 4.4.3 text)] [expand=(a@b,c@d)] [down] [hung]
//	                                          SMAR answers the oldest lookup, or that of a domain
//	delivered ID [reply=(250 2.0.0 ok)] [each=(250 ok|550 no)] [failed] [tls_unmet] [dane_no_match] [busy=2] [unknown] [down] [slow] [no_network] [no_answer]
//	made [err=text]                           the oldest message of our own is complete
//	save [n]                                  the oldest n saves are durable, or all
//	scan [err=text]                           the scan that is asked for brings what the store has
//	tick 1m                                   time passes
//	operate hold|... [domain=d.test] [ta=1]   an operator asks; withdraw ID ends it
//	break ID/INDEX                            the record of a deferred recipient cannot be decoded any more
//	restart                                   a new core on the store
//	up smar|smtpc, parked dest ...            as the events of these names
//	configure [retry=1m] ...                  another configuration: the arguments of new; others stay
//	hosts                                     providers and hosts, and what recipients wait for
//	state                                     what is in the active queue, parked, and in the store
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, file string) {
		w := newScript(t)
		datadriven.RunTest(t, file, func(t *testing.T, d *datadriven.TestData) string { return w.step(t, d) })
	})
}

// stored is a message as the store has it.
type stored struct {
	env      *msg.Envelope
	size     int64
	inline   bool
	fresh    bool // it has an a record
	ended    map[int]bool
	deferred map[int]State
	broken   map[int]bool // set aside
}

// script is the world around a core.
type script struct {
	t     *testing.T
	cfg   Config
	core  *Core
	now   time.Time
	log   bool
	store map[smtp.ID]*stored
	bad   map[Ref]bool // records that cannot be decoded

	slots, window, connections, rate int // of cfg.Sched

	saves      []*Save
	lookups    []*Lookup
	deliveries []*Delivery
	makes      []*Make
	scan       *intake.Scan

	nextMade uint64
	missing  string // what a step answers that has nothing to answer
}

func newScript(t *testing.T) *script {
	w := &script{t: t, now: time.Unix(0, 0).UTC(), store: map[smtp.ID]*stored{}, bad: map[Ref]bool{}, nextMade: 1000}
	w.cfg = Config{
		Hostname: "mta.test", Sched: sched.Config{Retry: retry.Bounds{Min: time.Minute, Max: time.Hour}}, SchedulerTimeout: time.Hour,
		Patience: Patience{Return: 120 * time.Hour}, DANEPatience: Patience{Return: 120 * time.Hour},
		SpillOver: 4096, DestinationShare: 25, ParksMax: 100, ScanMax: 1000, LMTPRcpts: 100, SMTPRcpts: 100,
		Notice: NoticeConfig{ErrorsMax: 100}, Limits: func(string) string { return "" },
	}
	w.cfg.Budget, w.slots, w.window = budget.New(100), 10, 2
	w.limits()
	return w
}

func arg(d *datadriven.TestData, key string) (string, bool) {
	for _, a := range d.CmdArgs {
		if a.Key == key {
			return strings.Join(a.Vals, ","), true
		}
	}
	return "", false
}

func argOr(d *datadriven.TestData, key, otherwise string) string {
	if v, ok := arg(d, key); ok {
		return v
	}
	return otherwise
}

func has(d *datadriven.TestData, key string) bool { _, ok := arg(d, key); return ok }

func duration(t *testing.T, s string) time.Duration {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n int
		_, _ = fmt.Sscan(days, &n)
		return time.Duration(n) * 24 * time.Hour
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func number(t *testing.T, s string) (n int) {
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	return n
}

func path(s string) smtp.Path {
	l, d, _ := strings.Cut(s, "@")
	return smtp.Path{Local: l, Domain: d}
}

func reply(s string) smtp.Reply {
	var code int
	var e smtp.EnhancedCode
	rest := s
	if n, _ := fmt.Sscanf(s, "%d %d.%d.%d", &code, &e[0], &e[1], &e[2]); n == 4 {
		rest = strings.SplitN(s+" ", " ", 3)[2]
		return smtp.NewReply(code, fmt.Sprintf("%d.%d.%d", e[0], e[1], e[2]), strings.TrimSpace(rest))
	}
	_, text, _ := strings.Cut(s, " ")
	return smtp.NewReply(code, "", text)
}

// first is the first argument, as a number.
func (w *script) first(d *datadriven.TestData) int { return number(w.t, d.CmdArgs[0].Key) }

// step plays one step and returns what the core decides.
func (w *script) step(t *testing.T, d *datadriven.TestData) string {
	w.t = t
	if w.core == nil && d.Cmd != "new" {
		w.core = New(w.cfg, w.now)
	}
	var ev Event
	switch d.Cmd {
	case "new":
		*w = *newScript(t)
		w.configure(d)
		w.core = New(w.cfg, w.now)
	case "accept":
		ev = w.accept(d)
	case "routed":
		ev = w.routed(d)
	case "delivered":
		ev = w.delivered(d)
	case "made":
		ev = w.made(d)
	case "save":
		w.save(d)
	case "scan":
		ev = w.scanned(d)
	case "tick":
		w.now = w.now.Add(duration(t, d.CmdArgs[0].Key))
		w.core.Tick(w.now)
	case "operate":
		q := msg.OperateQ{Op: msg.Operation(d.CmdArgs[0].Key), Select: msg.Selection{Domain: argOr(d, "domain", "")}}
		if v, ok := arg(d, "ta"); ok {
			q.Select.TA = id(number(t, v))
		}
		ev = &Operate{ID: uint64(number(t, argOr(d, "id", "1"))), Q: q, Day: w.now}
	case "withdraw":
		ev = &Withdraw{ID: uint64(w.first(d))}
	case "break":
		var ta, index int
		_, _ = fmt.Sscanf(d.CmdArgs[0].Key, "%d/%d", &ta, &index)
		w.bad[Ref{TA: id(ta), Index: index}] = true
	case "restart":
		return w.restart()
	case "up":
		ev = &Up{Module: map[string]Module{"smar": SMAR, "smtpc": SMTPC}[d.CmdArgs[0].Key]}
	case "configure":
		w.configure(d)
		ev = &Configure{Config: w.cfg}
	case "parked":
		ev = &Parked{Dests: []string{d.CmdArgs[0].Key}}
	case "drain":
		ev = &Drain{}
	case "state":
		return w.state()
	case "hosts":
		return w.hosts()
	default:
		t.Fatalf("%s: unknown step %q", d.Pos, d.Cmd)
	}
	if w.missing != "" {
		defer func() { w.missing = "" }()
		return w.missing
	}
	if ev != nil {
		w.core.Step(w.now, ev)
	}
	return w.ready()
}

func id(n int) smtp.ID { return smtp.ID{Counter: uint64(n)} }

// configure sets what the arguments say.
func (w *script) configure(d *datadriven.TestData) {
	times := map[string]*time.Duration{
		"retry": &w.cfg.Sched.Retry.Min, "retry-max": &w.cfg.Sched.Retry.Max, "return": &w.cfg.Patience.Return, "delay": &w.cfg.Patience.Delay,
		"dane-return": &w.cfg.DANEPatience.Return, "dane-delay": &w.cfg.DANEPatience.Delay, "scheduler-timeout": &w.cfg.SchedulerTimeout,
		"merge": &w.cfg.Notice.MergeDelay,
	}
	aq := w.cfg.Budget.Max()
	numbers := map[string]*int{
		"aq": &aq, "share": &w.cfg.DestinationShare, "slots": &w.slots, "window": &w.window, "connections": &w.connections, "rate": &w.rate,
		"rcpts": &w.cfg.SMTPRcpts,
	}
	for _, a := range d.CmdArgs {
		v := strings.Join(a.Vals, ",")
		switch {
		case times[a.Key] != nil:
			*times[a.Key] = duration(w.t, v)
		case numbers[a.Key] != nil:
			*numbers[a.Key] = number(w.t, v)
		case a.Key == "double-bounce":
			w.cfg.Notice.DoubleBounce = path(v)
		case a.Key == "log":
			w.log = true
		default:
			w.t.Fatalf("%s: unknown argument %q", d.Pos, a.Key)
		}
	}
	w.cfg.Budget.SetMax(aq)
	w.limits()
}

// limits makes the scheduler's part of the configuration.
func (w *script) limits() {
	limits := sched.HostLimits{Window: sched.Limits{Initial: w.window, Max: w.window}}
	shared := sched.ProviderLimits{Connections: w.connections, Pace: pace.Limits{Rate: w.rate, Per: time.Minute, Recovery: 30 * time.Minute}}
	w.cfg.Sched = sched.Config{
		Slots: w.slots, HostsMax: 100, HostsPerAttempt: 5, Retry: w.cfg.Sched.Retry,
		Limits:         func(sched.HostKey) sched.HostLimits { return limits },
		ProviderLimits: func(string) sched.ProviderLimits { return shared },
		Provider: func(h msg.Hop) string {
			if strings.HasSuffix(h.Host, ".big.test") {
				return "big"
			}
			return ""
		},
	}
}

func (w *script) accept(d *datadriven.TestData) Event {
	from, _ := arg(d, "from")
	to, _ := arg(d, "to")
	e := &msg.Envelope{TA: id(w.first(d)), Arrival: w.now, Mail: msg.Mail{From: path(from)}}
	for r := range strings.SplitSeq(to, ",") {
		e.Rcpts = append(e.Rcpts, msg.Rcpt{To: path(r), Notify: argOr(d, "notify", "")})
	}
	size := int64(number(w.t, argOr(d, "size", "10")))
	w.store[e.TA] = &stored{env: e, size: size, inline: !has(d, "file"), fresh: true, ended: map[int]bool{}, deferred: map[int]State{}, broken: map[int]bool{}}
	w.cfg.Budget.Accept(e.TA, len(e.Rcpts))
	return &Accepted{Message{Envelope: e, Size: size, Inline: !has(d, "file")}}
}

func (w *script) routed(d *datadriven.TestData) Event {
	domain, only := arg(d, "domain")
	i := slices.IndexFunc(w.lookups, func(l *Lookup) bool { return !only || l.batch.Domain == domain })
	if i < 0 {
		w.missing = "no lookup is asked for\n"
		return nil
	}
	l := w.lookups[i]
	w.lookups = slices.Delete(w.lookups, i, i+1)
	ev := &Routed{Lookup: l, Done: true, Down: has(d, "down"), Hung: has(d, "hung")}
	if ev.Down {
		return ev
	}
	for _, r := range l.Rcpts {
		to := r.Envelope.Rcpts[r.Ref.Index].To.Domain
		a := msg.RouteA{Dest: argOr(d, "dest", "mx:"+to), Expires: w.now.Add(10 * time.Minute)}
		switch {
		case has(d, "reply"):
			v, _ := arg(d, "reply")
			a.Reply = reply(v)
		case has(d, "expand"):
			v, _ := arg(d, "expand")
			x := msg.Expansion{}
			for to := range strings.SplitSeq(v, ",") {
				x.Rcpts = append(x.Rcpts, path(to))
			}
			a.Expand = []msg.Expansion{x}
		default:
			for h := range strings.SplitSeq(argOr(d, "hosts", "mx."+strings.ToLower(to)), ",") {
				a.Hops = append(a.Hops, hop(h))
			}
		}
		ev.Answers = append(ev.Answers, a)
	}
	return ev
}

// hop is a host whose address depends on its name; one that begins with six has an IPv6 address.
func hop(name string) msg.Hop {
	sum := byte(1)
	for _, c := range []byte(name) {
		sum = sum*7 + c
	}
	if strings.HasPrefix(name, "six") {
		return msg.Hop{Host: name, Addr: netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: sum}), 25)}
	}
	return msg.Hop{Host: name, Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, sum}), 25)}
}

func (w *script) delivered(d *datadriven.TestData) Event {
	ta := id(w.first(d))
	i := slices.IndexFunc(w.deliveries, func(x *Delivery) bool { return x.Envelope.TA == ta })
	if i < 0 {
		w.missing = "no such delivery\n"
		return nil
	}
	x := w.deliveries[i]
	w.deliveries = slices.Delete(w.deliveries, i, i+1)
	ev := &Delivered{Delivery: x, Down: has(d, "down"), A: msg.DeliverA{Stage: msg.DeliverDone, Unknown: has(d, "unknown")}}
	text := argOr(d, "reply", "250 2.0.0 ok")
	if has(d, "failed") {
		ev.A.HostFailed, ev.A.Stage = true, msg.DeliverConnect
		text = argOr(d, "reply", "451 4.4.1 connection refused")
	}
	if has(d, "tls_unmet") || has(d, "dane_no_match") {
		ev.A.TLSUnmet, ev.A.DANENoMatch, ev.A.Stage = true, has(d, "dane_no_match"), msg.DeliverTLS
		text = "451 4.7.4 no TLS"
	}
	if v, ok := arg(d, "busy"); ok {
		ev.A.HostBusy, ev.A.Stage = number(w.t, v), msg.DeliverConnect
		text = "421 4.7.0 too many connections"
	}
	ev.A.NoNetwork, ev.A.NoAnswer = has(d, "no_network"), has(d, "no_answer")
	if !has(d, "failed") {
		ev.A.Session = "s"
	}
	if has(d, "slow") {
		ev.A.SlowDown = reply(text)
	}
	each := strings.Split(argOr(d, "each", ""), "|")
	for i := range x.Rcpts {
		one := text
		if i < len(each) && each[i] != "" {
			one = each[i]
		}
		ev.A.Rcpts = append(ev.A.Rcpts, reply(one))
	}
	return ev
}

func (w *script) made(d *datadriven.TestData) Event {
	if len(w.makes) == 0 {
		w.missing = "nothing is to be made\n"
		return nil
	}
	mk := w.makes[0]
	w.makes = w.makes[1:]
	if v, ok := arg(d, "err"); ok {
		return &Made{Make: mk, Err: errors.New(v)}
	}
	ev := &Made{Make: mk}
	for _, e := range mk.Envelopes {
		w.nextMade++
		e.TA = id(int(w.nextMade))
		e.Arrival = w.now
		ev.Messages = append(ev.Messages, &NewMessage{Envelope: e, Content: []byte("x"), Size: 1})
	}
	return ev
}

// save makes saves durable: it does what they say to the store, and checks its rules.
func (w *script) save(d *datadriven.TestData) {
	n := len(w.saves)
	if len(d.CmdArgs) > 0 {
		n = min(n, w.first(d))
	}
	for _, s := range w.saves[:n] {
		for i := range s.Changes {
			w.change(&s.Changes[i])
		}
		w.check(s)
		w.core.Advance(w.now, s.ID)
	}
	w.saves = w.saves[n:]
}

func (w *script) change(ch *Change) {
	switch ch.Kind {
	case Accept:
		w.store[ch.New.Envelope.TA] = &stored{env: ch.New.Envelope, size: ch.New.Size, inline: ch.New.Content != nil, fresh: true, ended: map[int]bool{}, deferred: map[int]State{}, broken: map[int]bool{}}
		return
	case SetAside:
		ref := refOfKey(ch.Broken.Key)
		delete(w.store[ref.TA].deferred, ref.Index)
		w.store[ref.TA].broken[ref.Index] = true
		return
	case DropAside:
		ref := refOfKey(ch.Broken.Key)
		delete(w.store[ref.TA].broken, ref.Index)
		return
	}
	m := w.store[ch.Ref.TA]
	if m == nil {
		w.t.Fatalf("change %d of %v, which is not in the store", ch.Kind, ch.Ref)
	}
	switch ch.Kind {
	case EndFresh:
		if !m.fresh || m.ended[ch.Ref.Index] {
			w.t.Errorf("%v ends twice", ch.Ref)
		}
		m.ended[ch.Ref.Index] = true
	case EndDeferred, Put:
		was, ok := m.deferred[ch.Ref.Index]
		if (ch.Old != nil) != ok || ok && (!was.NextTry.Equal(ch.Old.NextTry) || was.Parked != ch.Old.Parked || was.Parked && was.Dest != ch.Old.Dest) {
			w.t.Errorf("the store has %+v of %v, not %+v", was, ch.Ref, ch.Old)
		}
		delete(m.deferred, ch.Ref.Index)
		if ch.Kind == Put {
			m.deferred[ch.Ref.Index] = *ch.State
		} else if ch.Fresh {
			m.ended[ch.Ref.Index] = true
		}
	case DropAccepted:
		w.settle(m, ch)
	case Forget:
		if ch.Fresh {
			w.settle(m, ch)
		}
		if len(m.deferred)+len(m.broken) > 0 || m.fresh || ch.Inline != m.inline {
			w.t.Errorf("forgets %v, of which there is %+v", ch.Ref.TA, m)
		}
		delete(w.store, ch.Ref.TA)
	}
}

func (w *script) settle(m *stored, ch *Change) {
	if !m.fresh || len(ch.Ended) != len(m.ended) {
		w.t.Errorf("settles %v with %v ended, the store has %v", ch.Ref.TA, ch.Ended, m.ended)
	}
	m.fresh = false
	clear(m.ended)
}

// check expects that each message of a save is in one of the states of package records.
func (w *script) check(s *Save) {
	for ta, m := range w.store {
		left := len(m.deferred) + len(m.broken)
		if m.fresh {
			left += len(m.env.Rcpts) - len(m.ended) - left
		}
		if left == 0 {
			w.t.Errorf("save %d leaves %v without recipients", s.ID, ta)
		}
	}
}

func refOfKey(k []byte) (r Ref) {
	var ta int
	_, _ = fmt.Sscanf(string(k), "%d/%d", &ta, &r.Index)
	r.TA = id(ta)
	return r
}

// scanned reads the store for the scan that is asked for.
func (w *script) scanned(d *datadriven.TestData) Event {
	q := w.scan
	if q == nil {
		w.missing = "no scan is asked for\n"
		return nil
	}
	w.scan = nil
	if v, ok := arg(d, "err"); ok {
		return &Scanned{Scan: q, Err: errors.New(v)}
	}
	return w.read(q)
}

// read is what a scan brings.
func (w *script) read(q *intake.Scan) *Scanned {
	ev := &Scanned{Scan: q}
	all := w.deferred()
	groups := map[smtp.ID]*Group{}
	n := 0
	take := func(st State) bool {
		if w.bad[st.Ref] {
			ev.Broken = append(ev.Broken, &Broken{Key: fmt.Appendf(nil, "%d/%d", st.TA.Counter, st.Index), Err: errors.New("cut short")})
			return true
		}
		g := groups[st.TA]
		if g == nil {
			m := w.store[st.TA]
			g = &Group{Message: Message{Envelope: m.env, Size: m.size, Inline: m.inline}, Left: len(m.deferred) + len(m.broken)}
			groups[st.TA] = g
			ev.Groups = append(ev.Groups, g)
		}
		g.States = append(g.States, st)
		n++
		return n < q.Max
	}
	switch q.Kind {
	case intake.ScanDue, intake.ScanLate:
		slices.SortFunc(all, func(a, b State) int {
			if c := a.NextTry.Compare(b.NextTry); c != 0 {
				return c
			}
			return a.Ref.Compare(b.Ref)
		})
		for _, st := range all {
			at := entry.Due{At: st.NextTry, Ref: st.Ref}
			behind := at.At.After(q.Cursor.At) || at.At.Equal(q.Cursor.At) && at.Ref.Compare(q.Cursor.Ref) > 0
			switch {
			case !behind || st.Held:
			case ev.More || st.NextTry.After(q.Until):
				if ev.Next.IsZero() {
					ev.Next = st.NextTry
				}
			default:
				q.Cursor = at
				ev.More = !take(st)
			}
		}
	case intake.ScanParked:
		for _, p := range q.Parks {
			for _, st := range all {
				if st.Parked && st.Dest == p.Dest && st.Ref.Compare(p.From) >= 0 && p.Got < p.Max {
					p.Got++
					p.From = Ref{TA: st.TA, Index: st.Index + 1}
					take(st)
				}
			}
		}
	case intake.ScanSelect:
		for _, st := range all {
			m := w.store[st.TA]
			if q.Wants(&st) && q.Q.Select.Matches(m.env, st.Index, msg.Standing{Dest: st.Dest, Reason: st.Reason, Held: st.Held}, q.Day) && st.Ref.Compare(q.From) >= 0 {
				if n == q.Max {
					ev.More, ev.Behind = true, st.Ref
					break
				}
				take(st)
			}
		}
		if m := w.store[q.Q.Select.TA]; m != nil {
			for i := range m.broken {
				ev.Aside = append(ev.Aside, &Broken{Key: fmt.Appendf(nil, "%d/%d", q.Q.Select.TA.Counter, i)})
			}
			if len(ev.Aside) > 0 && len(ev.Groups) == 0 {
				ev.Groups = append(ev.Groups, &Group{Message: Message{Envelope: m.env, Size: m.size, Inline: m.inline}, Left: len(m.deferred) + len(m.broken)})
			}
		}
	}
	return ev
}

// deferred are all deferred recipients in the store, in order.
func (w *script) deferred() (all []State) {
	for _, m := range w.store {
		for _, st := range m.deferred {
			all = append(all, st)
		}
	}
	slices.SortFunc(all, func(a, b State) int { return a.Ref.Compare(b.Ref) })
	return all
}

// restart makes a new core on the store.
func (w *script) restart() string {
	w.saves, w.lookups, w.deliveries, w.makes, w.scan = nil, nil, nil, nil, nil
	w.cfg.Budget = budget.New(w.cfg.Budget.Max())
	w.core = New(w.cfg, w.now)
	tas := make([]smtp.ID, 0, len(w.store))
	for ta := range w.store {
		tas = append(tas, ta)
	}
	slices.SortFunc(tas, entry.CompareTA)
	for _, ta := range tas {
		m := w.store[ta]
		if !m.fresh {
			continue
		}
		ev := &Recovered{Message: Message{Envelope: m.env, Size: m.size, Inline: m.inline}}
		for i := range m.env.Rcpts {
			if _, ok := m.deferred[i]; ok || m.broken[i] {
				ev.Deferred = append(ev.Deferred, i)
			} else if m.ended[i] {
				ev.Ended = append(ev.Ended, i)
			}
		}
		w.cfg.Budget.Accept(ta, ev.Fresh())
		w.core.Step(w.now, ev)
	}
	return w.ready()
}
