package tlspolicy

import (
	"net/netip"
	"sync"
	"time"
)

// What is remembered of hosts whose TLS handshake failed.
const (
	// FailureTTL is for how long: then TLS as configured is tried again.
	FailureTTL = time.Hour
	// failuresMax is of how many hosts; the oldest are forgotten first.
	failuresMax = 10_000
)

// Failures remembers how connections to a host had to be made after its TLS handshake had
// failed (README 14.1). It is safe for use by many goroutines.
type Failures struct {
	mu   sync.Mutex // guards kept
	kept table[FailureKey, Way]
}

// FailureKey is a host, and the class of sessions for which its handshake failed: another
// class may have another certificate or other ciphers.
type FailureKey struct {
	Host  netip.AddrPort
	Class string
}

// NewFailures remembers nothing yet.
func NewFailures() *Failures {
	return &Failures{kept: newTable[FailureKey, Way](failuresMax, FailureTTL)}
}

// Known is the way in which to begin with a host: Resume if nothing is remembered.
func (f *Failures) Known(k FailureKey) Way {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, _ := f.kept.get(k, time.Now())
	return w
}

// Note remembers that a connection to a host was made in a way: Reduced or Plain counts from
// now on, anything else has the host forgotten. A way that is known already does not get more
// time, so that TLS is tried again.
func (f *Failures) Note(k FailureKey, w Way) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	switch known, ok := f.kept.get(k, now); {
	case w < Reduced:
		f.kept.delete(k)
	case !ok || known != w:
		f.kept.put(k, w, now)
	}
}

// Len is how many hosts are remembered.
func (f *Failures) Len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.kept.entries)
}
