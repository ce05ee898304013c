package whatif

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"meta1/mta/explain"
)

// Kind says what two configurations make different of an envelope.
type Kind string

// The kinds, the gravest first.
const (
	Verdict Kind = "verdict" // accepted, refused or refused for now
	Reply   Kind = "reply"   // another text, or another code of the same verdict
	Route   Kind = "route"   // other hosts, another order, other members of an alias
	Sender  Kind = "sender"  // the sender that an alias puts in
	TLS     Kind = "tls"     // what TLS must give
	Limits  Kind = "limits"  // on connections with a host, or its source addresses
)

// Kinds are all of them, in their order.
func Kinds() []Kind { return []Kind{Verdict, Reply, Route, Sender, TLS, Limits} }

// Change is one thing that differs.
type Change struct {
	Kind Kind   `json:"kind"`
	Rcpt string `json:"rcpt,omitempty"` // "" if the dialogue ends before a recipient
	Old  Side   `json:"old"`
	New  Side   `json:"new"`
}

// Side is what one configuration makes of it.
type Side struct {
	Text string `json:"text"`
	// Why are the checks that decided, in words, and the options behind a refusal.
	Why []string `json:"why,omitempty"`
}

// Compare names what differs in two reports on the same question.
func Compare(before, after *explain.Report) []Change {
	var all []Change
	n := max(len(before.Recipients), len(after.Recipients), 1)
	for i := range n {
		o, n := ends(before, i), ends(after, i)
		rcpt := cmp.Or(o.rcpt, n.rcpt)
		if o.verdict != n.verdict || o.reply != n.reply {
			kind := Reply
			if o.verdict != n.verdict {
				kind = Verdict
			}
			all = append(all, Change{Kind: kind, Rcpt: rcpt, Old: o.side(), New: n.side()})
		}
		if o.verdict == explain.Accepted && n.verdict == explain.Accepted && i < len(before.Recipients) && i < len(after.Recipients) {
			all = append(all, compareRoutes(rcpt, before.Recipients[i].Routes, after.Recipients[i].Routes)...)
		}
	}
	return all
}

// end is what becomes of one recipient: at RCPT, or before if the dialogue did not come so far.
type end struct {
	rcpt, reply string
	verdict     explain.Verdict
	stage       *explain.Stage
}

func ends(r *explain.Report, i int) end {
	rcpts := 0
	var last *explain.Stage
	for _, s := range r.Stages {
		if last = s; s.Stage == "rcpt" {
			if rcpts == i {
				break
			}
			rcpts++
		}
	}
	if i < len(r.Recipients) {
		to := &r.Recipients[i]
		return end{rcpt: to.Rcpt, reply: to.Reply, verdict: to.Verdict, stage: last}
	}
	if last == nil {
		return end{verdict: r.Verdict}
	}
	return end{reply: last.Reply, verdict: last.Verdict, stage: last}
}

func (e *end) side() Side {
	s := Side{Text: fmt.Sprintf("%s: %s", e.verdict, e.reply)}
	if e.stage == nil {
		return s
	}
	for i := range e.stage.Checks {
		if c := &e.stage.Checks[i]; c.Decides {
			s.Why = append(s.Why, inWords(c))
		}
	}
	if e.verdict != explain.Accepted {
		for _, o := range e.stage.Options {
			s.Why = append(s.Why, fmt.Sprintf("%s = %s (%s)", o.Option, o.Value, o.Where))
		}
	}
	return s
}

// inWords is a check in one line.
func inWords(c *explain.Check) string {
	text := c.Check
	if c.Key != "" {
		text += ": " + c.Key
	}
	if place := cmp.Or(c.Where, c.Map); place != "" {
		text += " in " + place
	}
	if c.Value != "" {
		text += ": " + c.Value
	}
	if c.Effect != "" {
		text += " -> " + c.Effect
	}
	return text
}

// compareRoutes compares where a recipient goes, each of its addresses if it is an alias.
func compareRoutes(rcpt string, before, after []explain.Route) []Change {
	o, n := aspectsOf(before), aspectsOf(after)
	var all []Change
	for _, k := range Kinds() {
		was, is := o[k], n[k]
		if was == nil || slices.Equal(was.keys, is.keys) {
			continue
		}
		if (k == TLS || k == Limits) && slices.ContainsFunc(all, func(c Change) bool { return c.Kind == Route }) {
			continue // other hosts have other ones
		}
		all = append(all, Change{
			Kind: k, Rcpt: rcpt,
			Old: Side{strings.Join(was.lines, "; "), was.why}, New: Side{strings.Join(is.lines, "; "), is.why},
		})
	}
	return all
}

// aspect is what the routes of a recipient say of one kind: lines for people, keys to compare, and
// the checks behind them.
type aspect struct{ keys, lines, why []string }

func (a *aspect) add(key, line string) {
	a.keys, a.lines = append(a.keys, key), append(a.lines, line)
}

// aspectsOf takes apart the routes of a recipient. The order of hosts is no part of a key: DNS gives
// hosts of one preference in any order, and what the configuration says of it is in Dest.
func aspectsOf(routes []explain.Route) map[Kind]*aspect {
	to, sender, tls, limits := &aspect{}, &aspect{}, &aspect{}, &aspect{}
	for i := range routes {
		r := &routes[i]
		who := "<" + r.Rcpt + ">"
		switch {
		case r.Reply != "":
			line := who + " has no route: " + r.Reply
			to.add(line, line)
		case r.Alias:
			to.add(who+" is an alias", who+" is an alias")
		default:
			hops := make([]string, len(r.Hops))
			for j := range r.Hops {
				hops[j] = r.Hops[j].Hop
			}
			line := who + " goes to " + r.Dest + " at " + strings.Join(hops, ", ")
			slices.Sort(hops)
			to.add(who+" "+r.Dest+" "+strings.Join(hops, " "), line)
		}
		for j := range r.Checks {
			if c := &r.Checks[j]; c.Value != "" || c.Decides {
				to.why = append(to.why, inWords(c))
			}
		}
		if r.Sender != "" || r.VERP {
			line := fmt.Sprintf("%s from <%s>", who, r.Sender)
			if r.VERP {
				line += ", which names the recipient (VERP)"
			}
			sender.add(line, line)
		}
		for j := range r.Hops {
			h := &r.Hops[j]
			line := h.Hop + ": " + h.TLS
			tls.add(line, line)
			for _, l := range h.Limits {
				line := fmt.Sprintf("%s: %s = %s", h.Hop, l.Option, l.Value)
				limits.add(line, line)
				if why := l.Option + ": " + l.Where; !slices.Contains(limits.why, why) {
					limits.why = append(limits.why, why)
				}
			}
			if len(h.Source) > 0 {
				line := h.Hop + ": from " + strings.Join(h.Source, " ")
				limits.add(line, line)
			}
		}
	}
	slices.Sort(tls.keys)
	slices.Sort(limits.keys)
	return map[Kind]*aspect{Route: to, Sender: sender, TLS: tls, Limits: limits}
}
