package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"meta1/client/auth"
	"meta1/client/metrics"
	"meta1/client/tlspolicy"
	"meta1/client/wire"
	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// commandMax bounds a command line with its line end (RFC 5321 section 4.5.3.1.4). An initial
// response that does not fit goes behind the first challenge (RFC 4954 section 4).
const commandMax = 512

// findLogin finds the account with which a request goes to its hop; the zero Login for none.
// If that cannot be known now it answers for all recipients.
func (d *delivery) findLogin(cl *class) (l auth.Login, ok bool) {
	if cl.auth == nil || cl.auth.PasswordMap == "" {
		return l, true
	}
	l, err := d.lookUpLogin(cl.auth)
	switch {
	case err == nil:
		return l, true
	case d.r.Ctx.Err() != nil || d.c.stopped():
		d.notConnected(stoppedEarly(d.r.Q.Hop))
		return l, false
	}
	d.c.metrics.Auth[metrics.AuthNoAccount].Inc()
	d.c.log.LogAttrs(d.r.Ctx, slog.LevelError, "the account for a host cannot be found",
		append(hopAttrs(d.r.Q.Hop), slog.String("map", cl.auth.PasswordMap), slog.Any("error", err))...)
	d.refuse(msg.DeliverConnect, smtp.NewReply(451, "4.3.5", "the account for host "+d.r.Q.Hop.String()+" cannot be found"))
	return l, false
}

// lookUpLogin asks for the entries of the host, then of the sender. No error has anything of
// an entry.
func (d *delivery) lookUpLogin(cfg *auth.Config) (auth.Login, error) {
	q := &d.r.Q
	var keys []string
	if q.Hop.Socket != "" {
		keys = []string{q.Hop.Socket}
	} else {
		keys = auth.Keys(q.Hop.Host, q.Hop.Addr.Addr().Unmap().String(), strconv.Itoa(int(q.Hop.Addr.Port())), q.Dest)
	}
	l, key, found, err := d.entry(cfg, keys)
	if err != nil || !found {
		return l, err
	}
	if cfg.SenderDependent && !q.Mail.From.IsNull() {
		own, senderKey, found, err := d.entry(cfg, auth.SenderKeys(q.Mail.From.Local, q.Mail.From.Domain))
		if err != nil {
			return own, err
		}
		if found {
			l, key = own, senderKey
			l.BySender = !l.IsZero()
		}
	}
	d.c.log.LogAttrs(d.r.Ctx, slog.LevelDebug, "account for a host", append(hopAttrs(q.Hop), slog.String("ss_ta", q.TA.String()),
		slog.String("map", cfg.PasswordMap), slog.String("key", key), slog.String("user", l.Account))...)
	return l, nil
}

// entry is the login of the first key that has one.
func (d *delivery) entry(cfg *auth.Config, keys []string) (l auth.Login, key string, found bool, err error) {
	for _, key := range keys {
		a, err := asked(d.r.Ctx, d.c, func() (msg.LookupA, error) {
			return d.c.deps.Ports.Lookup.Ask(d.r.Ctx, msg.LookupQ{Map: cfg.PasswordMap, Key: key})
		})
		if err == nil && a.Err != "" {
			err = errors.New(a.Err)
		}
		if err == nil && a.Found {
			if l, err = auth.ParseEntry(a.Value, cfg.TokenFile); err != nil {
				err = fmt.Errorf("entry %q: %w", key, err)
			}
		}
		if err != nil || a.Found {
			return l, key, err == nil, err
		}
	}
	return l, "", false, nil
}

// forLogin adds what a login demands of TLS to a policy, or answers for all recipients that it
// cannot be had. A connection that stays on this machine needs none.
func (d *delivery) forLogin(p *tlspolicy.Policy, l auth.Login, cfg *auth.Config) bool {
	if l.IsZero() || d.r.Q.Hop.Socket != "" || cfg.Level() == auth.None {
		return true
	}
	if p.Need == tlspolicy.None {
		d.c.metrics.Auth[metrics.AuthUnprotected].Inc()
		d.a.Stage, d.a.TLSUnmet = msg.DeliverTLS, true
		d.refuse(msg.DeliverTLS, smtp.NewReply(451, "4.7.0", "authentication at host "+d.r.Q.Hop.String()+" needs TLS, which session_features turn off"))
		return false
	}
	p.Need = max(p.Need, tlspolicy.Must)
	return true
}

// knownRefused answers for all recipients if the host has refused the login a short while ago.
func (d *delivery) knownRefused() bool {
	l := d.line.login
	if l.IsZero() || d.line.class.auth.FailureTime == 0 {
		return false
	}
	token, err := d.c.token(l)
	if err != nil {
		return false // it is told where it is needed
	}
	r, ok := d.c.refusals.Find(d.line.hop.String(), l, token, time.Now())
	if !ok {
		return false
	}
	reply := r.Reply
	reply.Lines = []string{"authentication is not tried again yet: " + r.Reply.Text()}
	d.notConnected(&dialFailure{stage: msg.DeliverAuth, reply: reply, hostFailed: !l.BySender, own: true})
	return true
}

// token reads the token of a login that has one, with a few words where that fails.
func (c *Client) token(l auth.Login) (auth.Secret, error) {
	if l.TokenFile == "" {
		return "", nil
	}
	read := readAccountsFile
	if l.Configured {
		read = c.deps.ReadFile
	}
	content, err := read(l.TokenFile)
	if err != nil {
		return "", err
	}
	token, err := auth.ParseToken(content)
	if err != nil {
		return "", fmt.Errorf("%s: %w", l.TokenFile, err)
	}
	return token, nil
}

// readAccountsFile reads a regular file with the rights of this process.
func readAccountsFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold us up
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is not a regular file", path))
	}
	return io.ReadAll(io.LimitReader(f, auth.TokenMax+1))
}

// authenticate logs in, if the connection is for an account (RFC 4954).
func (c *Client) authenticate(cn *conn, p *msg.Progress) *dialFailure {
	l, cfg := cn.line.login, cn.class.auth
	if l.IsZero() {
		return nil
	}
	p.Reach(msg.DeliverAuth)
	host := cn.hop.String()
	if why := cn.unprotected(cfg.Level()); why != "" {
		f := c.authFailed(cn, metrics.AuthUnprotected, "", smtp.NewReply(451, "4.7.0", "no authentication at host "+host+": "+why))
		f.tls, f.hostFailed = tlsUntrusted, false
		return f
	}
	if cn.ext.Auth == "" {
		if cfg.Optional {
			c.metrics.Auth[metrics.AuthNotOffered].Inc()
			return nil
		}
		return c.authFailed(cn, metrics.AuthNotOffered, "", smtp.NewReply(451, "4.7.0", "host "+host+" does not offer AUTH, and we have an account there"))
	}
	secret := l.Password
	if l.TokenFile != "" {
		var err error
		if secret, err = c.token(l); err != nil {
			c.log.LogAttrs(context.Background(), slog.LevelError, "the token for a host cannot be read", append(hopAttrs(cn.hop), slog.Any("error", err))...)
			f := c.authFailed(cn, metrics.AuthNoAccount, "", smtp.NewReply(451, "4.3.5", "the token for host "+host+" cannot be read"))
			f.hostFailed = false
			return f
		}
	}
	ch := cn.channel()
	offered := strings.Fields(cn.ext.Auth)
	mechanisms := cfg.Choose(l, offered, ch)
	if len(mechanisms) == 0 {
		return c.authFailed(cn, metrics.AuthNoMechanism, "", smtp.NewReply(451, "4.7.0",
			"host "+host+" offers no mechanism for authentication that may be used: "+wire.CleanText([]byte(cn.ext.Auth[:min(len(cn.ext.Auth), logNameMax)]))))
	}
	for i, mechanism := range mechanisms {
		f, unusable := c.exchange(cn, mechanism, secret, ch)
		if f == nil {
			cn.mechanism = mechanism
			c.metrics.Auth[metrics.AuthGranted].Inc()
			return nil
		}
		if !unusable || cn.Broken || cn.Closing || i == len(mechanisms)-1 {
			return f
		}
	}
	return nil // not reached: there is a mechanism, and its turn ends above
}

// unprotected says why no password may be sent over the connection, "" if it may.
func (cn *conn) unprotected(level auth.Level) string {
	switch {
	case level == auth.None, cn.hop.Socket != "":
		return ""
	case !cn.tls.on():
		return "there is no TLS"
	case level == auth.Encrypted, cn.tls.Level == msg.TLSDANE, cn.line.tls.STS == msg.STSEnforce:
		return ""
	}
	name := strings.TrimSuffix(cn.hop.Host, ".")
	if name == "" {
		name = cn.hop.Addr.Addr().Unmap().String()
	}
	if cn.lacks(&msg.TLSRequirements{Verified: true, Hostnames: []string{name}}) == "" {
		return ""
	}
	err := tlspolicy.Verify(cn.tls.chain, name, nil, time.Now())
	if err == nil {
		return ""
	}
	why := wire.CleanText([]byte(err.Error()))
	return "its certificate is not verified (" + why[:min(len(why), handshakeErrorMax)] + ")"
}

// channel is what mechanisms have to know of the connection.
func (cn *conn) channel() *auth.Channel {
	ch := &auth.Channel{Host: strings.TrimSuffix(cn.hop.Host, "."), Port: cn.hop.Addr.Port(), OfferedPlus: strings.Contains(cn.ext.Auth, "-PLUS")}
	if ch.Host == "" && cn.hop.Socket == "" {
		ch.Host = cn.hop.Addr.Addr().Unmap().String()
	}
	if cn.tls.bindings != nil {
		ch.Bindings = cn.tls.bindings()
	}
	return ch
}

// authFailed counts and logs a failure, and says what becomes of the mail: another host of the
// route may serve it. A failure of the account of the host is one of the host, which serves
// nobody who needs that account; one of a sender's account is the sender's alone.
func (c *Client) authFailed(cn *conn, result metrics.AuthResult, mechanism string, reply smtp.Reply) *dialFailure {
	c.metrics.Auth[result].Inc()
	l := cn.line.login
	attrs := append(hopAttrs(cn.hop), slog.String("da_se", cn.id), slog.String("user", l.Account))
	if mechanism != "" {
		attrs = append(attrs, slog.String("mech", mechanism))
	}
	c.log.LogAttrs(context.Background(), slog.LevelWarn, "authentication failed",
		append(attrs, slog.String("result", result.String()), slog.Int("stat", reply.Code), slog.String("reply", reply.String()))...)
	return &dialFailure{stage: msg.DeliverAuth, reply: reply, hostFailed: !l.BySender, own: true}
}

// exchange speaks one AUTH command. A nil failure means that we are who we say. unusable says
// that the host does not want this mechanism, so that another one may do.
func (c *Client) exchange(cn *conn, mechanism string, secret auth.Secret, ch *auth.Channel) (f *dialFailure, unusable bool) {
	l := cn.line.login
	e, err := auth.New(mechanism, l.Account, secret, ch)
	var initial []byte
	if err == nil {
		initial, err = e.Initial()
	}
	if err != nil {
		return c.authFailed(cn, metrics.AuthNoMechanism, mechanism, smtp.NewReply(451, "4.7.0", "no authentication at host "+cn.hop.String()+" by "+mechanism+": "+err.Error())), true
	}
	sent := []string{string(secret)}
	line, late := "AUTH "+mechanism, initial
	if encoded := encodeResponse(initial); initial != nil && len(line)+1+len(encoded)+len("\r\n") <= commandMax {
		line, late = line+" "+encoded, nil
		sent = append(sent, encoded)
	}
	detail := ""
	for round := 0; ; round++ {
		if err := cn.Command(line, c.limits.auth); err != nil {
			return cn.failure(msg.DeliverAuth, err), false
		}
		if cn.Reply.Code/100 != 3 {
			break
		}
		challenge, err := cn.challenge()
		var response []byte
		switch {
		case err != nil:
		case round >= auth.RoundsMax:
			err = errors.New("too many challenges")
		case late != nil:
			response, late = late, nil
		default:
			response, err = e.Next(challenge)
			detail = wire.CleanText(challenge[:min(len(challenge), handshakeErrorMax)])
		}
		if err != nil {
			return c.cancel(cn, mechanism, secret, err), false
		}
		line = base64.StdEncoding.EncodeToString(response)
		sent = append(sent, line)
	}
	return c.authReply(cn, mechanism, secret, e, sent, detail)
}

// authReply judges the last reply to AUTH.
func (c *Client) authReply(cn *conn, mechanism string, secret auth.Secret, e auth.Exchange, sent []string, detail string) (f *dialFailure, unusable bool) {
	cfg := cn.class.auth
	theirs := cn.Reply.SMTP()
	for i := range theirs.Lines {
		theirs.Lines[i] = auth.Scrub(theirs.Lines[i], sent)
	}
	text := "host " + cn.hop.String() + " refused to authenticate us by " + mechanism + ": " + theirs.String()
	if strings.HasPrefix(detail, "{") { // why a token was refused (RFC 7628 section 3.2.2)
		text += " " + auth.Scrub(detail, sent)
	}
	switch {
	case cn.Reply.Positive():
		if err := e.Done(); err != nil {
			return c.untrue(cn, mechanism, secret, err), false
		}
		return nil, false
	case cn.Reply.Code == 421:
		cn.Closing = true
		f = c.authFailed(cn, metrics.AuthTemporary, mechanism, theirs)
		f.refused, f.hostFailed = true, true
		return f, false
	case cn.Reply.Code < 400:
		return cn.failure(msg.DeliverAuth, wire.ErrUnfit), false
	case cn.Reply.Code < 500:
		f = c.authFailed(cn, metrics.AuthTemporary, mechanism, smtp.NewReply(454, "4.7.0", text))
		return f, cn.Reply.Code == 432 // a password transition is needed (RFC 4954 section 6)
	}
	unusable = cn.Reply.Code < 530 || cn.Reply.Code == 534 || cn.Reply.Code == 538
	reply := smtp.NewReply(454, "4.7.8", text)
	if cfg.Bounces() {
		reply = smtp.NewReply(535, "5.7.8", text)
	}
	f = c.authFailed(cn, metrics.AuthRefused, mechanism, reply)
	if !unusable {
		c.noteRefusal(cn, secret, reply)
	}
	return f, unusable
}

// noteRefusal remembers that the host does not take the login.
func (c *Client) noteRefusal(cn *conn, secret auth.Secret, reply smtp.Reply) {
	l, now := cn.line.login, time.Now()
	if l.TokenFile == "" {
		secret = "" // it stands in the login
	}
	c.refusals.Note(cn.hop.String(), l, secret, auth.Refusal{At: now, Until: now.Add(cn.class.auth.FailureTime), Reply: reply})
}

// cancel ends an exchange that cannot go on (RFC 4954 section 4).
func (c *Client) cancel(cn *conn, mechanism string, secret auth.Secret, why error) *dialFailure {
	if err := cn.Command("*", c.limits.auth); err == nil && cn.Reply.Positive() {
		cn.Broken = true // it is out of step with us
	}
	return c.untrue(cn, mechanism, secret, why)
}

// untrue gives up a host that broke the rules of a mechanism.
func (c *Client) untrue(cn *conn, mechanism string, secret auth.Secret, why error) *dialFailure {
	cn.Closing = cn.Closing || cn.Reply.Positive() // nothing more is said to whom we do not trust
	reply := smtp.NewReply(454, "4.7.8", "authentication at host "+cn.hop.String()+" by "+mechanism+" failed: "+why.Error())
	c.noteRefusal(cn, secret, reply)
	return c.authFailed(cn, metrics.AuthBroken, mechanism, reply)
}

// encodeResponse is a response as AUTH has it on its line: an empty one is "=".
func encodeResponse(b []byte) string {
	if len(b) == 0 {
		return "="
	}
	return base64.StdEncoding.EncodeToString(b)
}

// challenge is that of a 334. Some hosts send text in the first one, for mechanisms that
// begin with the client: what is no base64 is an error.
func (cn *conn) challenge() ([]byte, error) {
	text := strings.TrimSpace(string(cn.Reply.Text))
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("a challenge that is not in base64")
	}
	return b, nil
}

// asked asks SMAR. A restart of SMAR is a pause for a delivery: it asks again for a while.
func asked[A any](ctx context.Context, c *Client, ask func() (A, error)) (A, error) {
	for end := time.Now().Add(resolverPause); ; {
		a, err := ask()
		if !errors.Is(err, msg.ErrDown) || !time.Now().Before(end) {
			return a, err
		}
		select {
		case <-time.After(resolverAgain):
		case <-ctx.Done():
			return a, context.Cause(ctx)
		case <-c.stopping:
			return a, err
		}
	}
}
