package tlsrpt

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"
)

// Entry is one report as an operator sees it.
type Entry struct {
	Domain string    `json:"domain"`
	Due    time.Time `json:"due,omitzero"` // zero: the day is not over
	Sent   bool      `json:"sent"`
	Tries  int       `json:"tries"`
	Why    string    `json:"why,omitempty"` // the last try failed
	Report *Report   `json:"report"`
}

// List gives the reports that are collected or wait to be sent, those on one domain unless it
// is "".
func (r *Reports) List(name string) []Entry {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.roll(time.Now())
	list := []Entry{}
	for _, d := range append(slices.Clone(r.past), r.today) {
		from := len(list)
		for domain, one := range d.Domains {
			if name == "" || name == domain {
				list = append(list, Entry{domain, one.Next, one.Sent, one.Tries, one.Why, r.report(domain, d, one)})
			}
		}
		slices.SortFunc(list[from:], func(a, b Entry) int { return strings.Compare(a.Domain, b.Domain) })
	}
	return list
}

// Send sends what waits to be sent at once, about one domain unless it is "". With today it ends
// the day now, for all domains: what was counted since its beginning is due, and what follows
// is for another report. It returns how many were sent, and why others were not.
func (r *Reports) Send(ctx context.Context, name string, today bool) (n int, err error) {
	r.sending.Lock()
	defer r.sending.Unlock()
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	now := time.Now().UTC()
	if today {
		r.mu.Lock()
		r.roll(now)
		if end := now.Truncate(time.Second).Add(time.Second); len(r.today.Domains) > 0 {
			r.end(r.today, end)
			r.today = newDay(end)
		}
		r.mu.Unlock()
	}
	for _, d := range r.due(now, name, true, math.MaxInt) {
		if one := r.send(ctx, d); one != nil {
			err = errors.Join(err, errors.New(d.name+": "+one.Error()))
			continue
		}
		n++
	}
	r.save()
	return n, err
}
