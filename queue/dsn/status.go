package dsn

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"meta1/mta/smtp"
)

// localDiagnostic is the type of a Diagnostic-Code that no remote host gave (RFC
// 3464 section 2.1.2: types of one's own begin with X-).
const localDiagnostic = "X-MeTA1"

// writeStatus writes the part for programs (RFC 3464 section 2): the fields of the
// message, then those of each recipient. w.ascii makes message/delivery-status,
// else it is message/global-delivery-status if anything is not ASCII.
func (n *Notification) writeStatus(w *writer) {
	w.field("Reporting-MTA", "dns; "+n.Hostname)
	if id, err := smtp.DecodeXtext(n.EnvID); err == nil {
		w.field("Original-Envelope-Id", id)
	}
	w.field("Received-From-MTA", receivedFrom(n.ReceivedFrom, n.ReceivedIP))
	w.date("Arrival-Date", n.Arrival)
	w.field("X-MeTA1-Id", n.TA)
	for i := range n.Failures {
		w.line("")
		n.Failures[i].writeStatus(w)
	}
}

// writeStatus writes the fields of one recipient (RFC 3464 section 2.3).
func (f *Failure) writeStatus(w *writer) {
	w.field("Original-Recipient", originalRecipient(f.ORcpt, w.ascii))
	w.field("Final-Recipient", finalRecipient(f.Rcpt, w.ascii))
	w.field("Action", f.Kind.String())
	w.field("Status", f.status().String())
	w.field("Remote-MTA", mtaName(f.Remote))
	if f.Kind == Failed || f.Kind == Delayed || f.Remote != "" {
		w.field("Diagnostic-Code", f.diagnostic()...)
	}
	w.date("Last-Attempt-Date", f.LastAttempt)
	if f.Kind == Delayed {
		w.date("Will-Retry-Until", f.RetryUntil)
	}
}

// diagnostic is the reply, each of its lines on a line of the field, "-" behind the
// code of all but the last as in SMTP (RFC 3461 section 9.2).
func (f *Failure) diagnostic() []string {
	if f.Reply.IsZero() {
		return nil
	}
	kind := "smtp; "
	if f.Remote == "" {
		kind = localDiagnostic + "; "
	}
	kept := keptLines(f.Reply)
	lines := make([]string, len(kept))
	code := strconv.Itoa(f.Reply.Code)
	for i, text := range kept {
		sep := "-"
		if i == len(kept)-1 {
			sep = " "
		}
		if !f.Reply.Enhanced.IsZero() {
			text = f.Reply.Enhanced.String() + " " + text
		}
		lines[i] = code + sep + text
	}
	lines[0] = kind + lines[0]
	return lines
}

// date writes a date, unless there is none.
func (w *writer) date(name string, t time.Time) {
	if !t.IsZero() {
		w.field(name, t.Format(time.RFC1123Z))
	}
}

// mtaName is a host with its type (RFC 3464 section 2.1.2).
func mtaName(host string) string {
	switch {
	case host == "":
		return ""
	case smtp.CheckHelo(host) == nil:
		return "dns; " + host
	case host[0] == '/':
		return "unix; " + host
	default:
		return "x-unknown; " + host
	}
}

// receivedFrom is the client's HELO name with its address as a comment (RFC 3464
// section 2.2.4).
func receivedFrom(helo string, ip netip.Addr) string {
	if !ip.IsValid() {
		return mtaName(helo)
	}
	literal := string(smtp.AppendAddressLiteral(nil, ip))
	if helo == "" || helo == literal {
		return mtaName(literal)
	}
	return mtaName(helo) + " (" + literal + ")"
}

// finalRecipient is the recipient's address with its type: rfc822, or utf-8 if it
// is not ASCII (RFC 6533 section 3).
func finalRecipient(p smtp.Path, ascii bool) string {
	addr := p.Addr()
	if isASCII(addr) {
		return "rfc822; " + addr
	}
	return "utf-8; " + utf8Address(addr, ascii)
}

// originalRecipient is the value of ORCPT= decoded, type and address, or "" if
// there is none or it is malformed.
func originalRecipient(orcpt string, ascii bool) string {
	kind, addr, ok := strings.Cut(orcpt, ";")
	if !ok || addr == "" || !isAtom(kind) {
		return ""
	}
	decoded, err := smtp.DecodeXtext(addr)
	if !strings.EqualFold(kind, "utf-8") {
		if err != nil {
			return ""
		}
		return kind + "; " + decoded
	}
	if err == nil {
		addr = decoded
	}
	return "utf-8; " + utf8Address(decodeEmbedded(addr), ascii)
}

// utf8Address is an address of type utf-8: as it is in UTF-8, or as
// utf-8-addr-xtext, which is ASCII without space, backslash, plus and equals sign
// (RFC 6533 section 3).
func utf8Address(addr string, ascii bool) string {
	if !ascii {
		return addr
	}
	var b strings.Builder
	for _, r := range addr {
		if r > ' ' && r <= '~' && strings.IndexByte(`\+=`, byte(r)) < 0 {
			b.WriteRune(r)
		} else {
			writeEmbedded(&b, r)
		}
	}
	return b.String()
}

// decodeEmbedded replaces each \x{HEX}. What is no such thing stays as it is; what
// comes out is foreign text like any other.
func decodeEmbedded(s string) string {
	const open = `\x{`
	var b strings.Builder
	for {
		i := strings.Index(s, open)
		if i < 0 {
			break
		}
		b.WriteString(s[:i])
		s = s[i:]
		hex, rest, ok := strings.Cut(s[len(open):], "}")
		r, err := strconv.ParseUint(hex, 16, 21)
		if !ok || err != nil || len(hex) > 6 || r > 0x10FFFF {
			b.WriteString(open)
			s = s[len(open):]
			continue
		}
		b.WriteRune(rune(r))
		s = rest
	}
	b.WriteString(s)
	return b.String()
}

// isAtom reports a word of letters, digits and hyphens.
func isAtom(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && s[i] != '-' {
			return false
		}
	}
	return s != ""
}
