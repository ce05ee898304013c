package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/ibdb"
)

// digits are the names of the content directories, by number.
const digits = "0123456789ABCDEF"

// notRegular tells whether an error says that a name is no regular file.
func notRegular(err error) bool {
	var e *fs.PathError
	return errors.As(err, &e) && e.Op == "stat" && !errors.As(err, new(syscall.Errno))
}

// contentFiles examines content files, directory by directory, each in the order of the
// names. The cursor's key is DIGIT/NAME of the next one.
func (c *Check) contentFiles(ctx context.Context) (all []found, done bool, err error) {
	at := string(c.cur.Key)
	for i := range digits {
		dir := digits[i : i+1]
		if at != "" && dir < at[:1] {
			continue
		}
		if c.shard != i {
			if c.names, err = c.list(dir); err != nil {
				return all, false, err
			}
			c.shard = i
		}
		start, _ := slices.BinarySearchFunc(c.names, at, func(name, at string) int { return strings.Compare(dir+"/"+name, at) })
		for _, name := range c.names[start:] {
			key := dir + "/" + name
			if c.full() {
				c.cur.Key = []byte(key)
				return all, false, nil
			}
			list, err := c.contentFile(ctx, key)
			all = append(all, c.took(list, place{StepContent, key})...)
			if err != nil {
				return all, false, err
			}
		}
	}
	return all, true, nil
}

// list gives the names in a content directory, sorted. One that is missing is empty.
func (c *Check) list(dir string) ([]string, error) {
	names, err := c.v.FS.List(filepath.Join(c.v.Dirs.CDB, dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing content files: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// contentFile checks one file. key is DIGIT/NAME.
func (c *Check) contentFile(ctx context.Context, key string) ([]found, error) {
	path := filepath.Join(c.v.Dirs.CDB, key)
	info, err := c.v.FS.Info(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking at content: %w", err)
	}
	ta, err := smtp.ParseID(filepath.Base(key))
	if words := stranger(key, ta, err, info); words != "" {
		f := newFound(Note, "stranger", "%s; it is left alone", words)
		f.Path = path
		return []found{f}, nil
	}
	var list []found
	if words := c.unsafe(info); words != "" {
		f := newFound(Note, "unsafe", "%s", words).ta(ta)
		f.Path = path
		list = append(list, f)
	}
	c.seen(ta)
	more, err := c.contentOf(ctx, ta, path)
	return append(list, more...), err
}

// stranger says why a name is no content file, "" if it is one.
func stranger(key string, ta smtp.ID, err error, info fs.FileInfo) string {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return "a symbolic link"
	case !info.Mode().IsRegular():
		return "no regular file"
	case err != nil:
		return "its name is no identifier of a transaction"
	case digits[ta.Shard()] != key[0]:
		return "it is in the wrong directory for its identifier"
	}
	return ""
}

// unsafe says what is wrong with the owner and the mode of a file.
func (c *Check) unsafe(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || c.v.UID < 0 {
		return ""
	}
	switch {
	case int(st.Uid) != c.v.UID && st.Uid != 0:
		return fmt.Sprintf("it belongs to user %d, who could change it; chown it to user %d", st.Uid, c.v.UID)
	case int(st.Uid) != c.v.UID:
		return fmt.Sprintf("it belongs to root; chown it to user %d", c.v.UID)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Sprintf("others may write it (mode %04o): chmod go-w", info.Mode().Perm())
	}
	return ""
}

// contentOf checks a content file against the databases.
func (c *Check) contentOf(ctx context.Context, ta smtp.ID, path string) (list []found, err error) {
	s, err := c.standing(ta)
	if err != nil {
		return nil, err
	}
	kept, err := c.cdb.Envelope(ta)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case errors.Is(err, cdb.ErrIncomplete):
		if s.known() {
			return nil, nil // the envelope's check tells
		}
		return []found{c.litter(ta, path, c.letter(ta))}, nil
	case err != nil:
		return nil, err
	}
	if c.content || !s.known() {
		err := c.verify(ctx, ta)
		switch {
		case err == nil:
		case !errors.Is(err, cdb.ErrIncomplete):
			if errors.Is(err, fs.ErrNotExist) {
				return nil, nil
			}
			return nil, err
		case s.known():
			return c.wrongSum(ta, path, s)
		default:
			return []found{c.litter(ta, path, letterOf(kept.Envelope, all(len(kept.Envelope.Rcpts))))}, nil
		}
	}
	if f, ok := c.unknown(ta, path, s, kept); ok {
		list = append(list, f)
	}
	return list, nil
}

// litter is a content file that cannot be sent and that no database knows.
func (c *Check) litter(ta smtp.ID, path, letter string) found {
	f := newFound(Note, "content-litter", "a content file that is incomplete or damaged, and without an envelope in a database: a rest of a crash that was never acknowledged").ta(ta)
	if c.past != nil && c.mayBeLost(ta, 0, false) {
		f.Severity = Loss
		f.Text = "a content file that is incomplete or damaged, and its envelope was lost, or it was never acknowledged"
	}
	f.Path = path
	return f.repair(asideWords, func(w *writer) (string, error) { return w.asideContent(ta, letter) })
}

// wrongSum is a content whose checksum is wrong. If the IBDB has it, too, the file is a
// rest of a crash.
func (c *Check) wrongSum(ta smtp.ID, path string, s standing) ([]found, error) {
	if s.inIBDB && !s.inDEFEDB {
		if inline, err := c.has(c.v.IBDB, ibdb.Key{Kind: ibdb.KindContent, TA: ta}.Bytes()); err != nil || inline {
			return nil, err
		}
	}
	f := newFound(Loss, "content-checksum", "the checksum of the content is wrong; the next attempt bounces its recipients, so that the sender knows").ta(ta)
	f.Path = path
	return []found{f}, nil
}

// all are the first n indexes.
func all(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func (c *Check) letter(ta smtp.ID) string {
	if c.past == nil {
		return ""
	}
	return c.past.letter(ta)
}

// verifyPiece is how much content is read before the context is asked.
const verifyPiece = 256 << 10

// verify reads a content and compares its checksum.
func (c *Check) verify(ctx context.Context, ta smtp.ID) error {
	r, err := c.cdb.Open(ta)
	if err != nil {
		return err
	}
	defer r.Close() // it was only read
	b := make([]byte, verifyPiece)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := r.Read(b); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// standing is what the databases say of a transaction.
type standing struct {
	inIBDB, inDEFEDB bool
	ended            map[int]bool // has a record of its end in the IBDB
	waiting          map[int]bool // is in the DEFEDB
}

func (s *standing) known() bool { return s.inIBDB || s.inDEFEDB }

func (c *Check) standing(ta smtp.ID) (s standing, err error) {
	if s.inIBDB, err = c.has(c.v.IBDB, ibdb.Key{Kind: ibdb.KindEnvelope, TA: ta}.Bytes()); err != nil {
		return s, err
	}
	lower, upper := defedb.RcptRange(ta)
	err = c.v.DEFEDB.Scan(lower, upper, func(k, _ []byte) (bool, error) {
		s.inDEFEDB = true
		if c.past == nil {
			return false, nil // that is all we want to know
		}
		if key, err := defedb.ParseKey(k); err == nil {
			if s.waiting == nil {
				s.waiting = map[int]bool{}
			}
			s.waiting[key.Index] = true
		}
		return true, nil
	})
	if err != nil || c.past == nil || !s.inIBDB {
		return s, err
	}
	s.ended = map[int]bool{}
	lower = ibdb.Key{Kind: ibdb.KindEnded, TA: ta}.Bytes()
	err = c.v.IBDB.Scan(lower, ibdb.Key{Kind: ibdb.KindEnded, TA: ta, Index: indexMax}.Bytes(), func(k, _ []byte) (bool, error) {
		if key, err := ibdb.ParseKey(k); err == nil {
			s.ended[key.Index] = true
		}
		return true, nil
	})
	return s, err
}

const indexMax = 1<<31 - 1

// unknown finds recipients of a content file of which no database says what has become
// of them, because that was lost: they are to be tried again.
func (c *Check) unknown(ta smtp.ID, path string, s standing, kept cdb.Kept) (found, bool) {
	if s.known() && c.past == nil {
		return found{}, false
	}
	open, lost := c.unaccounted(ta, s, kept)
	switch {
	case len(open) > 0:
		f := c.orphan(ta, s, kept, open, lost)
		f.Path = path
		return f, true
	case s.known():
		return found{}, false
	}
	f := newFound(Note, "content-ended", "content of which all recipients have ended; a running meta1 removes it").ta(ta)
	f.Path = path
	return f.repair(asideWords, func(w *writer) (string, error) {
		return w.asideContent(ta, "all recipients have ended")
	}), true
}

// unaccounted lists the recipients of whom nothing says that they wait or have ended.
// lost says that a record which did may have been lost.
func (c *Check) unaccounted(ta smtp.ID, s standing, kept cdb.Kept) (open []int, lost bool) {
	over := map[int]bool{}
	for _, i := range kept.Ended {
		over[i] = true
	}
	for i := range kept.Envelope.Rcpts {
		if s.waiting[i] || s.inIBDB && !s.ended[i] {
			continue
		}
		may := c.past != nil && c.mayBeLost(ta, i, s.inIBDB)
		if s.known() && !may {
			continue // it has ended
		}
		lost = lost || may
		if !over[i] && (c.past == nil || !c.past.ended(ta, i)) {
			open = append(open, i)
		}
	}
	return open, lost
}

// orphan is a content with recipients that are open.
func (c *Check) orphan(ta smtp.ID, s standing, kept cdb.Kept, open []int, lost bool) found {
	total := len(kept.Envelope.Rcpts)
	f := newFound(Note, "content-orphan", "content that no database knows, for %d of %d recipients: a rest of a crash, that a running meta1 removes after orphan_grace", len(open), total).ta(ta)
	switch {
	case lost && s.known():
		f = newFound(Loss, "recipients-lost", "%d of %d recipients were lost, or had ended", len(open), total).ta(ta)
	case lost:
		f = newFound(Loss, "recipients-lost", "the envelope of %d of %d recipients was lost", len(open), total).ta(ta)
	}
	aside := func(w *writer) (string, error) { return w.asideContent(ta, letterOf(kept.Envelope, open)) }
	switch {
	case s.known(): // nobody would find them again after the repair
		f.Severity = Repairable
		return f.repair("--repair makes them anew", c.remake(kept, open, s))
	case c.rebuild:
		if lost {
			f.Severity = Repairable
		}
		return f.repair("--rebuild makes them anew", c.remake(kept, open, s))
	case lost:
		return f.repair("--rebuild makes them anew; --repair alone moves the content to lost+found", aside)
	}
	return f.repair("--repair moves it to lost+found; --rebuild sends it", aside)
}

// mayBeLost tells whether a record that says that a recipient waits may have been lost.
func (c *Check) mayBeLost(ta smtp.ID, index int, inIBDB bool) bool {
	if c.past.lostDEFEDB(defedb.Key{Kind: defedb.KindRcpt, TA: ta, Index: index}.Bytes()) {
		return true
	}
	return !inIBDB && c.past.lostIBDB(ibdb.Key{Kind: ibdb.KindEnvelope, TA: ta}.Bytes())
}

// remake puts recipients into the DEFEDB.
func (c *Check) remake(kept cdb.Kept, open []int, s standing) func(*writer) (string, error) {
	return func(w *writer) (string, error) {
		ta := kept.Envelope.TA
		if err := w.putTA(kept.Envelope, kept.Size); err != nil {
			return "", err
		}
		for _, i := range open {
			if err := w.due(ta, i, "its envelope was lost and made anew from the content file"); err != nil {
				return "", err
			}
		}
		words := fmt.Sprintf("%d recipients are due now", len(open))
		if n := len(kept.Envelope.Rcpts) - len(open) - len(s.waiting); n > 0 {
			words += fmt.Sprintf(", %d have ended or are known", n)
		}
		w.rebuilt += len(open)
		return words, nil
	}
}

// letterOf is what lost+found says of a content with an envelope.
func letterOf(e *msg.Envelope, open []int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mail=<%s>", e.Mail.From.Addr())
	for n, i := range open {
		if n == 100 {
			fmt.Fprintf(&b, " and %d more", len(open)-n)
			break
		}
		fmt.Fprintf(&b, " rcpt=<%s>", e.Rcpts[i].To.Addr())
	}
	return b.String()
}
