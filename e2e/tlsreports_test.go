package e2e

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/mail"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestTLSReports counts sessions to hosts under MTA-STS, DANE and nothing, over a restart, and
// has the reports sent: by mail to a domain whose own policy would keep mail back, and by HTTPS
// (RFC 8460).
func TestTLSReports(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root may listen on port 443")
	}
	ca, other := newTestCA(t), newTestCA(t)
	w := &stsWorld{records: map[string]string{}, policies: map[string]string{}}
	dnsAddr := w.serveDNS(t)
	cert := ca.issue(t, "mta-sts.good.test", "mta-sts.testing.test", "mta-sts.reports.test", "post.test")
	posts := make(chan post, 10)
	serveTLS(t, "127.0.0.58:443", cert, w)
	serveTLS(t, "127.0.0.59:443", cert, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/tlsrpt" {
			http.Error(rw, "what?", http.StatusBadRequest)
			return
		}
		posts <- post{r.Header.Get("Content-Type"), body}
		rw.WriteHeader(http.StatusCreated)
	}))

	smtpPort := port(t, freeAddr(t))
	dane := other.issueFile(t, "mx.dane.test")
	dump := "" // of mx.bad.test
	for _, s := range []struct{ addr, cert string }{
		{"127.0.0.60:" + smtpPort, ca.issueFile(t, "mx.good.test")}, {"127.0.0.62:" + smtpPort, dane}, {"127.0.0.61:" + smtpPort, other.issueFile(t, "mx.bad.test")},
	} {
		dump = testDir(t) + "/mail"
		if err := os.Mkdir(dump, 0o700); err != nil {
			t.Fatal(err)
		}
		startPeer(t, s.addr, exec.Command(meta1(t), "sink", "--listen", s.addr, "--tls", "starttls", "--cert", s.cert, "--dump", dump))
	}
	policy := func(mode, mx string) string {
		return "version: STSv1\r\nmode: " + mode + "\r\nmx: " + mx + "\r\nmax_age: 86400\r\n"
	}
	block, _ := pem.Decode([]byte(readFile(t, dane)))
	sum := fmt.Sprintf("%X", sha256.Sum256(block.Bytes))
	w.domain("good.test", "mx.good.test", "127.0.0.60", policy("enforce", "*.good.test"))
	w.domain("testing.test", "mx.bad.test", "127.0.0.61", policy("testing", "mx.bad.test"))
	w.domain("reports.test", "mx.bad.test", "127.0.0.61", policy("enforce", "mx.bad.test"))
	w.domain("dane.test", "mx.dane.test", "127.0.0.62", "")
	w.domain("quiet.test", "mx.good.test", "127.0.0.60", policy("enforce", "*.good.test"))
	for _, name := range []string{"good", "testing", "reports"} {
		w.set("mta-sts."+name+".test. A", "127.0.0.58")
	}
	w.set("_mta-sts.dane.test. TXT", `"nothing"`)
	w.set("_mta-sts.quiet.test. TXT", `"nothing"`)
	w.set("_"+smtpPort+"._tcp.mx.dane.test. TLSA", "3 0 1 "+sum)
	w.set("post.test. A", "127.0.0.59")
	w.set("_smtp._tls.good.test. TXT", `"v=TLSRPTv1; rua=mailto:tls@reports.test"`)
	w.set("_smtp._tls.testing.test. TXT", `"v=TLSRPTv1; rua=https://post.test/v1/tlsrpt"`)
	w.set("_smtp._tls.reports.test. TXT", `"v=TLSRPTv1; rua=https://post.test/v1/tlsrpt"`)
	w.set("_smtp._tls.dane.test. TXT", `"v=TLSRPTv1; rua=mailto:nobody@nowhere.test" ",https://post.test/v1/tlsrpt"`)

	key, record := genkey(t, testDir(t), "rsa", "us.test", "reports")
	w.set("reports._domainkey.us.test. TXT", fmt.Sprintf("%q %q", record[:200], record[200:]))
	m := run(t, settings{
		smtps: fmt.Sprintf("DKIM_signing { sign { from = us.test; domain = us.test; selector = reports; keyfile = %q; } }", key),
		smar:  fmt.Sprintf("DANE = always; DNS { nameservers = 127.0.0.1; port = %s; } mta_sts { CAcert_file = %q; }", port(t, dnsAddr), ca.file),
		smtpc: "remote_port = " + smtpPort + `; tls_reports { organization = "Our \"Company\""; contact = "tls@us.test"; sender = "<reports@us.test>";
			https_private_hosts = true; }`,
	})
	send := func(domain string) {
		t.Helper()
		if text, err := commandIn(t, "", nil, "source", "--server", m.smtp, "--count", "1", "--from", "a@good.test", "--to", "u@"+domain); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	shows := func(want string) {
		t.Helper()
		must(t, func() error {
			text, err := m.command("ctl", "tlsreports")
			if got := strings.Join(strings.Fields(text), " "); err == nil && !strings.Contains(got, want) {
				err = fmt.Errorf("ctl tlsreports shows %q, without %q", text, want)
			}
			return err
		})
	}
	start := time.Now().UTC()
	if left := start.Truncate(24 * time.Hour).Add(24 * time.Hour).Sub(start); left < time.Minute { // a report is about one day
		time.Sleep(left)
		start = time.Now().UTC()
	}
	for _, domain := range []string{"good.test", "testing.test", "dane.test", "quiet.test"} {
		send(domain)
	}
	shows("sts good.test 1 0 the day is not over")
	shows("tlsa mx.dane.test 1 0 the day is not over")
	shows("sts testing.test 0 1 the day is not over")
	shows("certificate-not-trusted mx.bad.test 1")
	m.stop()
	m.start()
	send("good.test")
	shows("sts good.test 2 0 the day is not over")
	text, err := m.command("ctl", "tlsreports", "--send", "--today")
	if err != nil || !strings.Contains(text, "3 sent") {
		t.Fatalf("%v\n%s", err, text)
	}
	shows("sts good.test 2 0 sent")

	// RFC 8460 section 3 wants a DKIM signature of the submitter; the rest is of section 5.3.
	var message string
	must(t, func() error {
		message = dumped(t, dump, "TLS-Report-Domain")
		if message == "" {
			return fmt.Errorf("no report has arrived")
		}
		return nil
	})
	signed := testDir(t) + "/report"
	writeFile(t, signed, message[max(strings.Index(message, "DKIM-Signature:"), 0):])
	if out, err := m.command("dkim", "verify", signed); err != nil || out != "pass d=us.test s=reports a=rsa-sha256\n" {
		t.Errorf("the signature of the report: %v\n%s\n%s", err, out, message)
	}
	checkReport(t, start, "good.test", mailedReport(t, message, "good.test"), `[{
		"policy": {"policy-type": "sts", "policy-string": ["version: STSv1", "mode: enforce", "mx: *.good.test", "max_age: 86400"],
			"policy-domain": "good.test", "mx-host": ["*.good.test"]},
		"summary": {"total-successful-session-count": 2, "total-failure-session-count": 0}}]`)
	want := map[string]string{
		"testing.test": `[{
			"policy": {"policy-type": "sts", "policy-string": ["version: STSv1", "mode: testing", "mx: mx.bad.test", "max_age: 86400"],
				"policy-domain": "testing.test", "mx-host": ["mx.bad.test"]},
			"summary": {"total-successful-session-count": 0, "total-failure-session-count": 1},
			"failure-details": [{"result-type": "certificate-not-trusted", "sending-mta-ip": "127.0.0.1", "receiving-mx-hostname": "mx.bad.test",
				"receiving-mx-helo": HELO, "receiving-ip": "127.0.0.61", "failed-session-count": 1,
				"failure-reason-code": REASON}]}]`,
		"dane.test": `[{
			"policy": {"policy-type": "tlsa", "policy-string": ["3 0 1 ` + sum + `"], "policy-domain": "mx.dane.test"},
			"summary": {"total-successful-session-count": 1, "total-failure-session-count": 0}}]`,
	}
	for range 2 {
		select {
		case p := <-posts:
			if p.kind != "application/tlsrpt+gzip" {
				t.Errorf("posted as %s", p.kind)
			}
			text := unzip(t, p.body)
			domain := "testing.test"
			if strings.Contains(text, "tlsa") {
				domain = "dane.test"
			}
			_, helo, _ := strings.Cut(text, `"receiving-mx-helo":`)
			helo, _, _ = strings.Cut(helo, ",")
			_, reason, _ := strings.Cut(text, `"failure-reason-code":`)
			reason, _, _ = strings.Cut(reason, "}")
			if domain == "testing.test" && !strings.HasPrefix(reason, `"x509: certificate signed by unknown authority`) {
				t.Errorf("the reason is %s", reason)
			}
			checkReport(t, start, domain, text, strings.NewReplacer("HELO", helo, "REASON", reason).Replace(want[domain]))
			delete(want, domain)
		case <-time.After(10 * time.Second):
			t.Fatalf("no post for %v", want)
		}
	}
	if len(want) > 0 {
		t.Errorf("no report about %v", want)
	}
	// The mail with the report went out against the policy of its domain, and is not counted.
	if text, err := m.command("ctl", "tlsreports", "reports.test"); err != nil || strings.Contains(text, "reports.test") {
		t.Errorf("%v\n%s", err, text)
	}
	samples := scrape(t, m.metrics)
	if samples[`meta1_tls_reports_total{result="sent"}`] != "3" || samples[`meta1_tls_reports_sessions_total{result="counted"}`] != "1" {
		t.Errorf("%s reports, %s sessions since the start", samples[`meta1_tls_reports_total{result="sent"}`], samples[`meta1_tls_reports_sessions_total{result="counted"}`])
	}
}

// post is a report that came by HTTPS.
type post struct {
	kind string
	body []byte
}

// set sets a record.
func (w *stsWorld) set(record, data string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records[record] = data
}

// serveDNS serves the records until the test ends.
func (w *stsWorld) serveDNS(t *testing.T) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: w}, {Listener: tcp, Handler: w}} {
		ended := make(chan error, 1)
		go func() { ended <- s.ActivateAndServe() }()
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}
	return addr
}

// serveTLS serves HTTPS until the test ends.
func serveTLS(t *testing.T, addr string, cert tls.Certificate, h http.Handler) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		Handler: h, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
	}
	served := make(chan error, 1)
	go func() { served <- s.ServeTLS(l, "", "") }()
	t.Cleanup(func() {
		_ = s.Close()
		<-served
	})
}

// dumped is the message in a directory that has a header, "" for none.
func dumped(t *testing.T, dir, header string) string {
	t.Helper()
	names, err := files(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if text := readFile(t, name); strings.Contains(text, "\n"+header+":") {
			return text
		}
	}
	return ""
}

// mailedReport takes the report out of a mail.
func mailedReport(t *testing.T, text, domain string) (report string) {
	t.Helper()
	if i := strings.Index(text, "Received:"); i >= 0 { // what the sink puts before the message
		text = text[i:]
	} else if i := strings.Index(text, "From:"); i >= 0 {
		text = text[i:]
	}
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "tlsrpt" {
		t.Fatalf("%s %v %v", kind, params, err)
	}
	id := m.Header.Get("Message-Id")
	for name, want := range map[string]string{
		"From": "<reports@us.test>", "To": "<tls@reports.test>", "TLS-Report-Domain": domain, "TLS-Report-Submitter": "us.test",
		"Subject": "Report Domain: " + domain + " Submitter: us.test Report-ID: " + id,
	} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	if p, err := parts.NextPart(); err != nil || !strings.HasPrefix(p.Header.Get("Content-Type"), "text/plain") {
		t.Fatalf("%v %v", p, err)
	}
	p, err := parts.NextPart()
	if err != nil || p.Header.Get("Content-Type") != "application/tlsrpt+gzip" || p.Header.Get("Content-Transfer-Encoding") != "base64" ||
		!strings.HasPrefix(p.FileName(), "us.test!"+domain+"!") || !strings.HasSuffix(p.FileName(), ".json.gz") {
		t.Fatalf("%v %v", p, err)
	}
	packed, err := io.ReadAll(base64.NewDecoder(base64.StdEncoding, p))
	if err != nil {
		t.Fatal(err)
	}
	return unzip(t, packed)
}

func unzip(t *testing.T, packed []byte) string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// checkReport compares a report with the fields of RFC 8460 section 4.4.
func checkReport(t *testing.T, start time.Time, domain, report, policies string) {
	t.Helper()
	var got map[string]any
	if err := json.Unmarshal([]byte(report), &got); err != nil {
		t.Fatalf("%v: %s", err, report)
	}
	var want any
	if err := json.Unmarshal([]byte(policies), &want); err != nil {
		t.Fatalf("%v: %s", err, policies)
	}
	if !reflect.DeepEqual(got["policies"], want) {
		t.Errorf("%s: %v, want %v", domain, got["policies"], want)
	}
	if got["organization-name"] != `Our "Company"` || got["contact-info"] != "tls@us.test" || len(got) != 5 {
		t.Errorf("%s: %s", domain, report)
	}
	if id, _ := got["report-id"].(string); id == "" {
		t.Errorf("%s: no report-id", domain)
	}
	dates, _ := got["date-range"].(map[string]any)
	for name, near := range map[string]time.Time{"start-datetime": start.Truncate(24 * time.Hour), "end-datetime": start.Truncate(time.Second)} {
		text, _ := dates[name].(string)
		at, err := time.Parse(time.RFC3339, text)
		if d := at.Sub(near); err != nil || !strings.HasSuffix(text, "Z") || d < 0 || d > 24*time.Hour {
			t.Errorf("%s: %s is %q (%v)", domain, name, text, err)
		}
	}
}
