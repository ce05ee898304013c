package records

import (
	"bytes"
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/entry"
)

// behind is the first key of the due index behind a place in its order.
func behind(d entry.Due) []byte {
	if d.At.IsZero() {
		return []byte{byte(KindDue)}
	}
	return append(dueKey(d.At, d.Ref), 0)
}

// Due calls f for the recipients that are due at now or before, in order, behind the
// cursor, which it moves along, until f returns false.
func (v *View) Due(now time.Time, c *entry.Due, f func(*Loaded) bool) error {
	return v.r.Scan(behind(*c), appendTime([]byte{byte(KindDue)}, now.Add(1)), func(k, value []byte) (bool, error) {
		if key, ok := parseKey(k); ok {
			*c = entry.Due{At: key.Time, Ref: key.Ref}
		}
		l, ok, err := v.follow(k, value)
		return !ok || f(&l), err
	})
}

// NextDue is the next time to try of the first recipient behind the cursor that is not
// held. ok is false if there is none.
func (v *View) NextDue(c entry.Due) (next time.Time, ok bool, err error) {
	err = v.r.Scan(behind(c), appendTime([]byte{byte(KindDue)}, entry.Never()), func(k, value []byte) (bool, error) {
		key, broken := ParseKey(k)
		if broken != nil {
			v.skip(k, value, broken)
			return true, nil
		}
		next, ok = key.Time, true
		return false, nil
	})
	return next, ok, err
}

// Parked calls f for the recipients that are parked for a destination, those of the oldest
// message first, from one on, until f returns false.
func (v *View) Parked(dest string, from Ref, f func(*Loaded) bool) error {
	return v.r.Scan(parkedKey(dest, from), successor(parkedPrefix(dest)), func(k, value []byte) (bool, error) {
		l, ok, err := v.follow(k, value)
		return !ok || f(&l), err
	})
}

// ParkedFor calls f for the destinations that recipients are parked for, until it returns
// false. It costs one search for each destination.
func (v *View) ParkedFor(f func(dest string) bool) error {
	it, err := v.iter([]byte{byte(KindParked)}, []byte{byte(KindParked) + 1})
	if err != nil {
		return err
	}
	for valid := it.First(); valid; {
		key, broken := ParseKey(it.Key())
		if broken != nil {
			v.skip(it.Key(), it.Value(), broken)
			valid = it.Next()
			continue
		}
		if !f(key.Dest) {
			break
		}
		valid = it.SeekGE(successor(parkedPrefix(key.Dest)))
	}
	return errors.Join(readError(it.Error()), it.Close())
}

// Left counts the recipients of a message that are deferred or set aside.
func (v *View) Left(ta smtp.ID) (n int, err error) {
	if v.counted == nil {
		if v.counted, err = v.iter([]byte{byte(KindDeferred)}, []byte{byte(KindAside) + 1}); err != nil {
			return 0, err
		}
	}
	lower := messageKey(KindDeferred, ta)
	for _, k := range [][]byte{lower, asideKey(lower)} {
		err := each(v.counted, k, successor(k), func(_, _ []byte) (bool, error) {
			n++
			return true, nil
		})
		if err != nil {
			return 0, err
		}
	}
	return n, nil
}

// AsideOf calls f for the records of a message that were set aside, with the keys that they
// had.
func (v *View) AsideOf(ta smtp.ID, f func(key []byte)) error {
	for _, kind := range []Kind{KindEnvelope, KindAccepted, KindEnded, KindDeferred} {
		lower := asideKey(messageKey(kind, ta))
		err := v.r.Scan(lower, successor(lower), func(k, _ []byte) (bool, error) {
			f(bytes.Clone(k[1:]))
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Entry is a deferred recipient, or one that was set aside.
type Entry struct {
	Loaded      // the State of one that is aside has only its Ref, and Envelope may be zero
	Aside  bool // the record is set aside, or broken and still to be
}

// Entries calls f for all recipients that are deferred or set aside, in order of message
// and index, from one on, until f returns false.
func (v *View) Entries(from Ref, f func(*Entry) bool) error {
	deferred, err := v.iter(rcptKey(KindDeferred, from), []byte{byte(KindDeferred) + 1})
	if err != nil {
		return err
	}
	aside, err := v.iter(asideKey(rcptKey(KindDeferred, from)), asideKey([]byte{byte(KindDeferred) + 1}))
	if err != nil {
		return errors.Join(err, deferred.Close())
	}
	err = v.merge(deferred, aside, f)
	return errors.Join(err, readError(deferred.Error()), readError(aside.Error()), deferred.Close(), aside.Close())
}

// List is Entries for who keeps nothing: the Envelope of an entry is overwritten by the next, but for its
// strings. The view is good for nothing else then.
func (v *View) List(from Ref, f func(*Entry) bool) error {
	v.spare = new(msg.Envelope)
	return v.Entries(from, f)
}

// merge calls f for the recipients of both iterators in order.
func (v *View) merge(deferred, aside *pebble.Iterator, f func(*Entry) bool) error {
	moreDeferred, moreAside := deferred.First(), aside.First()
	for moreDeferred || moreAside {
		if moreDeferred && (!moreAside || bytes.Compare(deferred.Key(), aside.Key()[1:]) < 0) {
			value, err := deferred.ValueAndErr()
			if err != nil {
				return readError(err)
			}
			l, ok, err := v.load(deferred.Key(), value, nil)
			if err != nil {
				return err
			}
			e := Entry{Loaded: l}
			if more, err := v.entry(&e, !ok, deferred.Key(), f); err != nil || !more {
				return err
			}
			moreDeferred = deferred.Next()
		} else {
			if more, err := v.entry(new(Entry), true, aside.Key()[1:], f); err != nil || !more {
				return err
			}
			moreAside = aside.Next()
		}
	}
	return nil
}

// entry calls f for a recipient. Of one that is set aside it reads what the key tells;
// if that has another form, it names no recipient.
func (v *View) entry(e *Entry, aside bool, k []byte, f func(*Entry) bool) (more bool, err error) {
	if aside {
		key, ok := parseKey(k)
		if !ok {
			return true, nil
		}
		e.Aside, e.Ref = true, key.Ref
		if e.Envelope, _, err = v.Envelope(key.TA); err != nil {
			return false, err
		}
	}
	return f(e), nil
}
