// Package logline writes the lines of the log of which there are several for each message.
// log/slog itself looks for the caller's place in the program for each line, and allocates for
// each one that has more than a few fields.
package logline

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// Handler is what a slog.Handler may be besides, to get the fields of a line as they are. It
// must not keep attrs.
type Handler interface {
	HandleAttrs(t time.Time, level slog.Level, event string, attrs []slog.Attr)
}

// fields holds the fields of a line while a Handler prints it, so that those of the caller can
// stay on its stack.
var fields = sync.Pool{New: func() any { return new([]slog.Attr) }}

// Emit writes a line of now, if the level is logged.
func Emit(log *slog.Logger, level slog.Level, event string, attrs ...slog.Attr) {
	h := log.Handler()
	if !h.Enabled(context.Background(), level) {
		return
	}
	p := fields.Get().(*[]slog.Attr)
	*p = append(*p, attrs...)
	Hand(h, time.Now(), level, event, *p)
	clear(*p)
	*p = (*p)[:0]
	fields.Put(p)
}

// Hand gives a line to a handler whose level is known to be enabled: as it is if it is a Handler, else as a record.
func Hand(h slog.Handler, t time.Time, level slog.Level, event string, attrs []slog.Attr) {
	if h, ok := h.(Handler); ok {
		h.HandleAttrs(t, level, event, attrs)
		return
	}
	r := slog.NewRecord(t, level, event, 0)
	r.AddAttrs(attrs...)
	_ = h.Handle(context.Background(), r) // there is no better place to complain than the log
}
