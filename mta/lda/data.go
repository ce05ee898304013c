package lda

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"time"

	"meta1/mta/smtp"
)

const (
	// heldMax is how much content is held in memory before it is written.
	heldMax = 64 << 10
)

// delivery is one message on its way to the recipients of a transaction. Up to heldMax
// bytes wait in memory, so that a small message is one write to each file.
type delivery struct {
	s      *session
	held   []byte
	size   int64 // of the content, as it is kept
	tooBig bool
	parts  []part
	begun  bool // the files were made
}

// part is the delivery to one recipient.
type part struct {
	rcpt *rcpt
	name string
	file file
	err  error // the first; nothing more is done then

	published bool // the name is in new
	delivered bool // and durable
}

// data receives a message and answers for each recipient (RFC 2033 section 4.2).
func (s *session) data() error {
	if s.tx == nil || len(s.tx.rcpts) == 0 {
		s.say(s.wrong(503, "5.5.1", "no valid recipients"))
		return s.tooBad()
	}
	s.say(smtp.NewReply(354, "", "end with a dot on a line of its own"))
	if err := s.w.Flush(); err != nil {
		return err
	}
	d := &delivery{s: s, held: s.buf[:0], parts: make([]part, len(s.tx.rcpts))}
	for i := range d.parts {
		d.parts[i].rcpt = &s.tx.rcpts[i]
	}
	defer d.discard()
	if err := d.receive(); err != nil {
		return err
	}
	for _, r := range d.finish() {
		s.say(r)
	}
	s.buf = d.held[:0]
	s.reset()
	return nil
}

// receive reads the content up to the final dot. Lines end in CRLF alone (RFC 5321
// section 2.3.8); they are kept with LF. An error of the client is returned, one of the
// disk stays with its recipient.
func (d *delivery) receive() error {
	start := true // of a line
	cr := false   // the part before ended in CR
	for {
		line, err := d.s.r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if cr && line[0] != '\n' {
			d.add([]byte{'\r'}) // it ended no line
		}
		crlf := bytes.HasSuffix(line, []byte("\r\n")) || cr && len(line) == 1 && line[0] == '\n'
		if start && line[0] == '.' {
			if string(line) == ".\r\n" {
				return nil
			}
			line = line[1:]
		}
		cr = err != nil && bytes.HasSuffix(line, []byte{'\r'})
		switch {
		case crlf && len(line) > 1:
			line = append(line[:len(line)-2], '\n')
		case cr:
			line = line[:len(line)-1]
		}
		d.add(line)
		start = crlf
	}
}

// add takes content. Beyond the limit it is counted only.
func (d *delivery) add(b []byte) {
	if d.size += int64(len(b)); d.size > d.s.a.SizeMax {
		d.tooBig = true
	}
	if d.tooBig {
		return
	}
	d.held = append(d.held, b...)
	if len(d.held) >= heldMax {
		d.flush()
	}
}

// flush writes what is held to the file of each recipient, and makes the files first.
func (d *delivery) flush() {
	for i := range d.parts {
		p := &d.parts[i]
		if p.err == nil {
			p.err = d.write(p)
		}
	}
	d.begun = true
	d.held = d.held[:0]
}

func (d *delivery) write(p *part) error {
	b := d.held
	if !d.begun {
		if err := d.create(p); err != nil {
			return err
		}
		b = d.withHeader(p)
	}
	_, err := p.file.Write(b)
	return err
}

// withHeader puts our header fields before the content that is held.
func (d *delivery) withHeader(p *part) []byte {
	b := make([]byte, 0, len(d.held)+len(d.s.tx.from)+len(p.rcpt.addr)+40)
	b = append(append(append(b, "Return-Path: "...), d.s.tx.from...), '\n')
	b = append(append(append(b, "Delivered-To: "...), p.rcpt.addr...), '\n')
	return append(b, d.held...)
}

// create makes the file in tmp. A Maildir that was removed since it was opened is
// opened anew, once.
func (d *delivery) create(p *part) (err error) {
	st := d.s.a.store
	for retry := true; ; retry = false {
		p.name = st.fileName(time.Now(), hostInName(d.s.a.Hostname))
		p.file, err = p.rcpt.box.create(p.name)
		if !retry || !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		st.forget(p.rcpt.box)
		box, err := st.mailbox(p.rcpt.box.user)
		if err != nil {
			return err
		}
		st.release(p.rcpt.box)
		p.rcpt.box = box
	}
}

// finish makes the message durable and returns the reply for each recipient.
func (d *delivery) finish() []smtp.Reply {
	replies := make([]smtp.Reply, len(d.parts))
	if d.tooBig {
		for i := range replies {
			replies[i] = smtp.NewReply(552, "5.3.4", "message is too large")
		}
		return replies
	}
	if len(d.held) > 0 || !d.begun {
		d.flush()
	}
	for i := range d.parts {
		if p := &d.parts[i]; p.err == nil {
			p.err = p.settle()
		}
	}
	for i := range d.parts {
		if p := &d.parts[i]; p.err == nil {
			p.err = p.rcpt.box.publish(p.name)
			p.published = p.err == nil
		}
	}
	for i := range d.parts {
		p := &d.parts[i]
		if p.err == nil {
			p.err = d.syncNames(i)
		}
		if p.err != nil {
			replies[i] = d.s.failed(p.rcpt.addr, p.err)
			continue
		}
		p.delivered = true
		replies[i] = smtp.NewReply(250, "2.1.5", "delivered as "+d.s.tx.id)
		d.logDelivered(p)
	}
	return replies
}

// syncNames makes the names of one Maildir durable, once for all recipients that
// share it.
func (d *delivery) syncNames(i int) error {
	box := d.parts[i].rcpt.box
	for k := range d.parts[:i] {
		if p := &d.parts[k]; p.rcpt.box == box && p.published {
			return p.err
		}
	}
	return box.syncs.wait()
}

// settle makes the content durable.
func (p *part) settle() error {
	err := p.file.Sync()
	if cerr := p.file.Close(); err == nil {
		err = cerr
	}
	p.file = nil
	return err
}

// discard removes what was not delivered.
func (d *delivery) discard() {
	for i := range d.parts {
		p := &d.parts[i]
		if p.file != nil {
			_ = p.file.Close() // it is removed
		}
		switch {
		case p.delivered || p.name == "":
		case p.published:
			p.rcpt.box.withdraw(p.name)
		default:
			p.rcpt.box.discard(p.name)
		}
	}
}

// failed is the reply for a recipient that cannot be delivered to.
func (s *session) failed(addr string, err error) smtp.Reply {
	r := smtp.NewReply(451, "4.3.0", "cannot deliver into the mailbox now")
	switch {
	case errors.Is(err, errUnknownUser):
		return smtp.NewReply(550, "5.1.1", "no such user here")
	case isFull(err):
		r = smtp.NewReply(452, "4.3.1", "no space left for mail")
	case isQuota(err):
		r = smtp.NewReply(452, "4.2.2", "mailbox is full")
	}
	s.log.LogAttrs(s.a.stop, slog.LevelError, "cannot deliver",
		slog.String("lda_ta", s.tx.id), slog.String("mail", s.tx.from), slog.String("rcpt", "<"+addr+">"), slog.Int("stat", r.Code), slog.String("reason", err.Error()))
	return r
}

func (d *delivery) logDelivered(p *part) {
	tx := d.s.tx
	d.s.log.LogAttrs(d.s.a.stop, slog.LevelInfo, "delivered",
		slog.String("lda_ta", tx.id), slog.String("mail", tx.from), slog.String("rcpt", "<"+p.rcpt.addr+">"),
		slog.Int64("size", d.size), slog.String("file", p.name), slog.Int("stat", 0))
}
