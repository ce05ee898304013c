package explain

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/supervise"
)

// PasswordMap is the map of which the trial server takes the account of Question.Auth. No map
// of a configuration has such a name.
const PasswordMap = "the account that explain is asked about"

// Trial is what the server of one dialogue gets in place of what servers have.
type Trial struct {
	Question *Question
	Ports    *msg.Ports
	Log      *slog.Logger
	Listener net.Listener
}

// relay answers the questions of the trial server: from the modules behind real, which it
// asks for a verdict as of a trial, or if it has no QMGR itself.
type relay struct {
	q        *Question
	rec      *recorder
	trial    *msg.Ports
	real     *msg.Ports
	password string
	hasQueue bool
}

// serve answers until ctx ends.
func (r *relay) serve(g *supervise.Group) {
	check, stopCheck := r.trial.Check.Open()
	admit, stopAdmit := r.trial.Admit.Open()
	lookup, stopLookup := r.trial.Lookup.Open()
	// The session waits for SPF alone; DNS is asked as for a client.
	records, stopRecords := r.trial.DNS.OpenDirect(func(q *msg.DNSQ) (msg.DNSA, bool) { return r.real.DNS.Direct(*q) })
	g.Go(func(ctx context.Context) error {
		defer stopCheck()
		defer stopAdmit()
		defer stopLookup()
		defer stopRecords()
		for {
			select {
			case <-ctx.Done():
				return nil
			case q := <-check:
				r.check(ctx, q)
			case q := <-admit:
				q.Answer(r.admit(ctx, &q.Q))
			case q := <-lookup:
				r.lookup(ctx, q)
			case q := <-records:
				q.Answer(r.records(q.Ctx, q.Q))
			}
		}
	})
}

func (r *relay) check(ctx context.Context, q *msg.Request[msg.CheckQ, msg.Verdict]) {
	question := q.Q
	question.Trial = true
	if question.Stage == msg.StageConnect && r.q.Name != "" {
		question.Client.Name, question.Client.Resolve = strings.TrimSuffix(r.q.Name, ".")+".", "ok"
	}
	v, err := r.real.Check.Ask(ctx, question)
	if err != nil {
		v = msg.Verdict{
			Action: msg.Reject, Reply: smtp.NewReply(451, "4.3.0", "resolver: "+err.Error()),
			Trace: msg.Trace{{Check: "resolver", Effect: err.Error()}}, DecidedBy: 1,
		}
	}
	if question.Stage == msg.StageConnect && r.q.Name != "" {
		for i := range v.Trace {
			if v.Trace[i].Check == "client name" {
				v.Trace[i].Effect = "given by --name"
			}
		}
	}
	r.rec.verdict(question.Stage, &v)
	q.Answer(v)
}

// admit asks QMGR what it would say, and gives ids that nobody else has.
func (r *relay) admit(ctx context.Context, q *msg.AdmitQ) msg.AdmitA {
	ids := msg.AdmitA{ID: smtp.ID{Process: q.Server, Counter: 1}, AskName: true, InlineMax: 1 << 20}
	kind := msg.TrySession
	switch q.Kind {
	case msg.EndSession:
		return msg.AdmitA{}
	case msg.NewSession:
		return ids // QMGR is asked when the name is known
	case msg.NewTransaction:
		kind = msg.TryTransaction
		ids.ID.Counter = 2
	}
	if !r.hasQueue {
		return ids
	}
	a, err := r.real.Admit.Ask(ctx, msg.AdmitQ{Kind: kind, Server: q.Server, Client: q.Client, Name: q.Name, Size: q.Size})
	if err != nil {
		a.Reply = smtp.NewReply(451, "4.3.0", "queue manager: "+err.Error())
	}
	if !a.Reply.IsZero() {
		r.rec.add(Check{Check: "queue", Key: q.Client.String(), Effect: "refused by the queue manager", Decides: true})
		return msg.AdmitA{Reply: a.Reply}
	}
	return ids
}

func (r *relay) lookup(ctx context.Context, q *msg.Request[msg.LookupQ, msg.LookupA]) {
	if q.Q.Map == PasswordMap {
		q.Answer(msg.LookupA{Value: "{PLAIN}" + r.password, Found: true})
		return
	}
	a, err := r.real.Lookup.Ask(ctx, q.Q)
	if err != nil {
		a.Err = err.Error()
	}
	q.Answer(a)
}

// records asks SMAR's DNS.
func (r *relay) records(ctx context.Context, q msg.DNSQ) msg.DNSA {
	a, err := r.real.DNS.Ask(ctx, q)
	if err != nil {
		return msg.DNSA{Status: msg.DNSUnavailable, Err: err.Error()}
	}
	return a
}

func newPassword() string { return rand.Text() }

// place is one end of the connection.
type place struct {
	net.Conn
	local, remote net.Addr
}

func (p *place) LocalAddr() net.Addr  { return p.local }
func (p *place) RemoteAddr() net.Addr { return p.remote }

// connect makes a connection in memory that looks to the server like one of the client.
func connect(client, own netip.AddrPort) (net.Conn, *place) {
	ours, theirs := net.Pipe()
	return ours, &place{theirs, net.TCPAddrFromAddrPort(own), net.TCPAddrFromAddrPort(client)}
}

// listener gives one connection to the server.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newListener(c net.Conn) *listener {
	l := &listener{conns: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conns <- c
	return l
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }
