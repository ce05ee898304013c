package milter

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Content is a message as a filter gets it.
type Content struct {
	Header []Header
	// Body reads the body from its beginning.
	Body func() io.Reader
	// Replace takes the next piece of a new body; the first call begins it. An error of it
	// becomes that of the filter.
	Replace func(p []byte) error
	Macros  Macros
}

// ChangeKind is a kind of change that a filter wants.
type ChangeKind uint8

// The kinds.
const (
	AddHeader    ChangeKind = iota // behind all others
	InsertHeader                   // before the field of number Index, from 1; 0 is the same as 1
	ChangeHeader                   // field Index, from 1, of those with this Name; an empty Value removes it
	AddRcpt
	DelRcpt
	ChangeFrom
)

func (k ChangeKind) String() string {
	return [...]string{"addheader", "insheader", "chgheader", "addrcpt", "delrcpt", "chgfrom"}[k]
}

// Change is one change that a filter wants.
type Change struct {
	Kind  ChangeKind
	Index int    // of headers
	Name  string // of headers
	// Value is that of a header, with CR LF and a blank at each fold and what stands between colon
	// and text, without a line end behind it; or an address.
	Value string
	Args  string // parameters of MAIL or RCPT, separated by blanks
}

// Changes are all changes that a filter wants of one message.
type Changes struct {
	List []Change
	Body bool // a new body went to Content.Replace
	// Quarantine is why the message is to be held; "" if it is not.
	Quarantine string
}

// Bounds of the changes of one filter to one message.
const (
	changesMax      = 10000
	changeBytesMax  = 4 << 20
	quarantineMax   = 500
	bodyPiece       = dataMax
	outMax          = 128 << 10
	headerIndexMost = 1 << 20
)

var (
	errMany    = errors.New("too many changes")
	errChange  = errors.New("a change that was not agreed on")
	errName    = errors.New("a header field with an impossible name")
	errAddress = errors.New("a change without an address")
)

// Filters is how many filters the session has; a nil one has none.
func (s *Session) Filters() int {
	if s == nil {
		return 0
	}
	return len(s.peers)
}

// Message gives the content to filter i and returns what it decides. Changes are to be applied
// if the verdict is Continue or Accept, and to nothing otherwise. Filters that have accepted
// the message or failed are not asked. The error is one of the caller's own content: of its
// Body or its Replace.
func (s *Session) Message(i int, m *Content) (Changes, Verdict, error) {
	p := s.peers[i]
	switch p.state {
	case inMessage:
	case failed:
		if p.cfg.Failure == Quarantine {
			return p.held(), Verdict{}, nil
		}
		return Changes{}, s.refusal(p, StageEOM), nil
	default:
		return Changes{}, Verdict{}, nil
	}
	began := time.Now()
	t := &transfer{s: s, p: p, c: p.c, m: m}
	v, err := t.run()
	p.observe(began)
	if own := (*contentError)(nil); errors.As(err, &own) {
		s.drop(p) // it waits for the rest of the message
		p.state, p.why = failed, err
		return Changes{}, Verdict{}, own.err
	}
	if err != nil {
		if v := s.fail(p, t.stage, err); p.cfg.Failure != Quarantine {
			return Changes{}, v, nil
		}
		return p.held(), Verdict{}, nil
	}
	if v.Action == Continue || v.Action == skip {
		v.Action = Continue
		p.count(v)
	} else {
		v = s.took(p, &command{stage: t.stage}, v)
	}
	if t.ended {
		p.state = inSession
	} else {
		s.end(p)
	}
	if v.Action != Continue && v.Action != Accept {
		return Changes{}, v, nil
	}
	if t.changes.Quarantine != "" && p.deps.Metrics.Verdicts != nil {
		p.deps.Metrics.Verdicts.WithLabelValues("quarantine").Inc()
	}
	return t.changes, v, nil
}

// held says that the message is held because the filter has failed.
func (p *peer) held() Changes {
	return Changes{Quarantine: "milter " + p.cfg.Name + " failed: " + printable(fmt.Sprint(p.why))}
}

// transfer is one message on its way to one filter.
type transfer struct {
	s       *Session
	p       *peer
	c       *conn
	m       *Content
	stage   Stage
	changes Changes
	bytes   int  // of changes
	ended   bool // the filter has answered the end of the message
}

// run sends header, body and end, and reads what the filter wants. The verdict is
// Continue at the end, or one that ends the message before.
func (t *transfer) run() (Verdict, error) {
	t.stage = StageEOH
	if v, err := t.header(); err != nil || v.Action != Continue {
		return v, err
	}
	if v, err := t.body(); err != nil || v.Action != Continue && v.Action != skip {
		return v, err
	}
	t.stage = StageEOM
	return t.end()
}

// send sends one piece of the content, and waits for its verdict if the filter gives one.
func (t *transfer) send(kind byte, data []byte, quiet uint32) (Verdict, error) {
	c := t.c
	c.out = appendPacket(c.out, kind, data)
	if c.protocol&quiet == 0 {
		return c.await(t.s.ctx, t.p.cfg.Timeouts.Content)
	}
	if len(c.out) < outMax {
		return Verdict{}, nil
	}
	return Verdict{}, c.send(t.s.ctx, t.p.cfg.Timeouts.Content)
}

// header sends the header, and its end.
func (t *transfer) header() (Verdict, error) {
	if t.c.protocol&noHeaders == 0 {
		for i := range t.m.Header {
			v, err := t.send(cmdHeader, t.headerData(&t.m.Header[i]), noReplyHeader)
			if err != nil || v.Action != Continue {
				return v, err
			}
		}
	}
	if t.c.protocol&noEOH != 0 {
		return Verdict{}, nil
	}
	t.c.addMacros(&command{stage: StageEOH, kind: cmdEOH, macros: t.m.Macros})
	return t.send(cmdEOH, nil, noReplyEOH)
}

// headerData is one field as it goes to the filter: folds are LF, and the blanks behind the
// colon are there only if the filter wants them. A value beyond what libmilter takes is cut
// for the filter.
func (t *transfer) headerData(h *Header) []byte {
	value := strings.ReplaceAll(h.Value, "\r\n", "\n")
	if t.c.protocol&leadingSpace == 0 {
		value = strings.TrimLeft(value, " \t")
	}
	data := appendString(nil, h.Name)
	if room := dataMax - len(data) - 1; len(value) > room {
		value = value[:max(room, 0)]
	}
	return appendString(data, value)
}

// body sends the body in pieces.
func (t *transfer) body() (Verdict, error) {
	if t.c.protocol&noBody != 0 {
		return Verdict{}, nil
	}
	r := t.m.Body()
	pooled, ok := t.p.pieces.Get().(*[]byte)
	if !ok {
		b := make([]byte, bodyPiece)
		pooled = &b
	}
	defer t.p.pieces.Put(pooled)
	piece := *pooled
	for {
		n, err := io.ReadFull(r, piece)
		if n > 0 {
			v, err := t.send(cmdBody, piece[:n], noReplyBody)
			if err != nil || v.Action != Continue {
				return v, err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return Verdict{}, nil
		case err != nil:
			return Verdict{}, &contentError{err}
		}
	}
}

// contentError is a failure of the caller's content, not one of the filter.
type contentError struct{ err error }

func (e *contentError) Error() string { return "content: " + e.err.Error() }

// end says that the message is complete, and reads changes up to the verdict.
func (t *transfer) end() (Verdict, error) {
	c, d := t.c, cmp.Or(t.p.cfg.Timeouts.End, t.p.cfg.Timeouts.Content)
	c.addMacros(&command{stage: StageEOM, kind: cmdEOM, macros: t.m.Macros})
	c.out = appendPacket(c.out, cmdEOM, nil)
	limit := time.Now().Add(max(d, t.p.cfg.Timeouts.Progress))
	if err := c.send(t.s.ctx, d); err != nil {
		return Verdict{}, err
	}
	for {
		p, err := c.read(t.s.ctx, earlier(time.Now().Add(d), limit))
		if err != nil {
			return Verdict{}, err
		}
		if p.kind == repProgress {
			continue
		}
		if v, ok, err := p.verdict(); ok {
			t.ended = true
			return v, err
		}
		if err := t.change(p); err != nil {
			return Verdict{}, err
		}
	}
}

// needed is the action that a change needs to be agreed on.
var needed = map[byte]uint32{
	repAddRcpt: actAddRcpt, repAddRcptArgs: actAddRcptArgs, repDelRcpt: actDelRcpt, repBody: actChangeBody,
	repChangeFrom: actChangeFrom, repAddHeader: actAddHeaders, repInsertHeader: actAddHeaders,
	repChangeHeader: actChangeHeaders, repQuarantine: actQuarantine,
}

// change reads one change.
func (t *transfer) change(p packet) error {
	act, known := needed[p.kind]
	switch {
	case !known:
		return fmt.Errorf("the filter answers %q", p.kind)
	case t.c.actions&act == 0:
		return fmt.Errorf("%w: %q", errChange, p.kind)
	case p.kind == repBody:
		t.changes.Body = true
		if err := t.m.Replace(p.data); err != nil {
			return &contentError{err}
		}
		return nil
	case p.kind == repQuarantine:
		reason := printable(strings.TrimRight(string(p.data), "\x00"))
		if reason == "" {
			reason = "no reason given"
		}
		t.changes.Quarantine = reason[:min(len(reason), quarantineMax)]
		return nil
	}
	if t.bytes += len(p.data); t.bytes > changeBytesMax || len(t.changes.List) >= changesMax {
		return errMany
	}
	ch, err := parseChange(p, t.c.protocol&leadingSpace != 0)
	if err != nil {
		return err
	}
	t.changes.List = append(t.changes.List, ch)
	return nil
}

// parseChange reads a change of the header or of the envelope.
func parseChange(p packet, spaced bool) (ch Change, err error) {
	data := p.data
	switch p.kind {
	case repAddRcpt, repAddRcptArgs, repDelRcpt, repChangeFrom:
		words := allStrings(data)
		if len(words) == 0 {
			return ch, errAddress
		}
		ch.Kind = map[byte]ChangeKind{repAddRcpt: AddRcpt, repAddRcptArgs: AddRcpt, repDelRcpt: DelRcpt, repChangeFrom: ChangeFrom}[p.kind]
		ch.Value = words[0]
		if len(words) > 1 && p.kind != repDelRcpt {
			ch.Args = strings.Join(words[1:], " ")
		}
		return ch, nil
	case repInsertHeader, repChangeHeader:
		var index uint32
		if index, data, err = cutNumber(data); err != nil {
			return ch, err
		}
		ch.Kind, ch.Index = InsertHeader, int(min(index, headerIndexMost))
		if p.kind == repChangeHeader {
			ch.Kind, ch.Index = ChangeHeader, max(ch.Index, 1)
		}
	}
	value := ""
	if ch.Name, data, err = cutString(data); err == nil {
		value, _, err = cutString(data)
	}
	if err != nil {
		return ch, err
	}
	if !validName(ch.Name) {
		return ch, errName
	}
	ch.Value = fold(value)
	if !spaced && ch.Value != "" {
		ch.Value = " " + strings.TrimLeft(ch.Value, " ")
	}
	if ch.Value == "" && ch.Kind != ChangeHeader {
		ch.Value = " "
	}
	return ch, nil
}

// validName reports whether a header field may have the name (RFC 5322 section 2.2).
func validName(name string) bool {
	for i := range len(name) {
		if name[i] < '!' || name[i] > '~' || name[i] == ':' {
			return false
		}
	}
	return name != "" && len(name) <= 900
}

// fold makes a filter's value one that cannot end the header or its field: lines end in CR LF,
// each but the first begins with a blank, and none is empty.
func fold(value string) string {
	value = strings.ReplaceAll(value, "\r\n", "\n")
	value = strings.ReplaceAll(value, "\r", "\n")
	if !strings.Contains(value, "\n") {
		return value
	}
	var b strings.Builder
	for i, line := range strings.Split(value, "\n") {
		if i > 0 && strings.Trim(line, " \t") == "" {
			continue
		}
		if i > 0 {
			b.WriteString("\r\n")
			if line[0] != ' ' && line[0] != '\t' {
				b.WriteByte('\t')
			}
		}
		b.WriteString(line)
	}
	return b.String()
}
