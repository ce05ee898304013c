package logline

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// printer prints lines, those of HandleAttrs with their fields in brackets.
type printer struct {
	slog.Handler
	out *strings.Builder
}

func (p printer) HandleAttrs(_ time.Time, level slog.Level, event string, attrs []slog.Attr) {
	fmt.Fprintln(p.out, level, event, attrs)
}

// TestEmit: a handler that can take the fields gets them, another one a record, and neither
// hears of a level that is not logged.
func TestEmit(t *testing.T) {
	attrs := []slog.Attr{slog.Int("a", 1), slog.Int("b", 2), slog.Int("c", 3), slog.Int("d", 4), slog.Int("e", 5), slog.Int("f", 6)}
	var plain bytes.Buffer
	text := slog.NewTextHandler(&plain, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	var own strings.Builder
	for _, h := range []slog.Handler{text, printer{text, &own}} {
		log := slog.New(h)
		Emit(log, slog.LevelInfo, "first", attrs...)
		Emit(log, slog.LevelDebug, "not logged", attrs...)
		Emit(log, slog.LevelWarn, "second", attrs[:1]...)
	}
	if want := "level=INFO msg=first a=1 b=2 c=3 d=4 e=5 f=6\nlevel=WARN msg=second a=1\n"; plain.String() != want {
		t.Errorf("a plain handler has\n%swant\n%s", plain.String(), want)
	}
	if want := "INFO first [a=1 b=2 c=3 d=4 e=5 f=6]\nWARN second [a=1]\n"; own.String() != want {
		t.Errorf("one that takes fields has\n%swant\n%s", own.String(), want)
	}
	if !text.Enabled(context.Background(), slog.LevelInfo) {
		t.Error("the handler is of no use for this test")
	}
}
