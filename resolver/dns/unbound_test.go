package dns

import (
	"bytes"
	"cmp"
	"crypto"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// unboundPath finds unbound. Its absence fails the test where make runs it, and
// skips it elsewhere.
func unboundPath(t *testing.T) string {
	t.Helper()
	cache := cmp.Or(os.Getenv("META1_TEST_CACHE"), "/var/cache/meta1-test")
	unpacked := filepath.Join(cache, "peers/usr/sbin/unbound")
	if _, err := os.Stat(unpacked); err == nil {
		return unpacked
	}
	p, err := exec.LookPath("unbound")
	switch {
	case err == nil:
		return p
	case os.Getenv("META1_TEST_PEERS") == "":
		t.Skip("unbound is not installed; make test demands it")
	default:
		t.Fatal("unbound is missing; make needs installs it")
	}
	return ""
}

// signedZone answers for one zone and signs what it answers.
type signedZone struct {
	t       *testing.T
	origin  string
	key     *mdns.DNSKEY
	private crypto.Signer
	records []mdns.RR
}

func newSignedZone(t *testing.T, origin string, lines ...string) *signedZone {
	t.Helper()
	z := &signedZone{t: t, origin: origin, key: &mdns.DNSKEY{
		Hdr:   mdns.RR_Header{Name: origin, Rrtype: mdns.TypeDNSKEY, Class: mdns.ClassINET, Ttl: 300},
		Flags: 257, Protocol: 3, Algorithm: mdns.ECDSAP256SHA256,
	}}
	private, err := z.key.Generate(256)
	if err != nil {
		t.Fatal(err)
	}
	z.private = private.(crypto.Signer)
	z.records = []mdns.RR{z.key, rr(t, origin+" 300 IN SOA ns."+origin+" root."+origin+" 1 3600 600 86400 60"), rr(t, origin+" 300 IN NS ns."+origin)}
	for _, l := range lines {
		z.records = append(z.records, rr(t, l))
	}
	return z
}

// sign gives the signature over a set of records; names that begin with "bogus" get
// one that is wrong.
func (z *signedZone) sign(set []mdns.RR) mdns.RR {
	h := set[0].Header()
	sig := &mdns.RRSIG{
		Hdr:       mdns.RR_Header{Name: h.Name, Rrtype: mdns.TypeRRSIG, Class: mdns.ClassINET, Ttl: h.Ttl},
		Algorithm: z.key.Algorithm, KeyTag: z.key.KeyTag(), SignerName: z.origin,
		Inception: uint32(time.Now().Add(-time.Hour).Unix()), Expiration: uint32(time.Now().Add(time.Hour).Unix()),
	}
	if err := sig.Sign(z.private, set); err != nil {
		z.t.Errorf("signing: %v", err)
	}
	if strings.HasPrefix(h.Name, "bogus") {
		sig.Signature = strings.Repeat("A", 86) + "=="
	}
	return sig
}

// handle answers as the server of the zone. What does not exist is denied by an NSEC
// record of the name asked for.
func (z *signedZone) handle(_ string, q *mdns.Msg) []*mdns.Msg {
	asked := q.Question[0]
	name := mdns.CanonicalName(asked.Name)
	m := new(mdns.Msg)
	m.SetReply(q)
	m.Authoritative = true
	m.SetEdns0(4096, true)
	types := []uint16{mdns.TypeRRSIG, mdns.TypeNSEC}
	for _, r := range z.records {
		if r.Header().Name != name {
			continue
		}
		types = append(types, r.Header().Rrtype)
		if r.Header().Rrtype == asked.Qtype || r.Header().Rrtype == mdns.TypeCNAME {
			m.Answer = append(m.Answer, r)
		}
	}
	if len(m.Answer) > 0 {
		m.Answer = append(m.Answer, z.sign(m.Answer))
		return one(m)
	}
	soa := z.records[1]
	nsec := &mdns.NSEC{
		Hdr:        mdns.RR_Header{Name: name, Rrtype: mdns.TypeNSEC, Class: mdns.ClassINET, Ttl: 60},
		NextDomain: `\000.` + name, TypeBitMap: sortedTypes(types),
	}
	m.Ns = []mdns.RR{soa, z.sign([]mdns.RR{soa}), nsec, z.sign([]mdns.RR{nsec})}
	return one(m)
}

func sortedTypes(types []uint16) []uint16 {
	var out []uint16
	for want := uint16(1); want < 300; want++ {
		for _, t := range types {
			if t == want {
				out = append(out, t)
				break
			}
		}
	}
	return out
}

// unbound starts a validating resolver that asks the given servers for their zones.
func unbound(t *testing.T, local []string, zones map[string]*fakeServer, anchors ...*signedZone) netip.AddrPort {
	t.Helper()
	path := unboundPath(t)
	pc, l := listen(t)
	addr := netip.MustParseAddrPort(pc.LocalAddr().String())
	pc.Close()
	l.Close()
	dir := t.TempDir()
	var b strings.Builder
	fmt.Fprintf(&b, `server:
	interface: 127.0.0.1@%d
	do-daemonize: no
	username: ""
	chroot: ""
	directory: %q
	pidfile: ""
	use-syslog: no
	logfile: ""
	do-not-query-localhost: no
	module-config: "validator iterator"
	do-ip6: no
	num-threads: 1
	outgoing-range: 64
	qname-minimisation: no
	local-zone: "test." nodefault
	local-zone: "plain.test." static
`, addr.Port(), dir)
	for _, d := range local {
		fmt.Fprintf(&b, "\tlocal-data: '%s'\n", d)
	}
	for _, z := range anchors {
		fmt.Fprintf(&b, "\ttrust-anchor: %q\n", strings.ReplaceAll(z.key.String(), "\t", " "))
	}
	for name, s := range zones {
		fmt.Fprintf(&b, "stub-zone:\n\tname: %q\n\tstub-addr: 127.0.0.1@%d\n", name, s.addr.Port())
	}
	conf := filepath.Join(dir, "unbound.conf")
	if err := os.WriteFile(conf, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command(path, "-d", "-p", "-c", conf)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("unbound:\n%s", out.String())
		}
	})
	for range 6000 {
		if c, err := net.Dial("tcp", addr.String()); err == nil {
			c.Close()
			return addr
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("unbound does not answer")
	return addr
}

// A real validating resolver: AD set and clear, bogus data, truncated answers.
func TestUnbound(t *testing.T) {
	signed := newSignedZone(t, "signed.test.",
		"signed.test. 300 IN MX 10 mx.signed.test.", "mx.signed.test. 300 IN A 192.0.2.1",
		"alias.signed.test. 300 IN CNAME mx.signed.test.", "cross.signed.test. 300 IN CNAME host.unsigned.test.",
		"bogus.signed.test. 300 IN A 192.0.2.6", "bogusmx.signed.test. 300 IN MX 10 mx.signed.test.",
	)
	server := serve(t, signed.handle)
	unsigned := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		m := reply(t, q, soa)
		if asked := q.Question[0]; asked.Qtype == mdns.TypeA {
			m = reply(t, q, asked.Name+" 300 IN A 192.0.2.9")
		}
		m.Authoritative = true
		return one(m)
	})
	local := []string{"host.plain.test. 120 IN A 192.0.2.9", "plain.test. 120 IN MX 10 host.plain.test.", "plain.test. 120 IN SOA ns. root. 1 2 3 4 60"}
	for i := range 200 {
		local = append(local, fmt.Sprintf("big.plain.test. 120 IN A 198.51.100.%d", i))
	}
	addr := unbound(t, local, map[string]*fakeServer{"signed.test.": server, "unsigned.test.": unsigned}, signed)
	c, err := New(Config{Servers: []netip.AddrPort{addr}, Retries: 1, Timeout: 10 * time.Second, Connect: true, DNSSEC: true, MixCase: true, CacheSize: 1 << 20}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, tc := range []struct {
		name   string
		qtype  uint16
		status Status
		secure bool
		rrs    string
	}{
		{"signed.test", mdns.TypeMX, Success, true, "10 mx.signed.test."},
		{"mx.signed.test", mdns.TypeA, Success, true, "192.0.2.1"},
		{"mx.signed.test", mdns.TypeAAAA, NoData, true, ""},
		{"alias.signed.test", mdns.TypeA, Success, true, "192.0.2.1"},
		{"cross.signed.test", mdns.TypeA, Success, false, "192.0.2.9"},
		{"bogus.signed.test", mdns.TypeA, Temporary, false, ""},
		{"bogusmx.signed.test", mdns.TypeMX, Temporary, false, ""},
		{"plain.test", mdns.TypeMX, Success, false, "10 host.plain.test."},
		{"host.plain.test", mdns.TypeAAAA, NoData, false, ""},
		{"missing.plain.test", mdns.TypeA, NXDomain, false, ""},
	} {
		a := c.Lookup(t.Context(), tc.name, tc.qtype)
		if a.Status != tc.status || a.Secure != tc.secure || strings.ToLower(texts(a)) != tc.rrs {
			t.Errorf("%s %s: %v secure=%v %q (%s), want %v %v %q", tc.name, mdns.TypeToString[tc.qtype],
				a.Status, a.Secure, texts(a), a.Err, tc.status, tc.secure, tc.rrs)
		}
		if tc.status != Temporary && time.Until(a.Expires) < 50*time.Second {
			t.Errorf("%s: expires in %v", tc.name, time.Until(a.Expires))
		}
	}
	if a := c.Lookup(t.Context(), "big.plain.test", mdns.TypeA); len(a.RRs) != 200 {
		t.Errorf("truncated answer: %v, %d records (%s)", a.Status, len(a.RRs), a.Err)
	}
	f := NewFinder(FinderConfig{Hostname: "me.example", MXMax: 5, AddrMax: 5}, c)
	for name, want := range map[string]struct {
		hops   string
		secure bool
		code   int
	}{
		"signed.test":         {"mx.signed.test[192.0.2.1]:25", true, 0},
		"plain.test":          {"host.plain.test[192.0.2.9]:25", false, 0},
		"bogusmx.signed.test": {"", false, 451},
		"missing.plain.test":  {"", false, 550},
	} {
		r := f.Find(t.Context(), Target{Name: name, Port: 25})
		if hops(r) != want.hops || r.DANE != want.secure || r.Reply.Code != want.code {
			t.Errorf("%s: %q DANE=%v %v", name, hops(r), r.DANE, r.Reply)
		}
	}
}

// A server behind the resolver that is silent or lame is a temporary failure, and
// one that is dead does not keep the next configured server from answering.
func TestUnboundBadServers(t *testing.T) {
	silent := serve(t, func(string, *mdns.Msg) []*mdns.Msg { return nil })
	lame := serve(t, func(_ string, q *mdns.Msg) []*mdns.Msg {
		m := new(mdns.Msg)
		m.SetRcode(q, mdns.RcodeRefused)
		return one(m)
	})
	addr := unbound(t, []string{"host.plain.test. 120 IN A 192.0.2.9"}, map[string]*fakeServer{"silent.test.": silent, "lame.test.": lame})
	dead := serve(t, func(string, *mdns.Msg) []*mdns.Msg { return nil })
	c, err := New(Config{Servers: []netip.AddrPort{dead.addr, addr}, Retries: 2, Timeout: time.Second, Connect: true, CacheSize: 1 << 20}, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a := c.Lookup(t.Context(), "host.plain.test", mdns.TypeA); texts(a) != "192.0.2.9" {
		t.Errorf("%v %s", a.Status, a.Err)
	}
	for _, name := range []string{"lame.test", "silent.test"} {
		if a := c.Lookup(t.Context(), name, mdns.TypeMX); a.Status != Temporary {
			t.Errorf("%s: %v", name, a.Status)
		}
	}
}
