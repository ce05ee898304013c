package explain

import (
	"context"
	"fmt"
	"slices"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

const (
	routesMax = 50 // addresses of the aliases of one recipient
	routeTime = 2 * time.Minute
)

// route finds where a recipient goes, or where those go for whom it is an alias.
func (r *Recipient) route(ctx context.Context, from, to smtp.Path, deps *Deps) {
	first := msg.RouteQ{Sender: from, Rcpt: to}
	a := r.ask(ctx, &first, deps)
	if a == nil {
		return
	}
	for _, e := range a.Expand {
		for _, member := range e.Rcpts {
			if len(r.Routes) > routesMax {
				r.More++
				continue
			}
			q := msg.RouteQ{Sender: from, Rcpt: member, Expanded: true}
			if e.Owner != (smtp.Path{}) {
				q.Sender = e.Owner
			}
			r.ask(ctx, &q, deps)
			route := &r.Routes[len(r.Routes)-1]
			route.VERP = e.VERP
			if e.Owner != (smtp.Path{}) {
				route.Sender = e.Owner.Addr()
			}
		}
	}
}

// ask asks SMAR for one route and adds it. It returns nil if nobody answered.
func (r *Recipient) ask(ctx context.Context, q *msg.RouteQ, deps *Deps) *msg.RouteA {
	ctx, cancel := context.WithTimeout(ctx, routeTime)
	defer cancel()
	route := Route{Rcpt: q.Rcpt.Addr(), Checks: []Check{}}
	a, err := deps.Ports.Route.Ask(ctx, *q)
	if err != nil {
		route.Reply = "no answer: " + err.Error()
		r.Routes = append(r.Routes, route)
		return nil
	}
	for _, s := range a.Trace {
		route.Checks = append(route.Checks, checkOf(s))
	}
	route.Alias, route.Dest = len(a.Expand) > 0, a.Dest
	if !a.Reply.IsZero() {
		route.Reply = a.Reply.String()
	}
	if i := slices.IndexFunc(route.Checks, func(c Check) bool { return c.Check == "smtpc_rcpt_conf" && c.Value != "" }); i >= 0 {
		route.Conf = route.Checks[i].Value
	}
	for _, hop := range a.Hops {
		h := Hop{Hop: hop.String(), TLS: wanted(hop, a.RcptConf)}
		if hop.DANE {
			tlsa(ctx, &h, hop, a.Dest, deps)
		}
		if deps.Hop != nil {
			deps.Hop(ctx, &h, hop, &a, q)
		}
		route.Hops = append(route.Hops, h)
	}
	r.Routes = append(r.Routes, route)
	return &a
}

// wanted says what TLS a hop must give as far as the route tells.
func wanted(hop msg.Hop, conf *msg.Conf) string {
	switch {
	case conf != nil && conf.TLS != nil:
		return "as smtpc_rcpt_conf demands"
	case hop.STS == msg.STSEnforce:
		return "required by MTA-STS: a certificate for " + hop.Host
	case hop.STS == msg.STSTesting:
		return "MTA-STS in testing: a certificate for " + hop.Host + " is noted and not required"
	}
	return "used if offered"
}

// tlsa asks for the TLSA records of a hop, which DANE demands be met.
func tlsa(ctx context.Context, h *Hop, hop msg.Hop, dest string, deps *Deps) {
	a, err := deps.Ports.TLSA.Ask(ctx, msg.TLSAQ{Hop: hop, Dest: dest})
	switch {
	case err != nil:
		h.TLS = "DANE: no answer: " + err.Error()
		return
	case !a.Reply.IsZero():
		h.TLS = "DANE: mail waits: " + a.Reply.String()
	case len(a.Records) > 0:
		h.TLS = "required by DANE: the certificate must match a TLSA record of " + a.Base
		if !a.Secure {
			h.TLS += ", which DNSSEC does not secure"
		}
	}
	for _, s := range a.Trace {
		h.Checks = append(h.Checks, checkOf(s))
	}
	for _, rec := range a.Records {
		h.DANE = append(h.DANE, fmt.Sprintf("%d %d %d %x", rec.Usage, rec.Selector, rec.Matching, rec.Data))
	}
}
