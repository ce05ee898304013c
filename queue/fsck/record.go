package fsck

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"syscall"

	"meta1/mta/cdb"
	"meta1/mta/smtp"
	"meta1/queue/records"
)

const (
	asideWords  = "--repair sets it aside"
	removeWords = "--repair removes it"
	fromFile    = "--repair takes it from the content file"
	dueWords    = "--repair makes a new one that is due now"
)

// record checks one record of the store against the rules of package records.
func (c *Check) record(k, v []byte) ([]found, error) {
	key, err := records.ParseKey(k)
	if err != nil {
		f := newFound(Repairable, "record-key", "a record has a key that no program wrote: %.40x", k)
		return []found{f.repair(asideWords, aside(k, v))}, nil
	}
	switch key.Kind {
	case records.KindEnvelope:
		c.seen(key.TA)
		return c.envelope(key.TA, k, v)
	case records.KindContent:
		c.seen(key.TA)
		return c.inlineContent(key.TA, k, v)
	case records.KindAccepted, records.KindEnded, records.KindDeferred:
		return c.ofMessage(key, k, v)
	case records.KindDue, records.KindParked:
		return c.index(key, k)
	case records.KindAside:
		return c.setAside([]byte(key.Old), v)
	}
	return nil, nil
}

// aside is a repair that sets a record aside.
func aside(k, v []byte, indexes ...[]byte) func(*writer) (string, error) {
	b := records.Broken{Key: bytes.Clone(k), Value: bytes.Clone(v), Indexes: indexes}
	return func(w *writer) (string, error) { return "it is set aside", w.setAside(b) }
}

// remove is a repair that removes records of which nobody misses anything.
func remove(keys ...[]byte) func(*writer) (string, error) {
	for i := range keys {
		keys[i] = bytes.Clone(keys[i])
	}
	return func(w *writer) (string, error) { return "it is removed", w.remove(keys...) }
}

// message is what the store says of a message as a whole.
type message struct {
	ta       smtp.ID
	there    bool // it has an envelope
	envelope records.Envelope
	broken   error // why the envelope cannot be used
	aside    bool  // an envelope of it was set aside
	fresh    bool  // some recipients are said to be fresh
	// freshAside: the record that says so was set aside
	freshAside bool
}

// usable reports whether the envelope can be read.
func (m *message) usable() bool { return m.there && m.broken == nil }

// message reads what concerns a message as a whole. The last one is remembered, because
// records of one message often stand together.
func (c *Check) message(ta smtp.ID) (*message, error) {
	if c.last != nil && c.last.ta == ta {
		return c.last, nil
	}
	m := &message{ta: ta}
	k := records.Key{Kind: records.KindEnvelope, Ref: records.Ref{TA: ta}}
	v, ok, err := c.v.Store.Get(k.Bytes())
	if err != nil {
		return nil, err
	}
	if m.there = ok; ok {
		m.envelope, m.broken = records.DecodeEnvelope(ta, v)
	}
	if m.aside, err = c.has(records.Key{Kind: records.KindAside, Old: string(k.Bytes())}.Bytes()); err != nil {
		return nil, err
	}
	k.Kind = records.KindAccepted
	if m.fresh, err = c.has(k.Bytes()); err != nil {
		return nil, err
	}
	if m.freshAside, err = c.has(asideKey(k.Bytes())); err != nil {
		return nil, err
	}
	c.last = m
	return m, nil
}

func (c *Check) has(key []byte) (bool, error) {
	_, ok, err := c.v.Store.Get(key)
	return ok, err
}

func rcptKey(kind records.Kind, r records.Ref) []byte { return records.Key{Kind: kind, Ref: r}.Bytes() }

func asideKey(old []byte) []byte {
	return records.Key{Kind: records.KindAside, Old: string(old)}.Bytes()
}

// indexes lists the recipients of a message that have a record of a kind, or whose record
// was set aside.
func (c *Check) indexes(kind records.Kind, ta smtp.ID, set bool) (map[int]bool, error) {
	lower, upper := rcptKey(kind, records.Ref{TA: ta}), rcptKey(kind, records.Ref{TA: ta, Index: indexMax})
	if set {
		lower, upper = asideKey(lower), asideKey(upper)
	}
	list := map[int]bool{}
	err := c.v.Store.Scan(lower, upper, func(k, _ []byte) (bool, error) {
		if set {
			k = k[1:]
		}
		if key, err := records.ParseKey(k); err == nil {
			list[key.Index] = true
		}
		return true, nil
	})
	return list, err
}

const indexMax = 1<<31 - 1

// rcpts are the recipients of a message that have a record. The others are fresh if the
// message says that some are, and have ended if it does not.
type rcpts struct{ ended, deferred, aside map[int]bool }

func (r *rcpts) listed(i int) bool { return r.ended[i] || r.deferred[i] || r.aside[i] }

func (c *Check) rcpts(ta smtp.ID) (r rcpts, err error) {
	if r.ended, err = c.indexes(records.KindEnded, ta, false); err != nil {
		return r, err
	}
	if r.deferred, err = c.indexes(records.KindDeferred, ta, false); err != nil {
		return r, err
	}
	r.aside, err = c.indexes(records.KindDeferred, ta, true)
	return r, err
}

// envelope checks the record of a message, its content, and whether its recipients are
// all accounted for.
func (c *Check) envelope(ta smtp.ID, k, v []byte) ([]found, error) {
	m, err := c.message(ta)
	if err != nil {
		return nil, err
	}
	e := m.envelope
	if m.broken != nil {
		f := newFound(Loss, "envelope-damaged", "the envelope cannot be used: %v", m.broken).ta(ta)
		kept, ok, err := c.inFile(ta)
		if err != nil || !ok {
			return []found{f.repair(asideWords, aside(k, v))}, err
		}
		f.Severity = Repairable
		k, v = bytes.Clone(k), bytes.Clone(v)
		return []found{f.repair(fromFile, func(w *writer) (string, error) {
			return "it is taken from the content file", errors.Join(w.keep(k, v), w.envelope(kept))
		})}, nil
	}
	list, err := c.contentOf(ta, &e)
	if err != nil {
		return nil, err
	}
	r, err := c.rcpts(ta)
	if err != nil {
		return nil, err
	}
	var open []int // recipients that may be lost, or may have ended
	fresh := false
	for i := range e.Rcpts {
		if r.listed(i) {
			continue
		}
		ref := records.Ref{TA: ta, Index: i}
		switch {
		case m.fresh && c.past.lost(rcptKey(records.KindEnded, ref)) && c.past.hasEnded(ref):
			f := newFound(Repairable, "rcpt-ended", "the log says that the recipient has ended, and the damaged store does not").rcpt(ref)
			list = append(list, f.repair("--repair ends it", func(w *writer) (string, error) {
				return "it is ended", w.set(rcptKey(records.KindEnded, ref), nil)
			}))
		case m.fresh || m.freshAside:
			fresh = true
		case (c.past.lost(rcptKey(records.KindDeferred, ref)) || c.past.lost(messageKey(records.KindAccepted, ta))) && !c.past.hasEnded(ref):
			open = append(open, i)
		}
	}
	switch {
	case len(open) > 0:
		f := newFound(Repairable, "recipients-lost", "%d of %d recipients were lost, or had ended", len(open), len(e.Rcpts)).ta(ta)
		list = append(list, f.repair("--repair makes them due now", func(w *writer) (string, error) {
			w.rebuilt += len(open)
			return "they are due now", w.due(ta, open, "it was lost from a damaged store")
		}))
	case m.fresh && !fresh:
		f := newFound(Note, "message-settled", "a message is said to have fresh recipients, and has none").ta(ta)
		list = append(list, f.repair(removeWords, func(w *writer) (string, error) {
			return "it is removed", w.b.DropAccepted(ta, slices.Collect(maps.Keys(r.ended)))
		}))
	case !m.fresh && !m.freshAside && len(r.deferred)+len(r.aside) == 0:
		f := newFound(Note, "message-ended", "a message all of whose recipients have ended").ta(ta)
		list = append(list, f.repair(removeWords, func(w *writer) (string, error) {
			return "it is removed", w.remove(messageKey(records.KindEnvelope, ta), messageKey(records.KindContent, ta))
		}))
	}
	return list, nil
}

func messageKey(kind records.Kind, ta smtp.ID) []byte { return rcptKey(kind, records.Ref{TA: ta}) }

// contentOf checks the content of a message whose envelope can be read.
func (c *Check) contentOf(ta smtp.ID, e *records.Envelope) ([]found, error) {
	f := newFound(Loss, "content-missing", "a message has no content; the next start bounces its recipients, so that the sender knows").ta(ta)
	have, inline, err := c.inStore(ta)
	if err != nil {
		return nil, err
	}
	if !e.Inline || !inline { // it was too large, or was spilled
		f.Path = c.cdb.Path(ta)
		have, err = c.cdb.Stat(ta)
		switch {
		case errors.Is(err, cdb.ErrIncomplete):
			f.Code = "content-damaged"
			f.Text = "the content file is cut short or damaged; the next start bounces the recipients, so that the sender knows"
			return []found{f}, nil
		case errors.Is(err, fs.ErrNotExist), notRegular(err):
			return []found{f}, nil
		case err != nil:
			return nil, err
		}
	}
	if have != e.Size {
		f = newFound(Loss, "content-size", "the content has %d bytes, and had %d when it was stored", have, e.Size).ta(ta).path(f.Path)
		return []found{f}, nil
	}
	return nil, nil
}

// inStore is the size of the content of a message that the store has. ok is false if it has
// none: it is in a file then.
func (c *Check) inStore(ta smtp.ID) (size int64, ok bool, err error) {
	v, ok, err := c.v.Store.Get(messageKey(records.KindContent, ta))
	return int64(len(v)), ok, err
}

// notRegular reports whether an error says that a name is no regular file.
func notRegular(err error) bool {
	var e *fs.PathError
	return errors.As(err, &e) && e.Op == "stat" && !errors.As(err, new(syscall.Errno))
}

// inFile finds the envelope of a message behind its content. ok is false if there is none.
func (c *Check) inFile(ta smtp.ID) (e records.Envelope, ok bool, err error) {
	kept, err := c.cdb.Envelope(ta)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, cdb.ErrIncomplete) || notRegular(err) {
		return records.Envelope{}, false, nil
	}
	return records.Envelope{Envelope: kept.Envelope, Size: kept.Size}, err == nil, err
}

// inlineContent checks that content has an envelope.
func (c *Check) inlineContent(ta smtp.ID, k, v []byte) ([]found, error) {
	m, err := c.message(ta)
	if err != nil || m.there && (m.broken != nil || m.envelope.Inline) || m.aside {
		return nil, err
	}
	f := newFound(Loss, "content-alone", "content of %d bytes without an envelope", len(v)).ta(ta)
	if m.there {
		f = newFound(Note, "content-unused", "content of %d bytes of a message whose content is in a file", len(v)).ta(ta)
	}
	k, v = bytes.Clone(k), bytes.Clone(v)
	return []found{f.repair("--repair moves it to lost+found", func(w *writer) (string, error) {
		return "it is in lost+found", errors.Join(w.keep(k, v), w.remove(k))
	})}, nil
}

// ofMessage checks a record that may only stand beside an envelope.
func (c *Check) ofMessage(key records.Key, k, v []byte) ([]found, error) {
	m, err := c.message(key.TA)
	if err != nil || m.there && m.broken != nil { // the envelope is looked at on its own
		return nil, err
	}
	if !m.there {
		return c.noEnvelope(key, k, v)
	}
	ref := key.Ref
	if key.Kind != records.KindAccepted && ref.Index >= len(m.envelope.Rcpts) {
		f := newFound(Repairable, "rcpt-index", "there is a record of recipient %d of %d", ref.Index, len(m.envelope.Rcpts)).rcpt(ref)
		return []found{f.repair(asideWords, aside(k, v, stateIndexes(ref, key.Kind, v)...))}, nil
	}
	switch key.Kind {
	case records.KindEnded:
		if m.fresh || m.freshAside {
			return nil, nil
		}
		f := newFound(Note, "ended-leftover", "a recipient is said to have ended beside none that are fresh").rcpt(ref)
		return []found{f.repair(removeWords, remove(k))}, nil
	case records.KindDeferred:
		return c.deferred(ref, k, v)
	}
	return nil, nil
}

// stateIndexes are the index records of a state, if it is one.
func stateIndexes(r records.Ref, kind records.Kind, v []byte) [][]byte {
	if st, err := records.DecodeState(r, v); err == nil && kind == records.KindDeferred {
		return records.Indexes(&st)
	}
	return nil
}

// noEnvelope handles a record of a message whose envelope is missing.
func (c *Check) noEnvelope(key records.Key, k, v []byte) ([]found, error) {
	f := newFound(Loss, "envelope-missing", "a message has no envelope, nor has another place").ta(key.TA)
	if key.Kind != records.KindAccepted {
		f = f.rcpt(key.Ref)
	}
	e, ok, err := c.inFile(key.TA)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return []found{f.repair(asideWords, aside(k, v, stateIndexes(key.Ref, key.Kind, v)...))}, nil
	}
	f.Severity, f.Text = Repairable, "a message has no envelope"
	return []found{f.repair(fromFile, func(w *writer) (string, error) {
		return "it is taken from the content file", w.envelope(e)
	})}, nil
}

// deferred checks the state of a recipient.
func (c *Check) deferred(ref records.Ref, k, v []byte) (list []found, err error) {
	st, broken := records.DecodeState(ref, v)
	if broken != nil {
		f := newFound(Repairable, "rcpt-damaged", "the state of a recipient cannot be read: %v", broken).rcpt(ref)
		k, v = bytes.Clone(k), bytes.Clone(v)
		return []found{f.repair(dueWords, func(w *writer) (string, error) {
			return "a new one is due now", errors.Join(w.keep(k, v), w.due(ref.TA, []int{ref.Index}, "its state could not be read"))
		})}, nil
	}
	ended, err := c.has(rcptKey(records.KindEnded, ref))
	if err != nil {
		return nil, err
	}
	if ended || c.past.lost(k) && c.past.hasEnded(ref) {
		f := newFound(Repairable, "rcpt-ended", "the recipient has ended, and is still to be tried").rcpt(ref)
		m, err := c.message(ref.TA)
		return []found{f.repair("--repair ends it", func(w *writer) (string, error) {
			return "it is ended", w.b.EndDeferred(&st, m.fresh)
		})}, err
	}
	for _, i := range records.Indexes(&st) {
		if ok, err := c.has(i); err != nil {
			return nil, err
		} else if ok {
			continue
		}
		code, words := "due-missing", "a recipient is not in the due index, and would never be tried"
		if records.Kind(i[0]) == records.KindParked {
			code, words = "parked-missing", "a recipient is not in the parked index of its destination"
		}
		f := newFound(Repairable, code, "%s", words).rcpt(ref)
		list = append(list, f.repair("--repair makes the entry", func(w *writer) (string, error) { return "it is made", w.set(i, nil) }))
	}
	return list, nil
}

// index checks an index record.
func (c *Check) index(key records.Key, k []byte) ([]found, error) {
	v, ok, err := c.v.Store.Get(rcptKey(records.KindDeferred, key.Ref))
	if err != nil {
		return nil, err
	}
	if ok {
		st, err := records.DecodeState(key.Ref, v)
		if err != nil || slices.ContainsFunc(records.Indexes(&st), func(i []byte) bool { return bytes.Equal(i, k) }) {
			return nil, nil // the state is looked at on its own
		}
	}
	code := "due-leftover"
	if key.Kind == records.KindParked {
		code = "parked-leftover"
	}
	f := newFound(Repairable, code, "an index record fits no recipient").rcpt(key.Ref)
	return []found{f.repair(removeWords, remove(k))}, nil
}

// setAside checks a record that was set aside. It goes back where it can be used again;
// else it stays where it is.
func (c *Check) setAside(old, v []byte) ([]found, error) {
	key, broken := records.ParseKey(old)
	if broken != nil {
		return []found{newFound(Note, "aside", "a record with a key that no program wrote is set aside: %.40x", old)}, nil
	}
	f := newFound(Loss, "aside", "a record that could not be read is set aside: %s", kindName(key.Kind)).ta(key.TA)
	if key.Kind == records.KindEnded || key.Kind == records.KindDeferred {
		f = f.rcpt(key.Ref)
	}
	m, err := c.message(key.TA)
	if err != nil {
		return nil, err
	}
	old, v = bytes.Clone(old), bytes.Clone(v)
	words := "--repair puts it back"
	var put func(w *writer) error // nil: it cannot be used
	switch inRange := m.usable() && key.Index < len(m.envelope.Rcpts); key.Kind {
	case records.KindEnvelope:
		e, broken := records.DecodeEnvelope(key.TA, v)
		usable := broken == nil
		if !usable {
			if e, usable, err = c.inFile(key.TA); err != nil {
				return nil, err
			}
			words = fromFile
		}
		if usable && !m.there {
			put = func(w *writer) error { return w.envelope(e) }
		}
	case records.KindAccepted, records.KindEnded:
		f.Severity = Note // what became of the envelope is told
		if isAccepted := key.Kind == records.KindAccepted; isAccepted && m.usable() && !m.aside && !m.fresh || !isAccepted && inRange && m.fresh {
			put = func(w *writer) error { return w.set(old, nil) }
		}
	case records.KindDeferred:
		ended, err := c.has(rcptKey(records.KindEnded, key.Ref))
		if err != nil {
			return nil, err
		}
		newer, err := c.has(old)
		if err != nil {
			return nil, err
		}
		st, broken := records.DecodeState(key.Ref, v)
		switch {
		case newer || ended:
			f.Severity = Note
			f.Text += "; there is a newer one"
		case inRange && broken == nil:
			put = func(w *writer) error { return w.b.Put(&st, nil) }
		case inRange:
			words = dueWords
			put = func(w *writer) error { return w.due(key.TA, []int{key.Index}, "its state could not be read") }
		}
	default:
		f.Severity = Note
	}
	if put == nil {
		return []found{f}, nil
	}
	f.Severity = Repairable
	return []found{f.repair(words, func(w *writer) (string, error) {
		return "it is back", errors.Join(w.keep(old, v), put(w), w.b.DropAside(old))
	})}, nil
}

// kindName says what a record is.
func kindName(k records.Kind) string {
	switch k {
	case records.KindEnvelope:
		return "an envelope"
	case records.KindAccepted:
		return "that a message has fresh recipients"
	case records.KindEnded:
		return "the end of a recipient"
	case records.KindDeferred:
		return "the state of a deferred recipient"
	case records.KindContent:
		return "content"
	}
	return "one of another kind"
}
