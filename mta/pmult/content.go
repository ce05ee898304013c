package pmult

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Bounds of contents, in bytes.
const (
	contentMax = 1 << 30   // of one message
	memoryMax  = 256 << 10 // of one message in memory
	memoryAll  = 64 << 20  // of all messages in memory
	headerMax  = 1 << 20   // of a header, as in package server
)

var errLarge = fmt.Errorf("the message has more than %d bytes", contentMax)

// memory is what all messages have in memory, in bytes.
type memory struct{ used atomic.Int64 }

// take takes n bytes if there are as many.
func (m *memory) take(n int) bool {
	if m.used.Add(int64(n)) <= memoryAll {
		return true
	}
	m.used.Add(-int64(n))
	return false
}

// content is a message, or a new body of one. It is in memory as far as that goes, and then in
// a file without a name.
type content struct {
	memory *memory
	dir    string // for the file; "" for the system's
	data   []byte
	file   *os.File // nil: all is in data, which is not written yet otherwise
	size   int64
	err    error // the first; nothing is kept any more
}

// write adds a piece. After an error it does nothing.
func (c *content) write(p []byte) error {
	switch {
	case c.err != nil:
		return c.err
	case c.size+int64(len(p)) > contentMax:
		c.err = errLarge
	case c.file != nil:
		_, c.err = c.file.Write(p)
	case len(c.data)+len(p) > memoryMax || !c.memory.take(len(p)):
		if c.err = c.spill(); c.err == nil {
			_, c.err = c.file.Write(p)
		}
	default:
		c.data = append(c.data, p...)
	}
	if c.err == nil {
		c.size += int64(len(p))
	}
	return c.err
}

// spill moves all to a file.
func (c *content) spill() (err error) {
	if c.file, err = os.CreateTemp(c.dir, "meta1-pmult-*"); err != nil {
		return err
	}
	_ = os.Remove(c.file.Name()) // if it stays, somebody cleans up; it holds nothing that is missed
	_, err = c.file.Write(c.data)
	c.release()
	return err
}

func (c *content) release() {
	c.memory.used.Add(-int64(len(c.data)))
	c.data = nil
}

// reader reads from a place on.
func (c *content) reader(from int64) io.Reader {
	if c.file != nil {
		return io.NewSectionReader(c.file, from, c.size-from)
	}
	return bytes.NewReader(c.data[min(from, int64(len(c.data))):])
}

// close drops the message. A nil content is none.
func (c *content) close() {
	if c == nil {
		return
	}
	c.release()
	if c.file != nil {
		_ = c.file.Close() // nobody wants it any more
	}
	c.err = errors.New("the message was dropped")
}

// lines writes a new body with CR LF at the end of each line: filters are not always exact
// about it, and nothing else may end a line.
type lines struct {
	to   *content
	cr   bool // the last byte was a CR
	open bool // the last line has no end yet
}

func (l *lines) write(p []byte) error {
	out := make([]byte, 0, len(p)+len(p)/8)
	for _, b := range p {
		if l.cr && b != '\n' || b == '\n' {
			out = append(out, "\r\n"...)
			l.open = false
		}
		l.cr = b == '\r'
		if b != '\r' && b != '\n' {
			out = append(out, b)
			l.open = true
		}
	}
	return l.to.write(out)
}

// end ends the last line.
func (l *lines) end() error {
	if l.cr || l.open {
		return l.to.write([]byte("\r\n"))
	}
	return nil
}
