package content

import "bytes"

const (
	// headerLineMax is how much of a header line is looked at.
	headerLineMax = 1000
	// msgidMax bounds the Message-Id: that is logged.
	msgidMax = 250
)

// headerScan counts Received: headers, and finds Date: and the Message-Id: while content
// passes. The zero value is at the beginning of a message.
type headerScan struct {
	hops  int
	msgid string
	date  bool // there is a Date:
	named bool // there is a Message-Id:, perhaps an empty one
	odd   bool // a line is none of a header
	// tlsOptional: the sender wishes that TLS not be insisted on (RFC 8689 section 3).
	tlsOptional bool

	done    bool   // the header has ended
	inMsgid bool   // the last header was a Message-Id: without a value so far
	partial []byte // beginning of a line whose end has not come yet
}

// feed takes the next piece of content.
func (h *headerScan) feed(p []byte) {
	for !h.done && len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			h.keep(p)
			return
		}
		line := p[:i]
		if len(h.partial) > 0 {
			h.keep(line)
			line = h.partial
			h.partial = h.partial[:0]
		}
		h.line(bytes.TrimSuffix(line, []byte{'\r'}))
		p = p[i+1:]
	}
}

// keep stores the beginning of a line.
func (h *headerScan) keep(p []byte) {
	room := headerLineMax - len(h.partial)
	h.partial = append(h.partial, p[:min(room, len(p))]...)
}

func (h *headerScan) line(line []byte) {
	switch {
	case len(line) == 0:
		h.done, h.partial = true, nil
	case line[0] == ' ' || line[0] == '\t':
		if h.inMsgid {
			h.take(line)
		}
	case hasName(line, "received:"):
		h.hops++
		h.inMsgid = false
	case hasName(line, "tls-required:"):
		h.tlsOptional = bytes.EqualFold(bytes.TrimSpace(line[len("tls-required:"):]), []byte("no"))
		h.inMsgid = false
	case hasName(line, "date:"):
		h.date, h.inMsgid = true, false
	case hasName(line, "message-id:"):
		if h.named = true; h.msgid == "" {
			h.take(line[len("message-id:"):])
		}
	default:
		h.inMsgid = false
		h.odd = h.odd || !isField(line)
	}
}

// isField reports whether a line begins a header field: a name and a colon (RFC 5322
// section 2.2), blanks before the colon as old mailers write them.
func isField(line []byte) bool {
	name, _, found := bytes.Cut(line, []byte{':'})
	name = bytes.TrimRight(name, " \t")
	for _, c := range name {
		if c < '!' || c > '~' {
			return false
		}
	}
	return found && len(name) > 0
}

// take sets the Message-Id, unless the value stands on the next line.
func (h *headerScan) take(value []byte) {
	value = bytes.TrimSpace(value)
	h.inMsgid = len(value) == 0
	h.msgid = string(value[:min(len(value), msgidMax)])
}

// hasName reports whether the line begins with name, which is in lower case, in
// any case.
func hasName(line []byte, name string) bool {
	if len(line) < len(name) {
		return false
	}
	for i := range len(name) {
		c := line[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != name[i] {
			return false
		}
	}
	return true
}
