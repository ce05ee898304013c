package logline

import "bytes"

// structured begins the structured data of a line of RFC 5424 that meta1 has sent (logfmt.StructuredID).
var structured = []byte("[meta1@32473 ")

// Split tells what meta1 has written from what a syslog daemon put in front, which may hold the time of the line:
// the body begins with "sev=" or, as JSON, with a brace. It is empty for a line of another program.
func Split(line []byte) (head, body []byte) {
	from := 0
	if i := bytes.Index(line, structured); i >= 0 {
		// In a value both a quote and a bracket are escaped, so that these end the last one.
		if j := bytes.Index(line[i:], []byte(`"] `)); j >= 0 {
			head, from = line[:i], i+j+3
		}
	}
	i := bytes.Index(line[from:], []byte("sev="))
	if j := bytes.IndexByte(line[from:], '{'); j >= 0 && (i < 0 || j < i) {
		i = j
	}
	if i < 0 {
		return line, nil
	}
	if from == 0 {
		head = line[:i]
	}
	return head, line[from+i:]
}
