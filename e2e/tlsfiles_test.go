package e2e

import (
	"crypto/tls"
	"fmt"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta1/mta/tlsconf/tlstest"
)

// opensslCA is a CA that openssl(1) keeps in a folder, as somebody would by hand.
type opensslCA struct {
	t   *testing.T
	dir string
}

func newOpenSSLCA(t *testing.T) *opensslCA {
	t.Helper()
	c := &opensslCA{t, testDir(t)}
	writeFile(t, c.dir+"/ca.cnf", `[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
certificate = ca.pem
private_key = ca.key
serial = serial
crlnumber = crlnumber
default_md = sha256
default_days = 30
default_crl_days = 30
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
organizationName = optional
`)
	writeFile(t, c.dir+"/index.txt", "")
	writeFile(t, c.dir+"/serial", "1000\n")
	writeFile(t, c.dir+"/crlnumber", "01\n")
	c.run("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "60", "-subj", "/O=Test Org/CN=Test CA")
	return c
}

// run runs openssl in the folder.
func (c *opensslCA) run(args ...string) string {
	c.t.Helper()
	cmd := peerCommand(c.t, "openssl", args...)
	cmd.Dir = c.dir
	out, err := output(cmd)
	if err != nil {
		c.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// issue makes NAME.pem for an existing NAME.key.
func (c *opensslCA) issue(name, subject, host string) {
	c.t.Helper()
	c.run("req", "-new", "-key", name+".key", "-subj", subject, "-addext", "subjectAltName=DNS:"+host, "-out", name+".csr")
	c.run("ca", "-batch", "-notext", "-config", "ca.cnf", "-in", name+".csr", "-out", name+".pem")
}

// crl writes crl.pem.
func (c *opensslCA) crl() { c.run("ca", "-gencrl", "-config", "ca.cnf", "-out", "crl.pem") }

// TestTLSFiles: keys, certificates and CRLs as openssl writes them. A renewed certificate and a
// certificate that is revoked take effect with a reload. Started as root, meta1 gets the keys, which only
// root may read, without keeping root's rights.
func TestTLSFiles(t *testing.T) {
	c := newOpenSSLCA(t)
	c.run("genrsa", "-traditional", "-out", "rsa.key", "2048")
	c.run("ecparam", "-genkey", "-name", "prime256v1", "-out", "ec.key") // with EC PARAMETERS before the key
	c.run("genpkey", "-algorithm", "ed25519", "-out", "sni.key")
	c.run("genrsa", "-out", "client.key", "2048")
	c.issue("rsa", "/CN=rsa", "mta.test")
	c.issue("ec", "/CN=ec", "mta.test")
	c.issue("sni", "/CN=sni", "other.test")
	c.issue("client", "/O=Client, Ltd/CN=client (1)", "client.test")
	c.crl()
	for _, key := range []string{"rsa.key", "ec.key", "sni.key"} {
		if err := os.Chmod(filepath.Join(c.dir, key), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(c.dir+"/cas", 0o755); err != nil {
		t.Fatal(err)
	}
	c.run("x509", "-in", "ca.pem", "-out", "cas/ca.crt") // no name by its hash
	at := func(name string) string { return `"` + filepath.Join(c.dir, name) + `"` }
	m := run(t, settings{smtps: fmt.Sprintf(`tls {
		cert_file = %s; key_file = %s; EC_cert_file = %s; EC_key_file = %s;
		certificate { cert_file = %s; key_file = %s; }
		CAcert_directory = %s; CRL_file = %s; Digest = sha256; CipherList = "ECDHE+AESGCM:!AES128";
		flags = { use_chain }; }`, at("rsa.pem"), at("rsa.key"), at("ec.pem"), at("ec.key"), at("sni.pem"), at("sni.key"), at("cas"), at("crl.pem"))})
	for _, tt := range []struct{ args, cn, cipher string }{
		{"-tls1_3", "ec", ""},
		{"-tls1_2", "ec", "ECDHE-ECDSA-AES256-GCM-SHA384"},
		{"-tls1_2 -cipher aRSA", "rsa", "ECDHE-RSA-AES256-GCM-SHA384"},
		{"-servername other.test", "sni", ""},
		{"-servername other.test -sigalgs rsa_pss_rsae_sha256", "rsa", ""},
		{"-servername nobody.test", "ec", ""},
		{"-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256", "", ""},
		{"-tls1_1 -cipher ALL@SECLEVEL=0", "", ""},
	} {
		cmd := peerCommand(t, "openssl", append([]string{"s_client", "-starttls", "smtp", "-connect", m.smtp, "-CAfile", "ca.pem", "-verify_return_error", "-brief"}, strings.Fields(tt.args)...)...)
		cmd.Dir, cmd.Stdin = c.dir, strings.NewReader("QUIT\r\n")
		out, err := output(cmd)
		switch {
		case tt.cn == "" && err == nil:
			t.Errorf("%s: a handshake went well:\n%s", tt.args, out)
		case tt.cn != "" && (err != nil || !strings.Contains(out, "Verification: OK") || !strings.Contains(out, "Peer certificate: CN = "+tt.cn) || !strings.Contains(out, tt.cipher)):
			t.Errorf("%s: %v\n%s", tt.args, err, out)
		}
	}
	client, err := tls.LoadX509KeyPair(c.dir+"/client.pem", c.dir+"/client.key")
	if err != nil {
		t.Fatal(err)
	}
	visit := func(want string) {
		t.Helper()
		s, err := smtp.Dial(m.smtp)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.StartTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{client}}); err != nil {
			t.Fatal(err)
		}
		if err := s.Quit(); err != nil {
			t.Fatal(err)
		}
		must(t, func() error {
			log, err := os.ReadFile(m.log)
			if err == nil && !strings.Contains(string(log), want) {
				err = fmt.Errorf("the log does not have %q", want)
			}
			return err
		})
	}
	fingerprint := strings.TrimSpace(strings.TrimPrefix(c.run("x509", "-in", "client.pem", "-noout", "-fingerprint", "-sha256"), "sha256 Fingerprint="))
	visit("verify=OK, cert_fp=" + fingerprint + ", cert_subject=/CN=client (1)/O=Client%2C Ltd, cert_issuer=/O=Test Org/CN=Test CA")
	if strings.Contains(tail(m.log, 1000), "verify=FAIL") {
		t.Error("a certificate was not verified")
	}
	c.run("ca", "-config", "ca.cnf", "-revoke", "client.pem")
	c.crl()
	c.run("genrsa", "-out", "new.key", "2048")
	c.issue("new", "/CN=new", "mta.test")
	for _, ext := range []string{".pem", ".key"} {
		if err := os.Rename(c.dir+"/new"+ext, c.dir+"/ec"+ext); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := m.command("ctl", "reload"); err == nil || !strings.Contains(out, "EC_cert_file") { // it has an RSA key now
		t.Errorf("%v: %s", err, out)
	}
	visit("verify=OK")
	c.run("ecparam", "-genkey", "-name", "secp384r1", "-out", "ec.key")
	c.issue("ec", "/CN=renewed", "mta.test")
	if out, err := m.command("ctl", "reload"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	visit("verify=FAIL, reason=the certificate: it was revoked at ")
	if got := presented(t, m.smtp); got != "renewed" {
		t.Errorf("%s is presented", got)
	}
	if out, err := m.command("config", "check"); err != nil || strings.Contains(out, "smtps/tls") {
		t.Errorf("%v: %s", err, out)
	}
}

// presented is the common name of a server's certificate.
func presented(t *testing.T, addr string) string {
	t.Helper()
	s, err := smtp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	state, _ := s.TLSConnectionState()
	return state.PeerCertificates[0].Subject.CommonName
}

// tlsOptions is a section tls with a certificate for mta.test, whose files are in dir.
func tlsOptions(t *testing.T, dir string) string {
	t.Helper()
	ca := tlstest.Root(t, "Root")
	cert, key := ca.Issue(t, tlstest.Spec{CN: "mta.test", Names: []string{"mta.test"}}).Write(t, dir, "mta")
	tlstest.WriteFile(t, dir+"/ca.pem", ca.PEM(), 0o644)
	tlstest.WriteFile(t, dir+"/crl.pem", ca.CRL(t, ca.NotAfter), 0o644)
	return fmt.Sprintf(`tls { cert_file = "%s"; key_file = "%s"; CAcert_file = "%s/ca.pem"; CRL_file = "%s/crl.pem"; }`, cert, key, dir, dir)
}
