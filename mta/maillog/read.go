package maillog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// source is one log that is read line by line.
type source struct {
	in   *bufio.Reader
	next Line
	more bool
}

func newSource(in io.Reader) (*source, error) {
	b := bufio.NewReaderSize(in, lineMax)
	if magic, err := b.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("reading a compressed log: %w", err)
		}
		b = bufio.NewReaderSize(z, lineMax)
	}
	return &source{in: b}, nil
}

// advance reads the next line of meta1. A line without a time has that of the one before.
func (s *source) advance() error {
	before := s.next.Time
	for {
		b, err := readLine(s.in)
		if len(b) > 0 {
			if l, ok := Parse(b); ok {
				if l.Time.IsZero() {
					l.Time = before
				}
				s.next, s.more = l, true
				return nil
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // a log that is still written
			s.more = false
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading a log: %w", err)
		}
	}
}

// readLine reads a line; nothing of one that is too long.
func readLine(in *bufio.Reader) ([]byte, error) {
	b, err := in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return b, err
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = in.ReadSlice('\n')
	}
	return nil, err
}

// Read reads logs that are each in the order of time, and calls f for their lines in the
// order of time.
func Read(ctx context.Context, logs []io.Reader, f func(*Line) error) error {
	var sources []*source
	for _, l := range logs {
		s, err := newSource(l)
		if err == nil {
			err = s.advance()
		}
		if err != nil {
			return err
		}
		sources = append(sources, s)
	}
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var first *source
		for _, s := range sources {
			if s.more && (first == nil || s.next.Time.Before(first.next.Time)) {
				first = s
			}
		}
		if first == nil {
			return nil
		}
		l := first.next
		if err := f(&l); err != nil {
			return err
		}
		if err := first.advance(); err != nil {
			return err
		}
	}
}

// batchMax is how many lines are put in the order of time that were added between two looks.
const batchMax = 100_000

// followPause is the time between two looks at files that are followed.
const followPause = 200 * time.Millisecond

// Follow calls f for the lines that are added to files, until ctx ends; with fromStart first for
// those that are there. A file that is
// rotated away is read to its end, and then the new one; a file that is not there yet is waited for.
func Follow(ctx context.Context, names []string, fromStart bool, f func(*Line) error) error {
	tails := make([]*tail, len(names))
	for i, name := range names {
		tails[i] = &tail{name: name}
		tails[i].open(!fromStart)
	}
	defer func() {
		for _, t := range tails {
			t.close()
		}
	}()
	tick := time.NewTicker(followPause)
	defer tick.Stop()
	var batch []Line
	flush := func() error {
		slices.SortStableFunc(batch, func(a, b Line) int { return a.Time.Compare(b.Time) })
		for i := range batch {
			if err := f(&batch[i]); err != nil {
				return err
			}
		}
		batch = batch[:0]
		return nil
	}
	take := func(l *Line) error {
		if batch = append(batch, *l); len(batch) == batchMax {
			return flush()
		}
		return nil
	}
	for {
		for _, t := range tails {
			if err := t.read(take); err != nil {
				return err
			}
		}
		if err := flush(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tail is the end of a file.
type tail struct {
	name string
	file *os.File // nil: there is none
	part []byte   // the beginning of a line whose end is not written yet
	at   int64
}

// open opens the file, at its end or its beginning.
func (t *tail) open(end bool) {
	f, err := os.Open(t.name)
	if err != nil {
		return // it is tried again
	}
	t.file, t.at, t.part = f, 0, nil
	if end {
		t.at, _ = f.Seek(0, io.SeekEnd) // a pipe begins where it is
	}
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close() // it was only read
		t.file = nil
	}
}

// read reads what was added, and changes over to the file that is now under the name.
func (t *tail) read(f func(*Line) error) error {
	if t.file == nil {
		t.open(false)
	}
	if t.file == nil {
		return nil
	}
	now, nowErr := os.Stat(t.name)
	if err := t.lines(f); err != nil {
		return err
	}
	mine, err := t.file.Stat()
	if err != nil {
		return fmt.Errorf("following %s: %w", t.name, err)
	}
	switch {
	case nowErr != nil: // rotated away, and there is no new one yet
	case !os.SameFile(now, mine):
		t.close()
		t.open(false)
		if t.file != nil {
			return t.lines(f)
		}
	case mine.Size() < t.at: // copied and truncated
		if _, err := t.file.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("following %s: %w", t.name, err)
		}
		t.at, t.part = 0, nil
	}
	return nil
}

// lines reads to the end of the file.
func (t *tail) lines(f func(*Line) error) error {
	buffer := make([]byte, 64<<10)
	for {
		n, err := t.file.Read(buffer)
		t.at += int64(n)
		t.part = append(t.part, buffer[:n]...)
		for {
			line, rest, found := cutLine(t.part)
			if !found {
				break
			}
			t.part = rest
			if l, ok := Parse(line); ok {
				if err := f(&l); err != nil {
					return err
				}
			}
		}
		if len(t.part) > lineMax {
			t.part = nil
		}
		switch {
		case errors.Is(err, io.EOF):
			t.part = append([]byte(nil), t.part...) // not the whole of what was read
			return nil
		case err != nil:
			return fmt.Errorf("following %s: %w", t.name, err)
		}
	}
}

func cutLine(b []byte) (line, rest []byte, found bool) { return bytes.Cut(b, []byte{'\n'}) }
