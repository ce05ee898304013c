package api

import (
	"context"
	"strings"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
)

const (
	// sampleTime is between two samples, and windowMax how far the rates reach back.
	sampleTime = 10 * time.Second
	windowMax  = 15 * time.Minute
)

// sample is what was counted by a time.
type sample struct {
	at     time.Time
	counts map[string]int64
}

// counted are the values of modules that only grow, by module and name, with the name in Stats.
func counted() map[string]map[string]string {
	return map[string]map[string]string{
		"smtps": {"sessions_total": "sessions", "messages": "messages", "bytes": "received_bytes"},
		"qmgr":  {"accepted": "accepted", "delivered": "delivered", "deferrals": "deferrals", "bounced": "bounced", "dropped": "dropped"},
		"smtpc": {"transactions": "transactions"},
	}
}

// going are the values that tell of now.
func going() map[string]map[string]string {
	return map[string]map[string]string{
		"smtps": {"sessions": "sessions", "sessions_max": "sessions_max"},
		"qmgr": {
			"in_flight": "in_flight", "AQ_entries": "AQ_entries", "AQ_entries_max": "AQ_entries_max", "deferred": "deferred",
			"open_transactions": "open_transactions", "content_memory": "content_memory", "disk_room": "disk_room", "destinations": "destinations",
		},
		"smtpc": {"connections_busy": "connections_busy", "connections_idle": "connections_idle"},
	}
}

// collect adds up values of the modules; sections smtps together.
func collect(modules map[string]msg.StatusA, names map[string]map[string]string) map[string]int64 {
	all := map[string]int64{}
	for unit, a := range modules {
		kind, _, _ := strings.Cut(unit, " ")
		for _, v := range a.Values {
			if name := names[kind][v.Name]; name != "" {
				all[name] += v.Number
			}
		}
	}
	return all
}

// lookTime is between two looks at limits that end, and at a drain.
const lookTime = 500 * time.Millisecond

// Run takes samples, ends limits whose time is over, and leads drains, until ctx ends.
func (a *API) Run(ctx context.Context) error {
	tick := time.NewTicker(sampleTime)
	defer tick.Stop()
	look := time.NewTicker(lookTime)
	defer look.Stop()
	a.take(ctx)
	for {
		select {
		case <-tick.C:
			a.take(ctx)
		case <-look.C:
			a.expire(ctx)
			a.drainOn(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *API) take(ctx context.Context) {
	s := sample{a.deps.Now(), collect(a.deps.Modules(ctx, msg.StatusQ{}), counted())}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.samples = append(a.samples, s)
	for len(a.samples) > 2 && s.at.Sub(a.samples[1].at) >= windowMax || len(a.samples) > int(windowMax/sampleTime)+2 {
		a.samples = a.samples[1:]
	}
}

// Stats tells counts and rates.
func (a *API) Stats(ctx context.Context) (control.Stats, error) {
	modules := a.deps.Modules(ctx, msg.StatusQ{})
	now := sample{a.deps.Now(), collect(modules, counted())}
	s := control.Stats{Time: now.at, Started: a.started, Counts: now.counts, Now: collect(modules, going()), Rates: map[string]map[string]float64{}, Accepting: "unknown"}
	for _, v := range modules["qmgr"].Values {
		if v.Name == "accepting" {
			s.Accepting = v.Text
		}
	}
	a.mu.Lock()
	samples := append(append([]sample{}, a.samples...), now)
	a.mu.Unlock()
	for name, window := range map[string]time.Duration{"1m": time.Minute, "5m": 5 * time.Minute, "15m": windowMax} {
		s.Rates[name] = rates(samples, window)
	}
	return s, nil
}

// rates are the counts a second within a window that ends with the last sample. A count that has
// become less began anew, with its module.
func rates(samples []sample, window time.Duration) map[string]float64 {
	last := samples[len(samples)-1]
	first := 0
	for first < len(samples)-1 && last.at.Sub(samples[first+1].at) >= window {
		first++
	}
	all := map[string]float64{}
	took := last.at.Sub(samples[first].at).Seconds()
	for name := range last.counts {
		grown := int64(0)
		for i := first + 1; i < len(samples); i++ {
			before, after := samples[i-1].counts[name], samples[i].counts[name]
			if after < before {
				before = 0
			}
			grown += after - before
		}
		if took > 0 {
			all[name] = float64(grown) / took
		} else {
			all[name] = 0
		}
	}
	return all
}
