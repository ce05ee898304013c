package content

import (
	"bytes"

	"meta1/mta/smtp"
)

// Refusals of a message because of what is in it. They are sent after the final dot.
var (
	replyBareLine = smtp.NewReply(554, "5.6.0", "Message contains a bare CR or LF")
	replyLongLine = smtp.NewReply(554, "5.6.0", "Message contains a line that is too long")
)

// DotScanner takes the data of a message off the wire (RFC 5321 section 4.5.2): it
// finds the end, removes the dots that were stuffed, and refuses lines that are not
// ended by CR LF. Dots makes one.
type DotScanner struct {
	out     *Content
	inLine  bool  // the last byte scanned was not the LF of a CR LF
	lineLen int64 // bytes scanned of the current line
	lineMax int64 // longest line without CR LF; 0 for no limit
}

// Dots is by what all of the message will come in, at the beginning of its data.
// lineMax bounds a line without CR LF, in bytes; 0 is no limit.
func (c *Content) Dots(lineMax int64) DotScanner {
	c.shape.NoDots = !c.dotted // until one is found
	return DotScanner{out: c, lineMax: lineMax}
}

// Scan examines in and passes what is of the message to its content. It returns how many bytes it has
// taken, and whether they end with the final dot. What is left of in, at most two
// bytes if it is not the end, must be given again with more behind it.
func (d *DotScanner) Scan(in []byte) (n int, end bool) {
	out := d.out
	run, i, ends := 0, 0, 0 // in[run:i] is content that out has not got yet, in[:i] has so many line ends
	for i < len(in) {
		if !d.inLine && in[i] == '.' {
			rest := in[i+1:]
			if len(rest) < 2 && (len(rest) == 0 || rest[0] == '\r') {
				break // perhaps the final dot
			}
			out.Write(in[run:i])
			if rest[0] == '\r' && rest[1] == '\n' {
				run, end = i, true
				break
			}
			i++
			out.shape.NoDots = false
			run, d.inLine = i, true
		}
		taken := d.line(in[i:])
		if taken == 0 {
			break // a CR whose LF may follow
		}
		i += taken
		if !d.inLine {
			ends++
		}
	}
	out.Write(in[run:i])
	if bytes.Count(in[:i], []byte{'\r'}) != ends { // counting all at once is quicker than a search in each line
		out.Fail(replyBareLine)
	}
	if end {
		i += len(".\r\n")
	}
	return i, end
}

// line examines in up to its first LF or its end and returns the number of bytes
// taken. A CR at the very end is left, one elsewhere is Scan's to find.
func (d *DotScanner) line(in []byte) int {
	j := bytes.IndexByte(in, '\n')
	if j < 0 {
		return d.unfinished(in)
	}
	if j > 0 && in[j-1] == '\r' {
		d.measure(j - 1)
		d.inLine, d.lineLen = false, 0
		return j + 1
	}
	// A bare LF ends no line: a dot behind it is an ordinary one.
	d.out.Fail(replyBareLine)
	d.measure(j + 1)
	d.inLine = true
	return j + 1
}

// unfinished takes a piece of a line.
func (d *DotScanner) unfinished(in []byte) int {
	n := len(in)
	if in[n-1] == '\r' {
		n--
	}
	if n == 0 {
		return 0
	}
	d.inLine = true
	d.measure(n)
	return n
}

// measure adds n bytes to the current line.
func (d *DotScanner) measure(n int) {
	if d.lineLen += int64(n); d.lineMax > 0 && d.lineLen > d.lineMax {
		d.out.Fail(replyLongLine)
	}
}
