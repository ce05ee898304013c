package msg

// Shape is what is known for certain of content, so that whoever sends it need not look through it once more. The
// zero value knows nothing.
type Shape struct {
	ASCII bool // no byte is beyond ASCII
	// NoDots: no line begins with a dot, so that none has to be doubled (RFC 5321 section 4.5.2). The final dot of
	// whoever sends the content depends on it.
	NoDots bool
}
