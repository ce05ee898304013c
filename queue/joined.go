package queue

import (
	"bytes"
	"crypto/rand"
	"fmt"

	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/store"
)

// spoolNameLen is the length of a spool's name, a random one.
const spoolNameLen = 16

// join makes sure that IBDB and DEFEDB are of one spool: each holds its name. If they
// are not, one of them is new, because its directory was lost, or comes from elsewhere.
// Then every complete content file must be known to one of them, or the start is
// refused: it would take the mail of the lost database for litter.
func (q *Queue) join() error {
	name, err := q.ibdb.Spool()
	if err != nil {
		return err
	}
	other, err := q.defedb.Spool()
	if err != nil {
		return err
	}
	if name != nil && bytes.Equal(name, other) {
		return nil
	}
	if err := q.noStrayMail(); err != nil {
		return err
	}
	if name == nil && other != nil {
		if err := q.noOldIDs(); err != nil {
			return err
		}
	}
	if name == nil {
		name = make([]byte, spoolNameLen)
		_, _ = rand.Read(name) // it never fails
		if err := q.ibdb.SetSpool(name); err != nil {
			return err
		}
	}
	return q.defedb.SetSpool(name)
}

// noStrayMail fails if there is a complete content file of which no database knows.
func (q *Queue) noStrayMail() error {
	var stray []smtp.ID
	err := q.cdb.List(func(f cdb.File) {
		if _, ok := q.recovery.known[f.TA]; !ok {
			stray = append(stray, f.TA)
		}
	}, func(string) {})
	if err != nil {
		return err
	}
	n := 0
	var first string
	for _, ta := range stray {
		if known, err := q.defedb.HasRcpts(ta); err != nil {
			return err
		} else if known {
			continue
		}
		if _, err := q.cdb.Envelope(ta); err != nil {
			continue // it was never acknowledged, or cannot be sent anyway
		}
		if n++; n == 1 {
			first = q.cdb.Path(ta)
		}
	}
	if n > 0 {
		return fmt.Errorf("%w: IBDB or DEFEDB is new or of another spool, and %d content files hold mail that neither knows, such as %s: run meta1 fsck",
			store.ErrDamaged, n, first)
	}
	return nil
}

// noOldIDs fails if the DEFEDB has transactions although the IBDB is new: that would hand
// out their ids once more, and give one the content of the other.
func (q *Queue) noOldIDs() error {
	_, used, err := q.defedb.Oldest()
	if err != nil || !used {
		return err
	}
	return fmt.Errorf("%w: the IBDB is new, and the DEFEDB holds mail: run meta1 fsck", store.ErrDamaged)
}
