package control

import (
	"context"
	"time"

	"meta1/mta/msg"
)

// Status is a snapshot of a running meta1.
type Status struct {
	Version  string    `json:"version"`
	Hostname string    `json:"hostname"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Spool    string    `json:"spool"`
	Config   string    `json:"config"`
	Listen   []Socket  `json:"listen"`
	Modules  []Module  `json:"modules"`
}

// Socket is one socket on which meta1 or a service listens.
type Socket struct {
	Section string `json:"section"`
	Network string `json:"network"` // tcp or unix
	Address string `json:"address"`
}

// Module is the state of a module or a service.
type Module struct {
	Name     string    `json:"name"`
	State    string    `json:"state"` // see supervise.State
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Error    string    `json:"error,omitempty"` // of its last end
	Values   []Value   `json:"values,omitempty"`
}

// Value is one line of a module's own snapshot.
type Value struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Health says whether meta1 works, and if not why.
type Health struct {
	OK      bool     `json:"ok"`
	Reasons []string `json:"reasons,omitempty"`
	// Warnings do not make it unhealthy: a service that was given up.
	Warnings []string `json:"warnings,omitempty"`
}

// Page is a part of the queue.
type Page struct {
	Entries []Entry `json:"entries"`
	// More says that entries follow; ask again with After set to the last RcptID.
	More bool `json:"more"`
}

// Entry is one recipient in the queue.
type Entry struct {
	RcptID   string         `json:"rcpt_id"`
	TA       string         `json:"ss_ta"`
	State    msg.QueueState `json:"state"`
	Arrival  time.Time      `json:"arrival"`
	Size     int64          `json:"size"`
	Sender   string         `json:"sender"` // without angle brackets; "" for <>
	Rcpt     string         `json:"rcpt"`
	Dest     string         `json:"dest,omitempty"`
	NextTry  time.Time      `json:"next_try,omitzero"`
	Attempts int            `json:"attempts"`
	Reason   string         `json:"reason,omitempty"`
}

// Host is one host to which mail goes; see msg.HostEntry.
type Host struct {
	Host    string        `json:"host"`
	State   msg.HostState `json:"state"`
	InUse   int           `json:"in_use"`
	Window  int           `json:"window"`
	Max     int           `json:"window_max"`
	Waiting int           `json:"waiting"`
	LastUse time.Time     `json:"last_use"`
	Until   time.Time     `json:"until,omitzero"`
	Reason  string        `json:"reason,omitempty"`
}

// Hosts are the hosts of the outgoing connection cache.
type Hosts struct {
	Hosts []Host `json:"hosts"`
	// More says that some were left out.
	More bool `json:"more"`
}

// ReloadReport says what a reload did.
type ReloadReport struct {
	// Reloaded are the sections whose maps or log levels were read anew.
	Reloaded []string `json:"reloaded"`
	// NeedRestart are options of the configuration file that have changed and take
	// effect at the next start.
	NeedRestart []string `json:"need_restart,omitempty"`
	// Errors say what could not be read; the old state stays then.
	Errors []string `json:"errors,omitempty"`
}

// Operation is what an operator asks to be done to recipients in the queue. A
// criterion that is empty matches everything; all must match.
type Operation struct {
	Op     msg.Operation `json:"op"`
	TA     string        `json:"ss_ta,omitempty"`
	Sender string        `json:"sender,omitempty"` // "<>" for the null sender, @domain for all of a domain
	Rcpt   string        `json:"rcpt,omitempty"`
	Domain string        `json:"domain,omitempty"` // of the recipient
	Hop    string        `json:"hop,omitempty"`    // see msg.Selection
	MinAge time.Duration `json:"min_age,omitempty"`
	Held   bool          `json:"held,omitempty"`
	Unheld bool          `json:"unheld,omitempty"`
}

// Operated is what an operation did.
type Operated struct {
	Done int    `json:"done"`            // recipients to which it was done
	Busy int    `json:"busy"`            // matching ones that were left alone: an attempt runs
	Err  string `json:"error,omitempty"` // why it ended early
}

// FsckQuestion asks for a check of a part of the databases of the queue.
type FsckQuestion struct {
	Cursor  string `json:"cursor,omitempty"` // of the last answer; "" begins
	Content bool   `json:"content,omitempty"`
}

// FsckAnswer is what was found.
type FsckAnswer struct {
	Findings []Finding `json:"findings"`
	Cursor   string    `json:"cursor,omitempty"` // ask again with it; "" at the end
	Examined uint64    `json:"examined"`         // records and files so far
	Err      string    `json:"error,omitempty"`  // why it ended early
}

// Finding is one thing that a check found.
type Finding struct {
	Severity string `json:"severity"` // note, repairable, loss
	Code     string `json:"code"`
	TA       string `json:"ss_ta,omitempty"`
	RcptID   string `json:"rcpt_id,omitempty"`
	Path     string `json:"path,omitempty"`
	Text     string `json:"text"`
	Repair   string `json:"repair,omitempty"`
}

// Backend is what the server side asks. Its methods may be called from any goroutine.
type Backend interface {
	Status(ctx context.Context) Status
	// Queue gives at most max recipients behind the one named after.
	Queue(ctx context.Context, after string, max int) (Page, error)
	// Operate does something to recipients in the queue; the error is for a wrong
	// question or no answer.
	Operate(ctx context.Context, o Operation) (Operated, error)
	// Hosts gives the hosts to which mail goes, or only those that are closed.
	Hosts(ctx context.Context, closed bool) (Hosts, error)
	// Fsck checks a part of the databases of the queue.
	Fsck(ctx context.Context, q FsckQuestion) (FsckAnswer, error)
	Health(ctx context.Context) Health
	Reload(ctx context.Context) ReloadReport
}
