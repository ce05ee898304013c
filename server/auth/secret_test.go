package auth

import (
	"bytes"
	"crypto/rand"
	"strings"
	"testing"
)

func TestSecrets(t *testing.T) {
	for _, tt := range []struct{ value, right, wrong string }{
		{"{PLAIN}two words", "two words", "two"},
		{"{plain}secret", "secret", "Secret"},
		{pencilSHA1, "pencil", "Pencil"},
		{pencilSHA256, "pencil", "pencil "},
		{pencilSHA1 + " " + pencilSHA256, "pencil", "x"},
		{pencilSHA256 + "\t{PLAIN}pencil", "pencil", "x"},
		// of crypt_blowfish and of the reference program of Argon2
		{"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", "U*V"},
		{"{BLF-CRYPT}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", ""},
		{"{ARGON2ID}$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", "password", "passwore"},
		{"{PLAIN}Ⅸ", "Ⅸ", "IX"}, // OpaqueString keeps what SASLprep changes
		{"{PLAIN}a b", "a b", "ab"},
		{"{PLAIN}Å", "Å", "A"}, // composed or not
	} {
		s := mustSecret(t, tt.value)
		if !s.Verify(tt.right) {
			t.Errorf("%s: %q is wrong", tt.value, tt.right)
		}
		if s.Verify(tt.wrong) {
			t.Errorf("%s: %q is right", tt.value, tt.wrong)
		}
	}
	if mustSecret(t, "{EXTERNAL}").Verify("") {
		t.Error("an account without a password has an empty one")
	}
}

func TestBadSecrets(t *testing.T) {
	for _, value := range []string{
		"", " ", "secret", "{PLAIN}", "{MD5}secret", "{SCRAM-SHA-256}", "{SCRAM-SHA-1}secret",
		"{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,AAAA,AAAA",
		strings.Replace(pencilSHA256, "4096", "100", 1), strings.Replace(pencilSHA256, "4096", "100000000", 1), strings.Replace(pencilSHA256, "4096", "secret", 1),
		"$2a$31$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "$2a$secret",
		"$argon2id$v=19$m=99999999,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=65536,t=0,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=16$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
		"$argon2id$v=19$m=65536,t=2,p=1 x$c29tZXNhbHQ$secret", "$argon2id$secret", "{PLAIN}\x01",
	} {
		s, err := ParseSecret(value)
		if err == nil {
			t.Errorf("%q is read as %+v", value, s)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error has what is in it: %v", value, err)
		}
	}
}

func TestMakeSecret(t *testing.T) {
	for _, schemes := range [][]string{{"scram-sha-256"}, {"scram-sha-1"}, {"argon2id"}, {"bcrypt"}, {"plain"}, {"plain", "scram-sha-256", "scram-sha-1"}} {
		if testing.Short() && (schemes[0] == "argon2id" || schemes[0] == "bcrypt") {
			continue // they are made to cost much, and the race detector makes it ten times as much
		}
		value, err := MakeSecret(rand.Reader, "two wörds", schemes...)
		if err != nil {
			t.Fatal(err)
		}
		if s := mustSecret(t, value); !s.Verify("two wörds") || s.Verify("two words") || s.forms() != len(schemes) {
			t.Errorf("%v made %s", schemes, value)
		}
		if again, _ := MakeSecret(rand.Reader, "two wörds", schemes...); again == value && schemes[0] != "plain" {
			t.Errorf("%v has no salt", schemes)
		}
	}
	value, err := MakeSecret(rand.Reader, "", "external")
	if err != nil || value != "{EXTERNAL}" {
		t.Errorf("external: %q %v", value, err)
	}
	for _, bad := range []struct{ password, scheme string }{{"", "bcrypt"}, {"x", "md5"}, {" x", "plain"}, {strings.Repeat("x", 100), "bcrypt"}, {strings.Repeat("x", 2000), "plain"}, {"a\nb", "scram-sha-256"}} {
		if value, err := MakeSecret(rand.Reader, bad.password, bad.scheme); err == nil {
			t.Errorf("%q %s: %s", bad.password, bad.scheme, value)
		}
	}
	if _, err := MakeSecret(bytes.NewReader(nil), "x", "argon2id"); err == nil {
		t.Error("no random bytes, and no error")
	}
}

func TestServes(t *testing.T) {
	bcrypt := "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"
	for _, tt := range []struct{ value, yes, no string }{
		{"{PLAIN}x", "PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256-PLUS EXTERNAL", ""},
		{bcrypt, "PLAIN LOGIN EXTERNAL", "CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256"},
		{pencilSHA1, "PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS", "SCRAM-SHA-256 CRAM-MD5"},
		{"{EXTERNAL}", "EXTERNAL", "PLAIN LOGIN SCRAM-SHA-256"},
	} {
		s := mustSecret(t, tt.value)
		for _, m := range strings.Fields(tt.yes) {
			if !s.Serves(m) {
				t.Errorf("%s does not serve %s", tt.value, m)
			}
		}
		for _, m := range strings.Fields(tt.no) {
			if s.Serves(m) {
				t.Errorf("%s serves %s", tt.value, m)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"alice": "alice", "Alice@Example.NET": "Alice@Example.NET", "ａlice": "alice", "jürgen": "jürgen",
		"": "", "a b": "", "a\x00b": "", "a\nb": "", strings.Repeat("x", 256): "", "\xff": "",
	} {
		got, err := PrepareName(name)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q %v, want %q", name, got, err, want)
		}
	}
	c := Config{UserRealm: "example.net"}
	if c.account("a") != "a@example.net" || c.account("a@b") != "a@b" || (&Config{}).account("a") != "a" {
		t.Error("realm")
	}
}
