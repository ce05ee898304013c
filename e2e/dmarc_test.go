package e2e

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"
)

// dmarcMTA is a meta1 that checks mail from addresses of the loopback network as if it came from
// elsewhere, and asks a name server of its own.
func dmarcMTA(t *testing.T, w *stsWorld, s *sink, dmarc, more string) *mta {
	t.Helper()
	m := newMTA(t, settings{
		mailertable: toPort(t, ".", s.addr),
		smar:        fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; }", port(t, w.serveDNS(t))),
		smtps:       fmt.Sprintf("authentication { authserv_id = mx.test; check_trusted = true; dmarc { %s } dmarc_reports { organization = \"Us\"; sender = \"<reports@us.test>\"; } }\n%s", dmarc, more),
	})
	writeFile(t, m.dir+"/access", "to:@sink.test relay\n")
	m.start()
	return m
}

// dmarcDomains sets records of domains that say that 127.0.0.5 sends for them.
func (w *stsWorld) dmarcDomains(policies map[string]string) {
	for name, policy := range policies {
		w.set(name+". TXT", `"v=spf1 ip4:127.0.0.5 -all"`)
		if policy != "" {
			w.set("_dmarc."+name+". TXT", fmt.Sprintf("%q", policy))
		}
	}
}

// TestDMARC: mail that fails is refused, held or only reported, as its domain asks and we say; the
// mail of a list is held rather than refused, and a domain that gets reports gets one.
func TestDMARC(t *testing.T) {
	t.Parallel()
	w, s := &stsWorld{records: map[string]string{}}, newSink(t, "")
	w.dmarcDomains(map[string]string{
		"reject.test": "v=DMARC1; p=reject; rua=mailto:a@reject.test,mailto:b@third.test!1m,mailto:c@other.test", "hold.test": "v=DMARC1; p=quarantine", "none.test": "v=DMARC1; p=none",
		"sub.reject.test": "", "evil.test": "", "us.test": "",
	})
	w.set("reject.test._report._dmarc.third.test. TXT", `"v=DMARC1; rua=mailto:instead@third.test"`)
	key, record := genkey(t, testDir(t), "rsa", "us.test", "reports")
	w.set("reports._domainkey.us.test. TXT", fmt.Sprintf("%q %q", record[:200], record[200:]))
	m := dmarcMTA(t, w, s, "reject = reject; quarantine = quarantine; trusted_forwarders = { 127.0.0.7 };",
		fmt.Sprintf("DKIM_signing { sign { from = us.test; domain = us.test; selector = reports; keyfile = %q; } }", key))
	if left := time.Until(time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)); left < time.Minute { // a report is about one day
		time.Sleep(left)
	}
	const text = "Subject: x\r\n\r\ny\r\n"
	right, _ := talk(t, "127.0.0.5", m.smtp)
	right.say("EHLO client.test", "250")
	right.send("jane@sub.reject.test", "From: Jane <jane@reject.test>\r\n"+text, "250", "pass@sink.test")
	wrong, _ := talk(t, "127.0.0.6", m.smtp)
	wrong.say("EHLO client.test", "250")
	wrong.send("jane@reject.test", "From: Jane <jane@reject.test>\r\n"+text, "550 5.7.1 Rejected per DMARC policy reject of reject.test", "fail@sink.test")
	wrong.send("jane@evil.test", "From: a@evil.test, Jane <jane@reject.test>\r\n"+text, "550 5.7.1 Rejected per DMARC policy reject of reject.test", "two@sink.test")
	wrong.send("jane@none.test", "From: jane@none.test\r\nAuthentication-Results: mx.test; dmarc=pass header.from=none.test\r\n"+text, "250", "none@sink.test")
	wrong.send("jane@hold.test", "From: jane@hold.test\r\n"+text, "250", "held@sink.test")
	wrong.send("l-bounces@evil.test", "From: jane@reject.test\r\nList-Id: <l.evil.test>\r\n"+text, "250", "list@sink.test")
	forwarder, _ := talk(t, "127.0.0.7", m.smtp)
	forwarder.say("EHLO client.test", "250")
	forwarder.send("jane@reject.test", "From: jane@reject.test\r\n"+text, "250", "forwarded@sink.test")

	s.waitFor(3)
	want := map[string]string{
		"pass":      "dmarc=pass (p=reject dis=none) header.from=reject.test policy.dmarc=reject",
		"none":      "dmarc=fail (p=none dis=none) header.from=none.test policy.dmarc=none",
		"forwarded": "dmarc=fail (p=reject dis=none) header.from=reject.test policy.dmarc=reject",
	}
	for _, a := range s.arrivals() {
		name, _, _ := strings.Cut(a.rcpts[0], "@")
		field := strings.Join(strings.Fields(results(t, a.data, "mx.test")), " ")
		if want[name] == "" || !strings.Contains(field, want[name]) {
			t.Errorf("%s has %s, want %s", name, field, want[name])
		}
		if n := bytes.Count(a.data, []byte("Authentication-Results:")); n != 1 {
			t.Errorf("%s has %d fields Authentication-Results", name, n)
		}
	}
	must(t, func() error { return m.queueShows(2, "quarantined by DMARC: policy ") })
	m.logs("Rejected per DMARC policy", "dmarc")

	// The report: what came, what became of it, and why.
	m.stop() // counts outlive it
	m.start()
	shown, err := m.command("ctl", "dmarcreports", "reject.test")
	if err != nil || !strings.Contains(shown, "trusted_forwarder") || !strings.Contains(shown, "the day is not over") {
		t.Fatalf("%v\n%s", err, shown)
	}
	if out, err := m.command("ctl", "dmarcreports", "--send", "--today"); err != nil || out != "1 sent\n" {
		t.Fatalf("%v\n%s", err, out)
	}
	s.waitFor(5)
	var rcpts []string
	for _, a := range s.arrivals()[3:] {
		rcpts = append(rcpts, a.rcpts...)
		checkDMARCReport(t, a.data)
		verified, err := msgauth.VerifyWithOptions(bytes.NewReader(a.data), &msgauth.VerifyOptions{LookupTXT: func(string) ([]string, error) { return []string{record}, nil }})
		if err != nil || len(verified) != 1 || verified[0].Err != nil || verified[0].Domain != "us.test" {
			t.Errorf("the signature of the report: %v %v", verified, err)
		}
	}
	if slices.Sort(rcpts); !slices.Equal(rcpts, []string{"a@reject.test", "instead@third.test"}) {
		t.Errorf("reports went to %q", rcpts)
	}
	samples := scrape(t, m.metrics)
	if samples[`meta1_dmarc_reports_total{result="sent"}`] != "1" {
		t.Errorf("%s reports", samples[`meta1_dmarc_reports_total{result="sent"}`])
	}
}

// results are the Authentication-Results: of one authserv-id.
func results(t *testing.T, message []byte, id string) string {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		t.Fatalf("%v\n%s", err, message)
	}
	for _, field := range m.Header["Authentication-Results"] {
		if strings.HasPrefix(strings.TrimSpace(field), id+";") {
			return field
		}
	}
	return ""
}

// checkDMARCReport checks a mail with a report on reject.test, and has xmllint validate it.
func checkDMARCReport(t *testing.T, message []byte) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	if subject := m.Header.Get("Subject"); !strings.HasPrefix(subject, "Report Domain: reject.test Submitter: us.test Report-ID: <") {
		t.Errorf("Subject: %s", subject)
	}
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if _, err := parts.NextPart(); err != nil {
		t.Fatal(err)
	}
	p, err := parts.NextPart()
	if err != nil || !regexp.MustCompile(`^us\.test!reject\.test!\d+!\d+![0-9a-f]+\.xml\.gz$`).MatchString(p.FileName()) {
		t.Fatalf("%v %v", p, err)
	}
	packed, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, p))
	if err != nil {
		t.Fatal(err)
	}
	text := unzip(t, packed)
	file := filepath.Join(testDir(t), "report.xml")
	writeFile(t, file, text)
	if out, err := peerCommand(t, "xmllint", "--noout", "--nonet", "--schema", "../server/authn/dmarcrpt/testdata/report.xsd", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, text)
	}
	var report struct {
		Records []struct {
			Source      string `xml:"row>source_ip"`
			Count       int    `xml:"row>count"`
			Disposition string `xml:"row>policy_evaluated>disposition"`
			SPF         string `xml:"row>policy_evaluated>spf"`
			Reason      string `xml:"row>policy_evaluated>reason>type"`
			Envelope    string `xml:"identifiers>envelope_from"`
		} `xml:"record"`
	}
	if err := xml.Unmarshal([]byte(text), &report); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for _, r := range report.Records {
		rows = append(rows, strings.TrimSpace(fmt.Sprintf("%s %d %s %s %s %s", r.Source, r.Count, r.Disposition, r.SPF, r.Envelope, r.Reason)))
	}
	slices.Sort(rows)
	want := []string{
		"127.0.0.5 1 pass pass sub.reject.test", "127.0.0.6 1 quarantine fail evil.test mailing_list", "127.0.0.6 1 reject fail evil.test",
		"127.0.0.6 1 reject fail reject.test", "127.0.0.7 1 none fail reject.test trusted_forwarder",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("rows:\n%s\nwant\n%s", strings.Join(rows, "\n"), strings.Join(want, "\n"))
	}
}

// TestDMARCLikeOpenDMARC: OpenDMARC, which sees our results of SPF and DKIM, comes to the same
// result of DMARC and the same policy. Where OpenDMARC 1.4.2 itself deviates from RFC 7489 section
// 3.1 only we are asked: for it two subdomains are never aligned, nor is the parent of a domain
// without a record of its own, and with aspf=s a subdomain is.
func TestDMARCLikeOpenDMARC(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may listen on port 53, and make a mount namespace")
	}
	w, s, dir := &stsWorld{records: map[string]string{}}, newSink(t, ""), testDir(t)
	w.dmarcDomains(map[string]string{
		"relaxed.test": "v=DMARC1; p=reject; sp=quarantine", "a.relaxed.test": "", "b.relaxed.test": "", "strict.test": "v=DMARC1; p=quarantine; adkim=s; aspf=s", "a.strict.test": "",
		"none.test": "v=DMARC1; p=none", "other.test": "", "own.relaxed.test": "v=DMARC1; p=none", "cafe.test": "V = DMARC1 ; p = REJECT ;; foo=bar",
	})
	key, record := genkey(t, dir, "rsa", "any.test", "s1")
	for _, d := range []string{"relaxed.test", "a.strict.test", "strict.test", "other.test"} {
		w.set("s1._domainkey."+d+". TXT", fmt.Sprintf("%q %q", record[:200], record[200:]))
	}
	const nameserver = "127.0.0.64" // where only this test listens
	udp, err := net.ListenPacket("udp", nameserver+":53")
	if err != nil {
		t.Fatal(err)
	}
	server, ended := &dns.Server{PacketConn: udp, Handler: w}, make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-ended
	})
	at := freeAddr(t)
	writeFile(t, dir+"/ignored", "192.0.2.1\n")
	writeFile(t, dir+"/suffixes", "test\n")
	writeFile(t, dir+"/resolv.conf", "nameserver "+nameserver+"\n")
	writeFile(t, dir+"/conf", fmt.Sprintf("Socket inet:%s@127.0.0.1\nPidFile %s/pid\nIgnoreHosts %[2]s/ignored\nPublicSuffixList %[2]s/suffixes\nSyslog no\nAuthservID other.test\nTrustedAuthservIDs mx.test\nRejectFailures no\n", port(t, at), dir))
	opendmarc := peerCommand(t, "opendmarc", "-f", "-c", dir+"/conf")
	cmd := exec.Command("unshare", append([]string{"--mount", "sh", "-c", `mount --bind "$1" /etc/resolv.conf && shift && exec "$@"`, "sh", dir + "/resolv.conf"}, opendmarc.Args...)...)
	cmd.Args[len(cmd.Args)-len(opendmarc.Args)] = opendmarc.Path
	cmd.Env = opendmarc.Env
	startPeer(t, at, cmd)
	m := dmarcMTA(t, w, s, "", fmt.Sprintf("milter dmarc { socket { type = inet; address = 127.0.0.1; port = %s; } flags = { tempfail }; }", port(t, at)))

	block, _ := pem.Decode([]byte(readFile(t, key)))
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		t.Fatalf("%T", private)
	}
	signed := func(content, domain string) string {
		var b bytes.Buffer
		if err := msgauth.Sign(&b, strings.NewReader(content), &msgauth.SignOptions{Domain: domain, Selector: "s1", Signer: signer}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	odd := []string{"spfsibling", "spfstrict", "dkimrelaxed", "dkimstrict"}
	cases := []struct{ name, client, sender, from, sign, want string }{
		{"spf", "127.0.0.5", "relaxed.test", "relaxed.test", "", "pass"},
		{"spfrelaxed", "127.0.0.5", "a.relaxed.test", "relaxed.test", "", "pass"},
		{"spfsibling", "127.0.0.5", "a.relaxed.test", "b.relaxed.test", "", "pass"},
		{"spfstrict", "127.0.0.5", "a.strict.test", "strict.test", "", "fail"},
		{"spfother", "127.0.0.5", "other.test", "relaxed.test", "", "fail"},
		{"spffail", "127.0.0.6", "relaxed.test", "relaxed.test", "", "fail"},
		{"sub", "127.0.0.6", "a.relaxed.test", "a.relaxed.test", "", "fail"},
		{"ownrecord", "127.0.0.6", "own.relaxed.test", "own.relaxed.test", "", "fail"},
		{"dkim", "127.0.0.6", "other.test", "relaxed.test", "relaxed.test", "pass"},
		{"dkimrelaxed", "127.0.0.6", "other.test", "a.relaxed.test", "relaxed.test", "pass"},
		{"dkimstrict", "127.0.0.6", "other.test", "strict.test", "a.strict.test", "fail"},
		{"dkimsame", "127.0.0.6", "other.test", "strict.test", "strict.test", "pass"},
		{"dkimother", "127.0.0.6", "relaxed.test", "relaxed.test", "other.test", "fail"},
		{"none", "127.0.0.6", "none.test", "none.test", "", "fail"},
		{"norecord", "127.0.0.5", "other.test", "other.test", "", "none"},
	}
	for _, c := range cases {
		k, _ := talk(t, c.client, m.smtp)
		k.say("EHLO client.test", "250")
		content := "From: Jane <jane@" + c.from + ">\r\nTo: u@sink.test\r\nDate: Thu, 01 Jan 2026 00:00:00 +0000\r\nMessage-ID: <" + c.name + "@x.test>\r\nSubject: x\r\n\r\nthe body\r\n"
		if c.sign != "" {
			content = signed(content, c.sign)
		}
		k.send("jane@"+c.sender, content, "250", c.name+"@sink.test")
	}
	s.waitFor(len(cases))
	opinion := regexp.MustCompile(`dmarc=(\w+)(?:[^;]*?\bs?p=(\w+))?`)
	for _, c := range cases {
		for _, a := range s.arrivals() {
			if a.rcpts[0] != c.name+"@sink.test" {
				continue
			}
			ours, theirs := opinion.FindStringSubmatch(results(t, a.data, "mx.test")), opinion.FindStringSubmatch(results(t, a.data, "other.test"))
			if ours == nil || theirs == nil {
				t.Fatalf("%s: no results in\n%s", c.name, a.data)
			}
			if slices.Contains(odd, c.name) {
				theirs = ours
			}
			if ours[1] != c.want || theirs[1] != c.want || c.want == "fail" && ours[2] != theirs[2] {
				t.Errorf("%s: we say %s (%s), OpenDMARC %s (%s), want %s\n%s", c.name, ours[1], ours[2], theirs[1], theirs[2], c.want, a.data)
			}
		}
	}
}
