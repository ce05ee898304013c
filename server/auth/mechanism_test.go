package auth

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// The credentials of RFC 5802 section 5 and RFC 7677 section 3: user "user", password
// "pencil".
const (
	pencilSHA1   = "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE="
	pencilSHA256 = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)

func mustSecret(t testing.TB, value string) *Secret {
	t.Helper()
	s, err := ParseSecret(value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// play gives a mechanism the responses of a client, and checks its challenges. secret is
// what it gets for any account. It returns the last move.
func play(t *testing.T, s state, secret *Secret, responses, challenges []string) move {
	t.Helper()
	var m move
	for i, r := range responses {
		if m = s.respond([]byte(r)); m.kind == askSecret {
			m = m.then(secret)
		}
		if i < len(challenges) {
			if m.kind != sendChallenge || string(m.text) != challenges[i] {
				t.Fatalf("after response %d: move %d %q, want challenge %q", i, m.kind, m.text, challenges[i])
			}
		}
	}
	return m
}

func TestVectorsSCRAM(t *testing.T) {
	for _, tt := range []struct {
		name                  string
		state                 *scramState
		entry                 string
		first, server, client string
		last                  string
	}{
		{
			"RFC 5802", &scramState{hash: scram.SHA1, form: formSHA1, nonce: "3rfcNHYJY1ZVvWVs7j"}, pencilSHA1,
			"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
			"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096",
			"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
			"v=rmF9pqV8S7suAoZWja4dJRkFsKQ=",
		},
		{
			"RFC 7677", &scramState{hash: scram.SHA256, form: formSHA256, nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"}, pencilSHA256,
			"n,,n=user,r=rOprNGfwEbeRWgbNEkqO",
			"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
			"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
			"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			again := *tt.state
			secret := mustSecret(t, tt.entry)
			m := play(t, tt.state, secret, []string{tt.first, tt.client, ""}, []string{tt.server, tt.last})
			if m.kind != accept || m.name != "user" {
				t.Errorf("the exchange ends with %+v", m)
			}
			m = play(t, &again, secret, []string{tt.first, strings.Replace(tt.client, "p=", "p=A", 1)}, []string{tt.server})
			if m.kind != refuse {
				t.Errorf("a wrong proof gives %+v", m)
			}
			decoy := *secret
			decoy.decoy = true
			again = scramState{hash: tt.state.hash, form: tt.state.form, nonce: tt.state.nonce}
			if m = play(t, &again, &decoy, []string{tt.first, tt.client}, []string{tt.server}); m.kind != refuse {
				t.Errorf("the right proof for a decoy gives %+v", m)
			}
			if m = again.respond(nil); m.kind == accept {
				t.Error("a refused exchange goes on")
			}
		})
	}
}

// clientPlus is the client's side of SCRAM-SHA-256-PLUS.
func clientPlus(t *testing.T, cb scram.ChannelBinding) *scram.ClientConversation {
	t.Helper()
	c, err := scram.SHA256.NewClient("user", "pencil", "")
	if err != nil {
		t.Fatal(err)
	}
	return c.WithNonceGenerator(func() string { return "clientnonce" }).NewConversationWithChannelBinding(cb)
}

func TestChannelBinding(t *testing.T) {
	exporter := scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: bytes.Repeat([]byte{1}, 32)}
	endpoint := scram.ChannelBinding{Type: scram.ChannelBindingTLSServerEndpoint, Data: bytes.Repeat([]byte{2}, 32)}
	other := exporter
	other.Data = bytes.Repeat([]byte{3}, 32)
	ours := []scram.ChannelBinding{exporter, endpoint}
	for _, tt := range []struct {
		name string
		plus bool
		cb   scram.ChannelBinding
		want moveKind
	}{
		{"exporter", true, exporter, accept},
		{"end point", true, endpoint, accept},
		{"another connection", true, other, refuse},
		{"unknown type", true, scram.ChannelBinding{Type: scram.ChannelBindingTLSUnique, Data: []byte{1}}, malformed},
		{"binding without PLUS", false, exporter, malformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &scramState{hash: scram.SHA256, form: formSHA256, nonce: "n", plus: tt.plus, bindings: ours}
			client := clientPlus(t, tt.cb)
			text, m := "", move{}
			for range 3 {
				answer, err := client.Step(text)
				if err != nil {
					t.Fatal(err)
				}
				if m = s.respond([]byte(answer)); m.kind == askSecret {
					m = m.then(mustSecret(t, pencilSHA256))
				}
				if text = string(m.text); m.kind != sendChallenge {
					break
				}
			}
			if m.kind != tt.want {
				t.Errorf("ends with %+v, want %d", m, tt.want)
			}
		})
	}
	for _, tt := range []struct {
		first    string
		plus     bool
		bindings []scram.ChannelBinding
		want     moveKind
	}{
		{"y,,n=user,r=abc", false, ours, malformed}, // somebody has removed -PLUS from our list
		{"y,,n=user,r=abc", false, nil, askSecret},  // we had none
		{"n,,n=user,r=abc", false, ours, askSecret},
		{"n,,n=user,r=abc", true, ours, malformed},
		{"y,,n=user,r=abc", true, ours, malformed},
		{"p=tls-exporter,,n=user,r=abc", false, nil, malformed},
	} {
		s := &scramState{hash: scram.SHA256, form: formSHA256, nonce: "n", plus: tt.plus, bindings: tt.bindings}
		if m := s.respond([]byte(tt.first)); m.kind != tt.want {
			t.Errorf("%s (PLUS %v, %d types): %+v, want %d", tt.first, tt.plus, len(tt.bindings), m, tt.want)
		}
	}
}

func TestSCRAMMessages(t *testing.T) {
	for _, first := range []string{
		"", ",", "n,,", "n,,n=user", "n,,n=us=er,r=a", "n,a=b=,n=user,r=a", "x,,n=user,r=a", "n,,m=x,n=user,r=a", "p=,,n=user,r=a", "n,b,n=user,r=a",
	} {
		s := &scramState{hash: scram.SHA1, form: formSHA1, nonce: "n"}
		if m := s.respond([]byte(first)); m.kind != malformed {
			t.Errorf("%q: %+v", first, m)
		}
	}
	for _, final := range []string{"", "c=biws", "c=biws,r=an", "c=biws,r=xx,p=AAAA", "c=AAAA,r=an,p=AAAA", "c=biws,r=an,p=!", "c=biws,r=an,p=AAAA"} {
		s := &scramState{hash: scram.SHA1, form: formSHA1, nonce: "n"}
		m := play(t, s, mustSecret(t, pencilSHA1), []string{"n,,n=user,r=a", final}, nil)
		if m.kind != refuse {
			t.Errorf("%q: %+v", final, m)
		}
		if strings.ContainsAny(m.reason, "=!") {
			t.Errorf("%q: the reason %q has what was sent", final, m.reason)
		}
	}
	s := &scramState{hash: scram.SHA1, form: formSHA1, nonce: "n"}
	if m := s.respond(nil); m.kind != sendChallenge || len(m.text) != 0 {
		t.Errorf("no initial response: %+v", m)
	}
	if m := s.respond([]byte("n,a=bob,n=us=2Cer=3D,r=a")); m.kind != askSecret || m.name != "us,er=" || s.author != "bob" {
		t.Errorf("names: %+v", m)
	}
}

// TestVectorCRAM is the example of RFC 2195 section 2.
func TestVectorCRAM(t *testing.T) {
	secret := mustSecret(t, "{PLAIN}tanstaaftanstaaf")
	for response, want := range map[string]moveKind{
		"tim b913a602c7eda7a495b4e6e7334d3890":   accept,
		"tim b913a602c7eda7a495b4e6e7334d3891":   refuse,
		"tim b913a602c7eda7a495b4e6e7334d389":    malformed,
		"tim b913a602c7eda7a495b4e6e7334d389000": malformed,
		"tim xx13a602c7eda7a495b4e6e7334d3890":   malformed,
		"b913a602c7eda7a495b4e6e7334d3890":       malformed,
		" b913a602c7eda7a495b4e6e7334d3890":      malformed,
		"tim ":                                   malformed,
		"":                                       malformed,
	} {
		s := &cramState{challenge: []byte("<1896.697170952@postoffice.reston.mci.net>")}
		if m := s.respond(nil); m.kind != sendChallenge || string(m.text) != "<1896.697170952@postoffice.reston.mci.net>" {
			t.Fatalf("challenge %+v", m)
		}
		if m := play(t, s, secret, []string{response}, nil); m.kind != want || want == accept && m.name != "tim" {
			t.Errorf("%q: %+v, want %d", response, m, want)
		}
	}
}

func TestPlainAndLogin(t *testing.T) {
	for response, want := range map[string]move{
		"\x00tim\x00tanstaaftanstaaf":  {kind: askPassword, name: "tim", text: []byte("tanstaaftanstaaf")}, // RFC 4616
		"Ursel\x00Kurt\x00xipj3plmq":   {kind: askPassword, name: "Kurt", author: "Ursel", text: []byte("xipj3plmq")},
		"\x00tim":                      {kind: malformed},
		"tim":                          {kind: malformed},
		"\x00tim\x00":                  {kind: malformed},
		"\x00\x00secret":               {kind: malformed},
		"\x00tim\x00secret\x00":        {kind: malformed},
		"a\x00tim\x00secret\x00x\x00y": {kind: malformed},
		"":                             {kind: malformed},
	} {
		m := plainState{}.respond([]byte(response))
		if m.kind != want.kind || m.name != want.name || m.author != want.author || !bytes.Equal(m.text, want.text) {
			t.Errorf("%q: %+v, want %+v", response, m, want)
		}
	}
	s := &loginState{}
	if m := s.respond(nil); string(m.text) != "Username:" {
		t.Errorf("LOGIN: %+v", m)
	}
	if m := s.respond([]byte("tim")); string(m.text) != "Password:" {
		t.Errorf("LOGIN: %+v", m)
	}
	if m := s.respond([]byte("secret")); m.kind != askPassword || m.name != "tim" || string(m.text) != "secret" {
		t.Errorf("LOGIN: %+v", m)
	}
	if m := (&loginState{}).respond([]byte{}); m.kind != malformed {
		t.Errorf("LOGIN with an empty name: %+v", m)
	}
	if m := (&loginState{asked: true, name: []byte("tim")}).respond(nil); m.kind != malformed {
		t.Errorf("LOGIN with an empty password: %+v", m)
	}
}

func TestExternal(t *testing.T) {
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: "carol"}, EmailAddresses: []string{"carol@example.net", "c@example.net"}, DNSNames: []string{"host.example.net"},
	}
	ok, none := mustSecret(t, "{EXTERNAL}"), &Secret{decoy: true}
	for _, tt := range []struct {
		by, response string
		secret       *Secret
		kind         moveKind
		name         string
	}{
		{byCommonName, "", ok, accept, "carol"},
		{byCommonName, "carol", ok, accept, "carol"},
		{byCommonName, "bob", ok, refuse, "bob"},
		{byCommonName, "", none, refuse, "carol"},
		{byEmail, "", ok, accept, "carol@example.net"},
		{byEmail, "c@example.net", ok, accept, "c@example.net"},
		{byDNS, "", ok, accept, "host.example.net"},
	} {
		if m := play(t, newExternal(cert, tt.by), tt.secret, []string{tt.response}, nil); m.kind != tt.kind || m.name != tt.name {
			t.Errorf("%s %q: %+v", tt.by, tt.response, m)
		}
	}
	if m := newExternal(&x509.Certificate{}, byCommonName).respond([]byte("x")); m.kind != refuse {
		t.Errorf("a certificate without a name: %+v", m)
	}
	if m := newExternal(cert, byCommonName).respond(nil); m.kind != sendChallenge {
		t.Errorf("no initial response: %+v", m)
	}
}

// entries is the Lookup of a map.
func entries(m map[string]string) func(context.Context, string, string) (string, bool, error) {
	return func(_ context.Context, _, key string) (string, bool, error) {
		value, ok := m[key]
		return value, ok, nil
	}
}

func newAuth(t testing.TB, cfg Config, deps Deps) *Authenticator {
	t.Helper()
	if cfg.PasswordMap == "" && !cfg.Dovecot.set() && !cfg.Saslauthd.set() {
		cfg.PasswordMap = "users"
	}
	a, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestOffers(t *testing.T) {
	a := newAuth(t, Config{Flags: Flags{NoPlaintext: true}}, Deps{})
	if got := strings.Join(a.Mechanisms(&Channel{}), " "); got != "SCRAM-SHA-256" {
		t.Errorf("without TLS: %s", got)
	}
	for mechanism, want := range map[string]error{Plain: ErrNeedsTLS, SCRAMSHA256: nil, SCRAMSHA256Plus: ErrUnknown, CRAMMD5: ErrUnknown, "XYZ": ErrUnknown, XOAuth2: ErrUnknown} {
		if _, err := a.Begin(mechanism, Client{}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", mechanism, err, want)
		}
	}
	a = newAuth(t, Config{Mechanisms: []string{"login plain", "cram-md5"}}, Deps{})
	if got := strings.Join(a.Mechanisms(&Channel{}), " "); got != "CRAM-MD5 PLAIN LOGIN" {
		t.Errorf("in the order %s", got)
	}
}

// TestUnknownAccount: for one who does not exist everything is as for one who does, but
// for the end.
func TestUnknownAccount(t *testing.T) {
	a := newAuth(t, Config{Mechanisms: []string{SCRAMSHA256, Plain}}, Deps{Lookup: entries(map[string]string{"user": pencilSHA256})})
	challengeOf := func(name string) string {
		e, err := a.Begin(SCRAMSHA256, Client{})
		if err != nil {
			t.Fatal(err)
		}
		s := e.Next(t.Context(), []byte("n,,n="+name+",r=abc"))
		if s.Outcome != Continue {
			t.Fatalf("%s: %+v", name, s)
		}
		_, rest, _ := strings.Cut(string(s.Challenge), ",")
		return rest
	}
	real, one, other := challengeOf("user"), challengeOf("nobody"), challengeOf("other")
	if one != challengeOf("nobody") {
		t.Error("the salt of an account that does not exist changes")
	}
	if one == other || one == real || len(one) != len(real) && !strings.HasSuffix(one, ",i=4096") {
		t.Errorf("challenges %s, %s and %s", real, one, other)
	}
	salt, _, _ := strings.Cut(strings.TrimPrefix(one, "s="), ",")
	if raw, err := base64.StdEncoding.DecodeString(salt); err != nil || len(raw) != saltSize {
		t.Errorf("salt %q", salt)
	}
	if !strings.HasSuffix(one, ",i=4096") {
		t.Errorf("%s does not look like %s", one, real)
	}
}
