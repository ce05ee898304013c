// Package verp makes variable envelope return paths (README 3.8 item 18,
// 3.14): the sender of a message names the recipient to whom it goes, so that a
// bounce tells whom it is about. Mail from <lm@mail> to <lr@rcpt> has the sender
// <lm+lr=rcpt@mail>. It is pure: values in, values out.
package verp

import (
	"cmp"

	"meta1/mta/smtp"
)

// The delimiters of README 3.8, item 18, which "" stands for.
const (
	Delimiter1 = "+" // between the local parts of sender and recipient
	Delimiter2 = "=" // in place of the recipient's @
)

// Config says whose sender names the recipient, and how (README 3.8, item 18).
type Config struct {
	When                   string // WhenAlways, WhenNever; else if the client asked for it
	Delimiter1, Delimiter2 string // "" for the defaults
}

// The words of Config.When.
const (
	WhenAlways = "always"
	WhenNever  = "never"
)

// Applies reports whether the sender mail of a message is to name its recipient. asked: the
// client, or the list that it came through, asked for that. A bounce must not get a sender, and
// one that a host made by SRS has a hash over all of it, which the recipient would break.
func (c *Config) Applies(mail smtp.Path, asked bool) bool {
	return !mail.IsNull() && !smtp.IsSRS(mail.Local) && c.When != WhenNever && (asked || c.When == WhenAlways)
}

// Sender is the sender of a message from mail to rcpt. Quotes of the local parts are
// taken off, and put around the new one if it needs them.
//
// ok is false, and mail must be sent as it is, if there is no such sender: mail is
// the null sender (a bounce must not get a sender), one of the paths has no domain
// (<postmaster>), or the new path would have more than the 256 octets that every host
// can take (RFC 5321 section 4.5.3.1.3). Cutting it instead would send bounces to the
// wrong place. The 64 octets of a local part (4.5.3.1.1) are no limit: hosts that insist
// on them are rare, list managers have made longer ones for decades, as Postfix does, and
// a bounce that names nobody is what VERP is there to avoid.
func (c *Config) Sender(mail, rcpt smtp.Path) (sender smtp.Path, ok bool) {
	if mail.Local == "" || mail.Domain == "" || rcpt.Local == "" || rcpt.Domain == "" {
		return smtp.Path{}, false
	}
	local, ok := smtp.QuoteLocal(smtp.UnquoteLocal(mail.Local) + cmp.Or(c.Delimiter1, Delimiter1) +
		smtp.UnquoteLocal(rcpt.Local) + cmp.Or(c.Delimiter2, Delimiter2) + rcpt.Domain)
	if !ok || !fits(local, mail.Domain) {
		return smtp.Path{}, false
	}
	return smtp.Path{Local: local, Domain: mail.Domain}, true
}

// pathMax is the length of a path with its brackets that every host can take.
const pathMax = 256

// fits reports whether every host can take an address.
func fits(local, domain string) bool {
	const brackets = len("<@>")
	return len(local)+len(domain)+brackets <= pathMax
}
