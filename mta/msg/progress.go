package msg

import (
	"errors"
	"sync/atomic"
	"time"
)

// ErrGaveWay is the cause with which a delivery is ended that made no progress while
// other mail waited for its place.
var ErrGaveWay = errors.New("the delivery made no progress and gave way to other mail")

// Progress is how far one delivery has come. SMTPC notes it, and QMGR may look at it while
// the delivery is in progress, to take the place of one that hangs for other mail:
//
//	stage, idle := progress.Idle()
//	if idle > patience && progress.GiveWay() {
//		cancel(msg.ErrGaveWay) // of the context with which it asked
//	}
//
// Once GiveWay has succeeded the final dot is not sent, so the attempt has failed for sure
// and nothing is delivered twice. The zero Progress is not ready; a nil one notes nothing.
type Progress struct {
	start time.Time
	// state is the stage (8 bits), an ending (8 bits) and the time of the last progress,
	// in milliseconds since start.
	state atomic.Uint64
}

// The endings of a delivery between which GiveWay and Finish decide.
const (
	open     uint64 = iota << 8
	gaveWay         // the final dot must not be sent
	finishes        // it is being sent
	endings  = 0xff << 8
)

// NewProgress is the progress of a delivery that begins now.
func NewProgress() *Progress {
	p := new(Progress)
	p.Begin()
	return p
}

// Begin makes the zero Progress that of a delivery that begins now.
func (p *Progress) Begin() { p.start = time.Now() }

// Reach notes progress at a stage: the host has answered, or taken content. The stage
// never goes back.
func (p *Progress) Reach(s DeliverStage) {
	if p == nil {
		return
	}
	now := uint64(time.Since(p.start).Milliseconds()) << 16
	for {
		old := p.state.Load()
		stage := max(old&0xff, uint64(s))
		if p.state.CompareAndSwap(old, now|old&endings|stage) {
			return
		}
	}
}

// Idle is the stage that was reached last, and for how long there has been no progress
// since.
func (p *Progress) Idle() (s DeliverStage, d time.Duration) {
	if p == nil {
		return DeliverConnect, 0
	}
	state := p.state.Load()
	return DeliverStage(state & 0xff), time.Since(p.start) - time.Duration(state>>16)*time.Millisecond
}

// GiveWay reports whether the delivery may be ended for other mail: if its final dot has
// not been sent, which it will not be any more.
func (p *Progress) GiveWay() bool { return p != nil && p.end(gaveWay) }

// Finish reports whether the final dot may be sent: if the delivery has not given way,
// which it cannot any more.
func (p *Progress) Finish() bool { return p == nil || p.end(finishes) }

// end decides on an ending, if there is no other.
func (p *Progress) end(how uint64) bool {
	for {
		old := p.state.Load()
		switch old & endings {
		case how:
			return true
		case open:
		default:
			return false
		}
		if p.state.CompareAndSwap(old, old|how) {
			return true
		}
	}
}
