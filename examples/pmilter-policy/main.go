// Command pmilter-policy is a policy milter that shows how mail is changed: it rewrites senders and
// recipients, removes and adds header fields, puts a footer under plain text, and has
// recipients refuse large messages one by one (PRDR).
//
//	pmilter-policy -listen /run/meta1/policy.sock -from old@x.example=new@x.example \
//	    -to sales@x.example=ann@x.example -copy archive@x.example -strip X-Secret \
//	    -add "X-Seen-By: pmilter-policy" -footer /etc/meta1/footer.txt -small bob@x.example=100000
//
// docs/pmilter.md says how policy milters work.
package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"meta1/pmilter"
)

// textMax bounds a message that gets a footer, in bytes. A larger one gets none.
const textMax = 1 << 20

// rules are what the options say. Addresses are in lower case, without brackets.
type rules struct {
	from, to map[string]string
	small    map[string]int
	copies   []string
	strip    []string
	add      []string
	footer   string
	log      *slog.Logger
}

// rcpt is a recipient that the server has asked about.
type rcpt struct {
	addr  string // with brackets
	index uint32
}

// message is the transaction of a session.
type message struct {
	from   string
	rcpts  []rcpt
	prdr   bool
	size   int
	head   []byte // the header, as far as it is needed
	chunks []byte // what is left of the new message
}

func main() {
	r := &rules{from: map[string]string{}, to: map[string]string{}, small: map[string]int{}, log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	listen := flag.String("listen", "", "path of the socket to listen on, or inet://address:port")
	pair := func(into map[string]string) func(string) error {
		return func(s string) error {
			from, to, ok := strings.Cut(s, "=")
			if !ok {
				return errors.New("OLD=NEW is needed")
			}
			into[strings.ToLower(from)] = to
			return nil
		}
	}
	list := func(into *[]string) func(string) error {
		return func(s string) error { *into = append(*into, s); return nil }
	}
	flag.Func("from", "OLD=NEW: another sender", pair(r.from))
	flag.Func("to", "OLD=NEW: another recipient", pair(r.to))
	flag.Func("copy", "a recipient who gets everything", list(&r.copies))
	flag.Func("strip", "name of header fields to be removed", list(&r.strip))
	flag.Func("add", "header field to be added", list(&r.add))
	flag.Func("footer", "file with a footer for plain text", func(path string) error {
		b, err := os.ReadFile(path)
		r.footer = string(b)
		return err
	})
	flag.Func("small", "ADDRESS=BYTES: a recipient who takes small messages alone, if the client knows PRDR", func(s string) error {
		addr, size, _ := strings.Cut(s, "=")
		n, err := strconv.Atoi(size)
		r.small[strings.ToLower(addr)] = n
		return err
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := r.run(ctx, *listen); err != nil {
		r.log.Error("pmilter-policy ends", slog.Any("error", err))
		os.Exit(1)
	}
}

func (r *rules) run(ctx context.Context, listen string) error {
	g, err := pmilter.New(pmilter.Pmilter{
		Name: "pmilter-policy", Mail: mail, Rcpt: addRcpt, Msg: r.take, EOM: r.change, MsgReplace: next,
		MsgReplaced: func(s *pmilter.Session, done bool) { r.log.Info("footer added", slog.Bool("done", done)) },
	})
	if err != nil {
		return err
	}
	g.SetLog(r.log)
	if err := g.SetConn(listen); err != nil {
		return err
	}
	return g.Start(ctx)
}

// of is the message of a session.
func of(s *pmilter.Session) *message {
	m, ok := s.Context().(*message)
	if !ok {
		m = &message{}
		s.SetContext(m)
	}
	return m
}

func mail(s *pmilter.Session, from string, args []string) pmilter.Code {
	m := &message{from: from}
	for _, a := range args {
		m.prdr = m.prdr || strings.EqualFold(a, "PRDR")
	}
	s.SetContext(m)
	return pmilter.Continue
}

func addRcpt(s *pmilter.Session, to string, _ []string) pmilter.Code {
	index, err := s.RcptIndex()
	if err != nil {
		return pmilter.Temp
	}
	m := of(s)
	m.rcpts = append(m.rcpts[:min(int(index), len(m.rcpts))], rcpt{to, index}) // one that was refused has left its place
	return pmilter.Continue
}

func (r *rules) take(s *pmilter.Session, chunk []byte) pmilter.Code {
	m := of(s)
	m.size += len(chunk)
	if len(m.head) < textMax {
		m.head = append(m.head, chunk...)
	}
	return pmilter.Continue
}

// bare is an address without brackets in lower case.
func bare(addr string) string { return strings.ToLower(strings.Trim(addr, "<>")) }

// change changes the message.
func (r *rules) change(s *pmilter.Session) pmilter.Code {
	m := of(s)
	m.rcpts = m.rcpts[:min(s.Recipients(), len(m.rcpts))]
	if err := errors.Join(r.envelope(s, m), r.header(s, m), r.replies(s, m)); err != nil {
		r.log.Warn("not all was changed", slog.Any("error", err))
	}
	if r.footer == "" || m.size > textMax || !plain(m.head) {
		return pmilter.Continue
	}
	m.chunks = append(m.head, strings.ReplaceAll(r.footer, "\n", "\r\n")...)
	return pmilter.Replace
}

func (r *rules) envelope(s *pmilter.Session, m *message) (err error) {
	if to, ok := r.from[bare(m.from)]; ok {
		err = s.MailReplace("<" + to + ">")
	}
	for _, c := range r.copies {
		err = errors.Join(err, s.RcptAdd("<"+c+">"))
	}
	for _, rcpt := range m.rcpts {
		if to, ok := r.to[bare(rcpt.addr)]; ok {
			err = errors.Join(err, s.RcptAdd("<"+to+">"), s.RcptDel(rcpt.addr, rcpt.index))
		}
	}
	return err
}

func (r *rules) header(s *pmilter.Session, m *message) (err error) {
	pos := uint(0)
	for line := range strings.Lines(string(m.head)) {
		if line == "\r\n" {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		pos++
		name, _, _ := strings.Cut(line, ":")
		for _, strip := range r.strip {
			if strings.EqualFold(strings.TrimSpace(name), strip) {
				err = errors.Join(err, s.HeaderMod(pmilter.HeaderRemove, pos, ""))
			}
		}
	}
	for _, field := range r.add {
		err = errors.Join(err, s.HeaderMod(pmilter.HeaderAppend, 0, field+"\r\n"))
	}
	return err
}

// replies has those recipients refuse the message for whom it is too large.
func (r *rules) replies(s *pmilter.Session, m *message) error {
	if !m.prdr || len(r.small) == 0 {
		return nil
	}
	var codes []int
	for _, rcpt := range m.rcpts {
		code := int(pmilter.OK)
		if most, ok := r.small[bare(rcpt.addr)]; ok && m.size > most {
			code = 552
		}
		codes = append(codes, code)
	}
	return s.SetReplies(codes, nil)
}

// plain reports a message that is nothing but text: without a Content-Type:, or with
// text/plain, and not encoded.
func plain(text []byte) bool {
	head, _, found := strings.Cut(string(text), "\r\n\r\n")
	for line := range strings.Lines(head) {
		name, value, _ := strings.Cut(strings.ToLower(line), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(name) {
		case "content-type":
			found = found && strings.HasPrefix(value, "text/plain")
		case "content-transfer-encoding":
			found = found && (value == "7bit" || value == "8bit")
		}
	}
	return found
}

// next is the next chunk of the new message.
func next(s *pmilter.Session) ([]byte, pmilter.Code) {
	m := of(s)
	n := min(len(m.chunks), pmilter.ChunkSize-1)
	chunk := m.chunks[:n]
	if m.chunks = m.chunks[n:]; len(m.chunks) == 0 {
		return chunk, pmilter.OK
	}
	return chunk, pmilter.Continue
}
