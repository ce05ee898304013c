// Package entry has the words that the active queue (package aq) and the store (package
// records) share: how a recipient is named, and where one stands that is deferred. It is data
// only.
package entry

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"time"

	"meta1/mta/smtp"
)

// Ref names a recipient by its message and its index in the envelope.
type Ref struct {
	TA    smtp.ID
	Index int
}

// String is the recipient id of README 10.3.
func (r Ref) String() string { return smtp.RcptID(r.TA, r.Index) }

// Compare orders recipients by message, oldest first, and index.
func (r Ref) Compare(o Ref) int {
	return cmp.Or(CompareTA(r.TA, o.TA), cmp.Compare(r.Index, o.Index))
}

// CompareTA orders messages by their ids, which ascend with time.
func CompareTA(a, b smtp.ID) int {
	return cmp.Or(cmp.Compare(a.Counter, b.Counter), cmp.Compare(a.Process, b.Process))
}

// State is where a deferred recipient stands: what the store keeps of it. Times are of the
// queue's clock.
type State struct {
	Ref
	NextTry  time.Time     // when it is due; Never if it is held
	Stored   time.Time     // when this was written
	Waited   time.Duration // the recipient's age at that time; kept in milliseconds
	Attempts int           // failed ones
	Delayed  bool          // a delayed DSN was sent
	Held     bool          // until an operator releases it
	Parked   bool          // for Dest; NextTry is then only the backstop
	Dest     string        // destination of the last route, or "route:" and a domain that has none
	Reason   string        // last reply, or why there was no attempt
}

// DestMax is the longest name of a destination that mail can be parked for, in bytes.
const DestMax = 1024

// Never is the next time to try of a recipient that is held.
func Never() time.Time { return time.Unix(0, math.MaxInt64) }

// Hold is the state of the recipient when an operator holds it.
func (st State) Hold() State {
	reason := "held by the postmaster"
	if st.Reason != "" {
		reason += "; before: " + st.Reason
	}
	st.Held, st.Parked, st.NextTry, st.Reason = true, false, Never(), reason
	return st
}

// Release is the state of the recipient when it is to be tried at now, held or not.
func (st State) Release(now time.Time) State {
	st.Held, st.NextTry = false, now
	return st
}

// Age is the age of a recipient at now that had the age before at the time since. At most half of
// maximum (queue_return) is added for the time between, in which the queue may not have run or
// the recipient was held: nobody can tell then whether time went by or the clock was set.
func Age(before time.Duration, since, now time.Time, maximum time.Duration) time.Duration {
	return before + min(max(now.Sub(since), 0), maximum/2)
}

// Valid returns why a state must not be stored.
func (st *State) Valid() error {
	switch {
	case st.Index < 0 || st.Attempts < 0:
		return fmt.Errorf("recipient %d, attempt %d", st.Index, st.Attempts)
	case st.Parked && (st.Dest == "" || len(st.Dest) > DestMax):
		return fmt.Errorf("parked for a destination with a name of %d bytes", len(st.Dest))
	case st.Held && !st.NextTry.Equal(Never()):
		return errors.New("held, but with a time to try it")
	}
	return nil
}

// Due is a place in the order of due times: behind the recipient Ref, due at At. The zero Due
// is before all.
type Due struct {
	At time.Time
	Ref
}

// Broken is a record that cannot be used, or an index record that fits no state.
type Broken struct {
	Key, Value []byte
	Indexes    [][]byte // keys of the index records that belong to it, as far as known
	Err        error
}
