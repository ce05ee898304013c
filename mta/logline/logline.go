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
	ctx, h := context.Background(), log.Handler()
	if !h.Enabled(ctx, level) {
		return
	}
	if h, ok := h.(Handler); ok {
		p := fields.Get().(*[]slog.Attr)
		*p = append(*p, attrs...)
		h.HandleAttrs(time.Now(), level, event, *p)
		clear(*p)
		*p = (*p)[:0]
		fields.Put(p)
		return
	}
	r := slog.NewRecord(time.Now(), level, event, 0)
	r.AddAttrs(attrs...)
	_ = h.Handle(ctx, r) // there is no better place to complain than the log
}
