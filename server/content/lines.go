package content

import "bytes"

// LineScanner finds line ends other than CR LF in content that comes in pieces without
// dot-stuffing: such a message could not go on by DATA, and hosts on the way would not
// agree on where its lines end (README 6.3.1). Of BINARYMIME that holds for the header alone,
// which must have no NUL either. Lines makes one.
type LineScanner struct {
	out    *Content
	cr     bool  // the last octet was a CR
	binary bool  // behind the header stand any octets
	body   bool  // the header of such a message has ended
	len    int64 // octets of the current line
	max    int64 // longest line without CR LF; 0 for no limit
}

// Lines is by what the octets of the message are examined that come in by BDAT, and then go to
// Write. lineMax is as for Dots; binary says that BODY=BINARYMIME was given (RFC 3030).
func (c *Content) Lines(lineMax int64, binary bool) LineScanner {
	return LineScanner{out: c, max: lineMax, binary: binary}
}

// Scan examines the next piece.
func (l *LineScanner) Scan(in []byte) {
	for len(in) > 0 && !l.body {
		line := in
		i := bytes.IndexByte(in, '\n')
		if i >= 0 {
			line = in[:i]
		}
		if l.binary && bytes.IndexByte(line, 0) >= 0 {
			l.out.Fail(replyNUL)
		}
		cr := bytes.IndexByte(line, '\r')
		if l.cr && len(line) > 0 || cr >= 0 && cr != len(line)-1 {
			l.out.Fail(replyBareLine)
		}
		l.cr = cr >= 0 || l.cr && len(line) == 0
		if l.len += int64(len(line)); cr >= 0 {
			l.len--
		}
		if l.max > 0 && l.len > l.max {
			l.out.Fail(replyLongLine)
		}
		if i < 0 {
			return
		}
		if !l.cr {
			l.out.Fail(replyBareLine)
		}
		l.body = l.binary && l.len == 0
		l.cr, l.len, in = false, 0, in[i+1:]
	}
}

// End is the end of the message.
func (l *LineScanner) End() {
	if l.cr {
		l.out.Fail(replyBareLine)
	}
}
