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

	"meta1/mta/smtp"
)

// lineMax is the longest line of a log that is read; longer ones are passed over.
const lineMax = 256 << 10

// read reads a log of meta1, text or JSON, perhaps compressed by gzip.
func (m *memory) read(ctx context.Context, f io.ReadSeeker) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("reading a log: %w", err)
	}
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
		if errors.Is(err, bufio.ErrBufferFull) {
			for errors.Is(err, bufio.ErrBufferFull) {
				_, err = b.ReadSlice('\n')
			}
			line = nil
		}
		m.line(line)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF): // a log that is still being compressed or copied
			return nil
		case err != nil:
			return fmt.Errorf("reading a log: %w", err)
		}
	}
}

// logLine is what concerns us in a line (README 10.4; package mta/logfmt).
type logLine struct {
	Event  string `json:"event"`
	RcptID string `json:"rcpt_id"`
	By     string `json:"by"`
	Rcpts  int    `json:"rcpts"`
	Parts  int    `json:"parts"`
	TA     string `json:"ss_ta"`
	Mail   string `json:"mail"`
	Rcpt   string `json:"rcpt"`
	Reply  string `json:"reply"`
}

// line takes one line.
func (m *memory) line(b []byte) {
	if !bytes.Contains(b, []byte("rcpt_id")) && !bytes.Contains(b, []byte("ss_ta")) {
		return
	}
	l, ok := parseLine(b)
	if !ok {
		return
	}
	switch l.Event {
	case "delivered", "dropped: nobody is to be told", "removed by an operator":
		if h, index := m.rcptOf(l.RcptID); h != nil {
			h.end(index)
		}
	case "replaced":
		m.replace(&l)
	case "rcpt", "message":
		m.accepted(&l)
	}
}

// rcptOf finds the transaction of a recipient that is of interest.
func (m *memory) rcptOf(id string) (*history, int) {
	ta, index, err := smtp.ParseRcptID(id)
	if err != nil {
		return nil, 0
	}
	return m.tas[ta], index
}

func (h *history) end(index int) {
	if h.ended == nil {
		h.ended = map[int]bool{}
	}
	h.ended[index] = true
}

// replace notes that a recipient was replaced; what became of the replacement matters
// from then on.
func (m *memory) replace(l *logLine) {
	h, index := m.rcptOf(l.RcptID)
	by, err := smtp.ParseID(l.By)
	if h == nil || err != nil || l.Rcpts < 0 {
		return
	}
	if h.replaced == nil {
		h.replaced = map[int][]replacement{}
	}
	r := replacement{by: by, rcpts: l.Rcpts, parts: l.Parts}
	if !slices.Contains(h.replaced[index], r) { // the logs are read several times
		h.replaced[index] = append(h.replaced[index], r)
	}
	if m.tas[by] == nil {
		m.tas[by] = &history{}
	}
}

// accepted notes sender and recipients. A reply says that they were refused.
func (m *memory) accepted(l *logLine) {
	ta, err := smtp.ParseID(l.TA)
	if err != nil || l.Reply != "" || m.again {
		return
	}
	h := m.tas[ta]
	switch {
	case h == nil:
	case l.Event == "message":
		h.mail = l.Mail
	case len(h.rcpts) < rcptsShown && !slices.Contains(h.rcpts, l.Rcpt):
		h.rcpts = append(h.rcpts, l.Rcpt)
	case !slices.Contains(h.rcpts, l.Rcpt):
		h.more++
	}
}

// parseLine reads a line as text or as JSON. What syslog puts in front is passed over.
func parseLine(b []byte) (l logLine, ok bool) {
	i := bytes.Index(b, []byte("sev="))
	if j := bytes.Index(b, []byte(`{"`)); j >= 0 && (i < 0 || j < i) {
		return l, json.Unmarshal(b[j:], &l) == nil
	}
	if i < 0 {
		return l, false
	}
	for field := range bytes.SplitSeq(bytes.TrimRight(b[i:], "\r\n"), []byte(", ")) {
		key, value, _ := bytes.Cut(field, []byte("="))
		l.set(string(key), value)
	}
	return l, true
}

func (l *logLine) set(key string, value []byte) {
	switch key {
	case "event":
		l.Event = unescape(value)
	case "rcpt_id":
		l.RcptID = string(value)
	case "by":
		l.By = string(value)
	case "parts":
		l.Parts, _ = strconv.Atoi(string(value))
	case "rcpts":
		l.Rcpts, _ = strconv.Atoi(string(value))
	case "ss_ta":
		l.TA = string(value)
	case "mail":
		l.Mail = unescape(value)
	case "rcpt":
		l.Rcpt = unescape(value)
	case "reply":
		l.Reply = string(value)
	}
}

// unescape turns a percent sign and two digits into their byte.
func unescape(b []byte) string {
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			if n, err := strconv.ParseUint(string(b[i+1:i+3]), 16, 8); err == nil {
				out = append(out, byte(n))
				i += 2
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}
