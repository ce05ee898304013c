package whatif

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"meta1/mta/explain"
	"meta1/mta/maillog"
	"meta1/mta/smtp"
)

const (
	// sessionsMax is how many sessions are followed at once; the oldest is forgotten first.
	sessionsMax = 50_000
	// questionMax bounds a line of a file of questions, in bytes.
	questionMax = 64 << 10
	// rcptsMax is how many recipients of a transaction are taken, as mta/explain takes no more.
	rcptsMax = 100
)

// Envelope is a dialogue that clients have had: the client, the sender, the recipients.
type Envelope struct {
	explain.Question
	// ServerID is the option id of the section smtps that took it, if Server is "".
	ServerID uint8 `json:"server_id,omitempty"`
	// Seen is how often it came.
	Seen int `json:"seen,omitempty"`
	// Size is the largest message that came so, in bytes; it becomes MAIL's parameter SIZE.
	Size int64 `json:"size,omitempty"`
}

// Envelopes are the different dialogues of a log or file, in the order in which they came first.
// The zero value is ready to use but for Max.
type Envelopes struct {
	Max int // how many are kept
	// Left counts dialogues that are not kept: other ones came first.
	Left int

	list     []*Envelope
	known    map[string]*Envelope
	sessions map[string]*session
	order    []string // of sessions, the oldest first
}

// session is what a log has told of a session so far.
type session struct {
	client Envelope // without sender and recipients
	mails  map[string]*transaction
}

type transaction struct {
	from string
	ehlo string
	user string
	to   []string
	size int64
}

// List is what was gathered.
func (e *Envelopes) List() []*Envelope { return e.list }

// Read takes the questions of a file: a JSON object a line, with the members that explain --json
// has for a question (client, helo, from, to, ...). The error names the line.
func (e *Envelopes) Read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 4<<10), questionMax)
	n := 0
	for lines.Scan() {
		n++
		b := bytes.TrimSpace(lines.Bytes())
		if len(b) == 0 || b[0] == '#' {
			continue
		}
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		env := Envelope{}
		err := d.Decode(&env)
		if err == nil && d.More() {
			err = fmt.Errorf("something follows the object")
		}
		if err == nil {
			err = env.Check()
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
		env.Client = env.Client.Unmap()
		env.Helo = explain.HeloOr(env.Helo, env.Name, env.Client)
		e.add(env, max(env.Seen, 1))
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("line %d: %w", n+1, err)
	}
	return nil
}

// Add takes a line of a log of SMTPS. Lines that tell nothing of a dialogue are passed over, and so
// are dialogues that could not be tried: without a client's address, for example.
func (e *Envelopes) Add(l *maillog.Line) error {
	id := l.Get("ss_se")
	event := l.Get("event")
	if id == "" {
		return nil
	}
	s := e.session(id)
	switch event {
	case "session", "xclient":
		s.client.Question, s.mails = explain.Question{}, map[string]*transaction{} // ids may come again after a restart
		s.identify(l)
	case "starttls":
		t := &explain.TLS{Version: l.Get("starttls"), Cipher: l.Get("cipher")}
		t.Bits, _ = strconv.Atoi(l.Get("bits"))
		if strings.EqualFold(l.Get("verify"), "OK") {
			t.Subject, t.Issuer = l.Get("cert_subject"), l.Get("cert_issuer")
		}
		s.client.TLS = t
	case "authenticated":
		s.client.Auth, s.client.Mechanism = l.Get("user"), l.Get("mech")
	case "mail":
		s.mails[l.Get("ss_ta")] = &transaction{from: bare(l.Get("mail")), ehlo: l.Get("ehlo"), user: l.Get("user")}
	case "rcpt":
		if t := s.mails[l.Get("ss_ta")]; t != nil {
			t.to = append(t.to, bare(l.Get("rcpt")))
		}
	case "message", "message discarded":
		if t := s.mails[l.Get("ss_ta")]; t != nil {
			t.size, _ = strconv.ParseInt(l.Get("size"), 10, 64)
			e.mail(s, t)
		}
		delete(s.mails, l.Get("ss_ta"))
	case "refused":
		s.identify(l)
		e.refused(s, l)
	}
	return nil
}

// refused takes the line of a refusal, which has all that is known of the dialogue.
func (e *Envelopes) refused(s *session, l *maillog.Line) {
	switch l.Get("where") {
	case "connect", "ehlo", "mail", "rcpt", "data", "final_dot":
	default: // AUTH, STARTTLS: what a dialogue that is tried cannot repeat
		return
	}
	t := transaction{from: bare(l.Get("mail")), ehlo: l.Get("ehlo")}
	if to := bare(l.Get("rcpt")); to != "" {
		t.to = []string{to}
	}
	e.mail(s, &t)
}

// identify takes what a line says of the client.
func (s *session) identify(l *maillog.Line) {
	if ip, err := netip.ParseAddr(l.Get("client_ip")); err == nil {
		s.client.Client = ip.Unmap()
	}
	if name := l.Get("client_name"); name != "" && name != "Hostname_Not_Determined" {
		s.client.Name = name
	}
}

// mail adds a transaction of a session. The recipients of a message become an envelope each, so
// that the same recipient of other messages is the same envelope.
func (e *Envelopes) mail(s *session, t *transaction) {
	env := s.client
	env.From, env.Size, env.Helo = t.from, t.size, explain.HeloOr(t.ehlo, env.Name, env.Client)
	for i, to := range append(t.to[:len(t.to):len(t.to)], "") {
		if i > 0 && i == len(t.to) || i >= rcptsMax {
			break
		}
		one := env
		one.To = nil
		if to != "" {
			one.To = []string{to}
		}
		for _, text := range append([]string{one.From}, one.To...) {
			if !smtp.IsASCII(text) {
				one.FromParams = "SMTPUTF8"
			}
		}
		if one.Check() == nil {
			e.add(one, 1)
		}
	}
}

func (e *Envelopes) add(env Envelope, seen int) {
	size := env.Size
	env.Size, env.Seen = 0, 0
	key, err := json.Marshal(env)
	if err != nil {
		return // netip.Addr and texts always can be written
	}
	if e.known == nil {
		e.known = map[string]*Envelope{}
	}
	have := e.known[string(key)]
	if have == nil {
		if len(e.list) >= e.Max {
			e.Left += seen
			return
		}
		have = &env
		e.known[string(key)] = have
		e.list = append(e.list, have)
	}
	have.Seen += seen
	have.Size = max(have.Size, size)
}

// session finds what is known of a session, whose first line may be missing.
func (e *Envelopes) session(id string) *session {
	if s := e.sessions[id]; s != nil {
		return s
	}
	if e.sessions == nil {
		e.sessions = map[string]*session{}
	}
	if len(e.order) >= sessionsMax {
		for _, old := range e.order[:sessionsMax/2] {
			delete(e.sessions, old)
		}
		e.order = slices.Delete(e.order, 0, sessionsMax/2)
	}
	s := &session{mails: map[string]*transaction{}}
	if len(id) > 2 { // the last two digits are the id of the section
		if n, err := strconv.ParseUint(id[len(id)-2:], 16, 8); err == nil {
			s.client.ServerID = uint8(n)
		}
	}
	e.sessions[id] = s
	e.order = append(e.order, id)
	return s
}

// bare is an address without angle brackets.
func bare(s string) string { return strings.TrimSuffix(strings.TrimPrefix(s, "<"), ">") }
