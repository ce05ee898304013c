package store

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// ending is the end of a store that cannot keep its promises any more.
type ending struct {
	name  string
	fatal func(error)
	why   atomic.Pointer[error] // nil: it is at work
}

// giveUp ends the use of the store and does not return, so that Pebble, which calls it
// with locks held, neither tries again nor panics in one of its goroutines.
func (e *ending) giveUp(err error) {
	err = fmt.Errorf("%s: %w", e.name, err)
	if e.fatal == nil {
		panic(err)
	}
	if e.why.CompareAndSwap(nil, &err) {
		e.fatal(err)
	}
	select {}
}

// err is why the store was given up, nil if it was not.
func (e *ending) err() error {
	if err := e.why.Load(); err != nil {
		return *err
	}
	return nil
}

func (o *Options) ending() *ending { return &ending{name: o.Name, fatal: o.Fatal} }

// logger passes Pebble's words on. Its routine lines are debug output.
type logger struct {
	log  *slog.Logger
	name string
	end  *ending
	// readOnly: who reads hears of damage by the error of the read.
	readOnly bool
}

// logger is what Pebble's words go to.
func (o *Options) logger(end *ending) *logger {
	return &logger{log: o.Log, name: o.Name, end: end, readOnly: o.readOnly}
}

// corrupt is called when a block on disk is damaged. A store at work cannot go on,
// because its compactions would fail over and over.
func (l *logger) corrupt(info pebble.DataCorruptionInfo) {
	if !l.readOnly {
		l.end.giveUp(fmt.Errorf("%w: %s: %w", ErrDamaged, info.Path, info.Details))
	}
}

func (l *logger) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug(fmt.Sprintf(format, args...), "store", l.name)
	}
}

func (l *logger) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...), "store", l.name)
}

func (l *logger) Fatalf(format string, args ...any) {
	l.end.giveUp(fmt.Errorf(format, args...))
}
