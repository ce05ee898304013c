package submit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"meta1/mta/smtp"
)

const (
	// sessionRcptsMax is how many recipients a transaction of a Session may have.
	sessionRcptsMax = 10_000
	// sessionErrorsMax is how many commands a Session refuses before it ends.
	sessionErrorsMax = 100
)

// Session speaks SMTP with a program on its standard input and output when no server runs (sendmail -bs), and keeps
// what it gets. It knows no recipients, so that it takes any; the queue tells the sender later what cannot be delivered.
type Session struct {
	Hostname string
	SizeMax  int64 // of a message, in bytes; 0 is 100 MiB
	// Keep keeps a message durably. If it fails the program is told to come again.
	Keep func(p *Prepared) error

	in     *bufio.Reader
	out    *bufio.Writer
	hello  bool
	mail   bool
	from   smtp.Path
	rcpts  []smtp.Path
	errors int
}

// Serve speaks until QUIT or the end of the input.
func (s *Session) Serve(in io.Reader, out io.Writer) error {
	s.in, s.out = bufio.NewReaderSize(in, lineMax), bufio.NewWriter(out)
	if s.SizeMax <= 0 {
		s.SizeMax = 100 << 20
	}
	s.say("220 " + s.Hostname + " ESMTP meta1 (mail is kept until it runs)")
	for {
		if s.in.Buffered() == 0 {
			if err := s.out.Flush(); err != nil {
				return fail(ExIOErr, "answering the program: %w", err)
			}
		}
		line, err := s.line()
		switch {
		case errors.Is(err, io.EOF):
			_ = s.out.Flush() // who has gone needs no answer
			return nil
		case err != nil:
			return fail(ExIOErr, "reading a command: %w", err)
		}
		if s.command(line) || s.errors > sessionErrorsMax {
			if err := s.out.Flush(); err != nil {
				return fail(ExIOErr, "answering the program: %w", err)
			}
			return nil
		}
	}
}

func (s *Session) say(reply string) { _, _ = s.out.WriteString(reply + "\r\n") } // Flush has the error

func (s *Session) refuse(reply string) {
	s.errors++
	s.say(reply)
}

// line reads a command; one that is too long is cut, and so no command.
func (s *Session) line() (string, error) {
	b, err := s.in.ReadSlice('\n')
	line := strings.TrimRight(string(b), "\r\n")
	for errors.Is(err, bufio.ErrBufferFull) {
		line = ""
		_, err = s.in.ReadSlice('\n')
	}
	if errors.Is(err, io.EOF) && line != "" {
		err = nil
	}
	return line, err
}

// command executes a command and reports whether it is the last.
func (s *Session) command(line string) (quit bool) {
	verb, arg, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		s.hello = true
		s.reset()
		s.say("250-" + s.Hostname + "\r\n250-8BITMIME\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE " + fmt.Sprint(s.SizeMax))
	case "HELO":
		s.hello = true
		s.reset()
		s.say("250 " + s.Hostname)
	case "MAIL":
		s.mailFrom(arg)
	case "RCPT":
		s.rcptTo(arg)
	case "DATA":
		return s.data()
	case "RSET":
		s.reset()
		s.say("250 2.0.0 ok")
	case "NOOP":
		s.say("250 2.0.0 ok")
	case "VRFY":
		s.say("252 2.5.0 nobody is asked now")
	case "QUIT":
		s.say("221 2.0.0 bye")
		return true
	default:
		s.refuse("500 5.5.1 unknown command")
	}
	return false
}

func (s *Session) reset() { s.mail, s.from, s.rcpts = false, smtp.Path{}, nil }

// path reads the path behind a word such as FROM:; what follows it is not obeyed, and BODY and SIZE need not be.
func (s *Session) path(arg, word string) (p smtp.Path, null, ok bool) {
	if len(arg) < len(word) || !strings.EqualFold(arg[:len(word)], word) {
		return p, false, false
	}
	text, rest, found := strings.Cut(strings.TrimLeft(arg[len(word):], " "), ">")
	if !found || !strings.HasPrefix(text, "<") || rest != "" && rest[0] != ' ' {
		return p, false, false
	}
	for _, param := range strings.Fields(rest) {
		name, _, _ := strings.Cut(strings.ToUpper(param), "=")
		if word != "FROM:" || name != "BODY" && name != "SIZE" {
			return p, false, false
		}
	}
	if text == "<" {
		return p, true, true
	}
	p, err := qualify(text[1:], s.Hostname)
	return p, false, err == nil
}

func (s *Session) mailFrom(arg string) {
	switch from, _, ok := s.path(arg, "FROM:"); {
	case !s.hello || s.mail:
		s.refuse("503 5.5.1 not now")
	case !ok:
		s.refuse("501 5.5.4 bad sender or parameter")
	default:
		s.mail, s.from = true, from
		s.say("250 2.1.0 ok")
	}
}

func (s *Session) rcptTo(arg string) {
	switch to, null, ok := s.path(arg, "TO:"); {
	case !s.mail:
		s.refuse("503 5.5.1 not now")
	case !ok || null:
		s.refuse("501 5.5.4 bad recipient or parameter")
	case len(s.rcpts) >= sessionRcptsMax:
		s.refuse("452 4.5.3 too many recipients")
	default:
		s.rcpts = append(s.rcpts, to)
		s.say("250 2.1.5 ok")
	}
}

// data takes a message. Its lines may end in LF alone.
func (s *Session) data() (quit bool) {
	if len(s.rcpts) == 0 {
		s.refuse("503 5.5.1 no recipients")
		return false
	}
	s.say("354 go on")
	if err := s.out.Flush(); err != nil {
		return true
	}
	l := &lines{r: s.in, left: 1 << 62, dots: true}
	var content bytes.Buffer
	size, ended := int64(0), false
	for !ended {
		line, err := l.next()
		switch {
		case errors.Is(err, io.EOF) && l.dot:
			ended = true
		case err != nil:
			return true // the program has gone in the middle: it will know
		default:
			if size += int64(len(line)); size <= s.SizeMax {
				content.Write(bytes.TrimPrefix(line, []byte{'.'}))
			}
		}
	}
	p := &Prepared{Sender: s.from, Rcpts: s.rcpts, Content: content.Bytes()}
	s.reset()
	switch {
	case size > s.SizeMax:
		s.refuse("552 5.3.4 message is too large")
	case s.Keep(p) != nil:
		s.refuse("451 4.3.0 meta1 does not run and the message cannot be kept")
	default:
		s.say("250 2.0.0 kept until meta1 runs")
	}
	return false
}
