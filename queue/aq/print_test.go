package aq

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/entry"
	"meta1/queue/intake"
	"meta1/queue/sched"
)

// ready takes all decisions and puts them into words.
func (w *script) ready() string {
	var b strings.Builder
	for rd := w.core.Ready(); !rd.Empty(); rd = w.core.Ready() {
		for _, s := range rd.Save {
			w.saves = append(w.saves, s)
			fmt.Fprintf(&b, "save %d:", s.ID)
			for i := range s.Changes {
				fmt.Fprintf(&b, "%s %s", map[bool]string{true: ""}[i == 0]+map[bool]string{true: ";"}[i > 0], w.changeText(&s.Changes[i]))
			}
			b.WriteByte('\n')
		}
		for _, e := range rd.Spill {
			fmt.Fprintf(&b, "spill %d\n", e.TA.Counter)
		}
		for _, ta := range rd.Unlink {
			fmt.Fprintf(&b, "unlink %d\n", ta.Counter)
		}
		for _, ta := range rd.Evict {
			fmt.Fprintf(&b, "evict %d\n", ta.Counter)
		}
		for _, l := range rd.Lookup {
			w.lookups = append(w.lookups, l)
			fmt.Fprintf(&b, "lookup %s:", l.batch.Domain)
			for _, r := range l.Rcpts {
				fmt.Fprintf(&b, " %s", refText(r.Ref))
			}
			b.WriteByte('\n')
		}
		for _, d := range rd.Deliver {
			w.deliveries = append(w.deliveries, d)
			fmt.Fprintf(&b, "deliver %d %v to %s\n", d.Envelope.TA.Counter, d.Rcpts, d.Hop.Host)
		}
		for _, d := range rd.Cancel {
			fmt.Fprintf(&b, "cancel %d to %s\n", d.Envelope.TA.Counter, d.Hop.Host)
		}
		for _, mk := range rd.Make {
			w.makes = append(w.makes, mk)
			fmt.Fprintf(&b, "make %s\n", makeText(mk))
		}
		if s := rd.Scan; s != nil {
			w.scan = s
			fmt.Fprintf(&b, "scan %s\n", w.scanText(s))
		}
		for _, a := range rd.Answer {
			fmt.Fprintf(&b, "answer %d: done=%d busy=%d %s\n", a.ID, a.A.Done, a.A.Busy, a.A.Err)
		}
		for _, l := range rd.Log {
			if w.log || l.Level >= slog.LevelWarn {
				fmt.Fprintf(&b, "%s %s%s\n", l.Level, l.Text, attrText(l.Attrs))
			}
		}
	}
	if b.Len() == 0 {
		return "ok\n"
	}
	return b.String()
}

func attrText(attrs []slog.Attr) string {
	var b strings.Builder
	for _, a := range attrs {
		fmt.Fprintf(&b, " %s=%v", a.Key, a.Value)
	}
	return b.String()
}

func refText(r Ref) string { return fmt.Sprintf("%d/%d", r.TA.Counter, r.Index) }

// at is a time as the duration from now.
func (w *script) at(t time.Time) string {
	if t.Equal(entry.Never()) {
		return "never"
	}
	return t.Sub(w.now).Round(time.Second).String()
}

func (w *script) changeText(ch *Change) string {
	switch ch.Kind {
	case Accept:
		to := []string{}
		for _, r := range ch.New.Envelope.Rcpts {
			to = append(to, r.To.Addr())
		}
		return fmt.Sprintf("accept %d from <%s> to %s", ch.New.Envelope.TA.Counter, ch.New.Envelope.Mail.From.Addr(), strings.Join(to, ","))
	case EndFresh, EndDeferred:
		return "end " + refText(ch.Ref)
	case Put:
		return "put " + w.stateText(ch.State)
	case DropAccepted:
		return fmt.Sprintf("accepted-done %d", ch.Ref.TA.Counter)
	case Forget:
		return fmt.Sprintf("forget %d", ch.Ref.TA.Counter)
	case SetAside:
		return "set aside " + string(ch.Broken.Key)
	case DropAside:
		return "drop aside " + string(ch.Broken.Key)
	}
	return "?"
}

func (w *script) stateText(st *State) string {
	s := fmt.Sprintf("%s due %s attempts %d", refText(st.Ref), w.at(st.NextTry), st.Attempts)
	if st.Held {
		s += " held"
	}
	if st.Parked {
		s += " parked for " + st.Dest
	}
	return s + fmt.Sprintf(" %q", st.Reason)
}

func makeText(mk *Make) string {
	var of []string
	if mk.Notice == nil {
		for _, e := range mk.Envelopes {
			for _, r := range e.Rcpts {
				of = append(of, r.To.Addr())
			}
		}
		return fmt.Sprintf("of %d: expansion to %s", mk.Of.Counter, strings.Join(of, ","))
	}
	for _, f := range mk.Notice.Failures {
		of = append(of, fmt.Sprintf("%s %s: %s", f.Rcpt.Addr(), f.Kind, f.Reply))
	}
	return fmt.Sprintf("of %d: notice to %s: %s", mk.Of.Counter, mk.Notice.To.Addr(), strings.Join(of, "; "))
}

func (w *script) scanText(s *intake.Scan) string {
	switch s.Kind {
	case intake.ScanDue:
		return fmt.Sprintf("due, at most %d", s.Max)
	case intake.ScanLate:
		return "late"
	case intake.ScanSelect:
		return fmt.Sprintf("for %s", s.Q.Op)
	}
	var parks []string
	for _, p := range s.Parks {
		parks = append(parks, fmt.Sprintf("%d of %s", p.Max, p.Dest))
	}
	return "parked: " + strings.Join(parks, ", ")
}

// hosts is what meta1 queue hosts and mailq would say.
func (w *script) hosts() string {
	var b strings.Builder
	a := sched.ListHosts(w.core.Hosts(w.now), w.core.Providers(w.now), w.core.Families(w.now), msg.HostsQ{}, func(t time.Time) time.Time { return t })
	for _, p := range a.Providers {
		fmt.Fprintf(&b, "provider %s: %d of %d in use, rate %.4g of %d in %v, %d waiting, %d slow-downs", p.Provider, p.InUse, p.Max, p.Rate, p.RateMax, p.Per, p.Waiting, p.SlowDowns)
		if p.Reason != "" {
			fmt.Fprintf(&b, ", until %s: %s", w.at(p.Until), p.Reason)
		}
		b.WriteByte('\n')
	}
	for _, f := range a.TriedLast {
		fmt.Fprintf(&b, "%s is tried last until %s: %s\n", f.Family, w.at(f.Until), f.Reason)
	}
	for _, h := range a.Hosts {
		fmt.Fprintf(&b, "host %s: %s, %d of %d in use, %d waiting", h.Host, h.State, h.InUse, h.Window, h.Waiting)
		if h.Provider != "" {
			b.WriteString(", of " + h.Provider)
		}
		if h.TLS.Version != "" {
			b.WriteString(", " + strings.TrimSpace("TLS "+h.TLS.Version+" "+h.TLS.Verify))
		}
		b.WriteByte('\n')
	}
	for _, e := range w.core.Entries(Ref{}, 100) {
		fmt.Fprintf(&b, "%d/%d %s\n", e.TA.Counter, e.Index, e.Reason)
	}
	return b.String()
}

// state is what is in the active queue, parked and in the store.
func (w *script) state() string {
	var b strings.Builder
	c := w.core
	for _, m := range c.nearest(smtp.ID{}, len(c.messages)) {
		for _, r := range m.all() {
			class := "fresh"
			if r.class == sched.Deferred {
				class = "deferred"
			}
			fmt.Fprintf(&b, "%s %s, %s\n", refText(r.ref()), r.state, class)
		}
	}
	parks := c.Parks()
	for _, name := range slices.Sorted(maps.Keys(parks)) {
		fmt.Fprintf(&b, "park %s %s\n", name, parks[name].State)
	}
	for _, st := range w.deferred() {
		fmt.Fprintf(&b, "stored %s\n", w.stateText(&st))
	}
	tas := make([]smtp.ID, 0)
	for ta, m := range w.store {
		if len(m.broken) > 0 {
			tas = append(tas, ta)
		}
	}
	slices.SortFunc(tas, entry.CompareTA)
	for _, ta := range tas {
		for i := range w.store[ta].broken {
			fmt.Fprintf(&b, "aside %d/%d\n", ta.Counter, i)
		}
	}
	total, deferred, _, _ := c.cfg.Budget.Used()
	fmt.Fprintf(&b, "%d in the active queue, %d of them deferred; %d messages stored\n", total, deferred, len(w.store))
	return b.String()
}
