package pmult

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"meta1/confparse/syntax"
	"meta1/mta/logfmt"
)

// Debug is a set of debug levels of the category pmult (Mailutils manual, "Debugging").
type Debug uint16

// debugLevels are the names of the levels, by bit.
func debugLevels() []string {
	return []string{"error", "trace0", "trace1", "trace2", "trace3", "trace4", "trace5", "trace6", "trace7", "trace8", "trace9", "prot"}
}

// The levels that pmult's manual gives a meaning.
const (
	debugError  Debug = 1 << 0 // recipients that filters want and that are none
	debugTrace1 Debug = 1 << 2 // sessions, stages, and changes of headers that are not there
	debugTrace2 Debug = 1 << 3 // what replies of filters become
	debugTrace7 Debug = 1 << 8 // pieces of the content
	debugAll    Debug = 1<<12 - 1
)

// parseDebug reads a debug specification. others are its categories that are not pmult.
func parseDebug(spec string) (d Debug, others []string, err error) {
	for _, item := range strings.FieldsFunc(spec, func(r rune) bool { return r == ';' || r == ' ' || r == '\n' }) {
		category, levels, some := strings.Cut(item, ".")
		off := strings.HasPrefix(category, "!")
		if category = strings.TrimPrefix(category, "!"); category != "pmult" {
			others = append(others, category)
			continue
		}
		if !some {
			if d = debugAll; off {
				d = 0
			}
			continue
		}
		for _, level := range strings.Split(levels, ",") {
			set, on, err := debugRange(level)
			if err != nil {
				return 0, nil, err
			}
			if on {
				d |= set
			} else {
				d &^= set
			}
		}
	}
	return d, others, nil
}

// debugRange reads one level specification: LEVEL, =LEVEL, LEVEL-LEVEL, each with ! before it.
func debugRange(s string) (set Debug, on bool, err error) {
	rest, off := strings.CutPrefix(s, "!")
	rest, only := strings.CutPrefix(rest, "=")
	first, last, span := strings.Cut(rest, "-")
	if !span {
		first, last = "error", rest
		if only {
			first = rest
		}
	}
	from, to := slices.Index(debugLevels(), first), slices.Index(debugLevels(), last)
	if from < 0 || to < from {
		return 0, false, fmt.Errorf("%s is not a debug level: expected error, trace0 to trace9 or prot", syntax.ShownWord(s))
	}
	return 1<<(to+1) - 1<<from, !off, nil
}

// clientLevels is the set of log levels of a client, by bit in the order of levelNames.
type clientLevels uint8

func levelNames() []string { return []string{"proto", "debug", "info", "warn", "err", "fatal"} }

const allLevels clientLevels = 1<<6 - 1

// parseLevels reads the list of log-level: names with !, < or > before them.
func parseLevels(words []string) (set clientLevels, err error) {
	for i, w := range words {
		name := strings.TrimLeft(w, "!<>")
		n := slices.Index(levelNames(), name)
		if n < 0 || len(w)-len(name) > 1 {
			return 0, fmt.Errorf("%s is not a log level: expected proto, debug, info, warn, err or fatal, perhaps with !, < or > before it", syntax.ShownWord(w))
		}
		bit := clientLevels(1) << n
		switch w[0] {
		case '!':
			if i == 0 {
				set = allLevels
			}
			set &^= bit
		case '<':
			set |= bit<<1 - 1
		case '>':
			set |= allLevels &^ (bit - 1)
		default:
			set |= bit
		}
	}
	return set, nil
}

// leveled is a handler of slog for what is logged of one client.
type leveled struct {
	slog.Handler
	set clientLevels
}

func (h leveled) Enabled(ctx context.Context, l slog.Level) bool {
	bits := clientLevels(1<<0 | 1<<1)
	switch {
	case l >= logfmt.LevelFatal:
		bits = 1 << 5
	case l >= slog.LevelError:
		bits = 1 << 4
	case l >= slog.LevelWarn:
		bits = 1 << 3
	case l >= slog.LevelInfo:
		bits = 1 << 2
	}
	return h.set&bits != 0 && h.Handler.Enabled(ctx, l)
}

func (h leveled) WithAttrs(attrs []slog.Attr) slog.Handler {
	return leveled{h.Handler.WithAttrs(attrs), h.set}
}

func (h leveled) WithGroup(name string) slog.Handler {
	return leveled{h.Handler.WithGroup(name), h.set}
}

// severity is the least level that is logged with a severity of Mailutils.
func severity(name string) (slog.Level, bool) {
	switch strings.ToLower(name) {
	case "debug":
		return slog.LevelDebug, true
	case "info":
		return slog.LevelInfo, true
	case "notice":
		return logfmt.LevelNotice, true
	case "warning":
		return slog.LevelWarn, true
	case "error":
		return slog.LevelError, true
	case "crit", "alert", "emerg":
		return logfmt.LevelFatal, true
	}
	return 0, false
}
