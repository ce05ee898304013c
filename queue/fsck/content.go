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

	"meta1/mta/cdb"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/records"
)

// digits are the names of the content directories, by number.
const digits = "0123456789ABCDEF"

const lostFoundWords = "--repair moves it to lost+found"

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
	if words := noContentFile(key, ta, err, info); words != "" {
		return []found{newFound(Note, "foreign-file", "%s; it is left alone", words).path(path)}, nil
	}
	var list []found
	if words := c.unsafe(info); words != "" {
		list = append(list, newFound(Note, "unsafe", "%s", words).ta(ta).path(path))
	}
	c.seen(ta)
	more, err := c.fileOf(ctx, ta, path)
	return append(list, more...), err
}

// noContentFile says why a name is no content file, "" if it is one.
func noContentFile(key string, ta smtp.ID, err error, info fs.FileInfo) string {
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

// fileOf checks a content file against the store.
func (c *Check) fileOf(ctx context.Context, ta smtp.ID, path string) ([]found, error) {
	known, err := records.HasMessage(c.v.Store, ta)
	if err != nil {
		return nil, err
	}
	kept, err := c.cdb.Envelope(ta)
	if err == nil && (c.content || !known) {
		err = c.verify(ctx, ta)
	}
	unused, uerr := c.unused(ta, known)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case uerr != nil:
		return nil, uerr
	case unused && (err == nil || errors.Is(err, cdb.ErrIncomplete)):
		f := newFound(Note, "content-unused", "a content file of a message whose content is still in the store").ta(ta).path(path)
		return []found{f.repair(lostFoundWords, c.fileAside(ta, "not used: its message has its content in the store"))}, nil
	case errors.Is(err, cdb.ErrIncomplete) && !known:
		return []found{c.incomplete(ta, path, kept.Envelope)}, nil
	case errors.Is(err, cdb.ErrIncomplete) && kept.Envelope == nil:
		return nil, nil // the envelope's check tells
	case errors.Is(err, cdb.ErrIncomplete):
		return []found{newFound(Loss, "content-checksum", "the checksum of the content is wrong; the next attempt bounces its recipients, so that the sender knows").ta(ta).path(path)}, nil
	case err != nil || !known:
		return []found{c.orphan(ta, path, records.Envelope{Envelope: kept.Envelope, Size: kept.Size})}, err
	}
	return nil, nil
}

// unused reports whether a message that is known has its content in the store: its file, whole
// or not, was left by a crash while the content was being moved.
func (c *Check) unused(ta smtp.ID, known bool) (bool, error) {
	if !known {
		return false, nil
	}
	m, err := c.message(ta)
	if err != nil || !m.usable() || !m.envelope.Inline {
		return false, err
	}
	_, inline, err := c.inStore(ta)
	return inline, err
}

func (c *Check) fileAside(ta smtp.ID, what string) func(*writer) (string, error) {
	return func(w *writer) (string, error) { return w.moveContent(ta, what) }
}

// incomplete is a content file that cannot be sent and whose message the store does not
// know. e is its envelope, nil if that cannot be read.
func (c *Check) incomplete(ta smtp.ID, path string, e *msg.Envelope) found {
	what := "incomplete or damaged, sender and recipients are not known"
	if e != nil {
		what = letterOf(e, nil)
	}
	f := newFound(Note, "content-incomplete", "a content file that is incomplete or damaged, of a message that the store does not know: it was never acknowledged").ta(ta).path(path)
	if c.past.lost(messageKey(records.KindEnvelope, ta)) {
		f.Severity = Loss
		f.Text = "a content file that is incomplete or damaged, and its envelope was lost, or it was never acknowledged"
	}
	return f.repair(lostFoundWords, c.fileAside(ta, what))
}

// orphan is a complete content file of a message that the store does not know.
func (c *Check) orphan(ta smtp.ID, path string, e records.Envelope) found {
	var open []int
	for i := range e.Rcpts {
		if !c.past.hasEnded(records.Ref{TA: ta, Index: i}) {
			open = append(open, i)
		}
	}
	aside := c.fileAside(ta, letterOf(e.Envelope, open))
	if len(open) == 0 {
		f := newFound(Note, "content-ended", "content of which all recipients have ended, as the log says").ta(ta).path(path)
		return f.repair(lostFoundWords, aside)
	}
	f := newFound(Note, "content-orphan", "content of a message that the store does not know, for %d of %d recipients: a running meta1 removes it after orphan_grace", len(open), len(e.Rcpts)).ta(ta).path(path)
	lost := c.past.lost(messageKey(records.KindEnvelope, ta))
	if lost {
		f.Severity, f.Code = Loss, "recipients-lost"
		f.Text = fmt.Sprintf("the envelope of %d of %d recipients was lost", len(open), len(e.Rcpts))
	}
	if !c.rebuild {
		words := "--repair moves it to lost+found; --rebuild sends it"
		if lost {
			words = "--rebuild makes them anew; --repair alone moves the content to lost+found"
		}
		return f.repair(words, aside)
	}
	if lost {
		f.Severity = Repairable
	}
	return f.repair("--rebuild makes them anew", func(w *writer) (string, error) {
		w.rebuilt += len(open)
		words := fmt.Sprintf("%d recipients are due now", len(open))
		if n := len(e.Rcpts) - len(open); n > 0 {
			words += fmt.Sprintf(", %d have ended", n)
		}
		return words, errors.Join(w.envelope(e), w.due(ta, open, "its envelope was lost and made anew from the content file"))
	})
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

// letterOf is what lost+found says of a content with an envelope. open are recipients
// that have not ended; nil for all.
func letterOf(e *msg.Envelope, open []int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "mail=<%s>", e.Mail.From.Addr())
	n := 0
	for i := range e.Rcpts {
		if open != nil && !slices.Contains(open, i) {
			continue
		}
		if n++; n > 100 {
			b.WriteString(" and more")
			break
		}
		fmt.Fprintf(&b, " rcpt=<%s>", e.Rcpts[i].To.Addr())
	}
	return b.String()
}
