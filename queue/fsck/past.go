package fsck

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"meta1/mta/logline"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/store/salvage"
	"meta1/queue/records"
)

// past is what a run knows of the time before the damage: which records may be missing,
// and what the logs say. A nil past knows that nothing is missing.
type past struct {
	all     bool // any record may be missing
	damages []salvage.Damage

	messages map[smtp.ID]bool // of which the logs are asked
	ended    map[records.Ref]bool
	replaced map[records.Ref]*replacements
	alive    func(ta smtp.ID) bool // reports whether a message is still there
}

// replacements are the messages that took the place of a recipient: a bounce, or what an
// alias stands for.
type replacements struct {
	by    []smtp.ID
	parts int // how many there were
}

// lost reports whether a record of the key may have been lost.
func (p *past) lost(key []byte) bool {
	return p != nil && (p.all || slices.ContainsFunc(p.damages, func(d salvage.Damage) bool { return d.Covers(key) }))
}

// hasEnded reports whether the logs say that a recipient has ended. One that was replaced
// has ended if all that replaced it is still there; else the mail would be lost with that.
func (p *past) hasEnded(r records.Ref) bool {
	if p == nil || p.ended[r] {
		return p != nil
	}
	l := p.replaced[r]
	return l != nil && len(l.by) >= l.parts && !slices.ContainsFunc(l.by, func(ta smtp.ID) bool { return !p.alive(ta) })
}

// readLogs learns from the logs who has ended: of messages with a content file that the
// store does not know, with a damaged store of all others, too, and of all that a kept
// store has.
func (r *run) readLogs(ctx context.Context, p *past) error {
	c := NewCheck(r.view(r.st.reader), Cursor{}, false)
	damaged := p.all || len(p.damages) > 0
	p.messages, p.ended, p.replaced = map[smtp.ID]bool{}, map[records.Ref]bool{}, map[records.Ref]*replacements{}
	p.alive = func(ta smtp.ID) bool {
		if known, err := records.HasMessage(c.v.Store, ta); err == nil && known {
			return true
		}
		_, err := c.cdb.Envelope(ta)
		return err == nil
	}
	err := r.contentNames(func(ta smtp.ID) error {
		known, err := records.HasMessage(c.v.Store, ta)
		if damaged || !known {
			p.messages[ta] = true
		}
		return err
	})
	ask := func(from store.Reader) {
		err = errors.Join(err, from.Scan([]byte{byte(records.KindEnvelope)}, []byte{byte(records.KindEnvelope) + 1}, func(k, _ []byte) (bool, error) {
			if key, err := records.ParseKey(k); err == nil {
				p.messages[key.TA] = true
			}
			return true, nil
		}))
	}
	if damaged {
		ask(r.st.reader)
	}
	if r.kept != nil {
		ask(r.kept)
	}
	for _, log := range r.o.Logs {
		if err == nil {
			err = p.read(ctx, log)
		}
	}
	r.sum.LogEnds = len(p.ended)
	return err
}

// lineMax is the longest line of a log that is read; longer ones are passed over.
const lineMax = 256 << 10

// read reads a log of meta1, text or JSON, perhaps compressed by gzip.
func (p *past) read(ctx context.Context, f io.Reader) error {
	b := bufio.NewReaderSize(f, lineMax)
	if magic, err := b.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return fmt.Errorf("reading a compressed log: %w", err)
		}
		b = bufio.NewReaderSize(z, lineMax)
	}
	for n := 0; ; n++ {
		if n%4096 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		line, err := b.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			line = nil
			_, err = b.ReadSlice('\n')
		}
		p.line(line)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // a log that is still being compressed or copied
			return nil
		case err != nil:
			return fmt.Errorf("reading a log: %w", err)
		}
	}
}

// logLine are the fields of a line that concern us (MeTA1 README 10.4). A recipient has
// ended if its line has stat=0, whatever its words are; by names what replaced it.
type logLine struct {
	RcptID string `json:"rcpt_id"`
	Stat   *int   `json:"stat"`
	By     string `json:"by"`
	Parts  int    `json:"parts"`
}

// line takes one line.
func (p *past) line(b []byte) {
	if !bytes.Contains(b, []byte("rcpt_id")) {
		return
	}
	l, ok := parseLine(b)
	ta, index, err := smtp.ParseRcptID(l.RcptID)
	if !ok || err != nil || !p.messages[ta] {
		return
	}
	r := records.Ref{TA: ta, Index: index}
	if l.Stat != nil && *l.Stat == 0 {
		p.ended[r] = true
		return
	}
	by, err := smtp.ParseID(l.By)
	if err != nil {
		return
	}
	if p.replaced[r] == nil {
		p.replaced[r] = &replacements{parts: l.Parts}
	}
	if !slices.Contains(p.replaced[r].by, by) {
		p.replaced[r].by = append(p.replaced[r].by, by)
	}
}

// parseLine reads a line as text or as JSON. What syslog puts in front is passed over.
func parseLine(b []byte) (l logLine, ok bool) {
	_, body := logline.Split(b)
	switch {
	case len(body) == 0:
		return l, false
	case body[0] == '{':
		return l, json.Unmarshal(body, &l) == nil
	}
	for field := range bytes.SplitSeq(bytes.TrimRight(body, "\r\n"), []byte(", ")) {
		key, value, _ := bytes.Cut(field, []byte("="))
		n, err := strconv.Atoi(string(value))
		switch string(key) {
		case "rcpt_id":
			l.RcptID = string(value)
		case "by":
			l.By = string(value)
		case "parts":
			l.Parts = n
		case "stat":
			if err == nil {
				l.Stat = &n
			}
		}
	}
	return l, true
}
