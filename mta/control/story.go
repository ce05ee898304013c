package control

import (
	"errors"
	"time"

	"meta1/mta/maillog"
)

// ErrNoMessage says that nothing is known of a message.
var ErrNoMessage = errors.New("nothing is known of this message")

// Message is what is known of one message.
type Message struct {
	TA         string           `json:"ss_ta"`
	Recipients []MessageRcpt    `json:"recipients"`
	Queued     bool             `json:"queued"`                  // at least one recipient is in the queue
	Unasked    bool             `json:"queue_unknown,omitempty"` // the queue could not be asked: Queued tells nothing
	Arrival    *time.Time       `json:"arrival,omitempty"`       // of what is queued
	Sender     string           `json:"sender"`
	Size       int64            `json:"size,omitempty"`
	Log        *maillog.Account `json:"log,omitempty"`
	Notes      []string         `json:"notes,omitempty"` // what could not be asked
}

// MessageRcpt is one recipient of a message.
type MessageRcpt struct {
	RcptID  string           `json:"rcpt_id"`
	Rcpt    string           `json:"rcpt"`
	Queue   *Entry           `json:"queue,omitempty"` // nil: it has left the queue
	Hosts   []Host           `json:"hosts,omitempty"` // of its destination that do not serve
	Outcome *maillog.Outcome `json:"outcome,omitempty"`
	Fate    Fate             `json:"fate"`
	// Steps are all of that for people, in the order in which it is told.
	Steps []Step `json:"steps"`
}

// Fate is what becomes of a recipient.
type Fate string

// The fates of recipients.
const (
	FateDone   Fate = "done"   // it has the message, or others have it in its place
	FateWaits  Fate = "waits"  // it is in the queue, as far as is known
	FateFailed Fate = "failed" // it did not get it, or was removed
)

// Step is one thing that is told of a recipient: what was at Time, if there is one, and then Text. What is to come
// has At, which belongs behind the text.
type Step struct {
	Time time.Time `json:"time,omitzero"`
	Text string    `json:"text"`
	At   time.Time `json:"at,omitzero"`
}

// WhoAmI is what the API thinks of an asker.
type WhoAmI struct {
	Level string `json:"level"` // read or change
	Name  string `json:"name"`  // as the log has it: an account, the number of a token, a certificate
}

// Stats are counts and rates.
type Stats struct {
	Time    time.Time `json:"time"`
	Started time.Time `json:"started"` // of meta1
	// Counts are what was done since the start of the module that counts: sessions, messages,
	// received_bytes; accepted, delivered, deferrals, bounced and dropped recipients; transactions of SMTPC.
	Counts map[string]int64 `json:"counts"`
	// Now is what goes on: sessions, in_flight deliveries, recipients in AQ_entries and deferred, memory and disk.
	Now map[string]int64 `json:"now"`
	// Rates are counts a second within the last time: 1m, 5m, 15m, or less if meta1 runs for less.
	Rates map[string]map[string]float64 `json:"rates"`
	// Accepting is yes, or why no mail is taken.
	Accepting string `json:"accepting"`
}
