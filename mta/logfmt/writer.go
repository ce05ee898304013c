package logfmt

import (
	"io"
	"sync"
)

// Writer is a Sink for a file or a stream. It never makes a logger wait: a megabyte of
// lines waits for a slow output, and what comes then is dropped and counted. While Run
// runs, lines wait at most 50 ms or 64 KiB for each other, and a line of level WARN or
// above does not; before and after Run, and for a line of FATAL, Put waits until the line is
// written, but not longer than a second.
type Writer struct {
	outbox

	out sync.Mutex // guards w
	w   io.Writer
}

// NewWriter makes a sink that writes to w.
func NewWriter(w io.Writer) *Writer {
	s := &Writer{w: w}
	s.write, s.loss = s.send, lossLine(Options{})
	return s
}

// JSON says whether the lines that tell of dropped ones are JSON. They are not until it is called.
func (w *Writer) JSON(is bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.loss = lossLine(Options{JSON: is})
}

func (w *Writer) send(b batch) (lost int) {
	w.out.Lock()
	out := w.w
	w.out.Unlock()
	if _, err := out.Write(b.text); err != nil {
		return len(b.lines)
	}
	return 0
}

// SetOutput writes what waits to the old output, as far as that goes in a second, and all
// later lines to out. It returns the old output, which the caller may close.
func (w *Writer) SetOutput(out io.Writer) (old io.Writer) {
	w.Flush()
	w.out.Lock()
	defer w.out.Unlock()
	old, w.w = w.w, out
	return old
}
