package logfmt

import (
	"context"
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
	// bufferMax is how many bytes wait for a slow output. What comes then is dropped.
	bufferMax = 1 << 20
	// flushTime is how long anybody ever waits for an output.
	flushTime = time.Second
)

// outbox hands lines to an output that may be slow, or take nothing at all for a while,
// without making a logger wait: lines that do not fit into bufferMax bytes are dropped
// and counted, and a line says how many as soon as there is room.
type outbox struct {
	// write writes lines, one call at a time, and returns how many of the last it lost. It may
	// take as long as it likes: it runs in a goroutine of its own, which only the output
	// can end.
	write func(b batch) (lost int)
	// loss makes the line that says how many were lost.
	loss func(n uint64) []byte

	dropped atomic.Uint64

	mu      sync.Mutex // guards what follows
	pending batch
	spare   batch
	put     int           // lines taken so far
	done    int           // and those of them that were written or lost
	lost    uint64        // dropped since the last line that told of it
	writing bool          // a goroutine writes
	ended   chan struct{} // closed when the present write has ended
	stuck   bool          // somebody has waited for it in vain
	runs    bool          // lines wait for each other
	timer   *time.Timer   // for the first of the lines that wait
}

// batch are lines that are written together.
type batch struct {
	text  []byte
	lines []mark
}

// mark is one line: it ends before that byte of the text.
type mark struct {
	end   int
	tells uint64 // of so many lines that were dropped; 0: it is a line that was logged
}

func (b *batch) add(line []byte, tells uint64) {
	b.text = append(b.text, line...)
	b.lines = append(b.lines, mark{len(b.text), tells})
}

// Put takes a line. It waits for nobody while the outbox runs, except with a line of
// FATAL, and then at most a second.
func (o *outbox) Put(level slog.Level, line []byte) {
	o.mu.Lock()
	if len(o.pending.text)+len(line) > bufferMax {
		o.lost++
		o.mu.Unlock()
		o.dropped.Add(1)
		return
	}
	o.tellLocked()
	o.pending.add(line, 0)
	o.put++
	wait := level >= LevelFatal || !o.runs && !o.stuck
	switch {
	case !o.runs, level >= slog.LevelWarn, len(o.pending.text) >= flushSize:
		o.startLocked()
	case o.timer == nil:
		o.timer = time.AfterFunc(flushEvery, o.start)
	}
	o.mu.Unlock()
	if wait {
		o.Flush()
	}
}

// tellLocked adds the line that says how many were dropped before.
func (o *outbox) tellLocked() {
	if o.lost == 0 {
		return
	}
	o.pending.add(o.loss(o.lost), o.lost)
	o.put++
	o.lost = 0
}

func (o *outbox) start() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.startLocked()
}

// startLocked makes sure that what is pending is being written.
func (o *outbox) startLocked() {
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
	if o.writing || len(o.pending.lines) == 0 {
		return
	}
	o.writing, o.ended = true, make(chan struct{})
	go o.deliver()
}

// deliver writes until nothing is pending.
func (o *outbox) deliver() {
	for {
		o.mu.Lock()
		b := o.pending
		if len(b.lines) == 0 {
			o.writing = false
			o.mu.Unlock()
			return
		}
		o.pending = o.spare
		o.mu.Unlock()
		lost := o.write(b)
		o.mu.Lock()
		for _, m := range b.lines[len(b.lines)-lost:] {
			if o.lost += max(m.tells, 1); m.tells == 0 {
				o.dropped.Add(1)
			}
		}
		o.spare = batch{b.text[:0], b.lines[:0]}
		o.done += len(b.lines)
		o.stuck = false
		if len(o.pending.lines) == 0 && lost == 0 && o.lost > 0 {
			o.tellLocked() // there is room again, and the output works
		}
		close(o.ended)
		o.ended = make(chan struct{})
		o.mu.Unlock()
	}
}

// Flush writes what waits. It returns when all lines put before the call are
// written or lost, or after a second.
func (o *outbox) Flush() {
	limit := time.NewTimer(flushTime)
	defer limit.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for until := o.put; o.done < until; {
		o.startLocked()
		ended := o.ended
		o.mu.Unlock()
		select {
		case <-ended:
			o.mu.Lock()
		case <-limit.C:
			o.mu.Lock()
			o.stuck = true
			return
		}
	}
}

// Dropped is the number of lines that could not be written.
func (o *outbox) Dropped() uint64 { return o.dropped.Load() }

// Run lets lines wait for each other until ctx ends, and then writes what waits, as far
// as that goes in a second. It has to be kept by a goroutine group.
func (o *outbox) Run(ctx context.Context) error {
	o.setRuns(true)
	<-ctx.Done()
	o.setRuns(false)
	o.Flush()
	return nil
}

func (o *outbox) setRuns(runs bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.runs = runs
}

// lossLine makes the line that tells of lines that were dropped.
func lossLine(opt Options) func(n uint64) []byte {
	return func(n uint64) []byte {
		var c capture
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines were dropped", 0)
		r.AddAttrs(slog.Uint64("lines", n))
		_ = NewHandler(&c, opt).Handle(context.Background(), r) // it never fails
		return c
	}
}

// capture is a sink that keeps the last line.
type capture []byte

func (c *capture) Put(_ slog.Level, line []byte) { *c = append([]byte(nil), line...) }
