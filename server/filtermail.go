package server

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/milter"
)

// headerMax bounds the header of a message that filters see, in bytes: they want it in memory.
const headerMax = 1 << 20

// addedMax bounds the recipients that filters add to a message.
const addedMax = 1000

// draft is a message between two filters: what those before have made of it.
type draft struct {
	c      *session
	fields []milter.Header
	empty  bool     // an empty line ends the header
	body   *content // has the body, and perhaps more before it
	from   int64    // where the body begins
	first  *content // as the client sent it
	lines  lineEnds // of a new body
	header bool     // it was changed
	hold   string   // why the message is to be held; "": it is not
	added  int      // recipients
	// results is our Authentication-Results:, which stands above our trace fields as long as
	// filters let it stand; nil: there is none.
	results []milter.Header
	top     []byte // what stands above the fields; nil: our trace
	opened  bool   // fields are those of the body
	// refused are the places of the recipients in the envelope that refuse the message.
	refused map[int]bool
}

// filterMessage gives the message to the filters, one after the other, and makes the changes
// that they want. The message is then what it returns; the caller aborts both. The reply is
// zero to go on.
func (c *session) filterMessage(body *content) (*content, smtp.Reply) {
	if c.filter.session == nil && c.filter.policy == nil || body.drop {
		return body, smtp.Reply{}
	}
	c.filter.msgid = body.header.msgid
	d := &draft{c: c, body: body, first: body}
	if r := d.policyMessage(); !r.IsZero() || c.tx.dropped() {
		return d.body, r
	}
	if c.filter.session == nil && !d.header {
		d.finish()
		return d.body, d.body.failed
	}
	if r := d.open(); !r.IsZero() {
		return d.body, r
	}
	for i := range c.filter.session.Filters() {
		if r := d.give(i); !r.IsZero() || c.tx.discard {
			return d.body, r
		}
	}
	d.finish()
	return d.body, d.body.failed
}

// message reads the message of the client, without what we have put on top of it.
func (d *draft) message() io.Reader {
	in := d.body.whole()
	if _, err := io.CopyN(io.Discard, in, int64(len(d.body.results))+d.body.received); err != nil && !errors.Is(err, io.EOF) {
		d.body.failStore(err)
	}
	return in
}

// open reads the header.
func (d *draft) open() smtp.Reply {
	if d.opened {
		return smtp.Reply{}
	}
	in, own := d.message(), milter.OneField(d.first.results)
	if !d.body.failed.IsZero() {
		return d.body.failed
	}
	fields, empty, size, err := milter.ReadHeader(bufio.NewReaderSize(in, smallWriter), headerMax)
	switch {
	case errors.Is(err, milter.ErrHeaderLarge):
		return replyHeaderLarge
	case err != nil:
		d.body.failStore(err)
		return d.body.failed
	case !d.body.memory.Take(int64(size)):
		return replyFull
	}
	d.opened = true
	d.fields, d.empty, d.from = append(own, fields...), empty, d.body.received+int64(size)
	if h := d.body.head; h != nil && h.drop > 0 { // it has the header in its place
		d.from = h.drop
	}
	d.results = own
	return d.body.failed
}

// give has one filter decide on the message, and makes the changes that it wants.
func (d *draft) give(i int) smtp.Reply {
	c := d.c
	in := d.body
	var next *content // the new body, if there is one
	changes, v, err := c.filter.session.Message(i, &milter.Content{
		Header: d.fields, Macros: c.macro,
		Body: func() io.Reader { return in.reader(d.from) },
		Replace: func(p []byte) error {
			if next == nil {
				var err error
				if next, err = d.replace(); err != nil {
					return err
				}
			}
			return d.lines.write(next, p)
		},
	})
	if next != nil {
		d.body = next
		defer func() {
			if in != d.first {
				in.abort()
			}
		}()
	}
	if err != nil || !d.body.failed.IsZero() {
		if d.body.failed.IsZero() {
			d.body.failStore(err)
		}
		return d.body.failed
	}
	if r := c.filterVerdict(&v); !r.IsZero() || c.tx.discard {
		return r
	}
	if next != nil {
		d.lines.end(next)
		d.from = 0
	}
	d.apply(&changes, c.filter.set.milters[i].Name(), next != nil)
	return d.body.failed
}

// replace begins a new body, in the place of the one that there was. That can still be read.
func (d *draft) replace() (*content, error) {
	if d.body.file != nil {
		if err := d.body.buffer.Flush(); err != nil {
			return nil, err
		}
		if err := d.body.file.Detach(); err != nil {
			return nil, err
		}
	}
	next := d.c.newContent()
	next.missing = nil
	next.header, next.stripped = d.first.header, 0
	next.begin(nil, 0)
	d.lines = lineEnds{}
	if !next.failed.IsZero() {
		return next, errors.Join(next.cause, next.failed)
	}
	return next, nil
}

// lineEnds makes CR LF of all line ends of a new body: filters are not always exact about
// them, and nothing else may end a line.
type lineEnds struct {
	cr   bool // the last octet was a CR
	open bool // the last line has no end yet
}

func (l *lineEnds) write(c *content, p []byte) error {
	out := make([]byte, 0, len(p)+len(p)/8)
	for _, b := range p {
		if l.cr && b != '\n' || b == '\n' {
			out = append(out, "\r\n"...)
			l.open = false
		}
		l.cr = b == '\r'
		if b != '\r' && b != '\n' {
			out = append(out, b)
			l.open = true
		}
	}
	c.addBody(out)
	if !c.failed.IsZero() {
		return c.failed
	}
	return nil
}

// end ends the last line.
func (l *lineEnds) end(c *content) {
	if l.cr || l.open {
		c.addBody([]byte("\r\n"))
	}
}

// addBody takes a piece of a new body, after what the option nul says.
func (c *content) addBody(p []byte) {
	if bytes.IndexByte(p, 0) >= 0 {
		switch c.nul {
		case nulReject:
			c.fail(replyNUL)
		case nulStrip:
			p = bytes.ReplaceAll(p, []byte{0}, nil)
		}
	}
	if c.size += int64(len(p)); c.sizeMax > 0 && c.size > c.sizeMax {
		c.fail(replyTooBig)
	}
	c.keep(p)
}

// apply makes the changes of header and envelope.
func (d *draft) apply(changes *milter.Changes, name string, body bool) {
	fields, changed := milter.Apply(d.fields, changes.List)
	d.fields, d.header = fields, d.header || changed || body
	if changes.Quarantine != "" && d.hold == "" {
		d.hold = "quarantined by milter " + name + ": " + changes.Quarantine
	}
	counts := map[milter.ChangeKind]int{}
	for i := range changes.List {
		ch := &changes.List[i]
		counts[ch.Kind]++
		if err := d.envelope(ch); err != nil {
			d.c.emit(slog.LevelWarn, "milter wants an impossible change", slog.Any("ss_ta", d.c.tx.env.TA), slog.String("milter", name),
				slog.String("change", ch.Kind.String()), slog.String("value", ch.Value), slog.Any("error", err))
		}
	}
	if len(counts) == 0 && !body && changes.Quarantine == "" {
		return
	}
	attrs := []slog.Attr{slog.Any("ss_ta", d.c.tx.env.TA), slog.String("milter", name)}
	for k := milter.AddHeader; k <= milter.ChangeFrom; k++ {
		if counts[k] > 0 {
			attrs = append(attrs, slog.Int(k.String(), counts[k]))
		}
	}
	if body {
		attrs = append(attrs, slog.Bool("replbody", true))
	}
	if changes.Quarantine != "" {
		attrs = append(attrs, slog.String("quarantine", changes.Quarantine))
	}
	d.c.emit(slog.LevelInfo, "milter changes the message", attrs...)
}

// The mistakes of changes to the envelope.
var (
	errNoSuchRcpt = errors.New("there is no such recipient")
	errManyRcpts  = errors.New("too many recipients are added")
	errParams     = errors.New("the parameters cannot be read")
)

// envelope makes one change of the envelope.
func (d *draft) envelope(ch *milter.Change) error {
	tx := d.c.tx
	switch ch.Kind {
	case milter.ChangeFrom:
		m := mailArgs{Mail: tx.env.Mail}
		var err error
		if m.From, err = d.address(ch.Value, true); err != nil {
			return err
		}
		if err := d.params(ch.Args, func(p smtp.Param) (bool, error) { return d.c.mailParam(&m, p) }); err != nil {
			return err
		}
		tx.env.Mail = m.Mail
	case milter.AddRcpt:
		to, err := d.address(ch.Value, false)
		rcpt := msg.Rcpt{To: to}
		if err == nil {
			err = d.params(ch.Args, func(p smtp.Param) (bool, error) { return d.c.rcptParam(&rcpt, p) })
		}
		if err != nil {
			return err
		}
		if d.added++; d.added > addedMax {
			return errManyRcpts
		}
		if key := rcptKey(to); !tx.has(key, rcpt) {
			tx.add(key, rcpt)
		}
	case milter.DelRcpt:
		to, err := d.address(ch.Value, false)
		if err != nil {
			return err
		}
		if !tx.remove(to) {
			return errNoSuchRcpt
		}
	}
	return nil
}

// address reads an address of a filter, with or without brackets.
func (d *draft) address(s string, sender bool) (smtp.Path, error) {
	if !strings.HasPrefix(s, "<") {
		s = "<" + s + ">"
	}
	cut := smtp.CutForwardPath
	if sender {
		cut = smtp.CutReversePath
	}
	p, rest, err := cut(s, d.c.tx.charset())
	if err == nil && rest != "" {
		err = errParams
	}
	return p, err
}

// params reads parameters of MAIL or RCPT.
func (d *draft) params(args string, set func(smtp.Param) (bool, error)) error {
	for _, word := range strings.Fields(args) {
		p, rest, err := smtp.NextParam(" "+word, d.c.tx.charset())
		if err != nil || rest != "" {
			return errParams
		}
		if known, err := set(p); !known || err != nil {
			return errParams
		}
	}
	return nil
}

// remove removes a recipient, and reports whether there was one.
func (tx *transaction) remove(to smtp.Path) bool {
	key, left := rcptKey(to), tx.env.Rcpts[:0]
	for _, r := range tx.env.Rcpts {
		if rcptKey(r.To) != key {
			left = append(left, r)
		}
	}
	found := len(left) < len(tx.env.Rcpts)
	tx.env.Rcpts = left
	tx.index()
	return found
}

// index finds duplicates anew after recipients were removed.
func (tx *transaction) index() {
	left := tx.env.Rcpts
	tx.seen = nil
	if len(left) >= seenFrom {
		tx.seen = make(map[string]int, len(left))
		for i := range left {
			tx.seen[rcptKey(left[i].To)] = i
		}
	}
}

// finish puts the message together again.
func (d *draft) finish() {
	tx, body := d.c.tx, d.body
	if d.header {
		var text []byte
		if len(d.results) > 0 { // with what filters have put above it
			above := slices.Index(d.fields, d.results[0]) + 1
			text, d.fields = milter.AppendHeader(text, d.fields[:above]), d.fields[above:]
		}
		if d.top == nil {
			d.top = d.c.trace()
		}
		text = append(text, d.top...)
		top := len(text)
		text = milter.AppendHeader(text, d.fields)
		if d.empty || d.from == 0 {
			text = append(text, "\r\n"...)
		}
		body.received = int64(top)
		body.setHead(d.from, text)
		if body.failed.IsZero() {
			body.size = body.total() - body.received
		}
		if body.sizeMax > 0 && body.size > body.sizeMax+headerMax { // what filters add is not the client's fault
			body.fail(replyTooBig)
		}
	}
	if tx.hold == "" {
		tx.hold = d.hold
	}
	if len(tx.env.Rcpts) == 0 {
		body.drop = true
	}
}
