package crowd

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// State is what a session waits for.
type State uint8

// The states.
const (
	Working       State = iota // for us: a command is executed
	Waiting                    // for the client's next command, outside of a transaction
	InTransaction              // the same, between MAIL and DATA
	Sending                    // the client sends a message
	Leaving                    // it has to go, and counts no more; nothing follows but its end
)

// Guest is what a crowd knows of one session. The session's goroutine calls Wait, Resume,
// Progress and Mail, the crowd reads what they have noted; the address is the crowd's. The
// zero Guest is one that is served.
type Guest struct {
	addr netip.Addr
	// now is the state in its lowest bits, above them the time of the last progress: one word, so that a guest is dismissed only in the state that the
	// decision was about.
	now  atomic.Int64
	mail atomic.Int64 // when a message was last accepted; 0: never

	progress time.Duration // the last one; the session's own

	// Written before now says Leaving, and read after that.
	reason Reason
	idle   time.Duration
}

// stateMask are the bits of the state in a guest's word.
const stateMask = 7

// standing is a guest's word, taken apart.
type standing struct {
	word  int64
	state State
	since time.Duration // last progress
}

func (g *Guest) standing() standing {
	w := g.now.Load()
	return standing{w, State(w & stateMask), time.Duration(w &^ stateMask)}
}

func word(state State, progress time.Duration) int64 {
	return int64(progress)&^stateMask | int64(state)
}

// Progress notes a step toward a message.
func (g *Guest) Progress(now time.Duration) { g.progress = now }

// Accepted notes an accepted message, which is a step, too.
func (g *Guest) Accepted(now time.Duration) {
	g.Progress(now)
	g.mail.Store(int64(max(now, 1)))
}

// Wait notes what the session begins to wait for. It reports false, as Resume does, if it
// has to go.
func (g *Guest) Wait(state State) bool { return g.to(word(state, g.progress)) }

// Resume notes that the session goes on with its work. It reports false if it was told
// to go: then it must do nothing any more but to say so to the client.
func (g *Guest) Resume() bool { return g.to(word(Working, g.progress)) }

// to changes the word unless the guest has to go.
func (g *Guest) to(w int64) bool {
	for {
		old := g.now.Load()
		if State(old&stateMask) == Leaving {
			return false
		}
		if g.now.CompareAndSwap(old, w) {
			return true
		}
	}
}

// Dismissed is why the guest has to go, None if it has not, and how long its client had been
// idle.
func (g *Guest) Dismissed() (Reason, time.Duration) {
	if g.standing().state != Leaving {
		return None, 0
	}
	return g.reason, g.idle
}

// leave marks a guest, unless it has done anything since st.
func (g *Guest) leave(st standing, r Reason, now time.Duration) bool {
	g.reason, g.idle = r, now-st.since
	return g.now.CompareAndSwap(st.word, word(Leaving, st.since))
}

func (g *Guest) broughtMail() bool { return g.mail.Load() != 0 }

// lastMail is when a message was last accepted.
func (g *Guest) lastMail() (at time.Duration, ok bool) {
	n := g.mail.Load()
	return time.Duration(n), n != 0
}
