package e2e

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta1/mta/tlsconf/tlstest"
)

// TestDANE delivers to hosts whose certificates stand in a zone that is signed here, served
// by Knot DNS and validated by unbound, and to some that cannot be reached so. Each outcome is
// looked for at the host, in mailq, in the log, and in the metrics.
func TestDANE(t *testing.T) {
	t.Parallel()
	ca := tlstest.Root(t, "Test CA")
	smtpPort := port(t, freeAddr(t))
	until := time.Now().Add(-time.Hour)
	hosts := []*daneHost{
		{name: "match", cert: ca.Issue(t, tlstest.Spec{CN: "x.test"}), tlsa: "3 1 1", want: "DANE_SEC", metric: "match"},
		{name: "expired", cert: ca.Issue(t, tlstest.Spec{CN: "x.test", From: until.AddDate(-1, 0, 0), To: until}), tlsa: "3 1 1", want: "DANE_SEC", metric: "match"},
		{name: "ta", cert: ca.Issue(t, tlstest.Spec{CN: "mx-ta.dane.test", Names: []string{"mx-ta.dane.test"}}), tlsa: "2 0 1", want: "DANE_SEC", metric: "match"},
		{name: "tadomain", cert: ca.Issue(t, tlstest.Spec{CN: "d", Names: []string{"tadomain.dane.test"}}), tlsa: "2 0 1", want: "DANE_SEC", metric: "match"},
		{name: "taname", cert: ca.Issue(t, tlstest.Spec{CN: "o", Names: []string{"other.test"}}), tlsa: "2 0 1", reason: "no TLSA record of host mx-taname.dane.test", metric: "no_match"},
		{name: "nomatch", cert: ca.Issue(t, tlstest.Spec{CN: "x.test"}), tlsa: "3 1 1 " + strings.Repeat("ab", 32), reason: "no TLSA record of host mx-nomatch.dane.test", metric: "no_match"},
		{name: "usage", cert: ca.Issue(t, tlstest.Spec{CN: "x.test"}), tlsa: "1 1 1", want: "FAIL", metric: "unusable"},
		{name: "usageplain", tlsa: "1 1 1", reason: "does not offer STARTTLS", metric: "unusable"},
		{name: "stripped", tlsa: "3 1 1 " + strings.Repeat("ab", 32), reason: "does not offer STARTTLS"},
		{name: "none", cert: ca.Issue(t, tlstest.Spec{CN: "x.test"}), want: "FAIL"},
		{name: "noneplain", want: "-"},
		{name: "bogus", cert: ca.Issue(t, tlstest.Spec{CN: "x.test"}), tlsa: "3 1 1", forged: true, reason: "lookup of TLSA records failed", metric: "lookup_failed"},
		{name: "alias", cert: ca.Issue(t, tlstest.Spec{CN: "x.test"}), tlsa: "3 1 1", alias: true, want: "DANE_SEC", metric: "match"},
		{name: "insecure", cert: ca.Issue(t, tlstest.Spec{CN: "x.test"}), tlsa: "3 1 1 " + strings.Repeat("ab", 32), plainMX: true, want: "FAIL"},
	}
	zone := newZone()
	for i, h := range hosts {
		h.serve(t, net.JoinHostPort(fmt.Sprintf("127.0.7.%d", i+1), smtpPort))
		h.addTo(zone, smtpPort)
	}
	dns := zone.serve(t)
	m := run(t, settings{
		smar:  fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; timeout = 10s; flags = { Use_DNSSEC }; }", dns),
		smtpc: fmt.Sprintf("remote_port = %s;", smtpPort),
	})
	metrics := map[string]int{}
	for i, h := range hosts {
		h.message = testMessage(i, 1000, "joe@"+h.domain())
		h.message.from = "" // of no domain that DNS would have to know
		if err := sendOne(m.smtp, h.message); err != nil {
			t.Fatal(err)
		}
		metrics[h.metric]++
	}
	for _, h := range hosts {
		must(t, func() error { return h.outcome(m) })
	}
	for _, h := range hosts {
		must(t, func() error { // the log is written behind the delivery
			log, err := os.ReadFile(m.log)
			if line := h.line(string(log)); err == nil && !strings.Contains(line, h.logged()) {
				err = fmt.Errorf("%s: the log says %q, without %q", h.name, line, h.logged())
			}
			return err
		})
	}
	// Each host that refuses is tried again and again.
	samples := scrape(t, m.metrics)
	for _, result := range []string{"match", "no_match", "unusable", "lookup_failed"} {
		var n int
		_, _ = fmt.Sscan(samples[fmt.Sprintf(`meta1_smtpc_dane_total{result=%q}`, result)], &n)
		if n < metrics[result] || result == "match" && n != metrics[result] {
			t.Errorf("%s was counted %d times, want %d", result, n, metrics[result])
		}
	}
	if got := samples[`meta1_smtpc_tls_connections_total{level="dane"}`]; got != fmt.Sprint(metrics["match"]) {
		t.Errorf("%s connections under DANE, want %d", got, metrics["match"])
	}
}

// daneHost is a mail host and what the zone says of it.
type daneHost struct {
	name    string        // its domain is name.dane.test, or name.plain.test
	cert    *tlstest.Cert // nil: it does not offer STARTTLS
	tlsa    string        // usage, selector, matching, and the data if that is not made of cert; "" for none
	forged  bool          // the record was changed after it was signed
	alias   bool          // the MX record names an alias of the host
	plainMX bool          // the MX record stands in a zone that is not signed
	want    string        // verify in the log, "-" for no TLS; "" if it is not delivered
	reason  string        // then: in mailq
	metric  string        // result that is counted, "" for none

	sink    *sink
	message message
}

func (h *daneHost) domain() string {
	if h.plainMX {
		return h.name + ".plain.test"
	}
	return h.name + ".dane.test"
}

func (h *daneHost) serve(t *testing.T, addr string) {
	t.Helper()
	h.sink = newSink(t, addr)
	if h.cert == nil {
		return
	}
	pair, err := tls.X509KeyPair(append(h.cert.Chain(), h.cert.CA.PEM()...), h.cert.KeyPEM(t))
	if err != nil {
		t.Fatal(err)
	}
	h.sink.tls.Store(&tls.Config{Certificates: []tls.Certificate{pair}})
}

// addTo adds the records of the host to a zone.
func (h *daneHost) addTo(z *zone, smtpPort string) {
	ip, _, _ := net.SplitHostPort(h.sink.addr)
	host := "mx-" + h.name + ".dane.test."
	mx := host
	if h.alias {
		mx = "alias-" + h.name + ".dane.test."
		z.add("%s CNAME %s", mx, host)
	}
	if h.plainMX {
		z.plain = append(z.plain, fmt.Sprintf("%s. 300 IN MX 10 %s", h.domain(), mx))
	} else {
		z.add("%s. MX 10 %s", h.domain(), mx)
	}
	z.add("%s A %s", host, ip)
	if h.tlsa == "" {
		return
	}
	data := h.tlsa
	if len(h.tlsa) == len("3 1 1") {
		data += " " + h.digest()
	}
	owner := "_" + smtpPort + "._tcp." + host
	z.add("%s TLSA %s", owner, data)
	if h.forged {
		z.forge = append(z.forge, owner)
	}
}

// digest is the data of the host's record.
func (h *daneHost) digest() string {
	if h.cert == nil {
		return strings.Repeat("cd", 32)
	}
	of := h.cert.RawSubjectPublicKeyInfo
	if strings.HasPrefix(h.tlsa, "2 0") {
		of = h.cert.CA.Raw
	}
	return fmt.Sprintf("%x", sha256.Sum256(of))
}

// outcome returns nil when the message is where it is to be.
func (h *daneHost) outcome(m *mta) error {
	got := h.sink.arrivals()
	if h.want != "" {
		switch {
		case len(got) != 1:
			return fmt.Errorf("%s: %d messages arrived", h.name, len(got))
		case (got[0].tls == "") != (h.want == "-"):
			return fmt.Errorf("%s: it came by TLS %q", h.name, got[0].tls)
		}
		return nil
	}
	if len(got) > 0 {
		return fmt.Errorf("%s: a message arrived", h.name)
	}
	queue, err := m.queue()
	if err != nil {
		return err
	}
	for _, e := range queue {
		if r := e.Recipients[0]; r.Address == "joe@"+h.domain() {
			if strings.Contains(r.DelayReason, h.reason) {
				return nil
			}
			return fmt.Errorf("%s waits for %q, not for %q", h.name, r.DelayReason, h.reason)
		}
	}
	return fmt.Errorf("%s: the message is gone", h.name)
}

// line is the line of the log about the first attempt.
func (h *daneHost) line(log string) string {
	for line := range strings.Lines(log) {
		if (strings.Contains(line, "event=delivered") || strings.Contains(line, "event=delivery failed")) && strings.Contains(line, "rcpt=<joe@"+h.domain()+">") {
			return line
		}
	}
	return ""
}

// logged is what that line says.
func (h *daneHost) logged() string {
	switch h.want {
	case "":
		return h.reason
	case "-":
		return "event=delivered"
	}
	return "verify=" + h.want
}

// zone is the signed zone dane.test and the zone plain.test without signatures.
type zone struct {
	signed []string
	plain  []string
	forge  []string // owners of TLSA records to be changed after they were signed
}

func newZone() *zone { return &zone{} }

func (z *zone) add(format string, args ...any) {
	z.signed = append(z.signed, strings.Replace(fmt.Sprintf(format, args...), " ", " 300 IN ", 1))
}

// serve signs and serves the zones, and returns the port of a validating resolver.
func (z *zone) serve(t *testing.T) (resolver string) {
	t.Helper()
	dir := testDir(t)
	knotAddr := freeAddr(t)
	soa := func(name string) string {
		return name + " 300 IN SOA ns." + name + " root." + name + " 1 3600 600 86400 60\n" + name + " 300 IN NS ns." + name + "\nns." + name + " 300 IN A 127.0.0.1\n"
	}
	conf := dir + "/knot.conf"
	host, dnsPort, _ := net.SplitHostPort(knotAddr)
	writeFile(t, conf, fmt.Sprintf(`server:
  rundir: "%[1]s"
  listen: %[2]s@%[3]s
log:
  - target: stderr
    any: warning
database:
  storage: "%[1]s/db"
policy:
  - id: one
    algorithm: ecdsap256sha256
    single-type-signing: on
template:
  - id: default
    storage: "%[1]s"
    dnssec-policy: one
    zonefile-sync: -1
zone:
  - domain: dane.test
    file: "%[4]s"
    dnssec-signing: %[5]s
  - domain: plain.test
    file: "plain.zone"
`, dir, host, dnsPort, "dane.zone", "on"))
	writeFile(t, dir+"/dane.zone", soa("dane.test.")+strings.Join(z.signed, "\n")+"\n")
	writeFile(t, dir+"/plain.zone", soa("plain.test.")+strings.Join(z.plain, "\n")+"\n")
	makeDirs(t, 0o700, dir+"/signed", dir+"/db")
	if out, err := output(peerCommand(t, "../bin/kzonesign", "-c", conf, "-o", dir+"/signed", "dane.test")); err != nil {
		t.Fatalf("kzonesign: %v\n%s", err, out)
	}
	text, err := os.ReadFile(dir + "/signed/dane.zone")
	if err != nil {
		text, err = os.ReadFile(dir + "/signed/dane.test.zone")
	}
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/signed.zone", z.forged(t, string(text)))
	serving, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, conf, strings.NewReplacer(`"dane.zone"`, `"signed.zone"`, "dnssec-signing: on", "dnssec-signing: off").Replace(string(serving)))
	daemon(t, peerCommand(t, "knotd", "-c", conf), knotAddr)
	return unbound(t, dir, knotAddr, trustAnchor(t, string(text)))
}

// forged changes the records that are to be forged. Their signatures stay.
func (z *zone) forged(t *testing.T, text string) string {
	t.Helper()
	var b strings.Builder
	changed := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 5 && f[2] == "TLSA" {
			for _, owner := range z.forge {
				if f[0] == owner {
					line = strings.Join(f[:6], " ") + " " + strings.Repeat("ef", 32) + "\n"
					changed++
				}
			}
		}
		b.WriteString(line)
	}
	if changed != len(z.forge) {
		t.Fatalf("%d of %d records were forged in\n%s", changed, len(z.forge), text)
	}
	return b.String()
}

// trustAnchor is the key of a signed zone.
func trustAnchor(t *testing.T, text string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) > 6 && f[2] == "DNSKEY" {
			return strings.Join(f, " ")
		}
	}
	t.Fatalf("the zone has no key:\n%s", text)
	return ""
}

// unbound runs a validating resolver in front of a name server, and returns its port.
func unbound(t *testing.T, dir, server, anchor string) string {
	t.Helper()
	own := port(t, freeAddr(t))
	_, serverPort, _ := net.SplitHostPort(server)
	var stubs strings.Builder
	for _, name := range []string{"dane.test", "plain.test"} {
		fmt.Fprintf(&stubs, "stub-zone:\n  name: %s\n  stub-addr: 127.0.0.1@%s\n", name, serverPort)
	}
	conf := dir + "/unbound.conf"
	writeFile(t, conf, fmt.Sprintf(`server:
  interface: 127.0.0.1@%s
  do-daemonize: no
  username: ""
  chroot: ""
  directory: %q
  pidfile: ""
  use-syslog: no
  do-not-query-localhost: no
  module-config: "validator iterator"
  do-ip6: no
  num-threads: 1
  outgoing-range: 64
  local-zone: "test." nodefault
  trust-anchor: %q
%s`, own, dir, anchor, stubs.String()))
	daemon(t, peerCommand(t, "unbound", "-d", "-p", "-c", conf), "127.0.0.1:"+own)
	return own
}

// daemon runs a program that stays in the foreground, and waits until it takes connections at
// an address. It ends with the test.
func daemon(t *testing.T, cmd *exec.Cmd, addr string) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("%s: %v\n%s", filepath.Base(cmd.Path), cmd.ProcessState, out.String())
		}
	})
	must(t, func() error {
		select {
		case <-ended:
			t.Fatalf("%s has ended", filepath.Base(cmd.Path))
		default:
		}
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}
