package dns

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	mdns "github.com/miekg/dns"
	"golang.org/x/net/idna"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// Bounds of the time for which a route may be used.
const (
	minRouteTTL = 30 * time.Second
	partialTTL  = time.Minute     // some host could not be looked up for now
	retryTTL    = 3 * time.Second // nothing could be looked up for now
)

// Family says which addresses of a host are used or preferred (README 3.9.3, ipsel).
type Family uint8

// The families, in the order of mailertable.Select.
const (
	AnyFamily Family = iota // as FinderConfig.Family says, or IPv4Preferred
	IPv4Only
	IPv4Preferred
	IPv6Only
	IPv6Preferred
)

// String is the word of the configuration, "" for AnyFamily.
func (f Family) String() string {
	return [...]string{"", "IPv4_Only", "IPv4_Preferred", "IPv6_Only", "IPv6_Preferred"}[f]
}

// Looker looks records up; *Client does.
type Looker interface {
	Lookup(ctx context.Context, name string, qtype uint16) *Answer
	// Cached is Lookup from the cache alone; nil if it has no answer.
	Cached(name string, qtype uint16) *Answer
}

// FinderConfig is what the search for mail hosts depends on besides DNS.
type FinderConfig struct {
	Hostname string // our own name: MX records that name it are a loop
	MXMax    int    // hosts used of a domain; the best preferences win
	AddrMax  int    // addresses used of one host
	Family   Family // for targets that do not say
	DANE     DANE   // when TLSA records count
}

// Finder finds the hosts that take mail for a domain (RFC 5321 section 5.1): MX
// records in order of preference, their addresses, and what stands against them:
// null MX (RFC 7505), ourselves in the list, MX records that name an IP address. It
// is safe for use by many goroutines.
type Finder struct {
	cfg FinderConfig
	dns Looker
}

// NewFinder makes a Finder.
func NewFinder(cfg FinderConfig, d Looker) *Finder {
	cfg.Hostname = mdns.CanonicalName(cfg.Hostname)
	return &Finder{cfg: cfg, dns: d}
}

// Target is what is searched for.
type Target struct {
	Name   string // domain or host name
	Port   uint16
	NoMX   bool // use the addresses of Name alone
	Family Family
	// Given: the name stands in the configuration, not in a recipient's address.
	Given bool
}

// Dest is the canonical name of the target (msg.RouteA). port is the default port,
// which is not printed.
func (t Target) Dest(port uint16) string {
	d := "mx:" + t.Name
	if t.NoMX {
		d = "esmtp:" + t.Name
	}
	if t.Port != port || t.NoMX {
		d += ":" + strconv.Itoa(int(t.Port))
	}
	if t.Family != AnyFamily {
		d += "/" + t.Family.String()
	}
	return d
}

// Host is one mail host of a route.
type Host struct {
	Name       string // without trailing dot
	Preference uint16
	Addrs      []netip.Addr
}

// Route is the result of a search: either Reply, or at least one host with at least
// one address.
type Route struct {
	Reply smtp.Reply
	Hosts []Host // in order of preference
	DANE  bool   // TLSA records of Hosts count, if their addresses are secured by DNSSEC
	// Expires is when the shortest time to live ends, within bounds.
	Expires time.Time
	Trace   msg.Trace
}

// Hops lists hosts and addresses in the order in which they are to be tried. Hosts
// of equal preference are shuffled at each call (RFC 5321 section 5.1).
func (r *Route) Hops(proto msg.Protocol, port uint16) []msg.Hop {
	hosts := slices.Clone(r.Hosts)
	for i := 0; i < len(hosts); {
		j := i + 1
		for j < len(hosts) && hosts[j].Preference == hosts[i].Preference {
			j++
		}
		rand.Shuffle(j-i, func(a, b int) { hosts[i+a], hosts[i+b] = hosts[i+b], hosts[i+a] })
		i = j
	}
	var hops []msg.Hop
	for _, h := range hosts {
		for _, a := range h.Addrs {
			hops = append(hops, msg.Hop{Protocol: proto, Addr: netip.AddrPortFrom(a, port), Host: h.Name, DANE: r.DANE && proto == msg.ProtoSMTP})
		}
	}
	return hops
}

// search is one search in progress.
type search struct {
	*Finder
	target Target
	name   string // fully qualified, in ASCII
	route  Route
}

// Find searches for the hosts of t. It takes as long as DNS takes, and ends with
// ctx. An error is the Reply of the route.
func (f *Finder) Find(ctx context.Context, t Target) *Route {
	s := &search{Finder: f, target: t, route: Route{Expires: time.Now().Add(maxTTL)}}
	hosts, reply := s.hosts(ctx)
	if reply.IsZero() {
		reply = s.addresses(ctx, hosts)
	}
	s.route.Reply = reply
	if reply.Temporary() {
		s.route.Expires = time.Now().Add(retryTTL)
	}
	if floor := time.Now().Add(minRouteTTL); s.route.Expires.Before(floor) && !reply.Temporary() {
		s.route.Expires = floor
	}
	return &s.route
}

// FindCached is Find from the cache alone; nil if the cache lacks an answer.
func (f *Finder) FindCached(t Target) *Route {
	c := cacheOnly{dns: f.dns}
	found := (&Finder{cfg: f.cfg, dns: &c}).Find(context.Background(), t)
	if c.missed {
		return nil
	}
	return found
}

// cacheOnly looks records up in the cache alone, and notes whether it lacked some.
type cacheOnly struct {
	dns    Looker
	missed bool
}

func (c *cacheOnly) Lookup(_ context.Context, name string, qtype uint16) *Answer {
	return c.Cached(name, qtype)
}

func (c *cacheOnly) Cached(name string, qtype uint16) *Answer {
	a := c.dns.Cached(name, qtype)
	if a == nil {
		c.missed = true
		return failure(name, "not in the cache")
	}
	return a
}

// hosts gives the mail hosts without addresses, or the reason why there is none.
func (s *search) hosts(ctx context.Context) ([]Host, smtp.Reply) {
	name, err := toASCII(s.target.Name)
	if err != nil {
		s.step("idna", s.target.Name, "", err.Error())
		return nil, smtp.NewReply(550, "5.1.2", "domain name is not valid")
	}
	s.name = mdns.CanonicalName(name)
	if isLocalhost(s.name) {
		return s.localhost()
	}
	if s.target.NoMX {
		s.route.DANE = s.cfg.DANE != DANENever // the name is the operator's (RFC 7672 section 2.2.2)
		return []Host{{Name: name}}, smtp.Reply{}
	}
	return s.mx(ctx)
}

// isLocalhost recognises the names that are never asked of DNS (RFC 6761 section
// 6.3).
func isLocalhost(name string) bool {
	return name == "localhost." || strings.HasSuffix(name, ".localhost.")
}

// localhost is this machine if the configuration says so. As a recipient's domain
// without an entry in the mailertable it would come back to us.
func (s *search) localhost() ([]Host, smtp.Reply) {
	if !s.target.Given {
		s.step("mx", s.target.Name, "", "localhost has no entry in the mailertable")
		return nil, smtp.NewReply(550, "5.4.6", "mail for localhost loops back to myself")
	}
	s.step("mx", s.target.Name, "", "this machine, without asking DNS")
	return []Host{{Name: "localhost", Addrs: s.pick(
		[]netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}, []netip.Addr{netip.IPv6Loopback()})}}, smtp.Reply{}
}

func toASCII(name string) (string, error) {
	for i := 0; i < len(name); i++ {
		if name[i] >= 0x80 {
			ascii, err := idna.Lookup.ToASCII(name)
			if err != nil {
				return "", fmt.Errorf("converting the domain name to ASCII: %w", err)
			}
			return ascii, nil
		}
	}
	return name, nil
}

// mx looks the MX records up.
func (s *search) mx(ctx context.Context) ([]Host, smtp.Reply) {
	a := s.dns.Lookup(ctx, s.name, mdns.TypeMX)
	s.note(a)
	s.route.DANE = s.cfg.DANE == DANEAlways || s.cfg.DANE == DANESecure && a.Secure // RFC 7672 section 2.2.1
	switch a.Status {
	case NXDomain:
		s.step("mx", s.target.Name, "", "no such domain")
		return nil, smtp.NewReply(550, "5.1.2", "domain does not exist")
	case Temporary:
		s.step("mx", s.target.Name, "", a.Err)
		return nil, smtp.NewReply(451, "4.4.3", "name server failure, try again")
	case NoData:
		// RFC 5321 section 5.1: the domain is then its own mail host.
		s.step("mx", s.target.Name, "", "no MX record: the domain itself")
		return s.withoutMyself([]Host{{Name: strings.TrimSuffix(a.Name, ".")}})
	}
	return s.usable(a)
}

// usable picks the records that may be used, in order of preference.
func (s *search) usable(a *Answer) ([]Host, smtp.Reply) {
	var hosts []Host
	var refused []string
	null := false
	for _, rr := range a.RRs {
		m, ok := rr.(*mdns.MX)
		if !ok {
			continue
		}
		name := strings.TrimSuffix(mdns.CanonicalName(m.Mx), ".")
		switch {
		case name == "":
			null = true
		case isIP(name):
			refused = append(refused, name)
		default:
			hosts = append(hosts, Host{Name: name, Preference: m.Preference})
		}
	}
	slices.SortStableFunc(hosts, func(a, b Host) int { return int(a.Preference) - int(b.Preference) })
	s.step("mx", s.target.Name, describe(hosts), "")
	if len(refused) > 0 {
		s.step("mx", s.target.Name, strings.Join(refused, ", "), "refused: an MX record must name a host, not an address (RFC 5321 section 5.1)")
	}
	switch {
	case len(hosts) > 0:
		return s.withoutMyself(hosts)
	case null:
		s.step("mx", s.target.Name, ".", "null MX (RFC 7505)")
		return nil, smtp.NewReply(556, "5.1.10", "domain does not accept mail")
	default:
		return nil, smtp.NewReply(550, "5.4.4", "MX record points to an IP address")
	}
}

// isIP recognises an address in the place of a host name.
func isIP(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil
}

func describe(hosts []Host) string {
	words := make([]string, len(hosts))
	for i, h := range hosts {
		words[i] = strconv.Itoa(int(h.Preference)) + " " + h.Name
	}
	return strings.Join(words, ", ")
}

// withoutMyself drops the hosts at and above our own preference, which would send
// the mail back to us (RFC 5321 section 5.1), and what is above the limit.
func (s *search) withoutMyself(hosts []Host) ([]Host, smtp.Reply) {
	for _, h := range hosts {
		if mdns.CanonicalName(h.Name) != s.cfg.Hostname {
			continue
		}
		own := h.Preference
		hosts = slices.DeleteFunc(hosts, func(h Host) bool { return h.Preference >= own })
		s.step("mx", s.target.Name, strings.TrimSuffix(s.cfg.Hostname, "."),
			"we are in the list: hosts of preference "+strconv.Itoa(int(own))+" and above are dropped")
		break
	}
	if len(hosts) == 0 {
		return nil, smtp.NewReply(554, "5.4.6", "mail loops back to myself")
	}
	if s.cfg.MXMax > 0 && len(hosts) > s.cfg.MXMax {
		hosts = hosts[:s.cfg.MXMax]
		s.step("mx", s.target.Name, "", "only the first "+strconv.Itoa(s.cfg.MXMax)+" are used")
	}
	return hosts, smtp.Reply{}
}

// note keeps the shortest time to live.
func (s *search) note(a *Answer) {
	if a.Expires.Before(s.route.Expires) {
		s.route.Expires = a.Expires
	}
}

func (s *search) step(check, key, value, effect string) {
	s.route.Trace = append(s.route.Trace, msg.Step{Check: check, Key: key, Value: value, Effect: effect})
}
