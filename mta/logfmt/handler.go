package logfmt

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// The levels that log/slog does not have.
const (
	// LevelNotice is for the few events of normal operation that are worth keeping
	// even when little is logged: start, stop, reload.
	LevelNotice = slog.LevelInfo + 2
	// LevelFatal is for an error that ends the process.
	LevelFatal = slog.LevelError + 4
)

// Level is the least level that is logged at the option log_level (README 3.5): at 0 FATAL alone, at 1 and 2
// ERR and above, at 3 and 4 WARN, from 5 to 8 NOTICE, from 9 to 11 INFO, from 12 on DEBUG.
func Level(logLevel int) slog.Level {
	switch {
	case logLevel <= 0:
		return LevelFatal
	case logLevel <= 2:
		return slog.LevelError
	case logLevel <= 4:
		return slog.LevelWarn
	case logLevel <= 8:
		return LevelNotice
	case logLevel <= 11:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

// Sink takes complete lines. Any goroutine may call it.
type Sink interface {
	// Put takes one line that ends in a line feed. It must not keep the slice.
	Put(level slog.Level, line []byte)
}

// Options of a Handler.
type Options struct {
	// Level is the least level to log; nil means INFO.
	Level slog.Leveler
	// Module is the value of the field module=; the field is left out if it is "".
	Module string
	// JSON prints each record as a JSON object on a line instead.
	JSON bool
	// NoTime leaves out the time, for a sink that adds its own.
	NoTime bool
}

// Handler is a slog.Handler that prints records for one module.
type Handler struct {
	sink  Sink
	opt   Options
	level slog.Leveler
	// module and attrs are the field of the module and those of WithAttrs, as they
	// are printed, separator in front.
	module, attrs []byte
	prefix        string // of the keys: the names of WithGroup, each with a dot
	stamp         *atomic.Pointer[stamp]
}

// NewHandler makes a handler that prints to s.
func NewHandler(s Sink, o Options) *Handler {
	h := &Handler{sink: s, opt: o, level: o.Level, stamp: new(atomic.Pointer[stamp])}
	if h.level == nil {
		h.level = slog.LevelInfo
	}
	if o.Module != "" {
		h.module = h.appendAttr(nil, "", slog.String("module", o.Module))
	}
	return h
}

// Enabled reports whether records of the level are printed.
func (h *Handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs makes a handler that adds the attributes to each record.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append([]byte(nil), h.attrs...)
	for _, a := range attrs {
		c.attrs = c.appendAttr(c.attrs, c.prefix, a)
	}
	return &c
}

// WithGroup makes a handler that puts the name and a dot before each later key.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

// pool holds line buffers. A buffer of an unusually long line is not kept.
var pool = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

const maxPooled = 16 << 10

// Handle prints one record. It never fails: what a sink loses the sink counts.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	p := pool.Get().(*[]byte)
	b := h.appendHead((*p)[:0], r.Time, r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		b = h.appendAttr(b, h.prefix, a)
		return true
	})
	h.put(p, b, r.Level)
	return nil
}

// HandleAttrs prints one line without a record (logline.Handler).
func (h *Handler) HandleAttrs(t time.Time, level slog.Level, event string, attrs []slog.Attr) {
	p := pool.Get().(*[]byte)
	b := h.appendHead((*p)[:0], t, level, event)
	for i := range attrs {
		b = h.appendAttr(b, h.prefix, attrs[i])
	}
	h.put(p, b, level)
}

// appendHead begins a line: all that stands before the attributes of the record.
func (h *Handler) appendHead(b []byte, t time.Time, level slog.Level, message string) []byte {
	if h.opt.JSON {
		b = h.appendJSONHead(b, t, level)
	} else {
		b = h.appendTextHead(b, t, level)
	}
	b = append(append(b, h.module...), h.event(message)...)
	return append(h.appendMessage(b, message), h.attrs...)
}

// put ends a line, which is in the buffer p or has outgrown it, and hands it to the sink.
func (h *Handler) put(p *[]byte, b []byte, level slog.Level) {
	if h.opt.JSON {
		b = append(b, '}')
	}
	b = append(b, '\n')
	h.sink.Put(level, b)
	if cap(b) <= maxPooled {
		*p = b
		pool.Put(p)
	}
}

// event is the key of the message, separator in front; nothing without a message.
func (h *Handler) event(message string) string {
	switch {
	case message == "":
		return ""
	case h.opt.JSON:
		return `,"event":`
	default:
		return ", event="
	}
}

func (h *Handler) appendMessage(b []byte, message string) []byte {
	switch {
	case message == "":
		return b
	case h.opt.JSON:
		return appendJSONText(b, message)
	default:
		return appendText(b, message)
	}
}

func (h *Handler) appendTextHead(b []byte, t time.Time, level slog.Level) []byte {
	if !h.opt.NoTime && !t.IsZero() {
		b = append(h.appendTime(b, t), ' ')
	}
	return append(append(b, "sev="...), Severity(level)...)
}

func (h *Handler) appendJSONHead(b []byte, t time.Time, level slog.Level) []byte {
	b = append(b, '{')
	if !h.opt.NoTime && !t.IsZero() {
		b = append(h.appendTime(append(b, `"time":"`...), t), `",`...)
	}
	return append(append(append(b, `"sev":"`...), Severity(level)...), '"')
}

// appendAttr adds an attribute with its separator. An empty attribute adds nothing, a
// group its members.
func (h *Handler) appendAttr(b []byte, prefix string, a slog.Attr) []byte {
	v, kind := a.Value, a.Value.Kind() // which is not cheap
	if kind == slog.KindLogValuer {
		v = v.Resolve()
		kind = v.Kind()
	}
	if kind == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, m := range v.Group() {
			b = h.appendAttr(b, prefix, m)
		}
		return b
	}
	if a.Key == "" {
		return b
	}
	if h.opt.JSON {
		b = appendJSONText(append(b, ','), prefix+a.Key)
		return appendJSONValue(append(b, ':'), v)
	}
	b = append(append(append(b, ", "...), prefix...), a.Key...)
	return appendValue(append(b, '='), v, kind)
}

// Severity is the level's name in the field sev=.
func Severity(l slog.Level) string {
	switch {
	case l >= LevelFatal:
		return "FATAL"
	case l >= slog.LevelError:
		return "ERR"
	case l >= slog.LevelWarn:
		return "WARN"
	case l >= LevelNotice:
		return "NOTICE"
	case l >= slog.LevelInfo:
		return "INFO"
	default:
		return "DEBUG"
	}
}

// stamp is a printed second: formatting a time costs more than all else in a line.
type stamp struct {
	second int64
	text   [20]byte // "2006-01-02T15:04:05."
}

func (h *Handler) appendTime(b []byte, t time.Time) []byte {
	second := t.Unix()
	s := h.stamp.Load()
	if s == nil || s.second != second {
		s = &stamp{second: second}
		t.UTC().AppendFormat(s.text[:0], "2006-01-02T15:04:05.")
		h.stamp.Store(s)
	}
	b = append(b, s.text[:]...)
	ms := t.Nanosecond() / 1e6
	return append(b, byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}
