package dsn

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"meta1/mta/smtp"
)

// localDiagnostic is the type of a Diagnostic-Code that no remote host gave (RFC
// 3464 section 2.1.2: types of one's own begin with X-).
const localDiagnostic = "X-MeTA1"

// writeStatus writes the part for programs (RFC 3464 section 2): the fields of the
// message, then those of each recipient. w.ascii makes message/delivery-status,
// else it is message/global-delivery-status if anything is not ASCII.
func (n *Notification) writeStatus(w *writer) {
	if id, err := smtp.DecodeXtext(n.EnvID); err == nil {
		w.field("Original-Envelope-Id", id)
	}
	w.field("Reporting-MTA", reportingMTA(n.Hostname))
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

// reportingMTA is our own name with its type: dns only if it is fully qualified (RFC
// 3461 section 6.3b).
func reportingMTA(host string) string {
	if strings.ContainsAny(host, ".[") && smtp.CheckHelo(host) == nil {
		return "dns; " + host
	}
	return "x-local-hostname; " + host
}

// mtaName is a host with its type (RFC 3464 section 2.1.2). IANA knows dns and x400
// alone; other types begin with "x-".
func mtaName(host string) string {
	switch {
	case host == "":
		return ""
	case smtp.CheckHelo(host) == nil:
		return "dns; " + host
	case host[0] == '/':
		return "x-unix; " + host
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
//
// The type utf-8 has an encoding of its own in place of xtext. An address that does
// not keep to it is passed on as it is (RFC 6533 section 3).
func originalRecipient(orcpt string, ascii bool) string {
	kind, addr, ok := strings.Cut(orcpt, ";")
	if !ok || addr == "" || !isAtom(kind) {
		return ""
	}
	if strings.EqualFold(kind, "utf-8") {
		if decoded, ok := decodeUnitext(addr); ok {
			addr = utf8Address(decoded, ascii)
		}
		return "utf-8; " + addr
	}
	decoded, err := smtp.DecodeXtext(addr)
	if err != nil {
		return ""
	}
	return kind + "; " + decoded
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

// decodeUnitext replaces each \x{HEXPOINT} of a utf-8-addr-xtext or
// utf-8-addr-unitext. ok is false if s is neither (RFC 6533 section 3), or if it
// hides a control character.
func decodeUnitext(s string) (decoded string, ok bool) {
	var b strings.Builder
	for s != "" {
		rest, found := strings.CutPrefix(s, `\x{`)
		if !found {
			r, n := utf8.DecodeRuneInString(s)
			if r == utf8.RuneError && n == 1 || r <= ' ' || strings.ContainsRune("\\+=\x7f", r) {
				return "", false
			}
			b.WriteString(s[:n])
			s = s[n:]
			continue
		}
		hex, after, closed := strings.Cut(rest, "}")
		r, ok := hexPoint(hex)
		if !ok || !closed {
			return "", false
		}
		b.WriteRune(r)
		s = after
	}
	return b.String(), true
}

// hexPoint reads the code point of a character that may be encoded (RFC 6533 section
// 3, HEXPOINT): one beyond ASCII, or one of the ASCII characters that must be.
func hexPoint(hex string) (rune, bool) {
	n, err := strconv.ParseUint(hex, 16, 24)
	r := rune(n)
	if err != nil || len(hex) < 2 || len(hex) > 2 && hex[0] == '0' || !utf8.ValidRune(r) {
		return 0, false
	}
	return r, r >= utf8.RuneSelf || strings.ContainsRune(` \+=`, r)
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
