package tlsrpt

import (
	"encoding/json"
	"errors"
	"time"
)

const (
	version = 1
	fileMax = 256 << 20 // bytes of a day
)

// readDay reads the counts of a day.
func readDay(text []byte) (*day, time.Time, error) {
	d := &day{}
	switch err := json.Unmarshal(text, d); {
	case err != nil:
		return nil, time.Time{}, err
	case d.Version != version, !d.End.IsZero() && d.End.Before(d.Start), len(d.Domains) > domainsMax:
		return nil, time.Time{}, errors.New("not the counts of a day in this version")
	}
	if d.Domains == nil {
		d.Domains = map[string]*domain{}
	}
	for name, one := range d.Domains {
		if one == nil || !isDomain(name) {
			return nil, time.Time{}, errors.New("not the counts of a day")
		}
		for _, p := range one.Policies {
			if p == nil {
				return nil, time.Time{}, errors.New("not the counts of a day")
			}
			for _, f := range p.Failures {
				if f == nil {
					return nil, time.Time{}, errors.New("not the counts of a day")
				}
			}
		}
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
