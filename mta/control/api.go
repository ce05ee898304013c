package control

import (
	"cmp"
	"context"
	"encoding/json"
	"strconv"
	"time"

	"meta1/client/tlsrpt"
	"meta1/confparse"
	"meta1/mta/explain"
	"meta1/mta/msg"
	"meta1/server/authn/dmarcrpt"
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
	Health   Health    `json:"health"`
	// Limits are the options that are lower than configured because the system does not
	// allow more.
	Limits []string `json:"limits,omitempty"`
	// Configuration is what is known of the configuration in effect.
	Configuration Configuration `json:"configuration"`
	Modules       []Module      `json:"modules"`
}

// Configuration is what Status tells of the configuration in effect.
type Configuration struct {
	// Generation counts the configurations since the start, which is 1; Since is when it took effect.
	Generation int       `json:"generation"`
	Since      time.Time `json:"since"`
	// NeedRestart is what the last reload that was applied has found and not applied, with the reason.
	NeedRestart []confparse.Change `json:"need_restart,omitempty"`
	// Failed is when the last reload failed, if none was applied since; Errors are the mistakes that it
	// found.
	Failed time.Time `json:"failed,omitzero"`
	Errors []string  `json:"errors,omitempty"`
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

// Value is one line of a module's own snapshot: a number, or a text. In JSON it is
// {"name": ..., "value": ...}, and the value of a number is a number.
type Value struct {
	Name   string
	Number int64
	Text   string // if not "", the value is this text and not the number
}

// jsonValue is a Value in JSON.
type jsonValue struct {
	Name  string `json:"name"`
	Value any    `json:"value"` // int64 or string
}

// MarshalJSON implements json.Marshaler.
func (v Value) MarshalJSON() ([]byte, error) {
	if v.Text != "" {
		return json.Marshal(jsonValue{v.Name, v.Text})
	}
	return json.Marshal(jsonValue{v.Name, v.Number})
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *Value) UnmarshalJSON(data []byte) error {
	*v = Value{}
	number := jsonValue{Value: &v.Number}
	err := json.Unmarshal(data, &number)
	if err != nil {
		number.Value = &v.Text
		err = json.Unmarshal(data, &number)
	}
	v.Name = number.Name
	return err
}

// String is the value as text.
func (v Value) String() string { return cmp.Or(v.Text, strconv.FormatInt(v.Number, 10)) }

// OpenAPI describes how a Value is written.
func (v Value) OpenAPI() map[string]any {
	return map[string]any{"type": "object", "required": []any{"name", "value"}, "properties": map[string]any{
		"name": map[string]any{"type": "string"}, "value": map[string]any{"type": []any{"integer", "string"}},
	}}
}

// Health says whether meta1 works, and if not why.
type Health struct {
	OK      bool     `json:"ok"`
	Reasons []string `json:"reasons,omitempty"`
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
	// Provider is that to which the host belongs. TLS and Verify are of the last session: the version, or
	// "none", and what the certificate was worth (encrypted, verified, MTA-STS, dane).
	Provider string `json:"provider,omitempty"`
	TLS      string `json:"tls,omitempty"`
	Verify   string `json:"verify,omitempty"`
}

// Provider is hosts that share limits; see msg.ProviderEntry.
type Provider struct {
	Provider  string    `json:"provider"`
	InUse     int       `json:"in_use"`
	Max       int       `json:"connections_max,omitempty"` // 0: no limit
	Waiting   int       `json:"waiting"`
	Rate      float64   `json:"rate,omitempty"`          // messages within the interval now; 0: no limit
	RateMax   int       `json:"rate_max,omitempty"`      // 0: no limit
	Interval  string    `json:"rate_interval,omitempty"` // as 1m0s
	SlowDowns int       `json:"slow_downs"`              // how often the rate was halved since the start
	Until     time.Time `json:"until,omitzero"`          // when it is whole again
	Reason    string    `json:"reason,omitempty"`        // the reply that halved it
}

// Hosts are the hosts of the outgoing connection cache.
type Hosts struct {
	Hosts []Host `json:"hosts"`
	// More says that some were left out.
	More bool `json:"more"`
	// Providers are all to which mail went, or with closed hosts alone those whose rate is lowered.
	Providers []Provider `json:"providers,omitempty"`
	// TriedLast are the families of addresses that do not work.
	TriedLast []Family `json:"tried_last,omitempty"`
}

// Family is IPv4 or IPv6; see msg.FamilyEntry.
type Family struct {
	Family string    `json:"family"`
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
}

// ReloadReport says what a reload did, or would do.
type ReloadReport struct {
	// Check: nothing was applied, it was only asked what would be.
	Check bool `json:"check"`
	// Generation counts the configurations that have been in effect since the start, which is 1. It is
	// that in effect now, or with Check the one that it would be.
	Generation int `json:"generation"`
	// Changed are the options and sections of the configuration file that have changed and take effect.
	Changed []confparse.Change `json:"changed"`
	// Reloaded names what was read anew, besides options: maps, certificates, keys.
	Reloaded []string `json:"reloaded"`
	// NeedRestart are options and sections that differ from what is in effect and are not applied
	// until the next start, with the reason.
	NeedRestart []confparse.Change `json:"need_restart"`
	// Warnings are remarks on a configuration that can be used.
	Warnings []string `json:"warnings,omitempty"`
	// Errors are all mistakes that were found, with file and line. If there is one nothing has changed.
	Errors []string `json:"errors,omitempty"`
}

// Operation is what an operator asks to be done to recipients in the queue. A
// criterion that is empty matches everything; all must match.
type Operation struct {
	Op     msg.Operation `json:"op"`
	TA     string        `json:"ss_ta,omitempty"`
	RcptID string        `json:"rcpt_id,omitempty"`
	Sender string        `json:"sender,omitempty"` // "<>" for the null sender, @domain for all of a domain
	Rcpt   string        `json:"rcpt,omitempty"`
	Domain string        `json:"domain,omitempty"` // of the recipient
	Hop    string        `json:"hop,omitempty"`    // see msg.Selection
	MinAge time.Duration `json:"min_age,omitempty"`
	MaxAge time.Duration `json:"max_age,omitempty"`
	Reason string        `json:"reason,omitempty"` // a part of why it waits
	Held   bool          `json:"held,omitempty"`
	Unheld bool          `json:"unheld,omitempty"`
}

// Operated is what an operation did.
type Operated struct {
	Done int    `json:"done"`            // recipients to which it was done
	Busy int    `json:"busy"`            // matching ones that were left alone: an attempt runs
	Err  string `json:"error,omitempty"` // why it ended early
}

// SendReports asks for reports to be sent now.
type SendReports struct {
	Domain string `json:"domain,omitempty"` // "": all
	Today  bool   `json:"today,omitempty"`  // those that are being collected, too
}

// ReportsSent is what came of it.
type ReportsSent struct {
	Sent int    `json:"sent"`
	Err  string `json:"error,omitempty"` // why others were not sent
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

// BackupQuestion asks for a copy of the queue.
type BackupQuestion struct {
	Directory string `json:"directory"` // absolute; it must not exist, and its parent be writable by meta1 and root alone
	// Progress asks for an answer of lines, each a BackupLine, one each second.
	Progress bool `json:"progress,omitempty"`
}

// BackupProgress is how far a copy is.
type BackupProgress struct {
	Files   int64   `json:"files"` // tables, logs and content files
	Bytes   int64   `json:"bytes"` // written to them; a hard link has none
	Seconds float64 `json:"seconds"`
}

// BackupLine is one line of an answer with progress. The last one has a report, or an error.
type BackupLine struct {
	Progress *BackupProgress `json:"progress,omitempty"`
	Report   *BackupReport   `json:"report,omitempty"`
	Err      string          `json:"error,omitempty"`
}

// BackupReport is what was made.
type BackupReport struct {
	Directory string  `json:"directory"`
	Contents  int     `json:"contents"` // content files
	Seconds   float64 `json:"seconds"`
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
	// Backup makes a copy of the queue as it is at one moment. It has no other limit of time than the end of ctx, but ends
	// when it makes no progress. It calls tell in a goroutine of its own, never after it has returned, each second.
	Backup(ctx context.Context, q BackupQuestion, tell func(BackupProgress)) (BackupReport, error)
	// Explain tries a dialogue; the error is for a question that cannot be tried.
	Explain(ctx context.Context, q explain.Question) (*explain.Report, error)
	// TLSReports lists the reports about TLS that are collected or wait to be sent, those on
	// one domain unless it is "".
	TLSReports(ctx context.Context, domain string) ([]tlsrpt.Entry, error)
	// SendTLSReports sends what waits at once.
	SendTLSReports(ctx context.Context, q SendReports) (ReportsSent, error)
	// DMARCReports and SendDMARCReports do the same for reports about DMARC.
	DMARCReports(ctx context.Context, domain string) ([]dmarcrpt.Entry, error)
	SendDMARCReports(ctx context.Context, q SendReports) (ReportsSent, error)
	Health(ctx context.Context) Health
	// Stop begins the end of meta1, as the signal TERM does. It does not wait for it.
	Stop(ctx context.Context)
	Reload(ctx context.Context, check bool) ReloadReport
	// Upgrade has a new process take over. It goes on if ctx ends.
	Upgrade(ctx context.Context, q UpgradeQuestion) UpgradeReport
	// Connections lists sessions of clients and connections to hosts; CloseConnection ends one, and
	// reports whether there was one.
	Connections(ctx context.Context) (Connections, error)
	CloseConnection(ctx context.Context, q CloseConnection) (Closed, error)
	// Throttles lists the limits that were set; Throttle sets or clears one.
	Throttles(ctx context.Context) []Throttle
	Throttle(ctx context.Context, q ThrottleQuestion) ([]Throttle, error)
	// Drain begins, changes or cancels a drain; DrainState tells of it.
	Drain(ctx context.Context, q DrainQuestion) (Drain, error)
	DrainState(ctx context.Context) Drain
	// Stats tells counts and rates.
	Stats(ctx context.Context) (Stats, error)
	// Summary counts the queue.
	Summary(ctx context.Context, q SummaryQuestion) (Summary, error)
	// Message tells of one message, by its ss_ta or a rcpt_id; ErrNoMessage if nothing is known.
	Message(ctx context.Context, id string) (Message, error)
	// Config is the configuration in effect without secrets, with the defaults if they are wanted.
	Config(ctx context.Context, defaults bool) []confparse.Shown
}
