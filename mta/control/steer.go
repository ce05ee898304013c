package control

import (
	"time"

	"meta1/mta/msg"
)

// Connection is one session of a client (in) or one connection to a host (out).
type Connection struct {
	ID        string    `json:"id"` // ss_se or da_se; "" while it has none
	Direction string    `json:"direction"`
	Section   string    `json:"section"` // smtps and its name, or smtpc
	Peer      string    `json:"peer"`
	Name      string    `json:"name,omitempty"` // of the client: verified, else its EHLO
	User      string    `json:"user,omitempty"`
	TLS       string    `json:"tls,omitempty"`
	State     string    `json:"state"`
	Since     time.Time `json:"since"` // of the state
	Begun     time.Time `json:"begun"`
	Messages  int64     `json:"messages"`
}

// Connections are those that are open, the oldest first.
type Connections struct {
	Connections []Connection `json:"connections"`
	// More says that some were left out.
	More bool `json:"more"`
}

// ConnectionsMax bounds the connections of one answer for each module.
const ConnectionsMax = 10_000

// CloseConnection names the connection that is to be closed.
type CloseConnection struct {
	ID string `json:"id"`
}

// Closed says what came of it.
type Closed struct {
	Closed bool `json:"closed"`
}

// Throttle is a limit that was set while meta1 runs.
type Throttle struct {
	Kind   msg.ThrottleKind `json:"kind"`          // in_open, in_rate, out_open
	Net    string           `json:"net,omitempty"` // address or net; "": all but those of this host
	Max    int              `json:"max"`
	Reason string           `json:"reason"`
	Set    time.Time        `json:"set"`
	Until  time.Time        `json:"until,omitzero"` // none: until it is cleared, or meta1 ends
}

// ThrottleQuestion sets a limit, or clears one or all.
type ThrottleQuestion struct {
	Kind   msg.ThrottleKind `json:"kind,omitempty"` // "" with clear: all limits
	Net    string           `json:"net,omitempty"`
	Max    int              `json:"max,omitempty"`
	Reason string           `json:"reason,omitempty"`
	For    time.Duration    `json:"for,omitempty"` // 0: until it is cleared, or meta1 ends
	Clear  bool             `json:"clear,omitempty"`
}

// DrainPhase is where a drain stands.
type DrainPhase string

// The phases: none, then draining, handing over if a peer is named, then drained or stopping.
const (
	NotDraining DrainPhase = "none"
	Draining    DrainPhase = "draining"     // new mail is refused, and what can be delivered is
	HandingOver DrainPhase = "handing over" // what is left goes to the peer
	Drained     DrainPhase = "drained"      // nothing is left that can be delivered now; new mail is refused still
	DrainEnds   DrainPhase = "stopping"     // the end of meta1 has begun
)

// DrainQuestion begins a drain, or cancels one.
type DrainQuestion struct {
	Cancel bool          `json:"cancel,omitempty"`
	Keep   bool          `json:"keep,omitempty"`   // go on running when it is drained
	Flush  bool          `json:"flush,omitempty"`  // try deferred mail once more now
	Reason string        `json:"reason,omitempty"` // for log, status and the replies to clients
	Until  time.Duration `json:"until,omitempty"`  // the longest time for deliveries; 0: 5 minutes
	// To is the peer to which the rest is handed over: the right hand side of a mailertable; "": it is kept.
	To string `json:"to,omitempty"`
}

// Drain is the state of a drain.
type Drain struct {
	Phase  DrainPhase `json:"phase"`
	Reason string     `json:"reason,omitempty"`
	Since  time.Time  `json:"since,omitzero"`
	Until  time.Time  `json:"until,omitzero"` // when deliveries are waited for no longer
	Keep   bool       `json:"keep,omitempty"`
	To     string     `json:"to,omitempty"` // the peer to which the rest is handed over
	// Left are recipients that may be delivered now, Kept those that wait for their next time or are held.
	Left int64 `json:"left"`
	Kept int64 `json:"kept"`
}
