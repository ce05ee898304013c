package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/mta/tlsconf/tlstest"
)

// read reads the text of a section tls of a configuration in dir.
func read(t *testing.T, role Role, dir, text string) Section {
	t.Helper()
	var s Section
	root := &confparse.Table{Options: []confparse.Option{{
		Name: "tls", Kind: confparse.KindSection, Readme: "3.10", Doc: "section under test", Sub: s.Options(role),
	}}}
	file := filepath.Join(dir, "meta1.conf")
	if _, err := confparse.Load(confparse.LoadOptions{FS: confparse.Files{file: "tls { " + text + " }"}}, file, root); err != nil {
		t.Fatal(err)
	}
	return s
}

// provider makes a Provider of the text of a section.
func provider(t *testing.T, role Role, dir, text string) *Provider {
	t.Helper()
	p, err := New(read(t, role, dir, text), Deps{Role: role, Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// result is what both sides know after a handshake.
type result struct {
	server, client tls.ConnectionState
	err            error // the client's
}

// handshake joins a server and a client over a socket, and exchanges a byte, so that tickets
// arrive.
func handshake(t *testing.T, server, client *tls.Config) result {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan tls.ConnectionState, 1)
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		s := tls.Server(c, server)
		if s.Handshake() == nil {
			_, _ = s.Write([]byte("x"))
			done <- s.ConnectionState()
		}
		_, _ = s.Read(make([]byte, 1)) // until the client ends
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(raw, client)
	r := result{}
	if r.err = c.Handshake(); r.err == nil {
		_, r.err = c.Read(make([]byte, 1))
		r.client = c.ConnectionState()
	}
	_ = c.Close()
	r.server = <-done
	return r
}

// must is a handshake that must go well.
func must(t *testing.T, server, client *tls.Config) result {
	t.Helper()
	r := handshake(t, server, client)
	if r.err != nil {
		t.Fatal(r.err)
	}
	return r
}

func insecure(name string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, ServerName: name}
}

// TestCertificates: RSA and EC side by side, and several by name.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.Root(t, "Root")
	between := ca.Issue(t, tlstest.Spec{CN: "Between", CA: true})
	between.Issue(t, tlstest.Spec{CN: "rsa", Names: []string{"mx.example.org"}, RSA: true}).Write(t, dir, "rsa")
	between.Issue(t, tlstest.Spec{CN: "ec", Names: []string{"mx.example.org"}}).Write(t, dir, "ec")
	between.Issue(t, tlstest.Spec{CN: "other", Names: []string{"other.example.net", "*.wild.example"}}).Write(t, dir, "other")
	between.Issue(t, tlstest.Spec{CN: "other-rsa", Names: []string{"other.example.net"}, RSA: true}).Write(t, dir, "other-rsa")
	between.Issue(t, tlstest.Spec{CN: "old"}).Write(t, dir, "old")
	p := provider(t, Server, dir, `cert_file = rsa.pem; key_file = rsa.key; EC_cert_file = ec.pem; EC_key_file = ec.key; flags = { use_chain };
		certificate { cert_file = other.pem; key_file = other.key; } certificate { cert_file = other-rsa.pem; key_file = other-rsa.key; }
		certificate { cert_file = old.pem; key_file = old.key; }`)
	onlyRSA := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	for _, tt := range []struct {
		name string
		rsa  bool
		want string
	}{
		{"mx.example.org", false, "ec"},
		{"mx.example.org", true, "rsa"},
		{"", false, "ec"},
		{"", true, "rsa"},
		{"unheard.example", false, "ec"},
		{"unheard.example", true, "rsa"},
		{"other.example.net", false, "other"},
		{"OTHER.example.net", true, "other-rsa"},
		{"a.wild.example", false, "other"},
		{"a.wild.example", true, "rsa"}, // the wildcard has no RSA key
		{"a.b.wild.example", false, "ec"},
		{"old", false, "old"}, // by its common name
	} {
		c := insecure(tt.name)
		if tt.rsa {
			c.CipherSuites, c.MaxVersion = onlyRSA, tls.VersionTLS12
		}
		r := must(t, p.ServerConfig(), c)
		if got := r.client.PeerCertificates; got[0].Subject.CommonName != tt.want || len(got) != 2 || got[1].Subject.CommonName != "Between" {
			t.Errorf("%+v: got %v", tt, got[0].Subject)
		}
	}
	list := p.Certificates()
	if len(list) != 5 || list[0].File != dir+"/rsa.pem" || time.Until(list[0].Expires) < 80*24*time.Hour {
		t.Errorf("certificates %v", list)
	}
}

// TestChain: without use_chain the first certificate is sent, and what the CAs have towards
// the root.
func TestChain(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.Root(t, "Root")
	between := ca.Issue(t, tlstest.Spec{CN: "Between", CA: true})
	deep := between.Issue(t, tlstest.Spec{CN: "Deep", CA: true})
	deep.Issue(t, tlstest.Spec{CN: "host"}).Write(t, dir, "host")
	tlstest.WriteFile(t, dir+"/ca.pem", slices.Concat(ca.PEM(), between.PEM(), deep.PEM()), 0o644)
	for text, want := range map[string]int{
		"cert_file = host.pem; key_file = host.key;":                          1,
		"cert_file = host.pem; key_file = host.key; CAcert_file = ca.pem;":    3,
		"cert_file = host.pem; key_file = host.key; flags = { use_chain };":   3,
		"EC_cert_file = host.pem; EC_key_file = host.key; flags={use_chain};": 3,
	} {
		r := must(t, provider(t, Server, dir, text).ServerConfig(), insecure(""))
		if got := len(r.client.PeerCertificates); got != want {
			t.Errorf("%s: %d certificates, want %d", text, got, want)
		}
	}
}

// TestVersions: what the options leave is what is negotiated.
func TestVersions(t *testing.T) {
	dir := t.TempDir()
	tlstest.Root(t, "Root").Issue(t, tlstest.Spec{CN: "host", RSA: true}).Write(t, dir, "host")
	old := insecure("")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	old.CipherSuites = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA}
	at12 := insecure("")
	at12.MaxVersion = tls.VersionTLS12
	for _, tt := range []struct {
		options string
		client  *tls.Config
		version string
		cipher  string
		bits    int
	}{
		{"", insecure(""), "TLSv1.3", "TLS_AES_128_GCM_SHA256", 128},
		{"options = { no_TLSv1_3 };", insecure(""), "TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", 128},
		{"options = { no_TLSv1_2 };", at12, "", "", 0},
		{"", old, "", "", 0},
		{"options = { -no_TLSv1_1 };", old, "TLSv1.1", "ECDHE-RSA-AES128-SHA", 128},
		{`CipherList = "ECDHE+AES256+AESGCM"; options = { no_TLSv1_3 };`, insecure(""), "TLSv1.2", "ECDHE-RSA-AES256-GCM-SHA384", 256},
		{`CipherList = "kRSA+AES256+SHA1:!ECDHE"; options = { no_TLSv1_3 };`, &tls.Config{InsecureSkipVerify: true, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_256_CBC_SHA}}, "TLSv1.2", "AES256-SHA", 256},
		{"EC_curve = prime256v1;", &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}}, "", "", 0},
	} {
		p := provider(t, Server, dir, "cert_file = host.pem; key_file = host.key; "+tt.options)
		r := handshake(t, p.ServerConfig(), tt.client)
		if r.err != nil {
			if tt.version != "" {
				t.Errorf("%s: %v", tt.options, r.err)
			}
			continue
		}
		if i := p.Describe(&r.server); i.Version != tt.version || i.Cipher != tt.cipher || i.Bits != tt.bits || i.Verify != msg.VerifyNo {
			t.Errorf("%s: %+v", tt.options, i)
		}
	}
}

// TestClientCertificate: the words of README 10.5.
func TestClientCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, other := tlstest.Root(t, "Root"), tlstest.Root(t, "Other")
	ca.Issue(t, tlstest.Spec{CN: "host"}).Write(t, dir, "host")
	ca.Issue(t, tlstest.Spec{CN: "client", Names: []string{"Client.example.org"}}).Write(t, dir, "client")
	ca.Issue(t, tlstest.Spec{CN: "server only", Usage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}).Write(t, dir, "server")
	ca.Issue(t, tlstest.Spec{CN: "expired", To: time.Now().Add(-time.Minute)}).Write(t, dir, "expired")
	other.Issue(t, tlstest.Spec{CN: "foreign"}).Write(t, dir, "foreign")
	tlstest.WriteFile(t, dir+"/ca.pem", ca.PEM(), 0o644)
	const own = "cert_file = host.pem; key_file = host.key; CAcert_file = ca.pem; "
	const list = own + `CAlist_file = ""; `
	for _, tt := range []struct {
		server, client string
		verify         string
		reason         string
	}{
		{own, "client", msg.VerifyOK, ""},
		{own, "", msg.VerifyNo, ""},
		{own + "flags = { dont_request_cert };", "client", msg.VerifyNot, ""},
		{own, "foreign", msg.VerifyNo, ""}, // its CA is not on the list, so that the client keeps it
		{list, "foreign", msg.VerifyFail, "no trusted CA has signed"},
		{list, "server", msg.VerifyFail, "not for this use"},
		{list, "expired", msg.VerifyFail, "has expired"},
		{list + "verify_depth = 0;", "client", msg.VerifyOK, ""},
		{`cert_file = host.pem; key_file = host.key;`, "client", msg.VerifyFail, "no CA is trusted"},
	} {
		p := provider(t, Server, dir, tt.server)
		client := ""
		if tt.client != "" {
			client = "cert_file = " + tt.client + ".pem; key_file = " + tt.client + ".key;"
		}
		r := must(t, p.ServerConfig(), provider(t, Client, dir, client).ClientConfig(Peer{ServerName: "host"}))
		i := p.Describe(&r.server)
		if i.Verify != tt.verify || !strings.Contains(i.Reason, tt.reason) || i.ServerName != "host" {
			t.Errorf("%s: client %s: %+v", tt.server, tt.client, i)
		}
		if tt.client == "client" && tt.verify == msg.VerifyOK && (i.Subject != "/CN=client" || i.Issuer != "/CN=Root" || i.CN != "client" ||
			i.IssuerCN != "Root" || !slices.Equal(i.Names, []string{"client.example.org"}) || !slices.Equal(i.RootCNs, []string{"Root"}) ||
			len(i.Fingerprint) != 59) {
			t.Errorf("%+v", i)
		}
	}
}

// TestServerCertificate: a client sees what a server's certificate is worth, and goes on.
func TestServerCertificate(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.Root(t, "Root")
	between := ca.Issue(t, tlstest.Spec{CN: "Between", CA: true})
	between.Issue(t, tlstest.Spec{CN: "host", Names: []string{"host.example"}}).Write(t, dir, "host")
	if err := os.MkdirAll(dir+"/cas", 0o755); err != nil {
		t.Fatal(err)
	}
	tlstest.WriteFile(t, dir+"/cas/any name", ca.PEM(), 0o644)
	tlstest.WriteFile(t, dir+"/cas/README", []byte("no certificate"), 0o644)
	server := provider(t, Server, dir, "cert_file = host.pem; key_file = host.key; flags = { use_chain };")
	for text, want := range map[string]string{
		"": msg.VerifyFail, "CAcert_directory = cas;": msg.VerifyOK, "CAcert_directory = cas; verify_depth = 0;": msg.VerifyFail,
		"CAcert_directory = cas; verify_depth = 1;": msg.VerifyOK,
	} {
		p := provider(t, Client, dir, text)
		r := must(t, server.ServerConfig(), p.ClientConfig(Peer{}))
		if i := p.Describe(&r.client); i.Verify != want || i.Resumed {
			t.Errorf("%s: %+v", text, i)
		}
	}
}

// TestResumption: tickets live as long as they should, over a reload, and clients keep
// sessions for each key.
func TestResumption(t *testing.T) {
	dir := t.TempDir()
	tlstest.Root(t, "Root").Issue(t, tlstest.Spec{CN: "host"}).Write(t, dir, "host")
	now := time.Now()
	clock := func() time.Time { return now }
	deps := func(r Role) Deps { return Deps{Role: r, Now: clock} }
	for _, version := range []string{"", "options = { no_TLSv1_3 };"} {
		server, err := New(read(t, Server, dir, "cert_file = host.pem; key_file = host.key; cache_timeout = 20m;"+version), deps(Server))
		if err != nil {
			t.Fatal(err)
		}
		client, err := New(read(t, Client, dir, "cache_timeout = 100m; cache_size = 2;"), deps(Client))
		if err != nil {
			t.Fatal(err)
		}
		resumes := func(key string) bool {
			t.Helper()
			r := must(t, server.ServerConfig(), client.ClientConfig(Peer{SessionKey: key}))
			i := client.Describe(&r.client)
			if i.Resumed != server.Describe(&r.server).Resumed || i.CN != "host" {
				t.Errorf("%+v", i)
			}
			return i.Resumed
		}
		check := func(key string, want bool, what string) {
			t.Helper()
			if resumes(key) != want {
				t.Errorf("%s%s: resumed is not %v", version, what, want)
			}
		}
		check("a", false, "first")
		check("a", true, "second")
		check("b", false, "another key")
		if err := server.Reload(); err != nil {
			t.Fatal(err)
		}
		check("a", true, "after a reload")
		now = now.Add(19 * time.Minute)
		check("a", true, "in time")
		now = now.Add(31 * time.Minute)
		check("a", false, "too late for the server")
		now = now.Add(-time.Hour)
		check("b", false, "the clock was set back") // the key for tickets is made anew
		now = now.Add(time.Hour)
		check("", false, "without a key")
		check("", false, "without a key")
		check("c", false, "a third one")
		check("d", false, "a fourth one")
		check("e", false, "a fifth one")
		check("d", true, "the fourth one again")
		check("c", false, "it had to go")
		for _, off := range []string{"cache_size = 0;", "options = { no_ticket };"} {
			if err := client.Reconfigure(read(t, Client, dir, off)); err != nil {
				t.Fatal(err)
			}
			check("d", false, off)
			check("d", false, off)
		}
		if err := client.Reconfigure(read(t, Client, dir, "")); err != nil {
			t.Fatal(err)
		}
		if err := server.Reconfigure(read(t, Server, dir, "cert_file = host.pem; key_file = host.key; cache_size = 0;"+version)); err != nil {
			t.Fatal(err)
		}
		check("f", false, "no tickets")
		check("f", false, "no tickets")
	}
}

// TestRenewal: a renewed certificate is used by the next handshake, a broken one is not.
func TestRenewal(t *testing.T) {
	dir := t.TempDir()
	ca := tlstest.Root(t, "Root")
	first := ca.Issue(t, tlstest.Spec{CN: "first"})
	first.Write(t, dir, "host")
	p := provider(t, Server, dir, "cert_file = host.pem; key_file = host.key;")
	serves := func(want string) {
		t.Helper()
		if r := must(t, p.ServerConfig(), insecure("")); r.client.PeerCertificates[0].Subject.CommonName != want {
			t.Errorf("serves %s, not %s", r.client.PeerCertificates[0].Subject, want)
		}
	}
	serves("first")
	second := ca.Issue(t, tlstest.Spec{CN: "second"})
	tlstest.WriteFile(t, dir+"/host.pem", second.Chain(), 0o644)
	if err := p.Reload(); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("a key of another certificate: %v", err)
	}
	serves("first")
	tlstest.WriteFile(t, dir+"/host.key", second.KeyPEM(t), 0o600)
	if err := p.Reload(); err != nil {
		t.Error(err)
	}
	serves("second")
	if err := os.Remove(dir + "/host.key"); err != nil {
		t.Fatal(err)
	}
	if err := p.Reload(); !errors.Is(err, nil) && !strings.Contains(err.Error(), "host.key") || err == nil {
		t.Errorf("a missing key: %v", err)
	}
	serves("second")
	if p.Section().Own.Cert != dir+"/host.pem" {
		t.Errorf("%+v", p.Section())
	}
}

// TestNoCertificate: without a certificate there is nothing to serve with.
func TestNoCertificate(t *testing.T) {
	if c := provider(t, Server, t.TempDir(), "").ServerConfig(); c != nil {
		t.Errorf("%+v", c)
	}
}
