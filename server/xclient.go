package server

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"

	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/server/auth"
)

// XCLIENT and XFORWARD, as Postfix documents them (XCLIENT_README, XFORWARD_README): a
// listed host says who its client is. XCLIENT makes the session that of the client, for
// every check and limit; XFORWARD only tells the log and Received: where a message has come
// from that went through a content filter.

// Relays are the options of hosts that may speak for their clients.
type Relays struct {
	XClient, XForward []string // addresses and networks

	xclient, xforward []netip.Prefix
}

func (h *Relays) rows() []confparse.Option {
	list := func(name, command, what string, into *[]string) confparse.Option {
		return confparse.Option{
			Name: name, Type: confparse.List, Readme: "own", Into: into,
			Doc: "Addresses and networks (192.0.2.0/24) of hosts that may use " + command + ", " + what + " The default is none. As Postfix's smtpd_" + name + ".",
		}
	}
	return []confparse.Option{
		list("authorized_xclient_hosts", "XCLIENT", "to say who their client is: every check and limit is then of that client. Do not list hosts that strangers can use.", &h.XClient),
		list("authorized_xforward_hosts", "XFORWARD", "to say for the log and for Received: where a message came from.", &h.XForward),
	}
}

// prepare reads the lists.
func (h *Relays) prepare() error {
	var errs [2]error
	h.xclient, errs[0] = parseNetworks(h.XClient)
	h.xforward, errs[1] = parseNetworks(h.XForward)
	return errors.Join(errs[:]...)
}

func (h *Relays) check(r *confparse.Report) {
	for name, list := range map[string][]string{"authorized_xclient_hosts": h.XClient, "authorized_xforward_hosts": h.XForward} {
		if _, err := parseNetworks(list); err != nil {
			r.Errorf(name, "%s: %v", name, err)
		}
	}
}

// attributes of the two commands. LOGIN is one of XCLIENT only where there is AUTH.
const (
	xclientNames  = "NAME ADDR PORT PROTO HELO DESTADDR DESTPORT"
	xforwardNames = "NAME ADDR PORT PROTO HELO IDENT SOURCE"
)

// Values that say that an attribute has none.
const (
	unavailable     = "[UNAVAILABLE]"
	tempUnavailable = "[TEMPUNAVAIL]"
)

var (
	replyNotAuthorized = smtp.NewReply(550, "5.7.0", "You may not use this command")
	replyForwarded     = smtp.NewReply(250, "2.0.0", "Ok")
)

// unknownAddress stands for a client whose address nobody knows. No entry allows it
// anything, and all such clients count as one.
var unknownAddress = netip.IPv4Unspecified()

// attributes reads the argument of XCLIENT or XFORWARD. Each value is text without control
// characters, of bounded length; ok is false if something is wrong.
func attributes(arg, names string) (values map[string]string, ok bool) {
	values = map[string]string{}
	for _, word := range strings.Fields(arg) {
		name, value, found := strings.Cut(word, "=")
		name = strings.ToUpper(name)
		text, err := smtp.DecodeXtext(value)
		_, twice := values[name]
		if !found || err != nil || twice || len(text) > smtp.DomainMax || !printable([]byte(text)) ||
			!strings.Contains(" "+names+" ", " "+name+" ") {
			return nil, false
		}
		if upper := strings.ToUpper(text); upper == unavailable || upper == tempUnavailable {
			text = upper
		}
		values[name] = text
	}
	return values, len(values) > 0
}

// told reports whether an attribute is there and has a value.
func told(values map[string]string, name string) (string, bool) {
	v, ok := values[name]
	return v, ok && v != "" && v != unavailable && v != tempUnavailable
}

// parseClientAddr reads an address as the two commands have it: IPv6 with IPV6: in front.
func parseClientAddr(s string) (netip.Addr, bool) {
	if len(s) > 5 && strings.EqualFold(s[:5], "IPV6:") {
		s = s[5:]
	}
	a, err := netip.ParseAddr(s)
	return a.Unmap(), err == nil && a.Zone() == "" && !a.IsMulticast()
}

// mayXClient and mayXForward: the host at the other end is listed.
func (c *session) mayXClient() bool  { return in(c.srv.cfg.Relays.xclient, c.from.peer) }
func (c *session) mayXForward() bool { return in(c.srv.cfg.Relays.xforward, c.from.peer) }

// xclientArgs and xforwardArgs are what EHLO says of them.
func (c *session) xclientArgs() string  { return " " + c.xclientNames() }
func (c *session) xforwardArgs() string { return " " + xforwardNames }

// xclientNames are the attributes that are taken.
func (c *session) xclientNames() string {
	if c.srv.auth != nil {
		return xclientNames + " LOGIN"
	}
	return xclientNames
}

// xclient is XCLIENT: the session begins anew, as that of the client which is named.
func (c *session) xclient(arg string) smtp.Reply {
	if !c.mayXClient() || c.policy.denies(extXClient) {
		c.note.add(slog.String("input", arg))
		return replyNotAuthorized
	}
	values, ok := attributes(arg, c.xclientNames())
	who := proxiedClient{IP: c.client.IP, Port: c.client.Port}
	if !ok || !who.take(values) {
		c.note.add(slog.String("input", arg))
		return replyParam
	}
	c.emit(slog.LevelInfo, "xclient", append(c.appendClient(make([]slog.Attr, 0, 4)), slog.String("input", arg))...)
	c.become(who)
	c.note.where = "connect"
	if r, reason := c.srv.identify(c, c.client.IP); !r.IsZero() {
		c.refuse(reason, r)
		return smtp.Reply{}
	}
	if !c.admit() {
		return smtp.Reply{}
	}
	c.greet()
	if c.phase == phaseConnected && who.Helo != "" {
		// A refusal is not for the proxy: the client will say EHLO itself and get it then.
		_ = c.hello(who.Helo, who.Protocol)
	}
	if c.phase != phaseClosed && who.Login != "" {
		c.authenticated(auth.XClient, who.Login)
	}
	return smtp.Reply{}
}

// proxiedClient is what XCLIENT says of a client.
type proxiedClient struct {
	IP       netip.Addr
	Port     uint16
	Name     string // with a trailing dot
	Resolve  string // "" if the name is to be looked up
	Helo     string
	Protocol string // SMTP or ESMTP
	Login    string // the account as which it has authenticated
}

// take reads the attributes. It reports false if one is wrong.
func (k *proxiedClient) take(values map[string]string) bool {
	if addr, ok := values["ADDR"]; ok {
		k.IP, k.Port = unknownAddress, 0
		if _, ok = told(values, "ADDR"); ok {
			if k.IP, ok = parseClientAddr(addr); !ok {
				return false
			}
		} else {
			k.Resolve = "no"
		}
	}
	if port, ok := told(values, "PORT"); ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return false
		}
		k.Port = uint16(n)
	}
	if name, ok := told(values, "NAME"); ok {
		if smtp.CheckDomain(strings.TrimSuffix(name, ".")) != nil {
			return false
		}
		k.Name, k.Resolve = strings.TrimSuffix(name, ".")+".", "ok"
	} else if state, ok := values["NAME"]; ok {
		k.Resolve = map[bool]string{true: "tempptr", false: "no"}[state == tempUnavailable]
	}
	k.Protocol = "ESMTP"
	if proto, ok := told(values, "PROTO"); ok {
		if k.Protocol = strings.ToUpper(proto); k.Protocol != "SMTP" && k.Protocol != "ESMTP" {
			return false
		}
	}
	k.Helo, _ = told(values, "HELO")
	k.Login, _ = told(values, "LOGIN")
	if a, ok := told(values, "DESTADDR"); ok {
		if _, ok := parseClientAddr(a); !ok {
			return false
		}
	}
	if p, ok := told(values, "DESTPORT"); ok {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return false
		}
	}
	return true
}

// become makes the session one of another client, of which nothing is decided yet. What
// bounds commands without effect goes on: XCLIENT is one of them.
func (c *session) become(who proxiedClient) {
	c.endSession(context.WithoutCancel(c.asks.parent))
	c.admitted, c.askName, c.id, c.log = false, false, smtp.ID{}, c.srv.log
	c.dropTransaction()
	c.client.IP, c.client.Port, c.client.Name, c.client.Resolve = who.IP, who.Port, who.Name, who.Resolve
	c.client.Helo, c.client.Protocol, c.esmtp, c.from.local = "", "SMTP", false, false
	c.client.TLS = ofProxy(c.client.TLS)
	c.forgetAuth()
	c.received, c.from.forward = c.received[:0], nil
	c.policy, c.atConnect = policy{}, policy{}
	c.count = counts{bad: c.count.bad, nops: c.count.nops}
	c.enter(phaseConnected)
}

// ofProxy is what the handshake of the host that speaks for its clients gives to one of them:
// how the connection is encrypted. The certificate is the host's, not the client's, so it meets
// no requirement, lets nobody relay and proves nobody's name.
func ofProxy(t *msg.TLS) *msg.TLS {
	if t == nil {
		return nil
	}
	return &msg.TLS{Version: t.Version, Cipher: t.Cipher, Bits: t.Bits, Verify: msg.VerifyNot, Resumed: t.Resumed, ServerName: t.ServerName}
}

// forward is what XFORWARD says of the client that a message came from.
type forward struct {
	values map[string]string
}

// xforward is XFORWARD. What it says holds until the end of the transaction that follows.
func (c *session) xforward(arg string) smtp.Reply {
	if !c.mayXForward() || c.policy.denies(extXForward) {
		c.note.add(slog.String("input", arg))
		return replyNotAuthorized
	}
	values, ok := attributes(arg, xforwardNames)
	if addr, is := told(values, "ADDR"); is && ok {
		_, ok = parseClientAddr(addr)
	}
	if !ok {
		c.note.add(slog.String("input", arg))
		return replyParam
	}
	if c.from.forward == nil {
		c.from.forward = &forward{values: map[string]string{}}
	}
	for name, value := range values { // a long one comes as several commands
		c.from.forward.values[name] = value
	}
	return replyForwarded
}

// attrs adds what is known to a line of the log.
func (f *forward) attrs(attrs []slog.Attr) []slog.Attr {
	if f == nil {
		return attrs
	}
	for _, name := range strings.Fields(xforwardNames) {
		if v, ok := told(f.values, name); ok {
			attrs = append(attrs, slog.String("orig_"+strings.ToLower(name), v))
		}
	}
	return attrs
}

// appendReceived adds it to Received: as a comment behind the id:
//
//	(for HELO (NAME [ADDR]) with PROTO id IDENT)
func (f *forward) appendReceived(b []byte) []byte {
	if f == nil {
		return b
	}
	word := func(before, name string) {
		if v, ok := told(f.values, name); ok {
			b = appendWord(append(b, before...), v)
		}
	}
	b = append(b, "\r\n\t(for"...)
	if _, ok := told(f.values, "HELO"); !ok {
		b = append(b, " unknown"...)
	}
	word(" ", "HELO")
	b = append(b, " ("...)
	if _, ok := told(f.values, "NAME"); ok {
		word("", "NAME")
		b = append(b, ' ')
	}
	addr, _ := told(f.values, "ADDR")
	if a, ok := parseClientAddr(addr); ok {
		b = smtp.AppendAddressLiteral(b, a)
	} else {
		b = append(b, "unknown"...)
	}
	b = append(b, ')')
	word(" with ", "PROTO")
	word(" id ", "IDENT")
	return append(b, ')')
}
