package logfmt

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"meta1/mta/logline"
)

// Switch is a slog.Handler that hands records to another one, which can be replaced while loggers use it. Loggers
// that were made from it, with attributes of their own, follow.
type Switch struct {
	to *target
	// derive adds what WithAttrs and WithGroup have added; nil: nothing.
	derive func(slog.Handler) slog.Handler
	made   atomic.Pointer[derived]
}

// target is what a Switch and all that were made from it share.
type target struct {
	mu  sync.RWMutex // held for reading while a record is handled
	now atomic.Pointer[derived]
}

// derived is a handler of one moment. The target's own is one, too, of which those of a Switch are made.
type derived struct {
	from    *derived // nil for that of the target
	handler slog.Handler
}

// NewSwitch makes a Switch to a handler.
func NewSwitch(h slog.Handler) *Switch {
	s := &Switch{to: &target{}}
	s.to.now.Store(&derived{handler: h})
	return s
}

// Set has all later records go to another handler. When it returns no record is handed to the former one any more.
func (s *Switch) Set(h slog.Handler) {
	s.to.mu.Lock()
	defer s.to.mu.Unlock()
	s.to.now.Store(&derived{handler: h})
}

// currentLocked is the handler with what this Switch adds. The target is held for reading.
func (s *Switch) currentLocked() slog.Handler {
	base := s.to.now.Load()
	if s.derive == nil {
		return base.handler
	}
	if d := s.made.Load(); d != nil && d.from == base {
		return d.handler
	}
	d := &derived{base, s.derive(base.handler)}
	s.made.Store(d)
	return d.handler
}

// Enabled reports whether records of the level are printed.
func (s *Switch) Enabled(ctx context.Context, l slog.Level) bool {
	return s.to.now.Load().handler.Enabled(ctx, l)
}

// Handle hands a record on.
func (s *Switch) Handle(ctx context.Context, r slog.Record) error {
	s.to.mu.RLock()
	defer s.to.mu.RUnlock()
	return s.currentLocked().Handle(ctx, r)
}

// HandleAttrs hands a line on (logline.Handler).
func (s *Switch) HandleAttrs(t time.Time, level slog.Level, event string, attrs []slog.Attr) {
	s.to.mu.RLock()
	defer s.to.mu.RUnlock()
	logline.Hand(s.currentLocked(), t, level, event, attrs)
}

// WithAttrs makes a handler that adds the attributes to each record.
func (s *Switch) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup makes a handler that puts the name and a dot before each later key.
func (s *Switch) WithGroup(name string) slog.Handler {
	return s.with(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s *Switch) with(add func(slog.Handler) slog.Handler) *Switch {
	derive := add
	if was := s.derive; was != nil {
		derive = func(h slog.Handler) slog.Handler { return add(was(h)) }
	}
	return &Switch{to: s.to, derive: derive}
}
