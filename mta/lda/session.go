package lda

import (
	"bufio"
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"meta1/mta/smtp"
)

const (
	// lineMax bounds a command line (RFC 5321 section 4.5.3.1.4 asks for 512, and
	// more with extensions).
	lineMax = 4096
	// badMax is how many wrong commands a session may send.
	badMax = 50
)

// session is one LMTP session. Its transaction is another struct, so that RSET is
// one assignment.
type session struct {
	a    *agent
	log  *slog.Logger // with the id of the session
	wire *wire
	r    *bufio.Reader
	w    *bufio.Writer
	buf  []byte // for content, kept from message to message

	greeted bool
	bad     int
	tx      *transaction // nil outside of one
}

// transaction is what stands between MAIL and the final dot.
type transaction struct {
	id    string
	from  string // with angle brackets
	rcpts []rcpt
}

// rcpt is a recipient that was accepted.
type rcpt struct {
	addr string
	box  *mailbox
}

// verb is one row of the protocol: a command, and what answers it. A handler returns
// the reply; only the loop writes.
type verb struct {
	name   string
	handle func(s *session, arg string) smtp.Reply
}

func verbs() []verb {
	return []verb{
		{"LHLO", (*session).lhlo},
		{"MAIL", (*session).mail},
		{"RCPT", (*session).rcpt},
		{"RSET", (*session).rset},
		{"NOOP", (*session).noop},
		{"VRFY", (*session).vrfy},
		{"HELO", (*session).notSMTP},
		{"EHLO", (*session).notSMTP},
	}
}

var (
	errQuit    = errors.New("QUIT")
	errTooBad  = errors.New("too many wrong commands")
	errStopped = errors.New("the agent stops")
)

func newSession(a *agent, w *wire) *session {
	log := a.log.With(slog.String("lda_se", a.newID()))
	return &session{a: a, log: log, wire: w, r: bufio.NewReaderSize(w, 16<<10), w: bufio.NewWriterSize(w, 4<<10)}
}

// run speaks until QUIT, an error, or the end of the agent.
func (s *session) run() error {
	defer s.end()
	s.say(smtp.NewReply(220, "", s.a.Hostname+" LMTP meta1 lda"))
	table := verbs()
	for {
		err := s.step(table)
		switch {
		case err == nil:
			continue
		case errors.Is(err, errQuit):
			return nil
		case s.wire.stopped():
			s.say(smtp.NewReply(421, "4.3.2", s.a.Hostname+" stops"))
			err = errStopped
		case errors.Is(err, os.ErrDeadlineExceeded):
			s.say(smtp.NewReply(421, "4.4.2", s.a.Hostname+" waited too long"))
		case errors.Is(err, errTooBad):
			s.say(smtp.NewReply(421, "4.7.0", "too many wrong commands"))
		}
		if ferr := s.w.Flush(); err == nil {
			err = ferr
		}
		return err
	}
}

// end gives back what the session holds.
func (s *session) end() { s.reset() }

// reset ends the transaction.
func (s *session) reset() {
	if s.tx == nil {
		return
	}
	for _, r := range s.tx.rcpts {
		s.a.store.release(r.box)
	}
	s.tx = nil
	s.wire.inside.Store(false)
}

// step reads and answers one command. Replies go out when no further command has
// been read (RFC 2920).
func (s *session) step(table []verb) error {
	if s.r.Buffered() == 0 {
		if err := s.w.Flush(); err != nil {
			return err
		}
		if s.tx == nil && s.wire.stopped() {
			return errStopped
		}
	}
	line, err := s.readCommand()
	if err != nil {
		return err
	}
	word, arg, _ := strings.Cut(line, " ")
	switch word = strings.ToUpper(word); word {
	case "DATA":
		return s.data()
	case "QUIT":
		owed := s.w.Buffered() > 0
		s.say(smtp.NewReply(221, "2.0.0", s.a.Hostname+" closes"))
		if err := s.w.Flush(); err != nil && owed { // nobody need wait for the reply to QUIT
			return err
		}
		return errQuit
	}
	for _, v := range table {
		if v.name == word {
			s.say(v.handle(s, arg))
			return s.tooBad()
		}
	}
	s.say(s.wrong(500, "5.5.1", "command unknown"))
	return s.tooBad()
}

// readCommand reads a line without its end. One that is too long comes as "".
func (s *session) readCommand() (string, error) {
	line, err := s.r.ReadSlice('\n')
	if err == nil && len(line) <= lineMax {
		return string(bytes.TrimRight(line, "\r\n")), nil
	}
	for errors.Is(err, bufio.ErrBufferFull) {
		if s.bad++; s.bad > badMax {
			return "", errTooBad
		}
		_, err = s.r.ReadSlice('\n')
	}
	return "", err
}

func (s *session) say(r smtp.Reply) {
	_, _ = s.w.Write(r.AppendWire(s.w.AvailableBuffer())) // Flush tells of an error
}

// wrong makes the reply to a wrong command and counts it.
func (s *session) wrong(code int, enhanced, text string) smtp.Reply {
	s.bad++
	return smtp.NewReply(code, enhanced, text)
}

func (s *session) tooBad() error {
	if s.bad > badMax {
		return errTooBad
	}
	return nil
}

func (s *session) lhlo(arg string) smtp.Reply {
	if arg == "" {
		return s.wrong(501, "5.5.4", "LHLO needs a name")
	}
	s.reset()
	s.greeted = true
	return smtp.Reply{Code: 250, Lines: []string{
		s.a.Hostname, "PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8", "SIZE " + strconv.FormatInt(s.a.SizeMax, 10),
	}}
}

// notSMTP answers HELO and EHLO, which an LMTP server must refuse (RFC 2033 section 4.1).
func (s *session) notSMTP(string) smtp.Reply {
	return s.wrong(500, "5.5.1", "this is LMTP: say LHLO")
}

func (s *session) noop(string) smtp.Reply { return smtp.NewReply(250, "2.0.0", "ok") }

func (s *session) vrfy(string) smtp.Reply {
	return s.wrong(252, "2.5.0", "cannot verify, but will try to deliver")
}

func (s *session) rset(string) smtp.Reply {
	s.reset()
	return smtp.NewReply(250, "2.0.0", "ok")
}

func (s *session) mail(arg string) smtp.Reply {
	switch {
	case !s.greeted:
		return s.wrong(503, "5.5.1", "LHLO first")
	case s.tx != nil:
		return s.wrong(503, "5.5.1", "transaction has begun already")
	}
	rest, ok := smtp.CutKeyword(arg, "FROM:", true)
	if !ok {
		return s.wrong(501, "5.5.4", "MAIL needs FROM:<address>")
	}
	from, rest, ok := cutSender(rest)
	if !ok {
		return s.wrong(501, "5.1.7", "bad sender address")
	}
	if r := s.mailParams(rest); !r.IsZero() {
		return r
	}
	s.tx = &transaction{id: s.a.newID(), from: from}
	s.wire.inside.Store(true)
	return smtp.NewReply(250, "2.1.0", "ok")
}

// mailParams reads the parameters of MAIL. A zero reply is consent.
func (s *session) mailParams(rest string) smtp.Reply {
	for rest != "" {
		var p smtp.Param
		var err error
		if p, rest, err = smtp.NextParam(rest, smtp.ASCII); err != nil {
			return s.wrong(501, "5.5.4", err.Error())
		}
		switch p.Name {
		case "BODY":
			if _, err := smtp.ParseBody(p.Value); err != nil {
				return s.wrong(501, "5.5.4", "bad BODY parameter")
			}
		case "SIZE":
			n, err := smtp.ParseSize(p.Value)
			if err != nil {
				return s.wrong(501, "5.5.4", "bad SIZE parameter")
			}
			if n > s.a.SizeMax {
				return smtp.NewReply(552, "5.3.4", "message is too large")
			}
		case "SMTPUTF8": // a message is stored as it is, whatever its header holds
			if p.Value != "" {
				return s.wrong(501, "5.5.4", "SMTPUTF8 has no value")
			}
		default:
			return s.wrong(555, "5.5.4", "parameter not known")
		}
	}
	return smtp.Reply{}
}

// cutSender reads the reverse-path. It is only written into the message, and the
// senders of returned lists (VERP) are longer than RFC 5321 allows: so all is taken that
// can stand in a header line.
func cutSender(s string) (from, rest string, ok bool) {
	end := strings.IndexByte(s, '>')
	if end < 0 || s[0] != '<' {
		return "", "", false
	}
	if at := strings.LastIndexByte(s, '>'); strings.HasPrefix(s, `<"`) {
		end = at // a quoted local part may hold brackets
	}
	for i := range end {
		if s[i] < ' ' || s[i] == 0x7f {
			return "", "", false
		}
	}
	return s[:end+1], s[end+1:], true
}

func (s *session) rcpt(arg string) smtp.Reply {
	switch {
	case s.tx == nil:
		return s.wrong(503, "5.5.1", "MAIL first")
	case len(s.tx.rcpts) >= s.a.RcptsMax:
		return smtp.NewReply(452, "4.5.3", "too many recipients")
	}
	rest, ok := smtp.CutKeyword(arg, "TO:", true)
	if !ok {
		return s.wrong(501, "5.5.4", "RCPT needs TO:<address>")
	}
	to, rest, err := smtp.CutForwardPath(rest, smtp.UTF8)
	if err != nil {
		return s.wrong(553, "5.1.3", err.Error())
	}
	if rest != "" {
		return s.wrong(555, "5.5.4", "parameter not known")
	}
	user, ok := userOf(to.Local)
	if !ok {
		return smtp.NewReply(550, "5.1.1", "no such user here")
	}
	box, err := s.a.store.mailbox(user)
	if err != nil {
		return s.failed(to.Addr(), err)
	}
	s.tx.rcpts = append(s.tx.rcpts, rcpt{addr: to.Addr(), box: box})
	return smtp.NewReply(250, "2.1.5", "ok")
}
