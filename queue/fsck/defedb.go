package fsck

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/ibdb"
)

// defedbRecord checks one record of the DEFEDB.
func (c *Check) defedbRecord(k, v []byte) ([]found, error) {
	key, err := defedb.ParseKey(k)
	if err != nil {
		f := newFound(Repairable, "defedb-record", "a record of the DEFEDB has a key that no program wrote: %x", clip(k))
		return []found{f.repair(asideWords, asideDEFEDB(k, v))}, nil
	}
	switch key.Kind {
	case defedb.KindDue, defedb.KindWait:
		return c.index(key, k)
	case defedb.KindRcpt:
		return c.rcpt(key, k, v)
	case defedb.KindTA:
		return c.transaction(key, k, v)
	}
	return nil, nil
}

func asideDEFEDB(k, v []byte) func(*writer) (string, error) {
	k, v = clone(k), clone(v)
	return func(w *writer) (string, error) { return w.asideDEFEDB(k, v) }
}

// index checks a record that says when, or for what, a recipient waits.
func (c *Check) index(key defedb.Key, k []byte) ([]found, error) {
	rk := defedb.Key{Kind: defedb.KindRcpt, TA: key.TA, Index: key.Index}.Bytes()
	v, ok, err := c.v.DEFEDB.Get(rk)
	if err != nil {
		return nil, err
	}
	if ok {
		st, err := defedb.DecodeRcpt(rk, v)
		if err != nil || slices.ContainsFunc(st.Indexes(), func(i []byte) bool { return bytes.Equal(i, k) }) {
			return nil, nil // the state is looked at on its own
		}
	}
	code, what := "due-stray", "an entry of the order of retries"
	if key.Kind == defedb.KindWait {
		code, what = "wait-stray", "an entry of those that wait for a destination"
	}
	k = clone(k)
	f := newFound(Repairable, code, "%s fits no recipient", what).rcpt(key.TA, key.Index)
	return []found{f.repair("--repair removes it", func(w *writer) (string, error) { return "it is removed", w.dropDEFEDB(k) })}, nil
}

// rcpt checks the state of a recipient.
func (c *Check) rcpt(key defedb.Key, k, v []byte) (list []found, err error) {
	e, err := c.deferred(key.TA)
	if err != nil {
		return nil, err
	}
	st, decodeErr := defedb.DecodeRcpt(k, v)
	switch {
	case e == nil:
		return c.rcptWithout(key, k, v)
	case key.Index >= len(e.Rcpts):
		f := newFound(Repairable, "rcpt-index", "the DEFEDB has recipient %d of %d", key.Index, len(e.Rcpts)).rcpt(key.TA, key.Index)
		return []found{f.repair(asideWords, asideDEFEDB(k, v))}, nil
	case decodeErr != nil:
		f := newFound(Repairable, "rcpt-damaged", "the state of a recipient cannot be read: %v", decodeErr).rcpt(key.TA, key.Index)
		aside := asideDEFEDB(k, v)
		return []found{f.repair("--repair makes a new one that is due now", func(w *writer) (string, error) {
			if _, err := aside(w); err != nil {
				return "", err
			}
			return "a new one is due now", w.due(key.TA, key.Index, "its state could not be read")
		})}, nil
	case c.past != nil && c.past.lostDEFEDB(k) && c.past.ended(key.TA, key.Index):
		f := newFound(Repairable, "rcpt-ended", "the log says that the recipient has ended, and the damaged DEFEDB does not").rcpt(key.TA, key.Index)
		return []found{f.repair("--repair ends it", func(w *writer) (string, error) {
			return "it is ended", errors.Join(w.dropDEFEDB(append(st.Indexes(), clone(k))...))
		})}, nil
	}
	for _, i := range st.Indexes() {
		if ok, err := c.has(c.v.DEFEDB, i); err != nil {
			return nil, err
		} else if ok {
			continue
		}
		code, words := "due-missing", "a recipient has no entry in the order of retries, and would never be tried"
		if i[0] == byte(defedb.KindWait) {
			code, words = "wait-missing", "a recipient has no entry among those that wait for its destination"
		}
		f := newFound(Repairable, code, "%s", words).rcpt(key.TA, key.Index)
		list = append(list, f.repair("--repair makes it", func(w *writer) (string, error) { return "it is made", w.setDEFEDB(i, nil) }))
	}
	twice, err := c.twice(key)
	if twice {
		list = append(list, newFound(Note, "rcpt-twice", "the recipient is in the IBDB, too, a rest of a crash; the DEFEDB counts").rcpt(key.TA, key.Index))
	}
	return list, err
}

// twice tells whether the IBDB still has a recipient.
func (c *Check) twice(key defedb.Key) (bool, error) {
	ok, err := c.has(c.v.IBDB, ibdb.Key{Kind: ibdb.KindEnvelope, TA: key.TA}.Bytes())
	if err != nil || !ok {
		return false, err
	}
	ended, err := c.has(c.v.IBDB, ibdb.Key{Kind: ibdb.KindEnded, TA: key.TA, Index: key.Index}.Bytes())
	return !ended, err
}

// rcptWithout handles the state of a recipient whose envelope is missing in the DEFEDB.
func (c *Check) rcptWithout(key defedb.Key, k, v []byte) ([]found, error) {
	f := newFound(Loss, "transaction-missing", "the DEFEDB has a recipient and no envelope of it, nor has another place").rcpt(key.TA, key.Index)
	e, size, err := c.elsewhere(key.TA)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return []found{f.repair(asideWords, asideDEFEDB(k, v))}, nil
	}
	f.Severity, f.Text = Repairable, "the DEFEDB has a recipient and no envelope of it"
	return []found{f.repair("--repair takes it from the content file", func(w *writer) (string, error) {
		return "it is taken from the content file", w.putTA(e, size)
	})}, nil
}

// elsewhere finds an envelope and the size of its content behind the content.
func (c *Check) elsewhere(ta smtp.ID) (*msg.Envelope, int64, error) {
	kept, err := c.cdb.Envelope(ta)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, cdb.ErrIncomplete) || notRegular(err) {
		return nil, 0, nil
	}
	return kept.Envelope, kept.Size, err
}

// transaction checks the envelope of a transaction.
func (c *Check) transaction(key defedb.Key, k, v []byte) ([]found, error) {
	c.seen(key.TA)
	e, size, err := defedb.DecodeTA(v)
	if err != nil || e.TA != key.TA {
		return c.transactionDamaged(key, k, v, err)
	}
	var list []found
	have, err := c.cdb.Stat(key.TA)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, cdb.ErrIncomplete), notRegular(err):
		list = append(list, c.noContent(key.TA, err))
	case err != nil:
		return nil, err
	case have != size:
		f := newFound(Loss, "content-size", "the content has %d bytes, and had %d when it was stored", have, size).ta(key.TA)
		f.Path = c.cdb.Path(key.TA)
		list = append(list, f)
	}
	used := false
	lower, upper := defedb.RcptRange(key.TA)
	err = c.v.DEFEDB.Scan(lower, upper, func(_, _ []byte) (bool, error) {
		used = true
		return false, nil
	})
	if err != nil || used {
		return list, err
	}
	k = clone(k)
	f := newFound(Note, "transaction-unused", "the DEFEDB has an envelope and no recipient of it, a rest of a crash").ta(key.TA)
	f = f.repair("--repair removes it", func(w *writer) (string, error) { return "it is removed", w.dropDEFEDB(k) })
	return []found{f}, nil // its content, if there is one, is looked at on its own
}

func (c *Check) transactionDamaged(key defedb.Key, k, v []byte, decodeErr error) ([]found, error) {
	words := "it is that of another transaction"
	if decodeErr != nil {
		words = decodeErr.Error()
	}
	f := newFound(Loss, "transaction-damaged", "the envelope in the DEFEDB cannot be used: %s", words).ta(key.TA)
	e, size, err := c.elsewhere(key.TA)
	if err != nil {
		return nil, err
	}
	aside := asideDEFEDB(k, v)
	if e == nil {
		return []found{f.repair(asideWords, aside)}, nil
	}
	f.Severity = Repairable
	return []found{f.repair("--repair takes it from the content file", func(w *writer) (string, error) {
		if _, err := aside(w); err != nil {
			return "", err
		}
		return "it is taken from the content file", w.putTA(e, size)
	})}, nil
}
