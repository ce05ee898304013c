package records

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/smtp"
	"meta1/mta/store"
)

// Recovered is a message some of whose recipients are fresh.
type Recovered struct {
	Envelope Envelope
	Ended    []int   // recipients that have ended, ascending
	Deferred []State // in order
	Aside    []int   // recipients that are set aside, or broken and still to be; ascending
}

// Recover calls f for each message that has fresh recipients, in the order of the ids.
// The fresh ones are those that are in none of the lists. An error of f ends it.
func (v *View) Recover(f func(*Recovered) error) error {
	var its [3]*pebble.Iterator // of d, r and x r
	lowers := [...][]byte{{byte(KindEnded)}, {byte(KindDeferred)}, asideKey([]byte{byte(KindDeferred)})}
	var err error
	for i, lower := range lowers {
		var e error
		its[i], e = v.iter(lower, successor(lower))
		err = errors.Join(err, e)
	}
	if err == nil {
		err = v.r.Scan([]byte{byte(KindAccepted)}, []byte{byte(KindAccepted) + 1}, func(k, value []byte) (bool, error) {
			key, broken := ParseKey(k)
			if broken != nil {
				v.skip(k, value, broken)
				return true, nil
			}
			r, ok, err := v.recover(key.TA, its[0], its[1], its[2])
			if err != nil || !ok {
				return true, err
			}
			return true, f(&r)
		})
	}
	for _, it := range its {
		if it != nil {
			err = errors.Join(err, it.Close())
		}
	}
	return err
}

func (v *View) recover(ta smtp.ID, ended, deferred, aside *pebble.Iterator) (r Recovered, ok bool, err error) {
	if r.Envelope, ok, err = v.Envelope(ta); err != nil || !ok {
		return r, false, err
	}
	lower := messageKey(KindEnded, ta)
	err = each(ended, lower, successor(lower), func(k, value []byte) (bool, error) {
		key, broken := ParseKey(k)
		if broken == nil && key.Index >= len(r.Envelope.Rcpts) {
			broken = errNoRcpt
		}
		if broken != nil {
			v.skip(k, value, broken)
			return true, nil
		}
		r.Ended = append(r.Ended, key.Index)
		return true, nil
	})
	if err != nil {
		return r, false, err
	}
	lower = messageKey(KindDeferred, ta)
	err = each(deferred, lower, successor(lower), func(k, value []byte) (bool, error) {
		l, ok, err := v.load(k, value, nil)
		if ok {
			r.Deferred = append(r.Deferred, l.State)
		} else if key, ok := parseKey(k); ok && key.Index < len(r.Envelope.Rcpts) {
			r.Aside = append(r.Aside, key.Index)
		}
		return true, err
	})
	if err != nil {
		return r, false, err
	}
	lower = asideKey(lower)
	err = each(aside, lower, successor(lower), func(k, _ []byte) (bool, error) {
		if key, ok := parseKey(k[1:]); ok && key.Index < len(r.Envelope.Rcpts) {
			r.Aside = append(r.Aside, key.Index)
		}
		return true, nil
	})
	slices.Sort(r.Aside)
	return r, err == nil, err
}

// Oldest is the arrival of the message with the lowest id. ok is false if there is none.
func (v *View) Oldest() (arrival time.Time, ok bool, err error) {
	err = v.r.Scan([]byte{byte(KindEnvelope)}, []byte{byte(KindEnvelope) + 1}, func(k, value []byte) (bool, error) {
		key, broken := ParseKey(k)
		if broken != nil {
			v.skip(k, value, broken)
			return true, nil
		}
		e, broken := DecodeEnvelope(key.TA, value)
		if broken != nil {
			return true, v.skipMessage(key.TA, value, broken)
		}
		arrival, ok = e.Arrival, true
		return false, nil
	})
	return arrival, ok, err
}

// countStep is after how many records a count looks whether it is still wanted.
const countStep = 4096

// Count counts the deferred recipients and the records that were set aside. It ends with
// the error of ctx when that ends.
func (v *View) Count(ctx context.Context) (deferred, aside int, err error) {
	for _, c := range []struct {
		kind Kind
		n    *int
	}{{KindDeferred, &deferred}, {KindAside, &aside}} {
		err := v.r.Scan([]byte{byte(c.kind)}, []byte{byte(c.kind) + 1}, func(_, _ []byte) (bool, error) {
			*c.n++
			if *c.n%countStep == 0 {
				return true, ctx.Err()
			}
			return true, nil
		})
		if err != nil {
			return deferred, aside, err
		}
	}
	return deferred, aside, nil
}

// HasMessage reports whether a message has an envelope or a recipient, be they broken or
// set aside: a content file of such a message is not an orphan.
func HasMessage(r store.Reader, ta smtp.ID) (has bool, err error) {
	for _, kind := range []Kind{KindEnvelope, KindAccepted, KindDeferred} {
		for _, lower := range [][]byte{messageKey(kind, ta), asideKey(messageKey(kind, ta))} {
			err := r.Scan(lower, successor(lower), func(_, _ []byte) (bool, error) {
				has = true
				return false, nil
			})
			if err != nil || has {
				return has, err
			}
		}
	}
	return false, nil
}
