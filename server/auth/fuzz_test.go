package auth

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"
)

// fuzzMechanism plays any responses, with NUL NUL between them, to a mechanism. It must
// end, and grant nothing: nobody can guess what would be right.
func fuzzMechanism(f *testing.F, mechanism string, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	a, err := New(Config{PasswordMap: "users", Mechanisms: names(), Timeout: time.Minute}, Deps{
		Lookup: entries(map[string]string{"user": "{PLAIN}0c9f4a2b-not-to-be-guessed"}),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, in []byte, initial bool) {
		st, err := a.state(strings.TrimSuffix(mechanism, "-PLUS"), &Channel{})
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := st.(*scramState); ok && strings.HasSuffix(mechanism, "-PLUS") {
			s.plus, s.bindings = true, []scram.ChannelBinding{{Type: scram.ChannelBindingTLSExporter, Data: []byte("x")}}
		}
		e := &Exchange{a: a, mechanism: mechanism, state: st}
		var responses [][]byte
		if !initial {
			responses = append(responses, nil)
		}
		for _, r := range bytes.Split(in, []byte{0, 0}) {
			responses = append(responses, append([]byte{}, r...))
		}
		for _, r := range responses {
			s := e.Next(context.Background(), r)
			if s.Outcome == Granted {
				t.Fatalf("%q is granted: %+v", in, s)
			}
			if len(s.Account) > nameMax {
				t.Fatalf("an account of %d bytes", len(s.Account))
			}
			if s.Outcome != Continue {
				return
			}
		}
	})
}

func FuzzPlain(f *testing.F) { fuzzMechanism(f, Plain, "\x00user\x00pencil", "a\x00user\x00b") }
func FuzzLogin(f *testing.F) { fuzzMechanism(f, Login, "user\x00\x00pencil") }

func FuzzCRAMMD5(f *testing.F) {
	fuzzMechanism(f, CRAMMD5, "user b913a602c7eda7a495b4e6e7334d3890", "a b c")
}

const scramSeed = ",,n=user,r=fyko+d2lbbFgONRv9qkxdawL\x00\x00c=biws,r=fyko+d2lbbFgONRv9qkxdawL,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts="

func FuzzSCRAMSHA1(f *testing.F)   { fuzzMechanism(f, SCRAMSHA1, "n"+scramSeed, "y"+scramSeed) }
func FuzzSCRAMSHA256(f *testing.F) { fuzzMechanism(f, SCRAMSHA256, "n"+scramSeed, "n,a=x"+scramSeed) }

func FuzzSCRAMSHA256Plus(f *testing.F) {
	fuzzMechanism(f, SCRAMSHA256Plus, "p=tls-exporter"+scramSeed, "n"+scramSeed)
}

// FuzzSecret reads any entry; one that is read can be used.
func FuzzSecret(f *testing.F) {
	for _, s := range []string{pencilSHA1, pencilSHA256 + " {PLAIN}x", "{EXTERNAL}", "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		s, err := ParseSecret(value)
		if err != nil {
			return
		}
		if s.forms() == 0 {
			t.Fatalf("%q has no form", value)
		}
	})
}

// FuzzDovecot reads any answers of Dovecot.
func FuzzDovecot(f *testing.F) {
	for _, s := range []string{"OK\t1\tuser=jane\n", "CONT\t1\tVXNlcg==\nFAIL\t1\tuser=x\tcode=temp_fail\n", "OK\t1\n", "\n\t\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, answers string) {
		a, err := New(Config{Dovecot: Dovecot{Path: "x"}}, Deps{Dial: serveOn(fakeDovecot(answers))})
		if err != nil {
			t.Fatal(err)
		}
		e, err := a.Begin(Login, Client{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if s := e.Next(ctx, nil); s.Outcome == Granted {
			if _, err := PrepareName(s.Account); err != nil {
				t.Fatalf("account %q", s.Account)
			}
		}
		e.Close()
	})
}
