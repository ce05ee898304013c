package explain

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

const (
	// replyTime bounds the wait for one reply: SMAR may ask name servers for two minutes.
	replyTime = 3 * time.Minute
	// clientPort is the port from which the client seems to come.
	clientPort = 49152
	linesMax   = 200 // of one reply
	lineMax    = 4 << 10
)

// Deps is what Run needs of mta.
type Deps struct {
	// Ports are those of the modules that are asked.
	Ports *msg.Ports
	// HasQueue: QMGR is one of them.
	HasQueue bool
	// Serve makes the server of the dialogue.
	Serve func(Trial) (run func(context.Context) error, err error)
	// Implicit: TLS begins with the connection.
	Implicit bool
	// Own is the address to which the client connects.
	Own netip.AddrPort
	// Hop says what is known of a hop beyond the route; nil for nothing.
	Hop func(ctx context.Context, h *Hop, hop msg.Hop, a *msg.RouteA, q *msg.RouteQ)
}

// Run tries the dialogue and asks where the accepted recipients go. The error says that the
// dialogue could not be held; a refusal is none.
func Run(ctx context.Context, q *Question, deps Deps) (*Report, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	rec := &recorder{}
	rec.begin("connect", "")
	client, server := connect(netip.AddrPortFrom(q.Client, clientPort), deps.Own)
	r := relay{q: q, rec: rec, trial: msg.NewPorts(), real: deps.Ports, password: newPassword(), hasQueue: deps.HasQueue}
	l := newListener(server)
	run, err := deps.Serve(Trial{Question: q, Ports: r.trial, Log: slog.New(sessionLog{rec}), Listener: l})
	if err != nil {
		_ = client.Close() // the server has not begun
		_ = server.Close()
		return nil, err
	}
	g := supervise.NewGroup(ctx)
	r.serve(g)
	g.Go(run)
	d := &dialogue{q: q, rec: rec, report: &Report{Recipients: []Recipient{}, Stages: []*Stage{}}, raw: client, password: r.password}
	d.use(client)
	err = d.hold(deps.Implicit)
	rec.begin("end", "") // what is noted from here on belongs to no command
	_ = client.Close()   // the server may have closed it
	g.Stop()
	if end := g.Wait(); err == nil && end != nil {
		err = fmt.Errorf("the server of the dialogue: %w", end)
	}
	if err != nil {
		return nil, err
	}
	d.report.judge()
	for i := range d.report.Recipients {
		if r := &d.report.Recipients[i]; r.Verdict == Accepted {
			r.route(ctx, d.sender, d.to[i], &deps)
		}
	}
	return d.report, nil
}

// dialogue is the client's side.
type dialogue struct {
	q        *Question
	rec      *recorder
	report   *Report
	raw      net.Conn
	conn     net.Conn // raw, or TLS over it
	in       *bufio.Reader
	password string
	sender   smtp.Path
	to       []smtp.Path
}

func (d *dialogue) use(c net.Conn) { d.conn, d.in = c, bufio.NewReaderSize(c, lineMax) }

// hold speaks with the server until the last recipient is answered, or something is refused.
func (d *dialogue) hold(implicit bool) error {
	if implicit {
		if err := d.handshake(); err != nil {
			return fmt.Errorf("TLS with the server of the dialogue: %w", err)
		}
	}
	reply, err := d.answer()
	if err != nil || !reply.Accepted() {
		return err
	}
	ok, err := d.say("ehlo", "EHLO "+d.q.Helo)
	if err != nil || !ok {
		return err
	}
	if d.q.TLS != nil && !implicit {
		if ok, err = d.say("starttls", "STARTTLS"); err != nil || !ok {
			return err
		}
		if err := d.handshake(); err != nil {
			return fmt.Errorf("TLS with the server of the dialogue: %w", err)
		}
		if ok, err = d.say("ehlo", "EHLO "+d.q.Helo); err != nil || !ok {
			return err
		}
	}
	if d.q.Auth != "" {
		if ok, err = d.authenticate(); err != nil || !ok {
			return err
		}
	}
	if ok, err = d.say("mail", withParams("MAIL FROM:<"+d.q.From+">", d.q.FromParams)); err != nil || !ok {
		return err
	}
	d.sender, _, _ = smtp.CutReversePath("<"+d.q.From+">", smtp.UTF8) // the server has taken it
	for _, to := range d.q.To {
		if _, err := d.say("rcpt", withParams("RCPT TO:<"+to+">", d.q.ToParams)); err != nil {
			return err
		}
		s := d.rec.stage
		path, _, err := smtp.CutForwardPath("<"+to+">", smtp.UTF8)
		if err != nil && s.Verdict == Accepted {
			return fmt.Errorf("reading the address that was accepted: %w", err)
		}
		d.to = append(d.to, path)
		d.report.Recipients = append(d.report.Recipients, Recipient{Rcpt: to, Reply: s.Reply, Verdict: s.Verdict})
		if strings.HasPrefix(s.Reply, "421") {
			break
		}
	}
	return nil
}

func withParams(command, params string) string {
	return strings.TrimSpace(command + " " + params)
}

// authenticate makes the client one that has given the password of its account. The server of
// the dialogue has it from a map of our own.
func (d *dialogue) authenticate() (ok bool, err error) {
	d.begin("auth", "AUTH "+d.q.Mechanism)
	secret := base64.StdEncoding.EncodeToString([]byte("\x00" + d.q.Auth + "\x00" + d.password))
	if err := d.send("AUTH PLAIN " + secret); err != nil {
		return false, err
	}
	reply, err := d.answer()
	return reply.Accepted(), err
}

// handshake begins TLS. Whom we speak to is no question.
func (d *dialogue) handshake() error {
	if err := d.raw.SetDeadline(time.Now().Add(replyTime)); err != nil {
		return err
	}
	c := tls.Client(d.raw, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // it is our own server, in this process
	if err := c.Handshake(); err != nil {
		return err
	}
	d.use(c)
	return nil
}

func (d *dialogue) begin(stage, command string) { d.rec.begin(stage, command) }

// say gives a command. ok reports that it was accepted.
func (d *dialogue) say(stage, command string) (ok bool, err error) {
	d.begin(stage, command)
	if err := d.send(command); err != nil {
		return false, err
	}
	reply, err := d.answer()
	return reply.Accepted(), err
}

func (d *dialogue) send(line string) error {
	if err := d.raw.SetDeadline(time.Now().Add(replyTime)); err != nil {
		return err
	}
	if _, err := d.conn.Write([]byte(line + "\r\n")); err != nil {
		return fmt.Errorf("speaking with the server of the dialogue: %w", err)
	}
	return nil
}

// answer reads the reply to the command in progress and files its stage.
func (d *dialogue) answer() (smtp.Reply, error) {
	if err := d.raw.SetDeadline(time.Now().Add(replyTime)); err != nil {
		return smtp.Reply{}, err
	}
	r, err := readReply(d.in)
	if err != nil {
		return r, fmt.Errorf("reading the reply of the server of the dialogue: %w", err)
	}
	d.rec.end(r)
	d.report.Stages = append(d.report.Stages, d.rec.stage)
	return r, nil
}

var errReply = errors.New("not a reply")

func readReply(in *bufio.Reader) (r smtp.Reply, err error) {
	for range linesMax {
		line, err := in.ReadString('\n')
		if err != nil {
			return r, err
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 3 {
			return r, errReply
		}
		code, err := strconv.Atoi(line[:3])
		if err != nil {
			return r, errReply
		}
		text := strings.TrimPrefix(line[3:], "-")
		more := text != line[3:]
		text = strings.TrimPrefix(text, " ")
		r.Code = code
		if e, rest, ok := smtp.ParseEnhancedCode(text); ok {
			r.Enhanced, text = e, strings.TrimPrefix(rest, " ")
		}
		r.Lines = append(r.Lines, text)
		if !more {
			return r, nil
		}
	}
	return r, errReply
}

// judge finds the verdict of the whole: the worst of the recipients, or that of the stage
// beyond which the dialogue did not come.
func (r *Report) judge() {
	r.Verdict = Accepted
	for _, s := range r.Stages {
		if s.Stage != "rcpt" && s.Verdict.rank() > r.Verdict.rank() {
			r.Verdict = s.Verdict
		}
	}
	for i := range r.Recipients {
		if v := r.Recipients[i].Verdict; v.rank() > r.Verdict.rank() {
			r.Verdict = v
		}
		if r.Verdict == Discarded && r.Recipients[i].Verdict == Accepted { // the message is
			r.Recipients[i].Verdict = Discarded
		}
	}
}
