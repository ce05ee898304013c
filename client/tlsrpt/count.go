package tlsrpt

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"meta1/mta/msg"
)

// Bounds of what is kept.
const (
	domainsMax  = 10_000 // of one day
	knownMax    = 50_000 // domains of which it is known whether they want reports
	waitingMax  = 10_000 // domains of which it is not yet known
	sessionsMax = 50     // that wait for one of them
	policiesMax = 50     // of one domain
	failuresMax = 100    // different ones of one policy
	textMax     = 250    // bytes of one text
	listMax     = 100    // lines of a policy
	keepFor     = 48 * time.Hour
	knownFor    = time.Hour   // how long it is believed what a domain wants
	askAgain    = time.Minute // after no answer
)

// day is what was counted on one day; it is what lies on disk.
type day struct {
	Version int                `json:"version"`
	Start   time.Time          `json:"start"` // UTC
	End     time.Time          `json:"end"`   // when it was closed, or will be
	Domains map[string]*domain `json:"domains"`
}

// domain is one domain of a day, and what became of its report.
type domain struct {
	Policies []*policy `json:"policies"`
	Sent     bool      `json:"sent,omitempty"`
	Tries    int       `json:"tries,omitempty"`
	Next     time.Time `json:"next,omitzero"` // when it is tried
	Why      string    `json:"why,omitempty"` // the last try failed
}

// policy counts the sessions under one policy (RFC 8460 section 4.4). The names of the fields
// on disk are ours; see report.go for those of a report.
type policy struct {
	Type     string     `json:"type"`
	Domain   string     `json:"domain"`
	Strings  []string   `json:"strings,omitempty"`
	Hosts    []string   `json:"hosts,omitempty"`
	Good     uint64     `json:"good"`
	Bad      uint64     `json:"bad"`
	Failures []*failure `json:"failures,omitempty"`
}

// failure counts the sessions that failed in one way.
type failure struct {
	Kind
	N uint64 `json:"n"`
}

// Kind is what the sessions of a failure have in common.
type Kind struct {
	Result string     `json:"result"`
	Local  netip.Addr `json:"local,omitzero"`
	Remote netip.Addr `json:"remote,omitzero"`
	MX     string     `json:"mx,omitempty"`
	Helo   string     `json:"helo,omitempty"`
	Reason string     `json:"reason,omitempty"`
}

// standing is what is known of a domain.
type standing struct {
	answer msg.TLSReportA
	until  time.Time
}

// waiting are sessions of a domain of which it is not known whether it wants reports.
type waiting struct {
	sessions []*session
	next     time.Time // when it is asked again; zero: at once
	asking   bool
}

// session is one that was counted, and when.
type session struct {
	*msg.TLSSession
	at time.Time
}

// CountTLS implements msg.TLSCounter.
func (r *Reports) CountTLS(s *msg.TLSSession) {
	name := strings.ToLower(strings.TrimSuffix(s.Domain, "."))
	if !isDomain(name) {
		return
	}
	now := time.Now().UTC()
	r.mu.Lock()
	defer r.mu.Unlock()
	if k, ok := r.known[name]; ok && now.Before(k.until) {
		r.add(name, &session{s, now}, &k.answer)
		return
	}
	w := r.waiting[name]
	switch {
	case w == nil && len(r.waiting) >= waitingMax, w != nil && len(w.sessions) >= sessionsMax:
		r.stats.sessions[dropped].Inc()
		return
	case w == nil:
		w = &waiting{}
		r.waiting[name] = w
	}
	w.sessions = append(w.sessions, &session{s, now})
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// settle takes the answer about a domain in.
func (r *Reports) settle(name string, a *msg.TLSReportA, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.waiting[name]
	if w == nil {
		return
	}
	w.asking = false
	if a.Err != "" {
		if w.next = now.Add(askAgain); now.Sub(w.sessions[0].at) > knownFor {
			r.stats.sessions[dropped].Add(float64(len(w.sessions)))
			delete(r.waiting, name)
		}
		return
	}
	delete(r.waiting, name)
	if len(r.known) >= knownMax {
		clear(r.known) // they are asked anew
	}
	a.STSReason = clip(a.STSReason)
	r.known[name] = standing{*a, now.Add(knownFor)}
	for _, s := range w.sessions {
		r.add(name, s, a)
	}
}

// add counts a session of a domain of which everything is known. r.mu is held.
func (r *Reports) add(name string, s *session, a *msg.TLSReportA) {
	if len(a.RUA) == 0 {
		r.stats.sessions[unwanted].Inc()
		return
	}
	r.roll(s.at)
	d := r.today.Domains[name]
	if d == nil {
		if len(r.today.Domains) >= domainsMax {
			r.stats.sessions[dropped].Inc()
			return
		}
		d = &domain{}
		r.today.Domains[name] = d
	}
	p := d.under(describe(name, s, a))
	if p == nil {
		r.stats.sessions[dropped].Inc()
		return
	}
	r.stats.sessions[counted].Inc()
	r.dirty[r.today] = true
	k := Kind{Result: s.Result.String(), Local: s.Local, Remote: s.Remote, MX: clip(s.MX), Helo: clip(s.Helo), Reason: clip(s.Reason)}
	if s.Policy == msg.TLSPolicyNone && a.STSFailure != msg.TLSSuccess {
		k = Kind{Result: a.STSFailure.String(), Reason: a.STSReason}
	}
	if k.Result == "" {
		p.Good++
		return
	}
	p.Bad++
	p.fail(k)
}

// describe is the policy of a session. Where the domain announces an MTA-STS policy that is not
// known it is that policy which has failed.
func describe(name string, s *session, a *msg.TLSReportA) policy {
	switch {
	case s.Policy == msg.TLSPolicyTLSA:
		p := policy{Type: s.Policy.String(), Domain: clip(s.Base)}
		for _, t := range s.Records[:min(len(s.Records), listMax)] {
			p.Strings = append(p.Strings, fmt.Sprintf("%d %d %d %s", t.Usage, t.Selector, t.Matching, strings.ToUpper(hex.EncodeToString([]byte(t.Data[:min(len(t.Data), 4*textMax)])))))
		}
		slices.Sort(p.Strings)
		return p
	case s.Policy == msg.TLSPolicySTS, a.STSFailure != msg.TLSSuccess:
		return policy{
			Type: msg.TLSPolicySTS.String(), Domain: name,
			Strings: a.STSLines[:min(len(a.STSLines), listMax)], Hosts: a.STSHosts[:min(len(a.STSHosts), listMax)],
		}
	}
	return policy{Type: msg.TLSPolicyNone.String(), Domain: name}
}

// under finds a policy of a domain, or adds it; nil if there are too many.
func (d *domain) under(want policy) *policy {
	for _, p := range d.Policies {
		if p.Type == want.Type && p.Domain == want.Domain && slices.Equal(p.Strings, want.Strings) {
			return p
		}
	}
	if len(d.Policies) >= policiesMax {
		return nil
	}
	p := &want
	d.Policies = append(d.Policies, p)
	return p
}

// fail counts a session that failed. Of too many different ones only the result is kept.
func (p *policy) fail(k Kind) {
	for _, f := range p.Failures {
		if f.Kind == k {
			f.N++
			return
		}
	}
	if full := (Kind{Result: k.Result}); len(p.Failures) >= failuresMax && k != full {
		p.fail(full) // one for each result, so that this ends
		return
	}
	p.Failures = append(p.Failures, &failure{k, 1})
}

// roll begins a new day if the last one is over. A day without sessions leaves nothing. r.mu is
// held.
func (r *Reports) roll(now time.Time) {
	start := now.UTC().Truncate(24 * time.Hour)
	if !start.After(r.today.Start) {
		return // sessions that waited count for the day that has begun
	}
	r.end(r.today, r.today.Start.Truncate(24*time.Hour).Add(24*time.Hour))
	r.today = newDay(start)
}

// end ends a day at a time: its reports are due in the morning. r.mu is held.
func (r *Reports) end(d *day, end time.Time) {
	if len(d.Domains) == 0 {
		return
	}
	d.End = end
	for name, one := range d.Domains {
		if one.Next.IsZero() {
			one.Next = end.Add(spread(r.host + " " + name))
		}
	}
	r.past = append(r.past, d)
	r.dirty[d] = true
	r.log.LogAttrs(r.ctx(), slog.LevelInfo, "reports about TLS are due", slog.Time("start", d.Start), slog.Int("domains", len(d.Domains)))
}

func newDay(start time.Time) *day {
	return &day{Version: version, Start: start, Domains: map[string]*domain{}}
}

// clip bounds a text.
func clip(s string) string {
	if len(s) > textMax {
		s = strings.ToValidUTF8(s[:textMax], "")
	}
	return s
}

// isDomain tells a domain name of A-labels.
func isDomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}
