package fsck

import (
	"context"
	"fmt"
	"strings"

	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/ibdb"
	"meta1/queue/salvage"
	"meta1/queue/store"
)

// memory is what a run knows of the time before the damage: which records may be
// missing, and what the logs say.
type memory struct {
	ibdb, defedb       []salvage.Damage
	ibdbAll, defedbAll bool
	logs               bool // were given
	again              bool // they are read again

	// tas are the transactions of interest.
	tas map[smtp.ID]*history
	// alive tells whether the mail of a transaction is still there.
	alive func(ta smtp.ID) bool
}

// history is what the logs say of a transaction.
type history struct {
	ended    map[int]bool
	replaced map[int][]replacement
	mail     string
	rcpts    []string
	more     int // recipients beyond rcptsShown
}

// replacement is a transaction that took the place of a recipient, together with
// others perhaps: a bounce, or what an alias stands for.
type replacement struct {
	by    smtp.ID
	rcpts int
	parts int // how many there are in all
}

// rcptsShown is how many recipients of a content without an envelope are remembered.
const rcptsShown = 100

func newMemory(i, d *database) *memory {
	m := &memory{tas: map[smtp.ID]*history{}}
	m.ibdb, m.ibdbAll = i.lostParts()
	m.defedb, m.defedbAll = d.lostParts()
	return m
}

func covered(parts []salvage.Damage, key []byte) bool {
	for i := range parts {
		if parts[i].Covers(key) {
			return true
		}
	}
	return false
}

func (m *memory) damaged() bool {
	return m.ibdbAll || m.defedbAll || len(m.ibdb)+len(m.defedb) > 0
}

func (m *memory) lostIBDB(key []byte) bool   { return m.ibdbAll || covered(m.ibdb, key) }
func (m *memory) lostDEFEDB(key []byte) bool { return m.defedbAll || covered(m.defedb, key) }

// depthMax bounds the replacements of replacements.
const depthMax = 16

func (m *memory) ended(ta smtp.ID, index int) bool { return m.endedIn(ta, index, depthMax) }

// endedIn: a recipient that was replaced has ended if all that replaced it is still
// there, or has ended itself. Else the mail would be lost along with that.
func (m *memory) endedIn(ta smtp.ID, index, depth int) bool {
	h := m.tas[ta]
	if h == nil {
		return false
	}
	if h.ended[index] {
		return true
	}
	list := h.replaced[index]
	if len(list) == 0 || len(list) < list[0].parts || depth == 0 {
		return false
	}
	for _, r := range list {
		if !m.alive(r.by) && !m.allEnded(r, depth-1) {
			return false
		}
	}
	return true
}

func (m *memory) allEnded(r replacement, depth int) bool {
	for i := range r.rcpts {
		if !m.endedIn(r.by, i, depth) {
			return false
		}
	}
	return r.rcpts > 0
}

func (m *memory) letter(ta smtp.ID) string {
	h := m.tas[ta]
	switch {
	case !m.logs:
		return "nothing is known of sender and recipients; logs were not given"
	case h == nil || h.mail == "" && len(h.rcpts) == 0:
		return "the logs say nothing of sender and recipients"
	}
	var b strings.Builder
	b.WriteString("mail=" + h.mail)
	for _, r := range h.rcpts {
		b.WriteString(" rcpt=" + r)
	}
	if h.more > 0 {
		fmt.Fprintf(&b, " and %d more", h.more)
	}
	return b.String()
}

// readLogs learns from the logs who has ended.
func (r *run) readLogs(ctx context.Context, m *memory) error {
	m.logs = true
	files := cdb.At(r.o.FS, r.o.Dirs.CDB)
	c := NewCheck(r.view(), Cursor{}, false)
	m.alive = func(ta smtp.ID) bool {
		if s, err := c.standing(ta); err == nil && s.known() {
			return true
		}
		_, err := files.Envelope(ta)
		return err == nil
	}
	if err := r.interest(m, files); err != nil {
		return err
	}
	for n := range depthMax {
		m.again = n > 0
		before := len(m.tas)
		for _, log := range r.o.Logs {
			if err := m.read(ctx, log); err != nil {
				return err
			}
		}
		if len(m.tas) == before { // no further replacement came up
			break
		}
	}
	for _, h := range m.tas {
		r.sum.LogEnds += len(h.ended)
	}
	return nil
}

// interest notes the transactions of which the logs may be asked: those with content
// that no database knows, and with a damaged database all others, too.
func (r *run) interest(m *memory, files *cdb.Store) error {
	c := NewCheck(r.view(), Cursor{}, false)
	note := func(ta smtp.ID) { m.tas[ta] = &history{} }
	for i := range digits {
		names, err := c.list(digits[i : i+1])
		if err != nil {
			return err
		}
		for _, name := range names {
			ta, err := smtp.ParseID(name)
			if err != nil {
				continue
			}
			s, err := c.standing(ta)
			if err != nil {
				return err
			}
			if !s.known() || m.damaged() {
				note(ta)
			}
		}
	}
	if !m.damaged() {
		return nil
	}
	all := func(db store.Reader, kind byte, parse func(k []byte) (smtp.ID, error)) error {
		return db.Scan([]byte{kind}, []byte{kind + 1}, func(k, _ []byte) (bool, error) {
			if ta, err := parse(k); err == nil {
				note(ta)
			}
			return true, nil
		})
	}
	err := all(r.ibdb.reader, byte(ibdb.KindEnvelope), func(k []byte) (smtp.ID, error) {
		key, err := ibdb.ParseKey(k)
		return key.TA, err
	})
	if err != nil {
		return err
	}
	return all(r.defedb.reader, byte(defedb.KindTA), func(k []byte) (smtp.ID, error) {
		key, err := defedb.ParseKey(k)
		return key.TA, err
	})
}
