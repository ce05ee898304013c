package maps

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Limits of a text source. An alias with 100,000 members needs about 4 MB.
const (
	maxEntry  = 16 << 20 // bytes of one entry, its continued lines joined
	maxErrors = 20       // bad lines that are listed before reading stops
)

// Entry is one entry of a text source.
type Entry struct {
	Key, Value string
	Line       int // of its first line, from 1
}

// LineError is a bad line of a source file.
type LineError struct {
	File string
	Line int
	Err  error
}

// Error is "file:line: what is wrong".
func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap is what is wrong.
func (e *LineError) Unwrap() error { return e.Err }

// ReadSource reads the text form of a map: one entry a line, the key, white space,
// the value. Empty lines and lines that begin with # are skipped; a line that begins
// with white space continues the one before. each is called for every entry in its
// order; its error is taken as that of the line. All bad lines, up to 20, are
// returned together, joined, each a *LineError with file as its name.
func ReadSource(in io.Reader, file string, each func(Entry) error) error {
	s := sourceReader{in: bufio.NewReaderSize(in, 64<<10), file: file, each: each}
	err := s.read()
	return errors.Join(append(s.bad, err)...)
}

// readLines is ReadSource for files whose lines are no entries: each gets every line
// that is neither empty nor a comment.
func readLines(in io.Reader, file string, each func(line string) error) error {
	s := sourceReader{in: bufio.NewReaderSize(in, 64<<10), file: file}
	for len(s.bad) < maxErrors {
		text, err := s.nextLine()
		if trimmed := strings.TrimRight(text, " \t"); trimmed != "" && trimmed[0] != '#' {
			if bad := each(text); bad != nil {
				s.fail(s.line, bad)
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
	}
	return errors.Join(s.bad...)
}

type sourceReader struct {
	in   *bufio.Reader
	file string
	each func(Entry) error
	bad  []error

	line    int // number of the line read last
	start   int // line at which the pending entry began; 0 for none
	pending strings.Builder
}

func (s *sourceReader) read() error {
	for len(s.bad) < maxErrors {
		text, err := s.nextLine()
		if text != "" {
			s.take(text)
		}
		if err == io.EOF {
			s.flush()
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", s.file, err)
		}
	}
	return fmt.Errorf("%s: too many errors", s.file)
}

// nextLine gives the next line without its end, and io.EOF with the last one.
func (s *sourceReader) nextLine() (string, error) {
	var b []byte
	s.line++
	for {
		part, err := s.in.ReadSlice('\n')
		b = append(b, part...)
		if len(b) > maxEntry {
			return "", &LineError{s.file, s.line, errors.New("line is longer than 16 MB")}
		}
		if err != bufio.ErrBufferFull {
			return strings.TrimRight(string(b), "\r\n"), err
		}
	}
}

func (s *sourceReader) take(text string) {
	switch {
	case strings.TrimLeft(text, " \t") == "" || text[0] == '#':
	case text[0] != ' ' && text[0] != '\t':
		s.flush()
		s.start = s.line
		s.pending.WriteString(text)
	case s.start == 0:
		s.fail(s.line, errors.New("line begins with white space but there is no entry to continue"))
	case s.pending.Len()+len(text) > maxEntry:
		s.fail(s.start, errors.New("entry is longer than 16 MB"))
	default:
		s.pending.WriteByte(' ')
		s.pending.WriteString(strings.TrimLeft(text, " \t"))
	}
}

// flush hands the pending entry out.
func (s *sourceReader) flush() {
	if s.start == 0 {
		return
	}
	line, text := s.start, s.pending.String()
	s.start = 0
	s.pending.Reset()
	key, value, err := SplitEntry(text)
	if err == nil {
		err = s.each(Entry{Key: key, Value: value, Line: line})
	}
	if err != nil {
		s.fail(line, err)
	}
}

func (s *sourceReader) fail(line int, err error) {
	s.bad = append(s.bad, &LineError{s.file, line, err})
}

// SplitEntry divides a line into key and value at the first white space outside of
// double quotes: "john doe"@example.org is one key.
func SplitEntry(text string) (key, value string, err error) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return checkEntry(text[:i], strings.Trim(text[i:], " \t"))
		}
	}
	if quoted {
		begin, _, _ := strings.Cut(text, " ") // what follows may be a secret
		return "", "", fmt.Errorf("key %q has a quote without its end", begin)
	}
	return "", "", fmt.Errorf("key %q has no value", text)
}

func checkEntry(key, value string) (string, string, error) {
	if value == "" {
		return "", "", fmt.Errorf("key %q has no value", key)
	}
	if strings.IndexByte(key, 0) >= 0 || strings.IndexByte(value, 0) >= 0 {
		return "", "", fmt.Errorf("entry %q contains a NUL byte", key)
	}
	return key, value, nil
}
