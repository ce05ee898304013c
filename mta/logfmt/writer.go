package logfmt

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// flushEvery is the longest time that a line waits for others to be written
	// with.
	flushEvery = 50 * time.Millisecond
	// flushSize is how many bytes are written together at most while the output keeps up.
	flushSize = 64 << 10
	// bufferMax is how many bytes wait for a slow output before loggers wait, too.
	bufferMax = 1 << 20
)

// Writer is a Sink for a file or a stream. While Run runs, lines wait at most
// 50 ms or 64 KiB for each other; a line of level WARN or above is written at once
// together with all before it. Before and after Run each line is written at once.
type Writer struct {
	dropped atomic.Uint64
	wake    chan struct{} // there is something to flush
	full    chan struct{} // flush now

	mu   sync.Mutex // guards the fields below
	buf  []byte
	runs bool

	// out serialises writes and guards the fields below. It is taken before mu.
	out   sync.Mutex
	w     io.Writer
	spare []byte
}

// NewWriter makes a sink that writes to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, wake: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// Put takes a line.
func (w *Writer) Put(level slog.Level, line []byte) {
	w.mu.Lock()
	first := len(w.buf) == 0
	w.buf = append(w.buf, line...)
	size, runs := len(w.buf), w.runs
	w.mu.Unlock()
	switch {
	case !runs, level >= slog.LevelWarn, size >= bufferMax:
		w.Flush()
	case size >= flushSize:
		signal(w.full)
	case first:
		signal(w.wake)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Flush writes what waits. It returns when all lines put before the call are
// written or lost.
func (w *Writer) Flush() {
	w.out.Lock()
	defer w.out.Unlock()
	w.mu.Lock()
	b := w.buf
	w.buf = w.spare[:0]
	w.mu.Unlock()
	w.spare = b[:0]
	if len(b) == 0 {
		return
	}
	if _, err := w.w.Write(b); err != nil {
		w.dropped.Add(uint64(countLines(b)))
	}
}

func countLines(b []byte) (n int) {
	for _, c := range b {
		if c == '\n' {
			n++
		}
	}
	return n
}

// Dropped is the number of lines that could not be written.
func (w *Writer) Dropped() uint64 { return w.dropped.Load() }

// SetOutput writes what waits to the old output, and all later lines to out. It
// returns the old output, which the caller may close.
func (w *Writer) SetOutput(out io.Writer) (old io.Writer) {
	w.Flush()
	w.out.Lock()
	defer w.out.Unlock()
	old, w.w = w.w, out
	return old
}

// Run flushes until ctx ends. It has to be kept by a goroutine group.
func (w *Writer) Run(ctx context.Context) error {
	w.setRuns(true)
	defer w.Flush()
	defer w.setRuns(false)
	for {
		select {
		case <-w.wake:
			select {
			case <-time.After(flushEvery):
			case <-w.full:
			case <-ctx.Done():
				return nil
			}
		case <-w.full:
		case <-ctx.Done():
			return nil
		}
		w.Flush()
	}
}

func (w *Writer) setRuns(runs bool) {
	w.mu.Lock()
	w.runs = runs
	w.mu.Unlock()
}
