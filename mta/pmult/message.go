package pmult

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"meta1/mta/smtp"
	"meta1/pmilter"
	"meta1/server/milter"
)

// The replies for a message that cannot be given to filters.
var (
	replyLarge  = smtp.NewReply(552, "5.3.4", "Message is too big")
	replyHeader = smtp.NewReply(552, "5.3.4", "Header is too big")
	replyStore  = smtp.NewReply(452, "4.3.1", "Insufficient system storage")
)

// draft is a message between two filters: what those before have made of it.
type draft struct {
	s        *session
	original []milter.Header
	fields   []milter.Header
	body     *content // has the body
	from     int64    // where in it the body begins
	replaced bool
	sender   *milter.Change // the last change of it
	gone     map[int]bool   // recipients of the transaction that are removed, by place
	added    []added
	hold     string
}

// added is a recipient that a filter has added.
type added struct {
	to   smtp.Path
	args []string
}

// eom gives the message to the filters, one after the other, and tells the server what they
// have made of it.
func (s *session) eom() pmilter.Code {
	code := s.message()
	if code.Plain() != pmilter.Replace {
		s.end()
	}
	return code
}

func (s *session) message() pmilter.Code {
	tx := s.tx
	if tx == nil {
		return pmilter.Continue
	}
	if err := tx.content.err; err != nil {
		return s.storeFailed(err)
	}
	fields, _, size, err := milter.ReadHeader(bufio.NewReader(tx.content.reader(0)), headerMax)
	switch {
	case errors.Is(err, milter.ErrHeaderLarge):
		return s.refuse(replyHeader)
	case err != nil:
		return s.storeFailed(err)
	}
	for i := range fields {
		if strings.EqualFold(fields[i].Name, "Received") {
			tx.hops++
		}
	}
	tx.counted = true
	d := &draft{s: s, original: fields, fields: fields, body: tx.content, from: int64(size), gone: map[int]bool{}}
	for i := range s.ask.Filters() {
		v, err := d.give(i)
		switch {
		case err != nil:
			return s.storeFailed(err)
		case v.Action == milter.Discard || v.Action == milter.Refuse || v.Action == milter.Abort:
			return s.answer(&v)
		}
	}
	code, err := d.tell()
	if err != nil {
		s.log(slog.LevelWarn, "changes cannot be told to the server", slog.Any("error", err))
		return s.refuse(smtp.NewReply(451, "4.3.0", "Changes of a filter cannot be made"))
	}
	return code
}

// storeFailed refuses a message that could not be kept.
func (s *session) storeFailed(err error) pmilter.Code {
	s.log(slog.LevelWarn, "message cannot be kept", slog.Any("error", err))
	if errors.Is(err, errLarge) {
		return s.refuse(replyLarge)
	}
	return s.refuse(replyStore)
}

// give has one filter decide on the message, and makes the changes that it wants. The error is
// one of storing a new body.
func (d *draft) give(i int) (milter.Verdict, error) {
	var next *content
	var l lines
	in, from := d.body, d.from
	changes, v, err := d.s.ask.Message(i, &milter.Content{
		Header: d.fields, Macros: d.s.macro,
		Body: func() io.Reader { return in.reader(from) },
		Replace: func(p []byte) error {
			if next == nil {
				next = d.s.m.content()
				l = lines{to: next}
			}
			return l.write(p)
		},
	})
	if next != nil {
		d.s.tx.body.close()
		d.s.tx.body = next
		if err == nil {
			err = l.end()
		}
		d.body, d.from, d.replaced = next, 0, true
	}
	if err != nil || v.Action == milter.Refuse || v.Action == milter.Abort || v.Action == milter.Discard {
		return v, err
	}
	d.apply(&changes, d.s.set.cfg.Clients[i].Name, next != nil)
	return v, nil
}

// apply makes the changes of header and envelope.
func (d *draft) apply(changes *milter.Changes, client string, body bool) {
	if d.s.set.cfg.Debug&debugTrace1 != 0 {
		d.nowhere(changes.List, client)
	}
	d.fields, _ = milter.Apply(d.fields, changes.List)
	counts := map[milter.ChangeKind]int{}
	for i := range changes.List {
		ch := &changes.List[i]
		counts[ch.Kind]++
		if err := d.envelope(ch); err != nil {
			level := slog.LevelWarn
			if d.s.set.cfg.Debug&debugError != 0 {
				level = slog.LevelError
			}
			d.s.log(level, "filter wants an impossible change", slog.String("client", client), slog.String("change", ch.Kind.String()),
				slog.String("value", ch.Value), slog.Any("error", err))
		}
	}
	if changes.Quarantine != "" && d.hold == "" {
		d.hold = "quarantined by milter " + client + ": " + changes.Quarantine
	}
	if len(counts) == 0 && !body && changes.Quarantine == "" {
		return
	}
	attrs := []slog.Attr{slog.String("client", client)}
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
	d.s.log(slog.LevelInfo, "filter changes the message", attrs...)
	d.s.m.metrics.count("change")
}

// nowhere logs changes of header fields that are not there.
func (d *draft) nowhere(list []milter.Change, client string) {
	fields := d.fields
	for i := range list {
		var changed bool
		if fields, changed = milter.Apply(fields, list[i:i+1]); !changed && list[i].Kind == milter.ChangeHeader {
			d.s.debug(debugTrace1, "no such header field", slog.String("client", client), slog.String("field", list[i].Name), slog.Int("index", list[i].Index))
		}
	}
}

// The mistakes of changes of the envelope.
var (
	errNoSuchRcpt = errors.New("there is no such recipient")
	errManyRcpts  = errors.New("too many recipients are added")
	errAddress    = errors.New("this is no address")
	errParams     = errors.New("the parameters cannot be read")
)

// addedMax bounds the recipients that filters add to a message, as package server does.
const addedMax = 1000

// key is what makes two recipients the same.
func key(p smtp.Path) string { return p.Local + "@" + p.LowerDomain() }

// envelope makes one change of the envelope.
func (d *draft) envelope(ch *milter.Change) error {
	switch ch.Kind {
	case milter.ChangeFrom:
		if _, err := address(ch.Value, true); err != nil {
			return err
		}
		if _, err := params(ch.Args); err != nil {
			return err
		}
		d.sender = ch
	case milter.AddRcpt:
		to, err := address(ch.Value, false)
		if err != nil {
			return err
		}
		args, err := params(ch.Args)
		switch {
		case err != nil:
			return err
		case len(d.added) >= addedMax:
			return errManyRcpts
		case !d.has(to):
			d.added = append(d.added, added{to, args})
		}
	case milter.DelRcpt:
		to, err := address(ch.Value, false)
		if err != nil {
			return err
		}
		if !d.remove(to) {
			return errNoSuchRcpt
		}
	}
	return nil
}

// has reports whether the message goes to a recipient.
func (d *draft) has(to smtp.Path) bool {
	for i := range d.s.tx.rcpts {
		if !d.gone[i] && key(d.s.tx.rcpts[i].to) == key(to) {
			return true
		}
	}
	for i := range d.added {
		if key(d.added[i].to) == key(to) {
			return true
		}
	}
	return false
}

// remove removes a recipient, and reports whether there was one.
func (d *draft) remove(to smtp.Path) (found bool) {
	for i := range d.s.tx.rcpts {
		if !d.gone[i] && key(d.s.tx.rcpts[i].to) == key(to) {
			d.gone[i], found = true, true
		}
	}
	left := d.added[:0]
	for _, a := range d.added {
		if key(a.to) != key(to) {
			left = append(left, a)
		} else {
			found = true
		}
	}
	d.added = left
	return found
}

// address reads an address of a filter, with or without brackets.
func address(s string, sender bool) (smtp.Path, error) {
	if !strings.HasPrefix(s, "<") {
		s = "<" + s + ">"
	}
	cut := smtp.CutForwardPath
	if sender {
		cut = smtp.CutReversePath
	}
	p, rest, err := cut(s, smtp.UTF8)
	if err == nil && rest != "" {
		err = errAddress
	}
	return p, err
}

// params takes parameters of MAIL or RCPT apart.
func params(args string) ([]string, error) {
	list := strings.Fields(args)
	if len(list) > pmilter.ArgsMax {
		return nil, errParams
	}
	for _, word := range list {
		if _, rest, err := smtp.NextParam(" "+word, smtp.UTF8); err != nil || rest != "" {
			return nil, errParams
		}
	}
	return list, nil
}

// tell tells the server of all changes.
func (d *draft) tell() (pmilter.Code, error) {
	p, tx := d.s.p, d.s.tx
	if len(d.gone) == len(tx.rcpts) && len(d.added) == 0 {
		d.s.log(slog.LevelInfo, "filter removes all recipients")
		return pmilter.Discard, nil
	}
	if d.sender != nil {
		from, _ := address(d.sender.Value, true) // it was read before
		args, _ := params(d.sender.Args)
		if err := p.MailReplace(from.String(), args...); err != nil {
			return 0, fmt.Errorf("replacing the sender: %w", err)
		}
	}
	for _, a := range d.added { // first: a message must not be without recipients in between
		if err := p.RcptAdd(a.to.String(), a.args...); err != nil {
			return 0, fmt.Errorf("adding a recipient: %w", err)
		}
	}
	for i := range tx.rcpts {
		if r := &tx.rcpts[i]; d.gone[i] {
			if err := p.RcptDel(r.to.String(), r.index); err != nil {
				return 0, fmt.Errorf("removing a recipient: %w", err)
			}
		}
	}
	if d.hold != "" {
		if err := p.Hold(d.hold); err != nil {
			return 0, fmt.Errorf("holding the message: %w", err)
		}
	}
	mods, fit := headerChanges(d.original, d.fields)
	d.s.debug(debugTrace2, "changes for the server", slog.Int("header", len(mods)), slog.Bool("replaced", d.replaced || !fit),
		slog.Int("rcpts_added", len(d.added)), slog.Int("rcpts_removed", len(d.gone)), slog.Bool("sender", d.sender != nil))
	if d.replaced || !fit {
		d.replace()
		return pmilter.Replace, nil
	}
	for _, m := range mods {
		if err := p.HeaderMod(m.mod, m.pos, m.header); err != nil {
			return 0, fmt.Errorf("changing the header: %w", err)
		}
	}
	return pmilter.Continue, nil
}

// replace has the server ask for the whole message.
func (d *draft) replace() {
	head := append(milter.AppendHeader(nil, d.fields), "\r\n"...)
	r := io.MultiReader(bytes.NewReader(head), d.body.reader(d.from))
	d.s.tx.next = func(p []byte) (int, bool, error) {
		n, err := io.ReadFull(r, p)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return n, true, nil
		}
		return n, false, err
	}
}

// replacement is the next piece of a message that replaces the original.
func (s *session) replacement() ([]byte, pmilter.Code) {
	if s.tx == nil || s.tx.next == nil { // the server was not told that there is one
		return nil, pmilter.Temp
	}
	p := make([]byte, pmilter.ChunkSize-1)
	n, last, err := s.tx.next(p)
	switch {
	case err != nil:
		code := s.storeFailed(err)
		s.end()
		return nil, code
	case last:
		return p[:n], pmilter.OK
	}
	return p[:n], pmilter.Continue
}
