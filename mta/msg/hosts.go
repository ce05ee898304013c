package msg

import "time"

// HostsQ asks QMGR for the hosts of its outgoing connection cache (README 3.8.1).
type HostsQ struct {
	// Max hosts in the answer; the queue has a bound of its own.
	Max int
	// Closed: only those that are not tried now.
	Closed bool
}

// HostsA answers HostsQ: closed hosts first, then those for which most mail waits. More
// says that some were left out.
type HostsA struct {
	Hosts []HostEntry
	More  bool
}

// HostState says what the queue thinks of a host.
type HostState string

// The states of a host.
const (
	HostNew    HostState = "new"    // nothing is known of it since it was last forgotten, or failed
	HostServes HostState = "serves" // the last delivery was served
	HostClosed HostState = "closed" // it failed; nothing is tried until HostEntry.Until
	HostProbe  HostState = "probe"  // its time is over: one delivery may find out
)

// HostEntry is one host to which mail goes.
type HostEntry struct {
	Host    string // as in the log: name[address]:port, or a socket
	State   HostState
	InUse   int // deliveries under way
	Window  int // deliveries that may be under way at once
	Max     int // what Window may grow to
	Waiting int // messages that wait for a place
	LastUse time.Time
	Until   time.Time // if HostClosed
	Reason  string    // of its last failure; "" if the last delivery was served
}
