package e2e

import (
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meta1/mta/tlsconf/tlstest"
)

// tlsMTA is a meta1 that offers STARTTLS on one port and begins with TLS on another, with a
// certificate for localhost and mta.test.
type tlsMTA struct {
	*mta
	implicit string // the address of the port that begins with TLS
	sink     *sink
	dir      string // of the certificates
	ca       string // file with the CA's certificate, which meta1 trusts, too
}

// runTLS starts it. options go into both sections tls.
func runTLS(t *testing.T, options string) *tlsMTA {
	t.Helper()
	m := &tlsMTA{sink: newSink(t, ""), implicit: freeAddr(t), dir: testDir(t)}
	ca := tlstest.Root(t, "Test CA")
	m.ca = m.dir + "/ca.pem"
	tlstest.WriteFile(t, m.ca, ca.PEM(), 0o644)
	tls := fmt.Sprintf("tls { CAcert_file = %q; %s", m.ca, options)
	for i, useRSA := range []bool{true, false} {
		s := tlstest.Spec{CN: "mta.test", Names: []string{"mta.test", "localhost"}, RSA: useRSA}
		cert, key := ca.Issue(t, s).Write(t, m.dir, []string{"rsa", "ec"}[i])
		tls += fmt.Sprintf(" %scert_file = %q; %[1]skey_file = %[3]q;", []string{"", "EC_"}[i], cert, key)
	}
	tls += " }"
	ca.Issue(t, tlstest.Spec{CN: "client.test", Names: []string{"client.test"}}).Write(t, m.dir, "client")
	ownFiles(t, m.dir)
	m.mta = run(t, settings{
		mailertable: toPort(t, ".", m.sink.addr), smtps: tls, flags: ", lookup_session_conf",
		add: fmt.Sprintf("smtps MSA { id = 1; flags = { 8bitmime, access, smtps }; listen_socket { type = inet; address = 127.0.0.1; port = %s; } %s }",
			port(t, m.implicit), tls),
	})
	return m
}

// ownFiles gives the files of a folder to the account that serves mail.
func ownFiles(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	names, err := files(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.Chmod(name, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// logs waits until the log, which comes a moment later, has some words.
func (m *tlsMTA) logs(words ...string) {
	m.t.Helper()
	must(m.t, func() error {
		text := tail(m.log, 1000)
		for _, w := range words {
			if !strings.Contains(text, w) {
				return fmt.Errorf("no %q in the log", w)
			}
		}
		return nil
	})
}

// file is the path of a file with a certificate or key.
func (m *tlsMTA) file(name string) string { return filepath.Join(m.dir, name) }

// typed is a line that is typed into a program, and what it then prints of the server's: one
// of several, separated by line ends.
type typed struct{ line, answer string }

// typeInto runs a program and types lines into it, and at last QUIT.
func typeInto(cmd *exec.Cmd, lines []typed) (string, error) {
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	out := &lockedText{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	limit := time.AfterFunc(hangs, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for _, l := range lines {
		from := len(out.String())
		if l.line != "" {
			_, _ = io.WriteString(in, l.line+"\r\n") // if it has ended, ended says so
		}
		for !out.hasAny(from, l.answer) {
			select {
			case err := <-ended:
				return out.String(), fmt.Errorf("it ended after %q, with %v", l.line, err)
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	_, _ = io.WriteString(in, "QUIT\r\n")
	_ = in.Close()
	return out.String(), <-ended
}

// lockedText collects what a program prints while it is looked at.
type lockedText struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// hasAny reports that one of some words was printed since from.
func (l *lockedText) hasAny(from int, words string) bool {
	text := l.String()[from:]
	for w := range strings.SplitSeq(words, "\n") {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// TestServerTLSPeers has clients that are not ours deliver by STARTTLS and by TLS from the
// beginning. They verify our certificate.
func TestServerTLSPeers(t *testing.T) {
	t.Parallel()
	m := runTLS(t, "")
	starttls, implicit := port(t, m.smtp), port(t, m.implicit)
	mail := "From: <a@client.test>\r\nSubject: %s\r\n\r\ntext\r\n"
	// What is typed into programs that know no SMTP: each line when the one before is answered.
	ehlo := []typed{{"EHLO client.test", "250-PIPELINING"}, {"MAIL FROM:<a@client.test>", "250 2.1.0"}, {"RCPT TO:<b@sink.test>", "250 2.1.5"}, {"DATA", "354"}}
	greeted := append([]typed{{"", "220 mta.test"}}, ehlo...)
	python := `
import smtplib, ssl, sys
kind, port, ca, text = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
if kind == "implicit":
    s = smtplib.SMTP_SSL("localhost", int(port), context=context)
else:
    s = smtplib.SMTP("localhost", int(port))
    s.starttls(context=context)
s.sendmail("a@client.test", ["b@sink.test"], text)
s.quit()
`
	message := func(name string) string { return fmt.Sprintf(mail, name) }
	tests := []struct {
		name, stdin string
		typed       []typed // in place of stdin; the message follows
		args        []string
	}{
		{"openssl", "", ehlo, []string{"openssl", "s_client", "-starttls", "smtp", "-connect", "localhost:" + starttls}},
		{"openssl-1.2", "", ehlo, []string{"openssl", "s_client", "-tls1_2", "-starttls", "smtp", "-connect", "localhost:" + starttls}},
		{"openssl-rsa", "", ehlo, []string{"openssl", "s_client", "-sigalgs", "RSA-PSS+SHA256", "-starttls", "smtp", "-connect", "localhost:" + starttls}},
		{"openssl-implicit", "", greeted, []string{"openssl", "s_client", "-connect", "localhost:" + implicit}},
		{"gnutls", "", ehlo, []string{"gnutls-cli", "--starttls-proto=smtp", "--x509cafile", m.ca, "--port", starttls, "localhost"}},
		{"gnutls-implicit", "", greeted, []string{"gnutls-cli", "--x509cafile", m.ca, "--port", implicit, "localhost"}},
		{"swaks", "", nil, []string{"swaks", "--tls", "--tls-verify", "--tls-ca-path", m.ca, "--server", "localhost:" + starttls, "--helo", "client.test", "--from", "a@client.test", "--to", "b@sink.test", "--data", message("swaks")}},
		{"swaks-implicit", "", nil, []string{"swaks", "--tls-on-connect", "--tls-verify", "--tls-ca-path", m.ca, "--server", "localhost:" + implicit, "--helo", "client.test", "--from", "a@client.test", "--to", "b@sink.test", "--data", message("swaks-implicit")}},
		{"curl", message("curl"), nil, []string{"curl", "-sS", "--ssl-reqd", "--cacert", m.ca, "--mail-from", "a@client.test", "--mail-rcpt", "b@sink.test", "-T", "-", "smtp://localhost:" + starttls + "/client.test"}},
		{"curl-implicit", message("curl-implicit"), nil, []string{"curl", "-sS", "--cacert", m.ca, "--mail-from", "a@client.test", "--mail-rcpt", "b@sink.test", "-T", "-", "smtps://localhost:" + implicit + "/client.test"}},
		{"msmtp", message("msmtp"), nil, []string{"msmtp", "--host=localhost", "--port=" + starttls, "--tls=on", "--tls-starttls=on", "--tls-trust-file=" + m.ca, "--from=a@client.test", "--domain=client.test", "b@sink.test"}},
		{"msmtp-implicit", message("msmtp-implicit"), nil, []string{"msmtp", "--host=localhost", "--port=" + implicit, "--tls=on", "--tls-starttls=off", "--tls-trust-file=" + m.ca, "--from=a@client.test", "--domain=client.test", "b@sink.test"}},
		{"python", "", nil, []string{"/usr/bin/python3", "-c", python, "starttls", starttls, m.ca, message("python")}},
		{"python-implicit", "", nil, []string{"/usr/bin/python3", "-c", python, "implicit", implicit, m.ca, message("python-implicit")}},
	}
	for _, tt := range tests {
		args := tt.args[1:]
		if tt.args[0] == "openssl" {
			args = append(args, "-CAfile", m.ca, "-verify_return_error", "-verify_hostname", "localhost", "-ign_eof", "-quiet")
		}
		cmd := peerCommand(t, tt.args[0], args...)
		cmd.Env = append(os.Environ(), "HOME="+m.dir, "LC_ALL=C")
		var out string
		var err error
		if tt.typed != nil {
			out, err = typeInto(cmd, append(tt.typed, typed{strings.TrimSuffix(message(tt.name), "\r\n") + "\r\n.", "250 2.0.0"}))
		} else {
			cmd.Stdin = strings.NewReader(tt.stdin)
			out, err = output(cmd)
		}
		if err != nil || strings.Contains(out, "non-properly terminated") { // so says gnutls-cli without a farewell
			t.Errorf("%s: %v\n%s", tt.name, err, out)
		}
	}
	m.sink.waitFor(len(tests))
	got := map[string]string{}
	for _, a := range m.sink.arrivals() {
		_, rest, _ := strings.Cut(string(a.data), "\r\nSubject: ")
		name, _, _ := strings.Cut(rest, "\r\n")
		got[name] = string(a.data)
	}
	for _, tt := range tests {
		version := "TLSv1.3"
		if strings.Contains(tt.name, "1.2") {
			version = "TLSv1.2"
		}
		if !strings.Contains(got[tt.name], "with ESMTPS\r\n\t(TLS="+version+", cipher=") || !strings.Contains(got[tt.name], ", verify=NO)\r\n\tid ") {
			t.Errorf("%s: no message, or not by %s:\n%s", tt.name, version, got[tt.name])
		}
	}
}

// TestServerTLSPostfix has Postfix send through us by TLS, with a certificate of its own.
func TestServerTLSPostfix(t *testing.T) {
	t.Parallel()
	m := runTLS(t, "")
	p := startPostfix(t, map[string]string{"*": "smtp:[localhost]:" + port(t, m.smtp)},
		"smtp_tls_security_level = verify", "smtp_tls_CAfile = "+m.ca, "smtp_tls_loglevel = 1",
		"smtp_tls_cert_file = "+m.file("client.pem"), "smtp_tls_key_file = "+m.file("client.key"))
	const n = 20
	sendAll(t, p.smtp, 2, n, func(id int) message { return testMessage(id, 3000, fmt.Sprintf("u%d@sink.test", id)) })
	m.sink.waitFor(n)
	for _, a := range m.sink.arrivals() {
		if id := testID(a.data); !strings.Contains(string(a.data), "with ESMTPS\r\n\t(TLS=TLSv1.3, ") || !strings.Contains(string(a.data), "verify=OK") {
			t.Errorf("message %d did not come by TLS with a certificate:\n%.500s", id, a.data)
		}
	}
	says(t, tail(p.log, 1000), "Verified TLS connection established to localhost")
	m.logs("starttls=TLSv1.3", "verify=OK", "cert_subject=/CN=client.test")
}

// TestServerTLSCertificates lets clients with a certificate relay, by tls_requirements too.
func TestServerTLSCertificates(t *testing.T) {
	t.Parallel()
	m := runTLS(t, "flags = { check_access_map_for_relaying };")
	// Nothing but the certificate allows relaying.
	writeFile(t, m.mta.dir+"/access", "certissuer:/CN=Test+20CA cont\ncertsubject:/CN=client.test relay\n")
	if out, err := m.command("ctl", "reload"); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	send := func(cert ...string) string {
		args := append([]string{"s_client", "-starttls", "smtp", "-connect", "localhost:" + port(t, m.smtp), "-CAfile", m.ca, "-ign_eof", "-quiet"}, cert...)
		out, err := typeInto(exec.Command("openssl", args...), []typed{
			{"EHLO client.test", "250-PIPELINING"}, {"MAIL FROM:<a@client.test>", "250 2.1.0"}, {"RCPT TO:<b@sink.test>", " 5.7.1 \n 2.1.5 "},
		})
		if err != nil {
			t.Errorf("openssl: %v\n%s", err, out)
		}
		return out
	}
	if out := send(); !strings.Contains(out, "550 5.7.1 Relaying denied") {
		t.Errorf("without a certificate:\n%s", out)
	}
	if out := send("-cert", m.file("client.pem"), "-key", m.file("client.key")); !strings.Contains(out, "250 2.1.5") {
		t.Errorf("with a certificate:\n%s", out)
	}
	m.logs("may relay", "certsubject:/CN=client.test")
}

// TestServerTLSScan has sslscan try all versions and ciphers that it knows.
func TestServerTLSScan(t *testing.T) {
	t.Parallel()
	m := runTLS(t, "")
	for name, args := range map[string][]string{
		"starttls": {"--starttls-smtp", "--xml=" + m.file("starttls.xml"), "localhost:" + port(t, m.smtp)},
		"implicit": {"--xml=" + m.file("implicit.xml"), "localhost:" + port(t, m.implicit)},
	} {
		if out, err := output(peerCommand(t, "sslscan", args...)); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		var scan struct {
			Test struct {
				Protocols []struct {
					Type    string `xml:"type,attr"`
					Version string `xml:"version,attr"`
					Enabled string `xml:"enabled,attr"`
				} `xml:"protocol"`
				Compression struct {
					Supported string `xml:"supported,attr"`
				} `xml:"compression"`
				Heartbleed []struct {
					Vulnerable string `xml:"vulnerable,attr"`
				} `xml:"heartbleed"`
				Ciphers []struct {
					Version  string `xml:"sslversion,attr"`
					Bits     int    `xml:"bits,attr"`
					Cipher   string `xml:"cipher,attr"`
					Strength string `xml:"strength,attr"`
				} `xml:"cipher"`
			} `xml:"ssltest"`
		}
		text, err := os.ReadFile(m.file(name + ".xml"))
		if err == nil {
			err = xml.Unmarshal(text, &scan)
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		on := map[string]bool{}
		for _, p := range scan.Test.Protocols {
			if p.Enabled == "1" {
				on[p.Type+p.Version] = true
			}
		}
		if len(on) != 2 || !on["tls1.2"] || !on["tls1.3"] {
			t.Errorf("%s: the versions are %v, want tls1.2 and tls1.3", name, on)
		}
		for _, h := range scan.Test.Heartbleed {
			if h.Vulnerable != "0" {
				t.Errorf("%s: heartbleed", name)
			}
		}
		if scan.Test.Compression.Supported == "1" || len(scan.Test.Ciphers) < 5 {
			t.Errorf("%s: compression %q, %d ciphers:\n%s", name, scan.Test.Compression.Supported, len(scan.Test.Ciphers), text)
		}
		for _, c := range scan.Test.Ciphers {
			forward := strings.HasPrefix(c.Cipher, "ECDHE-") || strings.HasPrefix(c.Cipher, "TLS_")
			if c.Bits < 128 || !forward || c.Strength == "weak" || c.Strength == "null" || c.Strength == "anonymous" {
				t.Errorf("%s: %s %s with %d bits is %s", name, c.Version, c.Cipher, c.Bits, c.Strength)
			}
		}
	}
}
