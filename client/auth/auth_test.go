package auth

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"meta1/mta/sasl"
	"meta1/mta/smtp"
)

func TestParseEntry(t *testing.T) {
	for _, tt := range []struct {
		value, tokenFile string
		want             Login
		fault            error
	}{
		{"jane:secret", "", Login{Account: "jane", Password: "secret"}, nil},
		{"jane@example.org:a:b c", "", Login{Account: "jane@example.org", Password: "a:b c"}, nil},
		{"jane", "/run/token", Login{Account: "jane", TokenFile: "/run/token", Configured: true}, nil},
		{"jane:{TOKEN_FILE}/run/../run/t", "/run/token", Login{Account: "jane", TokenFile: "/run/t"}, nil},
		{"-", "", Login{}, nil},
		{"jane", "", Login{}, errNoColon},
		{"jane:", "", Login{}, errPassword},
		{":secret", "", Login{}, errAccount},
		{"ja\x00ne:secret", "", Login{}, errAccount},
		{"jane:sec\x00ret", "", Login{}, errPassword},
		{"jane:" + strings.Repeat("x", secretMax+1), "", Login{}, errPassword},
		{"jane:{TOKEN_FILE}token", "", Login{}, errRelative},
		{"jane:{TOKEN_FILE}", "", Login{}, errRelative},
	} {
		got, err := ParseEntry(tt.value, tt.tokenFile)
		if got != tt.want || err != tt.fault {
			t.Errorf("%q: %+v %v, want fault %v", tt.value, got, err, tt.fault)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error quotes it: %v", tt.value, err)
		}
	}
}

// TestSecret: nothing that prints a login shows its password.
func TestSecret(t *testing.T) {
	l := Login{Account: "jane", Password: "open sesame"}
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "login", l, "password", l.Password)
	js, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprint(l), fmt.Sprintf("%+v %#v %v %s %q %x", l, l, &l, l.Password, l.Password, l.Password), log.String(), string(js),
	} {
		if strings.Contains(text, "sesame") || strings.Contains(text, fmt.Sprintf("%x", "sesame")) || !strings.Contains(text, "secret") {
			t.Error(text)
		}
	}
}

func TestScrub(t *testing.T) {
	sent := []string{"hunter2", "AGphbmUAb3BlbiBzZXNhbWU=", ""}
	for text, hidden := range map[string]bool{
		"Authentication failed":                  false,
		"cannot decode AGphbmUAb3BlbiBzZXNhbWU=": true,
		"cannot decode ...mUAb3BlbiBz...":        true,
		"password hunter2 is wrong":              true,
		"password hunter is wrong":               false,
		"":                                       false,
	} {
		if got := Scrub(text, sent); (got == scrubbed) != hidden || !hidden && got != text {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestParseToken(t *testing.T) {
	for content, want := range map[string]string{
		"ya29.abc-_~+/=\n": "ya29.abc-_~+/=",
		"  {\"access_token\": \"abc\", \"expiry\": \"1\"}\n": "abc",
		"":                              "",
		"{\"refresh_token\": \"abc\"}":  "",
		"{abc":                          "",
		"a b":                           "",
		"a\x01b":                        "",
		strings.Repeat("x", TokenMax+1): "",
	} {
		got, err := ParseToken([]byte(content))
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%.30q: %q, %v", content, string(got), err)
		}
		if err != nil && strings.Contains(err.Error(), "abc") {
			t.Errorf("the error quotes the file: %v", err)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, tt := range []struct{ name, addr, port, dest, want string }{
		{"Mail.ISP.example.", "192.0.2.1", "587", "esmtp:mail.isp.example:587", "mail.isp.example:587 mail.isp.example [192.0.2.1]:587 [192.0.2.1]"},
		{"", "192.0.2.1", "25", "esmtp:[192.0.2.1]:25", "[192.0.2.1]:25 [192.0.2.1]"},
		{"mx1.isp.example", "2001:db8::1", "25", "mx:isp.example", "mx1.isp.example:25 mx1.isp.example [2001:db8::1]:25 [2001:db8::1] isp.example"},
		{"mx1.isp.example", "192.0.2.1", "587", "mx:ISP.example:587/ipv4", "mx1.isp.example:587 mx1.isp.example [192.0.2.1]:587 [192.0.2.1] isp.example:587 isp.example"},
		{"", "192.0.2.1", "", "mx:isp.example/tls-optional", "[192.0.2.1] isp.example"},
		{"", "192.0.2.1", "", "mx:isp.example:587/IPv4/tls-optional", "[192.0.2.1] isp.example:587 isp.example"},
	} {
		if got := strings.Join(Keys(tt.name, tt.addr, tt.port, tt.dest), " "); got != tt.want {
			t.Errorf("%s %s: %s", tt.name, tt.dest, got)
		}
	}
	if got := SenderKeys("Jane", "Example.ORG."); !slices.Equal(got, []string{"Jane@example.org", "@example.org"}) {
		t.Error(got)
	}
	if got := SenderKeys("", ""); got != nil {
		t.Error(got)
	}
}

func TestChoose(t *testing.T) {
	all := []string{"LOGIN", "PLAIN", "XOAUTH2", "OAUTHBEARER", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "GSSAPI"}
	password, token := Login{Account: "a", Password: "p"}, Login{Account: "a", TokenFile: "/t"}
	bound := &Channel{Bindings: []scram.ChannelBinding{{Type: scram.ChannelBindingTLSExporter, Data: []byte("x")}}}
	for _, tt := range []struct {
		option  string
		login   Login
		channel *Channel
		offered []string
		want    string
	}{
		{"", password, bound, all, "SCRAM-SHA-256-PLUS SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN"},
		{"", password, &Channel{}, all, "SCRAM-SHA-256 SCRAM-SHA-1 CRAM-MD5 PLAIN LOGIN"},
		{"", token, bound, all, "OAUTHBEARER XOAUTH2"},
		{"login plain", password, bound, all, "LOGIN PLAIN"},
		{"!CRAM-MD5 !LOGIN", password, &Channel{}, all, "SCRAM-SHA-256 SCRAM-SHA-1 PLAIN"},
		{"PLAIN !PLAIN LOGIN", password, &Channel{}, all, "LOGIN"},
		{"XOAUTH2", password, bound, all, ""},
		{"", password, bound, []string{"GSSAPI"}, ""},
		{"GSSAPI", password, bound, all, ""},
	} {
		c := Config{Mechanisms: []string{tt.option}}
		if got := strings.Join(c.Choose(tt.login, tt.offered, tt.channel), " "); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.option, got, tt.want)
		}
	}
}

// talk lets an exchange answer challenges.
func talk(t *testing.T, mechanism string, ch *Channel, challenges ...string) (responses []string, e Exchange, err error) {
	t.Helper()
	e, err = New(mechanism, "jane", "open sesame", ch)
	if err != nil {
		return nil, e, err
	}
	initial, err := e.Initial()
	if err != nil {
		return nil, e, err
	}
	responses = append(responses, string(initial))
	for _, c := range challenges {
		r, err := e.Next([]byte(c))
		if err != nil {
			return responses, e, err
		}
		responses = append(responses, string(r))
	}
	return responses, e, e.Done()
}

// TestMechanisms: what is sent is what the documents of the mechanisms say.
func TestMechanisms(t *testing.T) {
	for _, tt := range []struct {
		mechanism  string
		challenges []string
		want       []string
		fault      string
	}{
		{sasl.Plain, nil, []string{"\x00jane\x00open sesame"}, ""},
		{sasl.Plain, []string{"more"}, []string{"\x00jane\x00open sesame"}, "asks for more"},
		{sasl.Login, []string{"Username:", "Password:"}, []string{"", "jane", "open sesame"}, ""},
		{sasl.Login, []string{"User:"}, []string{"", "jane"}, "before it had the password"},
		{sasl.Login, []string{"a", "b", "c"}, []string{"", "jane", "open sesame"}, "asks for more"},
		{sasl.CRAMMD5, []string{"<1.2@host>"}, []string{"", "jane 6f0d0f67e2a3e7e7ae1e42e7b94c1b2c"}, ""},
		{sasl.CRAMMD5, []string{""}, []string{""}, "empty"},
		{sasl.CRAMMD5, nil, []string{""}, "before it had the digest"},
		{sasl.XOAuth2, nil, []string{"user=jane\x01auth=Bearer open sesame\x01\x01"}, ""},
		{sasl.XOAuth2, []string{`{"status":"401"}`}, []string{"user=jane\x01auth=Bearer open sesame\x01\x01", ""}, "refused the token"},
		{sasl.OAuthBearer, []string{`{"status":"401"}`}, []string{"n,a=jane,\x01host=mail.example\x01port=587\x01auth=Bearer open sesame\x01\x01", "\x01"}, "refused the token"},
		{"GSSAPI", nil, nil, "not spoken here"},
		{sasl.SCRAMSHA256Plus, nil, nil, "no channel binding"},
	} {
		got, _, err := talk(t, tt.mechanism, &Channel{Host: "mail.example", Port: 587}, tt.challenges...)
		if tt.mechanism == sasl.CRAMMD5 && len(got) == 2 {
			got[1], tt.want[1] = got[1][:5], tt.want[1][:5] // the digest is checked against the server's below
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s %q: %q", tt.mechanism, tt.challenges, got)
		}
		if err == nil && tt.fault != "" || err != nil && (tt.fault == "" || !strings.Contains(err.Error(), tt.fault)) {
			t.Errorf("%s %q: %v, want %q", tt.mechanism, tt.challenges, err, tt.fault)
		}
	}
}

// TestCRAM is the example of RFC 2195 section 2.
func TestCRAM(t *testing.T) {
	e, err := New(sasl.CRAMMD5, "tim", "tanstaaftanstaaf", &Channel{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := e.Next([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	if err != nil || string(got) != "tim b913a602c7eda7a495b4e6e7334d3890" {
		t.Errorf("%q %v", got, err)
	}
}

// TestSCRAM speaks with the library's server: with the flags for channel binding that the host
// must see, and with hosts that cheat.
func TestSCRAM(t *testing.T) {
	bound := scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: []byte("0123456789abcdef0123456789abcdef")}
	other := scram.ChannelBinding{Type: scram.ChannelBindingTLSExporter, Data: []byte("another connection, so not ours!")}
	for _, tt := range []struct {
		name      string
		mechanism string
		channel   Channel
		server    scram.ChannelBinding
		flag      string
		ok        bool
	}{
		{"without TLS", sasl.SCRAMSHA256, Channel{}, scram.ChannelBinding{}, "n,,", true},
		{"SHA-1", sasl.SCRAMSHA1, Channel{}, scram.ChannelBinding{}, "n,,", true},
		{"bound", sasl.SCRAMSHA256Plus, Channel{Bindings: []scram.ChannelBinding{bound}, OfferedPlus: true}, bound, "p=tls-exporter,,", true},
		{"somebody stands between", sasl.SCRAMSHA256Plus, Channel{Bindings: []scram.ChannelBinding{bound}, OfferedPlus: true}, other, "p=tls-exporter,,", false},
		{"a host without", sasl.SCRAMSHA256, Channel{Bindings: []scram.ChannelBinding{bound}}, scram.ChannelBinding{}, "y,,", true},
		{"somebody took -PLUS away", sasl.SCRAMSHA256, Channel{Bindings: []scram.ChannelBinding{bound}}, bound, "y,,", false},
		{"we may not", sasl.SCRAMSHA256, Channel{Bindings: []scram.ChannelBinding{bound}, OfferedPlus: true}, bound, "n,,", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hash := scram.SHA256
			if tt.mechanism == sasl.SCRAMSHA1 {
				hash = scram.SHA1
			}
			owner, err := hash.NewClient("jane", "open sesame", "")
			if err != nil {
				t.Fatal(err)
			}
			stored, err := owner.GetStoredCredentialsWithError(scram.KeyFactors{Salt: "salt", Iters: 4096})
			if err != nil {
				t.Fatal(err)
			}
			host, err := hash.NewServer(func(string) (scram.StoredCredentials, error) { return stored, nil })
			if err != nil {
				t.Fatal(err)
			}
			server := host.NewConversation()
			if tt.server.IsSupported() {
				server = host.NewConversationWithChannelBinding(tt.server)
			}
			e, err := New(tt.mechanism, "jane", "open sesame", &tt.channel)
			if err != nil {
				t.Fatal(err)
			}
			response, err := e.Initial()
			if err != nil || !strings.HasPrefix(string(response), tt.flag) {
				t.Fatalf("%q %v", response, err)
			}
			for range 2 {
				challenge, err := server.Step(string(response))
				if err != nil {
					if tt.ok {
						t.Fatal(err)
					}
					return
				}
				if e.Done() == nil {
					t.Fatal("the exchange is over before the server has proved anything")
				}
				if response, err = e.Next([]byte(challenge)); err != nil {
					t.Fatal(err)
				}
			}
			if err := e.Done(); (err == nil) != tt.ok {
				t.Error(err)
			}
		})
	}
}

// TestSCRAMCheats: hosts that do not know the password, or want too much work, or too little.
func TestSCRAMCheats(t *testing.T) {
	for _, tt := range []struct{ first, final, fault string }{
		{"r=%s1,s=c2FsdA==,i=4096", "v=c2FsdA==", "not proved"},
		{"r=%s1,s=c2FsdA==,i=4096", "e=other-error", "refused the proof"},
		{"r=%s1,s=c2FsdA==,i=4096", "", "not proved"},
		{"r=%s1,s=c2FsdA==,i=2000000000", "", "iterations"},
		{"r=%s1,s=c2FsdA==,i=1", "", "iterations"},
		{"r=%s1,s=c2FsdA==,i=x", "", "iterations"},
		{"r=other,s=c2FsdA==,i=4096", "", "first message"},
		{"", "", "first message"},
		{"\x00\xff", "", "first message"},
	} {
		e, err := New(sasl.SCRAMSHA256, "jane", "open sesame", &Channel{})
		if err != nil {
			t.Fatal(err)
		}
		first, err := e.Initial()
		if err != nil {
			t.Fatal(err)
		}
		_, nonce, _ := strings.Cut(string(first), "r=")
		_, err = e.Next([]byte(strings.ReplaceAll(tt.first, "%s", nonce)))
		if err == nil {
			_, err = e.Next([]byte(tt.final))
		}
		if err == nil || !strings.Contains(err.Error(), tt.fault) || strings.Contains(err.Error(), nonce) {
			t.Errorf("%q %q: %v", tt.first, tt.final, err)
		}
		if e.Done() == nil {
			t.Errorf("%q %q: it counts as a success", tt.first, tt.final)
		}
	}
}

func TestRefusals(t *testing.T) {
	var r Refusals
	now := time.Unix(1000, 0)
	l := Login{Account: "jane", Password: "wrong"}
	f := Refusal{At: now, Until: now.Add(time.Minute), Reply: smtp.NewReply(454, "4.7.8", "no")}
	r.Note("mail.example", l, "", f)
	for _, tt := range []struct {
		host  string
		login Login
		token Secret
		at    time.Duration
		want  bool
	}{
		{"mail.example", l, "", 0, true},
		{"other.example", l, "", 0, false},
		{"mail.example", Login{Account: "jane", Password: "right"}, "", 0, false},
		{"mail.example", l, "another token", 0, false},
		{"mail.example", l, "", time.Minute, false},
	} {
		if _, got := r.Find(tt.host, tt.login, tt.token, now.Add(tt.at)); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	r.Note("mail.example", l, "", Refusal{At: now, Until: now}) // failure_time is 0
	if _, got := r.Find("mail.example", l, "", now); got {
		t.Error("it was forgotten, and 0 remembers nothing")
	}
	for i := range 3 * refusalsMax {
		at := now.Add(time.Duration(i) * time.Millisecond)
		r.Note(fmt.Sprint(i), l, "", Refusal{At: at, Until: at.Add(100 * time.Millisecond)})
	}
	if n := len(r.known); n > refusalsMax {
		t.Errorf("%d are remembered", n)
	}
	if _, got := r.Find(fmt.Sprint(3*refusalsMax-1), l, "", now.Add((3*refusalsMax-1)*time.Millisecond)); !got {
		t.Error("old ones keep out new ones")
	}
}
