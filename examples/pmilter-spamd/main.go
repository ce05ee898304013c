// Command pmilter-spamd is a policy milter in front of spamd, SpamAssassin's daemon (README
// 15.2, contrib/milter-spamd.c of MeTA1): it adds what spamd says of a message to its header, takes
// away what the sender has said of that, and refuses what has a high score.
//
//	pmilter-spamd -listen /run/meta1/spamd.sock -spamd 127.0.0.1:783 -reject 10
//
// Messages beyond -max are not looked at. If spamd fails they pass, or with -strict they are
// refused for now. docs/pmilter.md says how policy milters work.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"meta1/pmilter"
)

// filter is the policy milter with its options.
type filter struct {
	spamd   string // host:port, or the path of a socket
	user    string
	max     int
	reject  float64
	strict  bool
	timeout time.Duration
	log     *slog.Logger
}

// message is the transaction of a session, as far as it has come.
type message struct {
	helo, from string
	text       []byte
}

func main() {
	f := &filter{log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	listen := flag.String("listen", "", "path of the socket to listen on, or inet://address:port")
	flag.StringVar(&f.spamd, "spamd", "127.0.0.1:783", "where spamd listens: host:port, or the path of a socket")
	flag.StringVar(&f.user, "user", "", "user whose preferences spamd takes")
	flag.IntVar(&f.max, "max", 512<<10, "largest message that is looked at, in bytes")
	flag.Float64Var(&f.reject, "reject", 0, "score from which on a message is refused; 0 refuses none")
	flag.BoolVar(&f.strict, "strict", false, "refuse mail for now if spamd fails")
	flag.DurationVar(&f.timeout, "timeout", 30*time.Second, "how long spamd may take; less than timeout of policy_milter")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := f.run(ctx, *listen); err != nil {
		f.log.Error("pmilter-spamd ends", slog.Any("error", err))
		os.Exit(1)
	}
}

func (f *filter) run(ctx context.Context, listen string) error {
	g, err := pmilter.New(pmilter.Pmilter{
		Name: "pmilter-spamd", Negotiate: negotiate,
		Helo: func(s *pmilter.Session, name string, _ bool) pmilter.Code {
			s.SetContext(&message{helo: name})
			return pmilter.Continue
		},
		Mail: func(s *pmilter.Session, from string, _ []string) pmilter.Code {
			m := of(s)
			s.SetContext(&message{helo: m.helo, from: from})
			return pmilter.Continue
		},
		Msg: f.take, EOM: f.decide,
		Abort: func(s *pmilter.Session) { of(s).text = nil },
	})
	if err != nil {
		return err
	}
	g.SetLog(f.log)
	if err := g.SetConn(listen); err != nil {
		return err
	}
	return g.Start(ctx)
}

// negotiate asks for the macros of the Received: field that spamd is shown, and lets a chunk
// decide: a message that is too large need not be sent to its end.
func negotiate(ss *pmilter.Server, o pmilter.Offer) (pmilter.Options, error) {
	want := pmilter.Options{
		Cap: pmilter.CapConnect | pmilter.CapHelo | pmilter.CapMail | pmilter.CapMsg | pmilter.CapEOM | pmilter.CapMsgCode, Fct: o.Fct & pmilter.FctHeader,
	}
	return want, errors.Join(
		ss.SetMacros(pmilter.StageConnect, pmilter.MacroSrvHostname),
		ss.AddMacrosByName(pmilter.StageMail, "mail_taid", "protocol"),
	)
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

// take keeps a chunk. One that makes the message too large accepts it.
func (f *filter) take(s *pmilter.Session, chunk []byte) pmilter.Code {
	m := of(s)
	if len(m.text)+len(chunk) > f.max {
		m.text = nil
		return pmilter.Accept
	}
	m.text = append(m.text, chunk...)
	return pmilter.Continue
}

// decide asks spamd about the message.
func (f *filter) decide(s *pmilter.Session) pmilter.Code {
	m := of(s)
	v, err := f.ask(s, m)
	text := m.text
	m.text = nil
	if err != nil {
		f.log.Warn("spamd failed", slog.Any("error", err))
		if f.strict {
			_ = s.SetReply("451 4.7.1 The message cannot be checked now\r\n")
			return 451
		}
		return pmilter.Continue
	}
	f.log.Info("checked", slog.String("from", m.from), slog.Bool("spam", v.spam), slog.Float64("score", v.score), slog.String("tests", v.tests))
	if f.reject > 0 && v.score >= f.reject {
		_ = s.SetReply(fmt.Sprintf("554 5.7.1 The message looks like spam (%.1f points)\r\n", v.score))
		return 554
	}
	if err := v.mark(s, text); err != nil {
		f.log.Warn("header not changed", slog.Any("error", err))
	}
	return pmilter.Continue
}

// verdict is what spamd says.
type verdict struct {
	spam             bool
	score, threshold float64
	tests            string // names, separated by commas
}

// mark changes the header.
func (v *verdict) mark(s *pmilter.Session, text []byte) error {
	for _, pos := range forged(text) {
		if err := s.HeaderMod(pmilter.HeaderRemove, pos, ""); err != nil {
			return err
		}
	}
	word := "No"
	if v.spam {
		word = "Yes"
		if err := s.HeaderMod(pmilter.HeaderInsert, 1, "X-Spam-Flag: YES\r\n"); err != nil {
			return err
		}
	}
	status := fmt.Sprintf("X-Spam-Status: %s, score=%.1f required=%.1f\r\n\ttests=%s\r\n", word, v.score, v.threshold, strings.ReplaceAll(v.tests, ",", ",\r\n\t"))
	return s.HeaderMod(pmilter.HeaderInsert, 1, status)
}

// forged are the positions of fields that say of the message what only we may say.
func forged(text []byte) (positions []uint) {
	pos := uint(0)
	for line := range strings.Lines(string(text)) {
		if line == "\r\n" {
			break
		}
		if line[0] == ' ' || line[0] == '\t' {
			continue
		}
		pos++
		if len(line) > 7 && strings.EqualFold(line[:7], "X-Spam-") {
			positions = append(positions, pos)
		}
	}
	return positions
}

// ask shows spamd the message, with the Received: field that the server will put on top.
func (f *filter) ask(s *pmilter.Session, m *message) (v verdict, err error) {
	ctx, cancel := context.WithTimeout(s.Lifetime(), f.timeout)
	defer cancel()
	network := "tcp"
	if strings.HasPrefix(f.spamd, "/") {
		network = "unix"
	}
	c, err := (&net.Dialer{}).DialContext(ctx, network, f.spamd)
	if err != nil {
		return v, err
	}
	defer func() { _ = c.Close() }()
	defer context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })()
	host, _, _ := s.Macro(pmilter.MacroSrvHostname)
	id, _, _ := s.Macro(pmilter.MacroMailTAID)
	protocol, _, _ := s.Macro(pmilter.MacroProtocol)
	client := s.Client()
	top := fmt.Sprintf("X-Envelope-From: %s\r\nReceived: from %s (%s [%s])\r\n\tby %s with %s id %s; %s\r\n",
		m.from, m.helo, client.Name, client.Addr, host, protocol, id, time.Now().Format(time.RFC1123Z))
	user := ""
	if f.user != "" {
		user = "User: " + f.user + "\r\n"
	}
	head := fmt.Sprintf("SYMBOLS SPAMC/1.5\r\nContent-length: %d\r\n%s\r\n", len(top)+len(m.text), user)
	for _, p := range [][]byte{[]byte(head + top), m.text} {
		if _, err := c.Write(p); err != nil {
			return v, err
		}
	}
	return read(bufio.NewReader(io.LimitReader(c, 64<<10)))
}

// read reads what spamd says: a line with a code, fields, an empty line, and names of tests.
func read(r *bufio.Reader) (v verdict, err error) {
	line, err := r.ReadString('\n')
	if words := strings.Fields(line); err != nil || len(words) < 3 || !strings.HasPrefix(words[0], "SPAMD/") || words[1] != "0" {
		return v, fmt.Errorf("spamd says %q: %w", line, err)
	}
	known := false
	for {
		if line, err = r.ReadString('\n'); err != nil {
			return v, err
		}
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "" {
			break
		}
		if strings.EqualFold(name, "Spam") {
			if _, err := fmt.Sscanf(strings.ReplaceAll(value, ";", " "), "%t %f / %f", &v.spam, &v.score, &v.threshold); err != nil {
				return v, fmt.Errorf("spamd says %s: %w", strconv.Quote(value), err)
			}
			known = true
		}
	}
	tests, err := io.ReadAll(r)
	if err != nil || !known {
		return v, errors.Join(err, errors.New("spamd gives no score"))
	}
	v.tests = strings.Map(func(c rune) rune { // they go to a header
		if c == ',' || c == '_' || '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' {
			return c
		}
		return -1
	}, string(tests))
	if v.tests == "" {
		v.tests = "none"
	}
	return v, nil
}
