package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"meta1/mta/control"
	"meta1/mta/msg"
)

// Throttles lists the limits that were set.
func (a *API) Throttles(context.Context) []control.Throttle {
	list := []control.Throttle{}
	for _, l := range a.deps.Throttles.List() {
		list = append(list, control.Throttle{Kind: l.Kind, Net: netText(l.Net), Max: l.Max, Reason: l.Reason, Set: l.Set, Until: l.Until})
	}
	return list
}

func netText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// parseNet reads an address or a net; "" is the invalid Prefix.
func parseNet(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" {
		return netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a net such as 192.0.2.0/24", s)
	}
	return p, nil
}

// Throttle sets or clears a limit.
func (a *API) Throttle(ctx context.Context, q control.ThrottleQuestion) ([]control.Throttle, error) {
	net, err := parseNet(q.Net)
	if err != nil {
		return nil, err
	}
	if q.Clear {
		if q.Kind == "" && q.Net != "" {
			return nil, errors.New("to clear the limit of a net its kind is needed")
		}
		ended := a.deps.Throttles.Clear(q.Kind, net)
		if len(ended) == 0 && q.Kind != "" {
			return nil, errors.New("there is no such limit")
		}
		a.tell(ctx, ended, "limit cleared by an operator")
		return a.Throttles(ctx), nil
	}
	if q.For < 0 {
		return nil, errors.New("a limit cannot end before it begins")
	}
	l := msg.Throttle{Kind: q.Kind, Net: net, Max: q.Max, Reason: q.Reason, Set: a.deps.Now()}
	if q.For > 0 {
		l.Until = l.Set.Add(q.For)
	}
	if err := a.deps.Throttles.Put(l); err != nil {
		return nil, err
	}
	a.tell(ctx, []msg.Throttle{l}, "limit set by an operator")
	return a.Throttles(ctx), nil
}

// expire ends the limits whose time is over.
func (a *API) expire(ctx context.Context) {
	a.tell(ctx, a.deps.Throttles.Expire(a.deps.Now()), "limit has ended")
}

func (a *API) tell(ctx context.Context, limits []msg.Throttle, what string) {
	for _, l := range limits {
		a.deps.Log.LogAttrs(ctx, slog.LevelWarn, what, slog.String("limit", string(l.Kind)), slog.String("net", netText(l.Net)),
			slog.Int("max", l.Max), slog.String("reason", l.Reason), slog.Time("until", l.Until))
	}
}
