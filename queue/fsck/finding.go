// Package fsck checks the databases and the content files of a spool against one
// another, repairs what can be repaired, and makes envelopes anew that were lost
// (README 4.11.2). Package queue says what must hold ("States").
//
// A Check goes through a spool page by page and keeps nothing but a cursor, so that
// it can run beside a queue at work. Run checks and repairs a spool that nobody uses.
//
// # Order of a repair
//
// Nothing is ever removed of which there is no other copy: records and content that
// belong nowhere go to lost+found, and a damaged store is kept under another name. A
// crash at any moment leaves a spool from which another repair goes on:
//
//  1. a damaged store is salvaged into a new one, DIR.building; the old one stays
//  2. changes are made: to lost+found first, then to the DEFEDB, then to the IBDB, so
//     that a recipient is in one of them at any time; then content files are moved
//  3. the new DEFEDB takes its place, then the new IBDB: DIR.building, which is
//     complete and synced, becomes DIR.new; DIR becomes DIR.damaged-TIME; DIR.new
//     becomes DIR
//
// If DIR is missing and DIR.new is there, the repair was interrupted in step 3, and is
// completed; a start of the queue refuses meanwhile (package store). In every other
// case DIR.building and DIR.new are rests, because the old store is still in place.
package fsck

import (
	"fmt"
	"strings"

	"meta1/mta/smtp"
)

// Severity says how bad a finding is.
type Severity string

// The severities.
const (
	// Note: harmless, for example a rest of a crash.
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
	// Failed says why what was tried did not work.
	Failed string `json:"failed,omitempty"`
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
	case f.Failed != "":
		b.WriteString(" [failed: " + f.Failed + "]")
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

func (f found) ta(ta smtp.ID) found {
	f.TA = ta.String()
	return f
}

func (f found) rcpt(ta smtp.ID, index int) found {
	f.TA, f.RcptID = ta.String(), smtp.RcptID(ta, index)
	return f
}

// repair says what repairs it.
func (f found) repair(words string, fix func(*writer) (string, error)) found {
	f.Repair, f.fix = words, fix
	return f
}

func newFound(s Severity, code, format string, args ...any) found {
	return found{Finding: Finding{Severity: s, Code: code, Text: fmt.Sprintf(format, args...)}}
}
