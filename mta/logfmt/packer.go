package logfmt

import (
	"bytes"
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"meta1/mta/logline"
)

// packer appends a line to b as it is sent: with its severity and time.
type packer func(b []byte, severity int, now time.Time, line []byte) []byte

func newPacker(c SyslogConfig, facility int) packer {
	pid := strconv.Itoa(os.Getpid())
	switch c.Protocol {
	case ProtocolJournal:
		return journalPacker(facility, c.Ident, pid)
	case ProtocolRFC5424:
		host := c.Hostname
		if host == "" {
			host, _ = os.Hostname() // else nil, "-"
		}
		return rfc5424Packer(facility, host, c.Ident, pid)
	default:
		return syslogPacker(facility, c.Ident, pid)
	}
}

// syslogPacker is the form of syslog(3): that of RFC 3164 without the host name. It is cut at syslogLine bytes.
func syslogPacker(facility int, ident, pid string) packer {
	tag := ident + "[" + pid + "]: "
	return func(b []byte, severity int, now time.Time, line []byte) []byte {
		start := len(b)
		b = appendPriority(b, facility, severity)
		b = now.AppendFormat(b, time.Stamp)
		b = append(append(append(b, ' '), tag...), line...)
		return b[:min(len(b), start+syslogLine)]
	}
}

func appendPriority(b []byte, facility, severity int) []byte {
	return append(strconv.AppendInt(append(b, '<'), int64(facility<<3|severity), 10), '>')
}

const (
	// StructuredID is the name of the structured data that hold the fields of a line (RFC 5424, section
	// 7.2.2). 32473 is the number that RFC 5612 sets aside for such names of those who have none of their own.
	StructuredID = "meta1@32473"
	// structuredMax is how many bytes of structured data a line has at most. Fields that do not fit are in the
	// message alone.
	structuredMax = syslogLine / 2
	// nameMax and msgidMax bound names of structured data, and MSGID (RFC 5424, section 6).
	nameMax, msgidMax = 32, 32
	hostMax, appMax   = 255, 48
)

// rfc5424Packer is the form of RFC 5424: MSGID is the event, the structured data are the fields, and the message
// is the line as text, which is what a daemon prints that knows nothing of structured data.
func rfc5424Packer(facility int, host, ident, pid string) packer {
	head := " " + headerWord(host, hostMax) + " " + headerWord(ident, appMax) + " " + pid + " "
	return func(b []byte, severity int, now time.Time, line []byte) []byte {
		start := len(b)
		b = append(appendPriority(b, facility, severity), "1 "...)
		b = now.AppendFormat(b, "2006-01-02T15:04:05.000000Z07:00")
		b = append(b, head...)
		b = append(append(b, headerWord(eventOf(line), msgidMax)...), ' ')
		data := len(b)
		b = append(append(b, '['), StructuredID...)
		for name, value := range fields(line) {
			before := len(b)
			b = append(appendName(append(b, ' '), name), '=', '"')
			b = append(appendParam(b, value), '"')
			if len(b)-data >= structuredMax {
				b = b[:before]
			}
		}
		b = append(append(b, ']', ' '), line...)
		return cutUTF8(b, start+syslogLine)
	}
}

// cutUTF8 cuts b to n bytes, in front of a character rather than in it.
func cutUTF8(b []byte, n int) []byte {
	if len(b) <= n {
		return b
	}
	for n > 0 && !utf8.RuneStart(b[n]) {
		n--
	}
	return b[:n]
}

// headerWord is a word of the header: printable ASCII, "-" if there is none (RFC 5424, section 6.2).
func headerWord(s string, most int) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s[:min(len(s), most)])
}

// appendName adds the name of a field as PARAM-NAME.
func appendName(b []byte, name string) []byte {
	for _, c := range []byte(name[:min(len(name), nameMax)]) {
		if c <= ' ' || c > '~' || c == '=' || c == ']' || c == '"' {
			c = '_'
		}
		b = append(b, c)
	}
	return b
}

// appendParam adds a value as PARAM-VALUE: UTF-8 in which a quote, a backslash and a closing bracket
// are escaped (RFC 5424, section 6.3.3). Control characters stay escaped as in the text, since few
// daemons do more than to print what they get.
func appendParam(b []byte, value string) []byte {
	for _, r := range value { // what is not UTF-8 becomes U+FFFD
		switch {
		case r == '"' || r == '\\' || r == ']':
			b = append(b, '\\', byte(r))
		case r < ' ' || r == 0x7f:
			b = append(b, '%', upperHex[r>>4], upperHex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return b
}

// journalPrefix is in front of the names of our fields in the journal, which has one space of names for all
// programs.
const journalPrefix = "META1_"

// journalPacker is the native protocol of systemd's journal. The message is the line as text, as in a log
// file; META1_TIME is when it was logged.
func journalPacker(facility int, ident, pid string) packer {
	fixed := "\nSYSLOG_FACILITY=" + strconv.Itoa(facility) + "\nSYSLOG_PID=" + pid + "\n"
	return func(b []byte, severity int, now time.Time, line []byte) []byte {
		b = append(strconv.AppendInt(append(b, "PRIORITY="...), int64(severity), 10), fixed...)
		b = appendJournal(b, "SYSLOG_IDENTIFIER", ident)
		b = append(now.UTC().AppendFormat(append(b, "META1_TIME="...), timeLayout), '\n')
		b = appendJournal(b, "MESSAGE", string(line))
		for name, value := range fields(line) {
			b = appendJournal(b, journalName(name), value)
		}
		return b // a field without a line feed would be ignored
	}
}

// journalName is the name of a field in the journal: upper case, digits and underscores, 64 bytes at most.
func journalName(name string) string {
	upper := []byte(journalPrefix + strings.ToUpper(name))
	for i, c := range upper {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			upper[i] = '_'
		}
	}
	return string(upper[:min(len(upper), 64)])
}

// appendJournal adds a field; one whose value has a line feed with its length in front.
func appendJournal(b []byte, name, value string) []byte {
	b = append(b, name...)
	if !strings.Contains(value, "\n") {
		return append(append(append(b, '='), value...), '\n')
	}
	b = binary.LittleEndian.AppendUint64(append(b, '\n'), uint64(len(value)))
	return append(append(b, value...), '\n')
}

// eventOf is the event of a line.
func eventOf(line []byte) string {
	for name, value := range fields(line) {
		if name == "event" {
			return value
		}
	}
	return ""
}

// fields are the fields of a line of text without a time, in their order, with the values as they were before
// they were printed. So every protocol has the names and values of the text.
func fields(line []byte) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		for field := range bytes.SplitSeq(line, []byte(", ")) {
			name, value, found := bytes.Cut(field, []byte("="))
			if found && len(name) > 0 && !yield(string(name), logline.Unescape(string(value))) {
				return
			}
		}
	}
}
