// Package dns asks name servers: a stub resolver with a cache (README 3.9.2 item 4,
// 8.4) on top of github.com/miekg/dns.
//
// Questions go out by UDP with EDNS0, each from a fresh socket and with a random id,
// so that both are unpredictable; a reply counts only if it comes from the server
// asked and repeats id and question. A truncated reply is asked for again by TCP.
// Answers, also negative ones (RFC 2308), are kept by their time to live in a cache
// of bounded size. Equal questions at the same time are asked once.
//
// The AD bit (RFC 4035, RFC 6840) is believed only when Config.DNSSEC is set, and only of
// servers on this machine and of those that Config.Trusted names: on the way from any other
// it could have been set by anybody.
//
// What an MTA asks of DNS is here, too: the hosts that take mail for a domain
// (Finder), and the verified name of a client (FindClientName).
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	mdns "github.com/miekg/dns"
)

// Limits.
const (
	maxCNAME    = 10  // links of a chain of aliases
	maxRecords  = 512 // records that are kept of one answer
	maxTTL      = 24 * time.Hour
	maxNegative = 3 * time.Hour   // RFC 2308 section 5
	failureTTL  = 3 * time.Second // RFC 2308 section 7 allows up to five minutes
)

// Dial opens a connection to a name server; network is "udp" or "tcp".
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Config says how to ask.
type Config struct {
	Servers []netip.AddrPort // in order of preference; at least one
	Retries int              // further tries after the first
	Timeout time.Duration    // of one try; a lookup takes at most (Retries+1)*Timeout
	TCP     bool             // always use TCP
	Connect bool             // connect UDP sockets, which makes an absent server fail at once
	DNSSEC  bool             // ask for the AD bit, and believe it of a server that is trusted
	// Trusted are servers, besides those with a loopback address, whose AD bit is believed: the
	// path to them must be safe.
	Trusted []netip.Addr
	MixCase bool // random case in questions, to be repeated by the reply
	// CacheSize is the bound of the cache's memory in bytes, roughly. 0: no cache.
	CacheSize int64
}

// Deps are what a Client needs from outside.
type Deps struct {
	Dial Dial         // nil: the network
	Log  *slog.Logger // nil: no log
}

// Status says what kind of answer there is.
type Status uint8

// The kinds of answers.
const (
	Success   Status = iota // there are records
	NoData                  // the name exists, but has no record of that type
	NXDomain                // the name does not exist
	Temporary               // no server gave an answer
)

// String is the kind of answer for traces and logs.
func (s Status) String() string {
	return [...]string{"found", "no record of this type", "no such name", "temporary failure"}[s]
}

// Answer is the result of a lookup. It is shared and must not be changed.
type Answer struct {
	Status  Status
	Name    string    // the name at the end of the chain of aliases, with trailing dot
	RRs     []mdns.RR // of the type asked for, owned by Name
	Secure  bool      // validated by a name server that is trusted (AD bit), and Config.DNSSEC is set
	Expires time.Time
	Err     string // reason of a Temporary answer
	// Refused: the last server said that it will not answer such a question (RCODE
	// REFUSED or NOTIMP) rather than that it cannot now; with Temporary.
	Refused bool
}

// Client asks name servers. It is safe for use by many goroutines.
type Client struct {
	cfg     Config
	deps    Deps
	base    context.Context
	stop    context.CancelFunc
	servers []*server

	mu    sync.Mutex // guards cache, calls, late and stats
	cache cache
	calls map[key]*call
	late  late
	stats Stats
}

// Stats counts what a Client did since its start.
type Stats struct {
	Lookups, Hits, Joined int64 // lookups; answered by the cache; joined to a running one
	Queries, Failures     int64 // questions sent; lookups without an answer
	Entries               int   // in the cache now
	Bytes                 int64 // of the cache now, estimated
}

type key struct {
	name  string
	qtype uint16
}

// call is a lookup in progress which others may join.
type call struct {
	done   chan struct{} // closed when answer is set
	answer *Answer
}

// New makes a Client. It starts no goroutine. Close it when it is no longer used.
func New(cfg Config, deps Deps) (*Client, error) {
	if len(cfg.Servers) == 0 {
		return nil, fmt.Errorf("dns: no name server")
	}
	if cfg.Timeout <= 0 {
		return nil, fmt.Errorf("dns: timeout must be positive")
	}
	if deps.Dial == nil {
		deps.Dial = dialer(cfg.Connect)
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	c := &Client{cfg: cfg, deps: deps, calls: map[key]*call{}, late: late{}, cache: newCache(cfg.CacheSize)}
	c.base, c.stop = context.WithCancel(context.Background())
	for _, a := range cfg.Servers {
		c.servers = append(c.servers, &server{addr: a, trusted: a.Addr().Unmap().IsLoopback() || slices.Contains(cfg.Trusted, a.Addr().Unmap())})
	}
	return c, nil
}

// Close ends all lookups in progress; they give a Temporary answer.
func (c *Client) Close() { c.stop() }

// Trusts reports how many of the name servers are trusted to tell what DNSSEC has validated.
func (c *Client) Trusts() (trusted, all int) {
	for _, s := range c.servers {
		if s.trusted {
			trusted++
		}
	}
	return trusted, len(c.servers)
}

// Stats gives the counters.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Entries, s.Bytes = len(c.cache.entries), c.cache.size
	return s
}

// Lookup gives the records of one type for name, which need not end with a dot and
// is always taken as fully qualified. It waits until ctx ends, and not longer than
// the configured time. It never returns nil.
func (c *Client) Lookup(ctx context.Context, name string, qtype uint16) *Answer {
	name = mdns.CanonicalName(name)
	if !validName(name) {
		return &Answer{Status: NXDomain, Name: name, Err: "not a domain name", Expires: time.Now().Add(maxNegative)}
	}
	k := key{name, qtype}
	c.mu.Lock()
	c.stats.Lookups++
	if a := c.cache.get(k, time.Now()); a != nil {
		c.stats.Hits++
		c.mu.Unlock()
		return a
	}
	if running, ok := c.calls[k]; ok {
		c.stats.Joined++
		c.mu.Unlock()
		return running.wait(ctx)
	}
	mine := &call{done: make(chan struct{})}
	c.calls[k] = mine
	c.mu.Unlock()
	c.lead(k, mine, isPatient(ctx))
	return mine.answer
}

// Cached is Lookup from the cache alone; nil if it has no answer.
func (c *Client) Cached(name string, qtype uint16) *Answer {
	k := key{mdns.CanonicalName(name), qtype}
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.cache.get(k, time.Now())
	if a != nil {
		c.stats.Lookups++
		c.stats.Hits++
	}
	return a
}

// lead makes the lookup that others may have joined. It does not end with the
// caller's context, because the others still wait; its own time limit bounds it.
func (c *Client) lead(k key, mine *call, patient bool) {
	mine.answer = failure(k.name, "lookup ended")
	defer func() {
		c.mu.Lock()
		delete(c.calls, k)
		if mine.answer.Status == Temporary {
			c.stats.Failures++
		}
		c.cache.put(k, mine.answer, time.Now())
		c.late.note(k, mine.answer, time.Now())
		c.mu.Unlock()
		close(mine.done)
	}()
	try := c.cfg.Timeout
	if patient {
		c.mu.Lock()
		try = c.late.timeout(k, &c.cfg, time.Now())
		c.mu.Unlock()
	}
	ctx, cancel := context.WithTimeout(c.base, time.Duration(c.cfg.Retries+1)*try)
	defer cancel()
	mine.answer = c.resolve(ctx, k, try)
}

func (m *call) wait(ctx context.Context) *Answer {
	select {
	case <-m.done:
		return m.answer
	case <-ctx.Done():
		return failure("", "gave up waiting for the name server")
	}
}

func failure(name, reason string) *Answer {
	return &Answer{Status: Temporary, Name: name, Err: reason, Expires: time.Now().Add(failureTTL)}
}

// resolve asks, and asks again for the end of an alias chain that the server did
// not follow itself. try is the time limit of one try.
func (c *Client) resolve(ctx context.Context, k key, try time.Duration) *Answer {
	total := reading{name: k.name, ttl: maxTTL, secure: true}
	for total.links <= maxCNAME {
		reply, err := c.query(ctx, total.name, k.qtype, try)
		if err != nil {
			a := failure(total.name, err.Error())
			a.Refused = errors.Is(err, errRefused)
			return a
		}
		before := total.name
		if done := total.read(reply, k.qtype); done {
			return total.answer(c.cfg.DNSSEC)
		}
		if total.name == before {
			break
		}
	}
	return failure(total.name, "chain of aliases (CNAME) is too long or a loop")
}

// validName reports whether name can be asked for. Names that hold bytes which need
// escapes in text form are refused: no host name has them, and they come from
// addresses that a peer made up.
func validName(name string) bool {
	if len(name) > 254 {
		return false
	}
	for i := 0; i < len(name); i++ {
		if c := name[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return false
		}
	}
	_, ok := mdns.IsDomainName(name)
	return ok
}

// Follow has c go on where another Client is left: with its counters, and, if answers cannot differ because the same
// name servers are asked and believed, with its cache. Lookups that are under way there end there. It is called before c is
// used, and once.
func (c *Client) Follow(former *Client) {
	same := slices.Equal(c.cfg.Servers, former.cfg.Servers) && c.cfg.DNSSEC == former.cfg.DNSSEC && slices.Equal(c.cfg.Trusted, former.cfg.Trusted)
	former.mu.Lock()
	stats, kept, names := former.stats, former.cache, former.late
	if same {
		former.cache, former.late = newCache(former.cfg.CacheSize), late{}
	}
	former.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats = stats
	if same {
		kept.limit = c.cfg.CacheSize
		kept.shrink()
		c.cache, c.late = kept, names
	}
}
