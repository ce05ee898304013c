package server

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// heloShown bounds the argument of EHLO in Received:, which keeps each line of the
// header below 998 octets.
const heloShown = smtp.DomainMax

// receivedDate is the date-time of RFC 5322 section 3.3.
const receivedDate = "Mon, 2 Jan 2006 15:04:05 -0700"

// appendReceived adds the part of our Received: header that is the same for all
// transactions of a session, up to the id (README 10.5):
//
//	Received: from HELO (CLIENT_NAME [CLIENT_IP])
//		by HOST (meta1-VERSION) with PROTOCOL
//		(TLS=VERSION, cipher=CIPHER, bits=BITS, verify=RESULT)
//		id TA; DATE
//
// The line about TLS is there only if TLS is used.
func appendReceived(b []byte, c *msg.Client, host, version string) []byte {
	b = append(b, "Received: from "...)
	if c.Helo == "" {
		b = append(b, "unknown"...)
	}
	b = appendWord(b, c.Helo)
	b = appendClient(b, strings.TrimSuffix(c.Name, "."), c.IP)
	b = append(b, "\r\n\tby "...)
	b = appendWord(b, host)
	b = append(b, " (meta1-"...)
	b = appendWord(b, version)
	b = append(b, ") with "...)
	b = append(b, c.Protocol...)
	return append(appendTLS(b, c.TLS), "\r\n\tid "...)
}

// appendTLS adds what the TLS handshake gave, on a line of its own.
func appendTLS(b []byte, t *msg.TLS) []byte {
	if t == nil {
		return b
	}
	b = append(appendWord(append(b, "\r\n\t(TLS="...), t.Version), ", cipher="...)
	b = append(appendWord(b, t.Cipher), ", bits="...)
	b = append(strconv.AppendInt(b, int64(t.Bits), 10), ", verify="...)
	return append(appendWord(b, t.Verify), ')')
}

// appendClient adds what is known of the client as a comment.
func appendClient(b []byte, name string, ip netip.Addr) []byte {
	if !ip.IsValid() {
		return append(b, " (local socket)"...)
	}
	b = append(b, " ("...)
	if name != "" {
		b = append(appendWord(b, name), ' ')
	}
	return append(smtp.AppendAddressLiteral(b, ip), ')')
}

// appendID adds the end of the header.
func appendID(b []byte, ta smtp.ID, f *forward, t time.Time) []byte {
	var d dateText
	return d.appendID(b, ta, f, t)
}

// dateText is a second as Received: shows it: formatting a time costs more than the rest of the header.
type dateText struct {
	second int64
	text   []byte // empty before the first
}

// appendID is the function, for times of one location.
func (d *dateText) appendID(b []byte, ta smtp.ID, f *forward, t time.Time) []byte {
	if second := t.Unix(); second != d.second || len(d.text) == 0 {
		d.second, d.text = second, t.AppendFormat(d.text[:0], receivedDate)
	}
	b = append(f.appendReceived(ta.Append(b)), "; "...)
	return append(append(b, d.text...), "\r\n"...)
}

// appendWord adds a text of the client's. What could be taken for the structure of
// the header, or is not printable ASCII, becomes "?".
func appendWord(b []byte, s string) []byte {
	for i := range min(len(s), heloShown) {
		c := s[i]
		if c <= ' ' || c > '~' || strings.IndexByte(`()<>;,"\`, c) >= 0 {
			c = '?'
		}
		b = append(b, c)
	}
	return b
}
