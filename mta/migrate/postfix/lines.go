package postfix

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// Limits of what is read.
const (
	maxFile     = 64 << 20 // bytes of a table
	maxConf     = 4 << 20  // bytes of main.cf and master.cf
	maxLine     = 1 << 20  // bytes of a logical line
	maxSettings = 20000    // of main.cf, and entries of master.cf
	maxEntries  = 1000000  // of a table
)

// line is a logical line: a line and those that continue it.
type line struct {
	text   string
	number int // of the first line, from 1
}

// readLines reads logical lines as Postfix does (readlline(3)): empty lines and those whose first
// character that is no white space is # are skipped, a line that begins with white space continues the
// one before. The error of each ends the reading.
func readLines(in io.Reader, limit int64, each func(line) error) error {
	var pending strings.Builder
	start, number := 0, 0
	flush := func() error {
		if start == 0 {
			return nil
		}
		l := line{strings.TrimRight(pending.String(), " \t\r\n"), start}
		pending.Reset()
		start = 0
		return each(l)
	}
	r := bufio.NewReaderSize(io.LimitReader(in, limit+1), 64<<10)
	read := int64(0)
	for {
		text, err := r.ReadString('\n')
		number++
		if read += int64(len(text)); read > limit {
			return fmt.Errorf("line %d: the file has more than %d bytes", number, limit)
		}
		if pending.Len()+len(text) > maxLine {
			return fmt.Errorf("line %d: a line and those that continue it have more than %d bytes", number, maxLine)
		}
		switch trimmed := strings.TrimSpace(text); {
		case trimmed == "" || trimmed[0] == '#':
		case text[0] == ' ' || text[0] == '\t':
			if start == 0 {
				return fmt.Errorf("line %d: begins with white space, but there is no line to continue", number)
			}
			pending.WriteString(strings.TrimRight(text, "\r\n"))
		default:
			if err := flush(); err != nil {
				return err
			}
			start = number
			pending.WriteString(strings.TrimRight(text, "\r\n"))
		}
		if errors.Is(err, io.EOF) {
			return flush()
		}
		if err != nil {
			return err
		}
	}
}

// readFile reads the logical lines of a file; errors name it.
func readFile(path string, limit int64, each func(line) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a file", path)
	}
	if err := readLines(f, limit, each); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
