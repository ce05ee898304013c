package dmarcrpt

import (
	"encoding/json"
	"errors"
	"time"
)

const (
	version = 1
	fileMax = 512 << 20 // bytes of a day
)

var errNotOurs = errors.New("not the counts of a day in this version")

// readDay reads the counts of a day.
func readDay(text []byte) (*day, time.Time, error) {
	d := &day{}
	switch err := json.Unmarshal(text, d); {
	case err != nil:
		return nil, time.Time{}, err
	case d.Version != version, !d.End.IsZero() && d.End.Before(d.Start), len(d.Domains) > domainsMax:
		return nil, time.Time{}, errNotOurs
	}
	if d.Domains == nil {
		d.Domains = map[string]*domain{}
	}
	for name, one := range d.Domains {
		if one == nil || !isDomain(name) || len(one.Rows) == 0 {
			return nil, time.Time{}, errNotOurs
		}
		for key := range one.Rows {
			var w row
			if err := json.Unmarshal([]byte(key), &w); err != nil {
				return nil, time.Time{}, errNotOurs
			}
		}
		d.rows += len(one.Rows)
	}
	return d, d.Start, nil
}

// over reports that nothing more is to be done with a day.
func (d *day) over(now time.Time) bool {
	if now.After(d.End.Add(keepFor)) {
		return true
	}
	for _, one := range d.Domains {
		if !one.Sent {
			return false
		}
	}
	return true
}
