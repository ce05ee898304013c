package auth

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Bounds of what Dovecot says.
const (
	dovecotLineMax  = 32 << 10 // bytes; its own are at most 8 KB
	dovecotLinesMax = 200      // of a handshake, or before an answer
	dovecotAgain    = 5 * time.Second
	dovecotRefresh  = time.Minute
)

// dovecot is a client of Dovecot's auth service, protocol 1.x
// (https://doc.dovecot.org/developer_manual/design/auth_protocol/). Each exchange has a
// connection of its own, so that one that hangs is in nobody's way.
type dovecot struct {
	network, address string
	dial             func(ctx context.Context, network, address string) (net.Conn, error)
	offered          atomic.Pointer[[]offer] // nil until Dovecot has told
	pid              atomic.Uint32
}

// offer is a mechanism that Dovecot has.
type offer struct {
	name   string
	traits traits
}

func newDovecot(c Dovecot, dial func(ctx context.Context, network, address string) (net.Conn, error), random []byte) *dovecot {
	d := &dovecot{network: "unix", address: c.Path, dial: dial}
	if c.Path == "" {
		d.network, d.address = "tcp", c.Address
	}
	// Dovecot wants each connection to name another process: begin anywhere above the
	// numbers that processes have.
	d.pid.Store(binary.BigEndian.Uint32(random) | 1<<30)
	return d
}

// unheard is what is offered before Dovecot was ever reached: clients that find no AUTH
// would give up, and 454 makes them come back.
var unheard = []offer{{Plain, 0}, {Login, 0}}

func (d *dovecot) list() []offer {
	if p := d.offered.Load(); p != nil {
		return *p
	}
	return unheard
}

func (d *dovecot) names() []string {
	var list []string
	for _, o := range d.list() {
		list = append(list, o.name)
	}
	return list
}

func (d *dovecot) traits(name string) (traits, bool) {
	for _, o := range d.list() {
		if o.name == name {
			return o.traits, true
		}
	}
	return 0, false
}

// watch learns the mechanisms again and again until ctx ends.
func (d *dovecot) watch(ctx context.Context, log *slog.Logger, timeout time.Duration) {
	failed := false
	for {
		pause := dovecotRefresh
		err := d.learn(ctx, timeout)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if pause = dovecotAgain; !failed {
				log.LogAttrs(ctx, slog.LevelWarn, "Dovecot cannot be asked", slog.String("address", d.address), slog.Any("error", err))
			}
		case failed:
			log.LogAttrs(ctx, slog.LevelInfo, "Dovecot can be asked again", slog.String("address", d.address))
		}
		failed = err != nil
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (d *dovecot) learn(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	c, err := d.connect(ctx)
	if err == nil {
		c.close()
	}
	return err
}

// dovecotConn is one connection after the handshake.
type dovecotConn struct {
	conn net.Conn
	in   *bufio.Reader
}

func (c *dovecotConn) close() { _ = c.conn.Close() } // Dovecot forgets what was not finished

// connect connects and does the handshake, which brings the mechanisms.
func (d *dovecot) connect(ctx context.Context) (*dovecotConn, error) {
	conn, err := d.dial(ctx, d.network, d.address)
	if err != nil {
		return nil, err
	}
	c := &dovecotConn{conn: conn, in: bufio.NewReaderSize(conn, dovecotLineMax)}
	defer interruptible(ctx, conn)()
	offers, err := c.handshake(d.pid.Add(1) | 1<<30)
	if err != nil {
		c.close()
		return nil, because(ctx, err)
	}
	d.offered.Store(&offers)
	return c, nil
}

func (c *dovecotConn) handshake(pid uint32) ([]offer, error) {
	if _, err := fmt.Fprintf(c.conn, "VERSION\t1\t2\nCPID\t%d\n", pid); err != nil {
		return nil, err
	}
	offers := []offer{}
	for range dovecotLinesMax {
		word, args, err := c.line()
		switch {
		case err != nil:
			return nil, err
		case word == "VERSION" && (len(args) < 1 || args[0] != "1"):
			return nil, errors.New("its protocol has another version than 1")
		case word == "MECH" && len(args) > 0:
			if o, ok := readOffer(args); ok {
				offers = append(offers, o)
			}
		case word == "DONE":
			return offers, nil
		}
	}
	return nil, errors.New("handshake does not end")
}

// readOffer reads a mechanism and its flags. Mechanisms for Dovecot itself, and with
// channel binding, of which it would have to know, are left out.
func readOffer(args []string) (o offer, ok bool) {
	o.name = strings.ToUpper(args[0])
	for _, c := range []byte(o.name) {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return o, false
		}
	}
	if o.name == "" || len(o.name) > 20 || strings.HasSuffix(o.name, "-PLUS") || slices.Contains(args[1:], "private") {
		return o, false
	}
	flags := map[string]traits{
		"plaintext": plaintext | credentials, "active": active, "dictionary": dictionary, "anonymous": nobody, "mutual-auth": mutual,
	}
	for _, flag := range args[1:] {
		o.traits |= flags[flag]
	}
	return o, true
}

// line reads one line, split at tabs, with Dovecot's escapes resolved.
func (c *dovecotConn) line() (word string, args []string, err error) {
	b, err := c.in.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errors.New("a line that is too long")
		}
		return "", nil, err
	}
	part := strings.Split(strings.TrimSuffix(string(b), "\n"), "\t")
	for i := range part {
		part[i] = dovecotUnescape.Replace(part[i])
	}
	return part[0], part[1:], nil
}

// Dovecot's escapes of what would end a field or a line.
var (
	dovecotUnescape = strings.NewReplacer("\x010", "\x00", "\x011", "\x01", "\x01t", "\t", "\x01r", "\r", "\x01n", "\n", "\x01l", "\n")
	dovecotEscape   = strings.NewReplacer("\x00", "\x010", "\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n")
)

// remote is an exchange that Dovecot has with the client.
type remote struct {
	d         *dovecot
	client    Client
	mechanism string
	conn      *dovecotConn // nil before the first response
}

func (r *remote) close() {
	if r.conn != nil {
		r.conn.close()
	}
}

// next passes a response on and reads the answer.
func (r *remote) next(ctx context.Context, response []byte) Step {
	s, err := r.ask(ctx, response)
	if err != nil {
		return Step{Outcome: Unavailable, Reason: "asking Dovecot: " + err.Error()}
	}
	return s
}

func (r *remote) ask(ctx context.Context, response []byte) (Step, error) {
	request := "CONT\t1\t" + base64.StdEncoding.EncodeToString(response) + "\n"
	if r.conn == nil {
		var err error
		if r.conn, err = r.d.connect(ctx); err != nil {
			return Step{}, err
		}
		request = r.request(response)
	}
	defer interruptible(ctx, r.conn.conn)()
	if _, err := r.conn.conn.Write([]byte(request)); err != nil {
		return Step{}, because(ctx, err)
	}
	for range dovecotLinesMax {
		word, args, err := r.conn.line()
		if err != nil {
			return Step{}, because(ctx, err)
		}
		if len(args) == 0 || args[0] != "1" {
			continue // not about this exchange
		}
		switch word {
		case "CONT":
			return continued(args[1:])
		case "OK":
			user, _ := parameter(args[1:], "user")
			if _, err := PrepareName(user); err != nil {
				return Step{}, errors.New("an answer OK without an account")
			}
			return Step{Outcome: Granted, Account: user}, nil
		case "FAIL":
			return failedBy(args[1:])
		}
	}
	return Step{}, errors.New("no answer among many lines")
}

// request begins an exchange. The response is the last parameter, as Dovecot wants it.
func (r *remote) request(response []byte) string {
	var b strings.Builder
	add := func(name, value string) { b.WriteString("\t" + name + "=" + dovecotEscape.Replace(value)) }
	ip := func(name string, a netip.Addr) {
		if a.IsValid() {
			add(name, a.Unmap().WithZone("").String())
		}
	}
	b.WriteString("AUTH\t1\t" + r.mechanism)
	add("service", "smtp")
	b.WriteString("\tnologin")
	ip("lip", r.client.Own)
	ip("rip", r.client.IP)
	if r.client.IP.IsValid() {
		add("lport", strconv.Itoa(int(r.client.OwnPort)))
		add("rport", strconv.Itoa(int(r.client.Port)))
	}
	if r.client.Channel.TLS != nil {
		b.WriteString("\tsecured")
	}
	if cert := r.client.Channel.Peer; cert != nil {
		b.WriteString("\tvalid-client-cert")
		add("cert_username", cert.Subject.CommonName)
	}
	if response != nil {
		add("resp", base64.StdEncoding.EncodeToString(response))
	}
	b.WriteByte('\n')
	return b.String()
}

func continued(args []string) (Step, error) {
	if len(args) == 0 {
		return Step{Outcome: Continue}, nil
	}
	text, err := base64.StdEncoding.DecodeString(args[0])
	if err != nil {
		return Step{}, errors.New("a challenge that is not base64")
	}
	return Step{Outcome: Continue, Challenge: text}, nil
}

// failedBy reads FAIL: for now, or for good.
func failedBy(args []string) (Step, error) {
	user, _ := parameter(args, "user")
	user = user[:min(len(user), nameMax)]
	code, _ := parameter(args, "code")
	if _, temp := parameter(args, "temp"); temp || code == "temp_fail" {
		return Step{}, errors.New("a temporary failure")
	}
	reason := "Dovecot refuses"
	for _, flag := range []string{"authz", "user_disabled", "pass_expired"} {
		if _, set := parameter(args, flag); set || strings.HasPrefix(code, flag) {
			reason += ": " + flag
		}
	}
	return Step{Outcome: Refused, Account: user, Reason: reason}, nil
}

// parameter finds NAME=VALUE, or NAME alone.
func parameter(args []string, name string) (value string, ok bool) {
	for _, a := range args {
		if key, v, _ := strings.Cut(a, "="); key == name {
			return v, true
		}
	}
	return "", false
}
