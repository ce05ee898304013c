package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"meta1/mta/msg"
)

func FuzzParseTokens(f *testing.F) {
	f.Add([]byte("# comment\n\n0123456789012345678901234\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		tokens, err := ParseTokens(content)
		if (err == nil) != (len(tokens) > 0) || len(tokens) > tokensMax {
			t.Fatalf("%d tokens, %v", len(tokens), err)
		}
		for line := range strings.Lines(string(content)) {
			word := strings.TrimSpace(line)
			if err != nil && len(word) >= tokenMin && strings.Contains(err.Error(), word) && !strings.Contains("a token has printable ASCII characters and no space; make one by: openssl rand -hex 24", word) {
				t.Fatalf("%v tells a token", err)
			}
			if err == nil && len(word) > 0 && word[0] != '#' && tokens.find(word) == 0 {
				t.Fatalf("%q is not found", word)
			}
		}
	})
}

func TestTokens(t *testing.T) {
	tokens, err := ParseTokens([]byte("# of the console\naaaaaaaaaaaaaaaaaaaa\n\n  bbbbbbbbbbbbbbbbbbbbb  \r\n"))
	if err != nil || tokens.find("aaaaaaaaaaaaaaaaaaaa") != 1 || tokens.find("bbbbbbbbbbbbbbbbbbbbb") != 2 {
		t.Fatal(tokens, err)
	}
	for _, wrong := range []string{"", "aaaaaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaa", "# of the console", "AAAAAAAAAAAAAAAAAAAA"} {
		if tokens.find(wrong) != 0 {
			t.Errorf("%q is a token", wrong)
		}
	}
	if Tokens(nil).find("") != 0 {
		t.Error("no token is one")
	}
	for _, bad := range []string{"", "# nothing\n", "short\n", "with a space inside of it\n", strings.Repeat("x", tokenMax+1), strings.Repeat("0123456789012345678901234\n", tokensMax+1)} {
		if tokens, err := ParseTokens([]byte(bad)); err == nil {
			t.Errorf("%.20q gives %d tokens", bad, len(tokens))
		}
	}
}

const changer, reader = "change-change-change-1", "read-read-read-read-1"

func network(t *testing.T, h HTTP) *Network {
	t.Helper()
	change, err := ParseTokens([]byte(changer))
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseTokens([]byte(reader))
	if err != nil {
		t.Fatal(err)
	}
	n := &Network{}
	n.Set(h, read, change, "mx.example.org")
	return n
}

// TestNetwork: tokens give levels, and requests that pages of others make give none.
func TestNetwork(t *testing.T) {
	n := network(t, HTTP{Hostnames: []string{"console.example.org"}})
	for _, c := range []struct {
		host, auth string
		header     string // name: value
		level      Level
		status     int
	}{
		{"127.0.0.1:9026", "Bearer " + changer, "", Change, 0},
		{"[::1]:9026", "bearer " + reader, "", Read, 0},
		{"localhost:9026", "Bearer " + reader, "", Read, 0},
		{"MX.example.org.", "Bearer " + reader, "", Read, 0},
		{"console.example.org:1", "Bearer " + reader, "Origin: http://console.example.org:1", Read, 0},
		{"console.example.org", "Bearer " + reader, "Sec-Fetch-Site: same-origin", Read, 0},
		{"127.0.0.1", "", "", None, 401},
		{"127.0.0.1", "Bearer wrong-wrong-wrong-wrong", "", None, 401},
		{"127.0.0.1", "Bearer", "", None, 401},
		{"127.0.0.1", "Basic " + changer, "", None, 401},
		{"evil.example", "Bearer " + changer, "", None, 403},                              // DNS rebinding
		{"", "Bearer " + changer, "", None, 403},                                          // no Host
		{"127.0.0.1.evil.example", "Bearer " + changer, "", None, 403},                    // a name, not an address
		{"127.0.0.1:9026", "Bearer " + changer, "Origin: http://evil.example", None, 403}, // CSRF
		{"127.0.0.1:9026", "Bearer " + changer, "Origin: http://127.0.0.1:80", None, 403}, // another port
		{"127.0.0.1:9026", "Bearer " + changer, "Origin: null", None, 403},                // a frame in a sandbox
		{"127.0.0.1:9026", "Bearer " + changer, "Sec-Fetch-Site: cross-site", None, 403},  // an image, a form
		{"127.0.0.1:9026", "Bearer " + changer, "Sec-Fetch-Site: same-site", None, 403},   // another port
	} {
		r := httptest.NewRequest(http.MethodPost, "/stop", nil)
		r.Host = c.host
		if c.auth != "" {
			r.Header.Set("Authorization", c.auth)
		}
		if name, value, ok := strings.Cut(c.header, ": "); ok {
			r.Header.Set(name, value)
		}
		who := n.Door(r)
		if who.Level != c.level || who.Status != c.status || (who.Refused == "") != (c.level != None) {
			t.Errorf("%+v: %+v", c, who)
		}
		if strings.Contains(who.Name+who.Refused, changer) || strings.Contains(who.Name+who.Refused, reader) || strings.Contains(who.Refused, "wrong-") {
			t.Errorf("%+v tells the token", who)
		}
	}
}

// TestCertificates: a fingerprint counts always, a name only if an authority has signed it.
func TestCertificates(t *testing.T) {
	cert := &x509.Certificate{Raw: []byte("certificate")}
	const print = "d9:58:12:c3:8b:ab:75:f2:16:a6:66:5d:68:5c:a2:81:4e:07:8e:ef:d8:5f:1b:6b:8e:d0:5d:82:f6:10:fd:d1"
	verify := msg.VerifyOK
	level := func(h HTTP) Level {
		n := network(t, h)
		n.Describe = func(*http.Request) *msg.TLS { return &msg.TLS{CN: "Admin", Verify: verify} }
		r := httptest.NewRequest(http.MethodGet, "/status", nil)
		r.Host, r.TLS = "localhost", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}}
		return n.Door(r).Level
	}
	if got := level(HTTP{ChangeCertificates: []string{"admin"}}); got != Change {
		t.Errorf("by name: %v", got)
	}
	if got := level(HTTP{ReadCertificates: []string{"admin"}}); got != Read {
		t.Errorf("by name: %v", got)
	}
	if got := level(HTTP{ChangeCertificates: []string{"other", ""}}); got != None {
		t.Errorf("by another name: %v", got)
	}
	verify = msg.VerifyFail
	if got := level(HTTP{ChangeCertificates: []string{"admin"}}); got != None {
		t.Errorf("by a name that nobody has signed: %v", got)
	}
	sum := fingerprintOf(cert)
	if got := level(HTTP{ReadCertificates: []string{strings.ToUpper(sum[:2]) + ":" + sum[2:]}}); got != Read {
		t.Errorf("by fingerprint: %v", got)
	}
	if got := level(HTTP{ReadCertificates: []string{print}}); got != None {
		t.Errorf("by another fingerprint: %v", got)
	}
}

// TestAccounts: root and the own account may change, others as configured.
func TestAccounts(t *testing.T) {
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(self.Gid)
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(self.Uid)
	gid, _ := strconv.Atoi(self.Gid)
	if uid == 0 {
		uid = 12345 // root always may
		self.Username, self.Uid = "12345", "12345"
	}
	other := uid + 1
	for _, c := range []struct {
		conf Config
		peer peer
		own  int
		want Level
	}{
		{Config{}, peer{uid: 0, gid: 0}, other, Change},
		{Config{}, peer{uid: uid, gid: gid}, uid, Change},
		{Config{}, peer{uid: uid, gid: gid}, other, None},
		{Config{Users: []string{"nobody-else", self.Username}}, peer{uid: uid, gid: gid}, other, Change},
		{Config{Users: []string{self.Uid}}, peer{uid: uid, gid: gid}, other, Change},
		{Config{ReadUsers: []string{self.Username}}, peer{uid: uid, gid: gid}, other, Read},
		{Config{Groups: []string{group.Name}}, peer{uid: uid, gid: gid}, other, Change},
		{Config{ReadGroups: []string{group.Name}}, peer{uid: uid, gid: gid}, other, Read},
		{Config{ReadGroups: []string{self.Gid}}, peer{uid: uid, gid: -1, groups: []int{gid}}, other, Read},
		{Config{ReadGroups: []string{"no-such-group"}}, peer{uid: uid, gid: gid}, other, None},
		{Config{Users: []string{"0"}}, peer{uid: uid, gid: gid}, other, None},
		{Config{Users: []string{self.Username}, ReadUsers: []string{self.Username}}, peer{uid: uid, gid: gid}, other, Change},
	} {
		who := c.conf.judge(c.peer, c.own)
		if who.Level != c.want || (who.Refused == "") != (c.want != None) {
			t.Errorf("%+v: %+v", c, who)
		}
	}
}

// TestPeer asks the kernel who is at the other end.
func TestPeer(t *testing.T) {
	if !KnowsPeers {
		t.Skip("this system does not tell")
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, err := peerOf(s.(*net.UnixConn))
	if err != nil || p.uid != os.Geteuid() {
		t.Errorf("%+v, %v", p, err)
	}
	r := httptest.NewRequest(http.MethodGet, "/status", nil)
	if who := (&Config{}).Local()(r.WithContext(WithConn(context.Background(), s))); who.Level != Change {
		t.Errorf("%+v", who)
	}
	if who := (&Config{}).Local()(r); who.Level != None || who.Refused == "" {
		t.Errorf("without a socket: %+v", who)
	}
}
