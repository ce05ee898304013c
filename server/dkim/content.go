package dkim

// Content reads the content of a message in one pass: it keeps the header, of at most MaxHeader
// bytes, and makes the hashes of the body. It is not safe for concurrent use.
type Content struct {
	wanted  []func(Header) []Canon
	header  []byte
	fields  Header
	ended   bool
	tooLong bool
	odd     error // the header is not one
	bodies  map[Canon]*BodyHash
	sums    map[Canon][]byte
}

// NewContent begins a message. wanted says of its header in which forms a hash of the body is
// needed.
func NewContent(wanted func(Header) []Canon) *Content {
	return &Content{wanted: []func(Header) []Canon{wanted}}
}

// Write takes the next piece. It never fails.
func (m *Content) Write(p []byte) (int, error) {
	n := len(p)
	for !m.ended && !m.tooLong && len(p) > 0 {
		piece := p[:min(len(p), headPiece)]
		before := len(m.header)
		m.header = append(m.header, piece...)
		end := headerEnd(m.header, before)
		switch {
		case max(end, len(m.header)-headPiece) > MaxHeader:
			m.header, m.tooLong = nil, true
		case end >= 0:
			m.header = m.header[:end]
			m.endHeader()
			p = p[end-before:]
		default:
			p = p[len(piece):]
		}
	}
	for _, b := range m.bodies {
		_, _ = b.Write(p) // it never fails
	}
	return n, nil
}

// More reports whether the content that is still to come can matter: the header has not ended,
// or a hash of the body is wanted.
func (m *Content) More() bool { return !m.tooLong && (!m.ended || len(m.bodies) > 0) }

// Held is how many bytes of the content are held in memory.
func (m *Content) Held() int { return cap(m.header) }

// Header are the fields of the message, once its header has ended.
func (m *Content) Header() (Header, error) {
	switch {
	case m.tooLong:
		return nil, errLongHeader
	case !m.ended:
		m.endHeader() // it is nothing but a header
	}
	return m.fields, m.odd
}

// endHeader begins the body.
func (m *Content) endHeader() {
	m.ended = true
	m.fields, m.odd = ParseHeader(m.header)
	m.bodies = map[Canon]*BodyHash{}
	for _, wanted := range m.wanted {
		for _, c := range wanted(m.fields) {
			if m.bodies[c] == nil {
				m.bodies[c] = NewBodyHash(c)
			}
		}
	}
}

// end ends the body.
func (m *Content) end() {
	if m.sums != nil {
		return
	}
	m.sums = map[Canon][]byte{}
	for c, b := range m.bodies {
		m.sums[c] = b.Sum()
	}
}

// Sum ends the body, and gives its hash in one of the forms that were wanted; nil for others.
func (m *Content) Sum(c Canon) []byte {
	m.end()
	return m.sums[c]
}
