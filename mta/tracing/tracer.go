package tracing

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/smtp"
)

// Deps is what a Tracer needs from outside.
type Deps struct {
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil: none
	Hostname string
	Version  string
	// Spool tells this queue from others of the same host: its directory.
	Spool string
	// ReadFile reads the file with the token and that with the authorities, with root's help where only root may.
	ReadFile func(path string) ([]byte, error)
}

// Tracer records spans and sends them. Its methods Sampled, Record and Message may be called by any goroutine,
// also of a nil Tracer; they never wait.
type Tracer struct {
	deps    Deps
	seed    string
	metrics *metrics // from the first configuration with the section on

	on   atomic.Pointer[way] // of spans that are recorded now; nil: there is no section
	last atomic.Pointer[way] // of spans that wait to be sent; nil: there was no section yet

	mu      sync.Mutex // guards waiting
	waiting []Span     // at most QueueMax of the configuration
	ready   chan struct{}
}

// way is what one configuration makes of spans.
type way struct {
	cfg     Config
	sampled uint64 // a trace is recorded if it begins with a number below that
	export  *exporter
}

// New makes a tracer; without a section it is off. The error is that of a file that cannot be used.
func New(cfg Config, deps Deps) (*Tracer, error) {
	t := &Tracer{deps: deps, seed: deps.Hostname + "\x00" + deps.Spool + "\x00", ready: make(chan struct{}, 1)}
	commit, err := t.Prepare(cfg)
	if err != nil {
		return nil, err
	}
	commit()
	return t, nil
}

// Prepare reads what another configuration needs. commit takes it, and cannot fail; spans that wait are sent as it says,
// and without a section as the former one said. It is for one goroutine at a time.
func (t *Tracer) Prepare(cfg Config) (commit func(), err error) {
	if !cfg.Present {
		return func() { t.on.Store(nil) }, nil
	}
	next := &way{cfg: cfg, sampled: ^uint64(0) / uint64(max(cfg.OneIn, 1))}
	if next.export, err = newExporter(cfg, t.deps); err != nil {
		return nil, err
	}
	return func() {
		if t.metrics == nil {
			t.metrics = newMetrics(t.deps.Metrics, func() float64 {
				t.mu.Lock()
				defer t.mu.Unlock()
				return float64(len(t.waiting))
			})
		}
		t.last.Store(next)
		t.on.Store(next)
	}, nil
}

// way is how spans are recorded now; nil: they are not.
func (t *Tracer) way() *way {
	if t == nil {
		return nil
	}
	return t.on.Load()
}

// On reports whether anything is traced at all.
func (t *Tracer) On() bool { return t.way() != nil }

// Sampled reports whether a message is traced.
func (t *Tracer) Sampled(ta smtp.ID) bool {
	w := t.way()
	if w == nil || ta.IsZero() {
		return false
	}
	id := t.traceOf(ta)
	return binary.BigEndian.Uint64(id[:]) <= w.sampled
}

// Record takes spans of messages that are traced. Those for which there is no room are counted and
// forgotten.
func (t *Tracer) Record(spans ...Span) {
	w := t.way()
	if w == nil {
		return
	}
	t.mu.Lock()
	n := max(0, min(len(spans), w.cfg.QueueMax-len(t.waiting))) // fewer may wait than before
	t.waiting = append(t.waiting, spans[:n]...)
	enough := len(t.waiting) >= batchMax
	t.mu.Unlock()
	t.metrics.dropped[dropFull].Add(float64(len(spans) - n))
	if enough {
		select {
		case t.ready <- struct{}{}:
		default:
		}
	}
}

// Message records the span of a message itself, at its end.
func (t *Tracer) Message(ta smtp.ID, start, end time.Time, attrs ...Attr) {
	t.Record(Span{TA: ta, Name: "message", Start: start, End: end, Attrs: attrs, whole: true})
}

const (
	// batchMax is how many spans go into one request at most.
	batchMax = 512
	// batchTime is how long a span waits for others, at most.
	batchTime = 2 * time.Second
	// lastTime is how long the end of the process waits for spans to be sent.
	lastTime = 2 * time.Second
)

// take takes up to batchMax spans.
func (t *Tracer) take() []Span {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := min(len(t.waiting), batchMax)
	batch := append([]Span(nil), t.waiting[:n]...)
	left := copy(t.waiting, t.waiting[n:])
	clear(t.waiting[left:])
	t.waiting = t.waiting[:left]
	return batch
}

// Run sends what is recorded until ctx ends, and then once more what waits, for a moment.
func (t *Tracer) Run(ctx context.Context) error {
	tick := time.NewTicker(batchTime)
	defer tick.Stop()
	for {
		select {
		case <-t.ready:
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastTime)
			defer cancel()
			t.sendAll(last)
			return nil
		}
		t.sendAll(ctx)
	}
}

// sendAll sends what waits.
func (t *Tracer) sendAll(ctx context.Context) {
	for ctx.Err() == nil {
		batch := t.take()
		if len(batch) == 0 {
			return
		}
		t.send(ctx, batch)
	}
}

// giveUpAfter is for how long a batch is tried again; others wait meanwhile, as far as there is room.
const giveUpAfter = 5 * time.Minute

// send sends a batch, again and again if the collector asks for that or cannot be reached, and
// counts what became of it.
func (t *Tracer) send(ctx context.Context, batch []Span) {
	begun := time.Now()
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		w := t.last.Load() // another one may have come meanwhile
		o := w.export.post(ctx, t.encode(w, batch))
		switch {
		case o.err == nil:
			refused := min(max(o.rejected, 0), int64(len(batch)))
			t.metrics.sent.Add(float64(int64(len(batch)) - refused))
			t.metrics.dropped[dropRefused].Add(float64(refused))
			if w.export.healthy() {
				t.deps.Log.LogAttrs(ctx, slog.LevelInfo, "traces are sent again")
			}
			return
		case !o.again || time.Since(begun) > giveUpAfter || ctx.Err() != nil:
			reason := dropRefused
			if o.again {
				reason = dropUnreachable
			}
			t.metrics.failures.Inc()
			t.metrics.dropped[reason].Add(float64(len(batch)))
			t.fails(ctx, w, o.err)
			return
		}
		t.metrics.failures.Inc()
		t.fails(ctx, w, o.err)
		select {
		case <-time.After(max(pause, o.after)):
		case <-ctx.Done():
		}
	}
}

// fails logs that spans are not taken, once until some are.
func (t *Tracer) fails(ctx context.Context, w *way, err error) {
	if w.export.failing() {
		t.deps.Log.LogAttrs(ctx, slog.LevelWarn, "traces are not taken", slog.String("endpoint", w.cfg.shown()), slog.Any("error", err))
	}
}
