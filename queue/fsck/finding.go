// Package fsck checks the records and the content files of a spool against one another,
// repairs what can be repaired, and makes envelopes anew that were lost (MeTA1 README
// 4.11.2). Package records says what must hold.
//
// A Check goes through a spool page by page and keeps nothing but a cursor, so that it
// can run beside a queue at work. Run checks and repairs a spool that nobody uses.
//
// # Order of a repair
//
// Nothing is ever removed of which there is no other copy: records that cannot be read
// stay in the store, set aside; content that belongs to no message, and a record that is
// replaced, goes to lost+found; a damaged store is kept under another name. A crash at
// any moment leaves a spool from which another repair goes on:
//
//  1. a damaged store is salvaged into a new one, DIR.building; the old one stays
//  2. changes are made page by page: lost+found is synced first, then the changes of a
//     page are committed in one batch, then content files are moved
//  3. the new store takes its place: DIR.building, which is complete and synced, becomes
//     DIR.new; DIR becomes DIR.damaged-TIME; DIR.new becomes DIR
//
// If DIR is missing and DIR.new is there, the repair was interrupted in step 3, and is
// completed; a start of the queue refuses meanwhile (package store). In every other case
// DIR.building and DIR.new are leftovers, because the old store is still in place.
package fsck

import (
	"fmt"
	"strings"

	"meta1/mta/smtp"
	"meta1/queue/records"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	// Note: harmless, for example a leftover of a crash.
	Note Severity = "note"
	// Repairable: something is wrong, and no mail is lost by repairing it.
	Repairable Severity = "repairable"
	// Loss: something is lost for good.
	Loss Severity = "loss"
)

// Finding is one thing that a check found.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"`
	TA       string   `json:"ss_ta,omitempty"`
	RcptID   string   `json:"rcpt_id,omitempty"`
	Path     string   `json:"path,omitempty"`
	Text     string   `json:"text"`
	// Repair says what --repair or --rebuild would do; "" for nothing.
	Repair string `json:"repair,omitempty"`
	// Done says what was done about it, "" for nothing.
	Done string `json:"done,omitempty"`
}

// String is the finding on one line, without control characters.
func (f *Finding) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s:", f.Severity, f.Code)
	switch {
	case f.RcptID != "":
		b.WriteString(" " + f.RcptID)
	case f.TA != "":
		b.WriteString(" " + f.TA)
	}
	if f.Path != "" {
		b.WriteString(" " + f.Path)
	}
	b.WriteString(": " + f.Text)
	switch {
	case f.Done != "":
		b.WriteString(" [done: " + f.Done + "]")
	case f.Repair != "":
		b.WriteString(" [" + f.Repair + "]")
	}
	return plain(b.String())
}

// plain shows control characters and bytes that are no text as question marks, because
// names of files and records may hold anything.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r == '\ufffd' {
			return '?'
		}
		return r
	}, s)
}

// found is a finding, where it was found, and what repairs it.
type found struct {
	Finding
	at  place
	fix func(*writer) (done string, err error) // nil: nothing can be done
}

// place names a record or a file.
type place struct {
	step Step
	key  string
}

func newFound(s Severity, code, format string, args ...any) found {
	return found{Finding: Finding{Severity: s, Code: code, Text: fmt.Sprintf(format, args...)}}
}

func (f found) ta(ta smtp.ID) found {
	f.TA = ta.String()
	return f
}

func (f found) rcpt(r records.Ref) found {
	f.TA, f.RcptID = r.TA.String(), r.String()
	return f
}

func (f found) path(path string) found {
	f.Path = path
	return f
}

// repair says what repairs it.
func (f found) repair(words string, fix func(*writer) (string, error)) found {
	f.Repair, f.fix = words, fix
	return f
}

// Summary counts what a run found and did.
type Summary struct {
	Examined   uint64 `json:"examined"`   // records and files
	Notes      int    `json:"notes"`      // harmless findings
	Repaired   int    `json:"repaired"`   // other findings, of which nothing is left
	Unrepaired int    `json:"unrepaired"` // those that are still there
	Rebuilt    int    `json:"rebuilt"`    // recipients that are due now
	LogEnds    int    `json:"log_ends"`   // recipients that have ended as the logs say
}

// Count counts a finding that was just reported.
func (s *Summary) Count(f *Finding) {
	switch {
	case f.Severity == Note:
		s.Notes++
	case f.Done != "":
		s.Repaired++
	default:
		s.Unrepaired++
	}
}

// Verdict is the outcome in one line.
func (s *Summary) Verdict() string {
	examined := count(int(s.Examined), "record or file", "records and files") + " examined"
	if s.Notes > 0 {
		examined += ", " + count(s.Notes, "note", "notes")
	}
	repaired, left := count(s.Repaired, "finding", "findings"), count(s.Unrepaired, "finding", "findings")
	switch {
	case s.Unrepaired > 0 && s.Repaired > 0:
		return fmt.Sprintf("damaged: %s left, %d repaired; %s", left, s.Repaired, examined)
	case s.Unrepaired > 0:
		return fmt.Sprintf("damaged: %s; %s", left, examined)
	case s.Repaired > 0:
		return fmt.Sprintf("repaired: %s, none is left; %s", repaired, examined)
	}
	return "clean: nothing is wrong; " + examined
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
