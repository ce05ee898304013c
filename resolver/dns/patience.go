package dns

import (
	"context"
	"time"
)

// Limits of the time that a lookup gets when earlier ones of the same failed.
const (
	maxPatience = 50 * time.Second // of one lookup: a route takes two, one after the other
	maxDoubled  = 2                // how often the timeout is doubled
	maxLate     = 10_000           // names that are remembered
	lateTTL     = 24 * time.Hour   // for how long
)

// patientKey is the key of the context's value.
type patientKey struct{}

// Patient marks lookups for mail that waits anyway: a name that did not resolve in earlier
// tries gets more time in each further one (README 3.9.2, item 4c). Other lookups, for
// which a client waits, always get the configured time.
func Patient(ctx context.Context) context.Context {
	return context.WithValue(ctx, patientKey{}, true)
}

func isPatient(ctx context.Context) bool { return ctx.Value(patientKey{}) != nil }

// late remembers which lookups got no answer: how often, and until when that counts.
type late map[key]lateName

type lateName struct {
	fails int
	until time.Time
}

// timeout is the time of one try of a patient lookup.
func (l late) timeout(k key, of *Config, now time.Time) time.Duration {
	n, tries := l[k], time.Duration(of.Retries+1)
	if now.After(n.until) {
		return of.Timeout
	}
	most := max(of.Timeout, maxPatience/tries)
	return min(of.Timeout<<min(n.fails, maxDoubled), most)
}

// note takes the answer of a lookup. When there is no more room, any name is forgotten.
func (l late) note(k key, a *Answer, now time.Time) {
	if a.Status != Temporary || a.Refused {
		delete(l, k)
		return
	}
	if _, known := l[k]; !known && len(l) >= maxLate {
		for other := range l {
			delete(l, other)
			break
		}
	}
	l[k] = lateName{l[k].fails + 1, now.Add(lateTTL)}
}
