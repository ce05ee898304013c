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
// says that some were left out. Providers are all that are known, by name. TriedLast are families of
// addresses that do not work, whose hosts are tried after the others of a route.
type HostsA struct {
	Hosts     []HostEntry
	More      bool
	Providers []ProviderEntry
	TriedLast []FamilyEntry
}

// FamilyEntry is IPv4 or IPv6 while mail does not go out by it.
type FamilyEntry struct {
	Family string
	Until  time.Time // then its hosts are tried in the order of the route again
	Reason string    // of the last failure
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
	Waiting int // recipients that wait for it: ready to be delivered, or parked until it serves
	LastUse time.Time
	Until   time.Time // if HostClosed
	Reason  string    // of its last failure; "" if the last delivery was served
	// Provider is that of the name by which it was found, "" for none.
	Provider string
	TLS      HostTLS // of the last session; zero if there was none
}

// HostTLS is the TLS of the last session with a host.
type HostTLS struct {
	Version string // "TLSv1.3", or "none"
	Verify  string // what the certificate was worth: a TLSLevel, "MTA-STS" where a policy was met; "" without TLS
}

// ProviderEntry is one provider: hosts that share limits, by their names.
type ProviderEntry struct {
	Provider string
	InUse    int           // deliveries under way
	Max      int           // deliveries that may be under way at once; 0: no limit
	Waiting  int           // recipients that wait for one of its hosts
	Rate     float64       // messages within Per now; 0: no limit
	RateMax  int           // what Rate may grow to; 0: no limit
	Per      time.Duration // of Rate
	// SlowDowns is how often the rate was halved since the start.
	SlowDowns int
	Until     time.Time // when a rate that was halved is whole again, if nothing more happens; zero: it is
	Reason    string    // the reply that halved it last, "" if it is whole
}
