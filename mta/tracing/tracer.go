package tracing

import (
	"context"
	"encoding/binary"
	"log/slog"
	"sync"
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
	cfg     Config
	deps    Deps
	seed    string
	sampled uint64 // a trace is recorded if it begins with a number below that
	metrics *metrics
	export  *exporter

	mu      sync.Mutex // guards waiting
	waiting []Span     // at most cfg.QueueMax
	ready   chan struct{}
}

// New makes a tracer. The error is that of a file that cannot be used.
func New(cfg Config, deps Deps) (*Tracer, error) {
	t := &Tracer{
		cfg: cfg, deps: deps, seed: deps.Hostname + "\x00" + deps.Spool + "\x00", ready: make(chan struct{}, 1),
		sampled: ^uint64(0) / uint64(max(cfg.OneIn, 1)),
	}
	var err error
	if t.export, err = newExporter(cfg, deps); err != nil {
		return nil, err
	}
	t.metrics = newMetrics(deps.Metrics, func() float64 {
		t.mu.Lock()
		defer t.mu.Unlock()
		return float64(len(t.waiting))
	})
	return t, nil
}

// On reports whether anything is traced at all.
func (t *Tracer) On() bool { return t != nil }

// Sampled reports whether a message is traced.
func (t *Tracer) Sampled(ta smtp.ID) bool {
	if t == nil || ta.IsZero() {
		return false
	}
	id := t.traceOf(ta)
	return binary.BigEndian.Uint64(id[:]) <= t.sampled
}

// Record takes spans of messages that are traced. Those for which there is no room are counted and
// forgotten.
func (t *Tracer) Record(spans ...Span) {
	if t == nil {
		return
	}
	t.mu.Lock()
	n := min(len(spans), t.cfg.QueueMax-len(t.waiting))
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
	body := t.encode(batch)
	begun := time.Now()
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		o := t.export.post(ctx, body)
		switch {
		case o.err == nil:
			refused := min(max(o.rejected, 0), int64(len(batch)))
			t.metrics.sent.Add(float64(int64(len(batch)) - refused))
			t.metrics.dropped[dropRefused].Add(float64(refused))
			if t.export.healthy() {
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
			t.fails(ctx, o.err)
			return
		}
		t.metrics.failures.Inc()
		t.fails(ctx, o.err)
		select {
		case <-time.After(max(pause, o.after)):
		case <-ctx.Done():
		}
	}
}

// fails logs that spans are not taken, once until some are.
func (t *Tracer) fails(ctx context.Context, err error) {
	if t.export.failing() {
		t.deps.Log.LogAttrs(ctx, slog.LevelWarn, "traces are not taken", slog.String("endpoint", t.cfg.shown()), slog.Any("error", err))
	}
}
