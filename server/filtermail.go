package server

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/content"
	"meta1/server/milter"
)

// headerMax bounds the header of a message that filters see, in bytes: they want it in memory.
const headerMax = 1 << 20

// headerPiece is how much of a message is read at a time to find its header, in bytes.
const headerPiece = 4 << 10

// addedMax bounds the recipients that filters add to a message.
const addedMax = 1000

// draft is a message between two filters: what those before have made of it.
type draft struct {
	c      *session
	fields []milter.Header
	empty  bool             // an empty line ends the header
	body   *content.Content // has the body, and perhaps more before it
	from   int64            // where the body begins
	first  *content.Content // as the client sent it
	lines  content.LineEnds // of a new body
	header bool             // it was changed
	hold   string           // why the message is to be held; "": it is not
	added  int              // recipients
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
func (c *session) filterMessage(body *content.Content) (*content.Content, smtp.Reply) {
	if c.filter.session == nil && c.filter.policy == nil || body.Discarded() {
		return body, smtp.Reply{}
	}
	c.filter.msgid = body.MessageID()
	d := &draft{c: c, body: body, first: body}
	if r := d.policyMessage(); !r.IsZero() || c.tx.dropped() {
		return d.body, r
	}
	if c.filter.session == nil && !d.header {
		d.finish()
		return d.body, d.body.Failed()
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
	return d.body, d.body.Failed()
}

// open reads the header.
func (d *draft) open() smtp.Reply {
	if d.opened {
		return smtp.Reply{}
	}
	in, own := d.body.Message(), milter.OneField(d.first.Results())
	if !d.body.Failed().IsZero() {
		return d.body.Failed()
	}
	fields, empty, size, err := milter.ReadHeader(bufio.NewReaderSize(in, headerPiece), headerMax)
	switch {
	case errors.Is(err, milter.ErrHeaderLarge):
		return content.ReplyHeaderLarge
	case err != nil:
		d.body.FailStore(err)
		return d.body.Failed()
	case !d.body.Memory().Take(int64(size)):
		d.body.FailMemory()
		return d.body.Failed()
	}
	d.opened = true
	d.fields, d.empty, d.from = append(own, fields...), empty, d.body.Received()+int64(size)
	if n := d.body.Replaced(); n > 0 { // the head has the header in its place
		d.from = n
	}
	d.results = own
	return d.body.Failed()
}

// give has one filter decide on the message, and makes the changes that it wants.
func (d *draft) give(i int) smtp.Reply {
	c := d.c
	in := d.body
	var next *content.Content // the new body, if there is one
	changes, v, err := c.filter.session.Message(i, &milter.Content{
		Header: d.fields, Macros: c.macro,
		Body: func() io.Reader { return in.Reader(d.from) },
		Replace: func(p []byte) error {
			if next == nil {
				var err error
				if next, err = d.replace(); err != nil {
					return err
				}
			}
			return d.lines.Write(next, p)
		},
	})
	if next != nil {
		d.body = next
		defer func() {
			if in != d.first {
				in.Abort()
			}
		}()
	}
	if err != nil || !d.body.Failed().IsZero() {
		if d.body.Failed().IsZero() {
			d.body.FailStore(err)
		}
		return d.body.Failed()
	}
	if r := c.filterVerdict(&v); !r.IsZero() || c.tx.discard {
		return r
	}
	if next != nil {
		d.lines.End(next)
		d.from = 0
	}
	d.apply(&changes, c.filter.set.milters[i].Name(), next != nil)
	return d.body.Failed()
}

// replace begins a new body, in the place of the one that there was. That can still be read.
func (d *draft) replace() (*content.Content, error) {
	if err := d.body.Detach(); err != nil {
		return nil, err
	}
	next := content.NewBody(d.c.contentConfig(), d.first)
	d.lines = content.LineEnds{}
	if r := next.Failed(); !r.IsZero() {
		return next, errors.Join(next.Cause(), r)
	}
	return next, nil
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
		body.Rewrite(d.from, text, top)
		if most := d.c.srv.cfg.MessageSizeMax; most > 0 && body.Size() > most+headerMax { // what filters add is not the client's fault
			body.Fail(content.ReplyTooBig)
		}
	}
	if tx.hold == "" {
		tx.hold = d.hold
	}
	if len(tx.env.Rcpts) == 0 {
		body.Discard()
	}
}
