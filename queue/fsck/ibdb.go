package fsck

import (
	"errors"
	"io/fs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/ibdb"
)

// ibdbRecord checks one record of the IBDB.
func (c *Check) ibdbRecord(k, v []byte) ([]found, error) {
	key, err := ibdb.ParseKey(k)
	if err != nil {
		f := newFound(Repairable, "ibdb-record", "a record of the IBDB has a key that no program wrote: %x", clip(k))
		return []found{f.repair(asideWords, asideIBDB(k, v))}, nil
	}
	switch key.Kind {
	case ibdb.KindContent:
		return c.ibdbContent(key, k, v)
	case ibdb.KindEnded:
		return c.ibdbEnded(key, k)
	case ibdb.KindEnvelope:
		return c.ibdbEnvelope(key, k, v)
	}
	return nil, nil
}

const asideWords = "--repair moves it to lost+found"

// clip shortens what is shown of a record.
func clip(b []byte) []byte { return b[:min(len(b), 40)] }

func asideIBDB(k, v []byte) func(*writer) (string, error) {
	k, v = clone(k), clone(v)
	return func(w *writer) (string, error) { return w.asideIBDB(k, v) }
}

func clone(b []byte) []byte { return append([]byte{}, b...) }

func (c *Check) ibdbContent(key ibdb.Key, k, v []byte) ([]found, error) {
	c.seen(key.TA)
	ok, err := c.has(c.v.IBDB, ibdb.Key{Kind: ibdb.KindEnvelope, TA: key.TA}.Bytes())
	if err != nil || ok {
		return nil, err
	}
	f := newFound(Loss, "content-stray", "the IBDB has content of %d bytes without an envelope", len(v)).ta(key.TA)
	return []found{f.repair(asideWords, asideIBDB(k, v))}, nil
}

func (c *Check) ibdbEnded(key ibdb.Key, k []byte) ([]found, error) {
	v, ok, err := c.v.IBDB.Get(ibdb.Key{Kind: ibdb.KindEnvelope, TA: key.TA}.Bytes())
	if err != nil {
		return nil, err
	}
	k = clone(k)
	remove := func(w *writer) (string, error) { return "it is removed", w.dropIBDB(k) }
	if !ok {
		f := newFound(Repairable, "ended-stray", "the IBDB says that a recipient has ended, and has no envelope of it").rcpt(key.TA, key.Index)
		return []found{f.repair("--repair removes the record", remove)}, nil
	}
	e, err := msg.DecodeEnvelope(v)
	if err != nil || key.Index < len(e.Rcpts) {
		return nil, nil // the envelope is looked at on its own
	}
	f := newFound(Repairable, "ended-index", "the IBDB says that recipient %d of %d has ended", key.Index, len(e.Rcpts)).rcpt(key.TA, key.Index)
	return []found{f.repair("--repair removes the record", remove)}, nil
}

func (c *Check) ibdbEnvelope(key ibdb.Key, k, v []byte) ([]found, error) {
	c.seen(key.TA)
	e, err := msg.DecodeEnvelope(v)
	if err != nil || e.TA != key.TA {
		words := "it is that of another transaction"
		if err != nil {
			words = err.Error()
		}
		return c.envelopeDamaged(key, k, v, words)
	}
	list, err := c.known(e)
	if err != nil {
		return nil, err
	}
	inline, err := c.has(c.v.IBDB, ibdb.Key{Kind: ibdb.KindContent, TA: key.TA}.Bytes())
	if err != nil {
		return nil, err
	}
	_, err = c.cdb.Stat(key.TA)
	switch {
	case inline && err == nil:
		deferred, derr := c.deferred(key.TA)
		if derr == nil && deferred == nil {
			list = append(list, newFound(Note, "content-twice", "the content is in the IBDB and in a file, a rest of a crash; that in the IBDB counts").ta(key.TA))
		}
		return list, derr
	case inline, err == nil:
		return list, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, cdb.ErrIncomplete):
		return append(list, c.noContent(key.TA, err)), nil
	}
	return list, err
}

// envelopeDamaged handles an envelope that cannot be used. It is replaced in one step, so
// that a crash does not leave a transaction that seems to be forgotten.
func (c *Check) envelopeDamaged(key ibdb.Key, k, v []byte, words string) ([]found, error) {
	f := newFound(Loss, "envelope-damaged", "the envelope in the IBDB cannot be used: %s", words).ta(key.TA)
	e, _, err := c.elsewhere(key.TA)
	if err != nil {
		return nil, err
	}
	aside := asideIBDB(k, v)
	if e == nil {
		return []found{f.repair(asideWords, aside)}, nil
	}
	k = clone(k)
	f.Severity = Repairable
	return []found{f.repair("--repair takes it from the content file", func(w *writer) (string, error) {
		if _, err := aside(w); err != nil {
			return "", err
		}
		return "it is taken from the content file", w.setIBDB(k, msg.AppendEnvelope(nil, e))
	})}, nil
}

// noContent is the loss of a content.
func (c *Check) noContent(ta smtp.ID, err error) found {
	f := newFound(Loss, "content-missing", "an envelope has no content; the next start bounces its recipients, so that the sender knows").ta(ta)
	f.Path = c.cdb.Path(ta)
	if errors.Is(err, cdb.ErrIncomplete) {
		f.Code = "content-damaged"
		f.Text = "the content file is cut short or damaged; the next start bounces the recipients, so that the sender knows"
	}
	return f
}

// known finds recipients that the IBDB takes for waiting, because it lost the record of
// their end, and of which it is known otherwise that they have ended.
func (c *Check) known(e *msg.Envelope) (list []found, err error) {
	if c.past == nil {
		return nil, nil
	}
	for i := range e.Rcpts {
		k := ibdb.Key{Kind: ibdb.KindEnded, TA: e.TA, Index: i}.Bytes()
		if !c.past.lostIBDB(k) || !c.past.ended(e.TA, i) {
			continue
		}
		if ok, err := c.has(c.v.IBDB, k); err != nil {
			return nil, err
		} else if ok {
			continue
		}
		f := newFound(Repairable, "ended-unknown", "the log says that the recipient has ended, and the damaged IBDB does not").rcpt(e.TA, i)
		list = append(list, f.repair("--repair ends it", func(w *writer) (string, error) {
			return "it is ended", w.setIBDB(k, nil)
		}))
	}
	return list, nil
}
