package srs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta1/mta/smtp"
	"meta1/mta/tlsconf"
)

func addr(t testing.TB, s string) smtp.Path {
	t.Helper()
	p, err := smtp.ParseMailbox(s, smtp.UTF8)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return p
}

var (
	today  = time.Unix(1700000000, 0)
	scheme = &Scheme{Domain: "ours.example", Separator: '=', Secrets: []string{"tops3cr3t", "older secret"}, MaxAge: 21}
	theirs = &Scheme{Domain: "theirs.example", Separator: '+', Secrets: []string{"elsewhere"}, MaxAge: 21}
)

// TestRoundTrip: what was made goes back, through several hosts, in any case.
func TestRoundTrip(t *testing.T) {
	cases := []struct{ from, form string }{
		{"user@example.org", "SRS0=????=G?=example.org=user@ours.example"},
		{"User+detail=x@Example.ORG", "SRS0=????=G?=Example.ORG=User+detail=x@ours.example"},
		{`"a b"@example.org`, `"SRS0=????=G?=example.org=a b"@ours.example`},
		{`"a\"\\b"@example.org`, `"SRS0=????=G?=example.org=a\"\\b"@ours.example`},
		{"user@[192.0.2.1]", `"SRS0=????=G?=[192.0.2.1]=user"@ours.example`},
		{"müller@example.org", "SRS0=????=G?=example.org=müller@ours.example"},
		{"SRS0=abcd=XY=a.example=user@b.example", "SRS1=????=b.example==abcd=XY=a.example=user@ours.example"},
		{"srs0+abcd=XY=a.example=user@b.example", "SRS1=????=b.example=+abcd=XY=a.example=user@ours.example"},
		{"SRS1=abcd=c.example==efgh=XY=a.example=user@b.example", "SRS1=????=c.example==efgh=XY=a.example=user@ours.example"},
		{"SRS1=odd@b.example", "SRS0=????=G?=b.example=SRS1=odd@ours.example"},
	}
	for _, c := range cases {
		from := addr(t, c.from)
		made, ok := scheme.Forward(from, today)
		if !ok || !like(made.Addr(), c.form) {
			t.Errorf("%s: %v %v, want %s", c.from, made, ok, c.form)
			continue
		}
		if p := addr(t, made.Addr()); p != made {
			t.Errorf("%v is no mailbox", made)
		}
		want := from
		if smtp.IsSRS(from.Local) && strings.HasPrefix(made.Local, "SRS1") { // to the host of SRS0
			parts := strings.SplitN(made.Local, "=", 4)
			want = smtp.Path{Local: "SRS0" + parts[3], Domain: parts[2]}
			if !strings.HasPrefix(parts[3], "=") && !strings.HasPrefix(parts[3], "+") {
				want.Local = "SRS0=" + strings.TrimPrefix(parts[3], "=")
			}
		}
		for _, local := range []string{made.Local, strings.ToLower(made.Local), strings.ToUpper(made.Local)} {
			if strings.Contains(local, "Ü") {
				continue // only ASCII is without case
			}
			if back, err := scheme.Reverse(local, today.Add(20*day)); err != nil || !strings.EqualFold(back.Addr(), want.Addr()) {
				t.Errorf("%s comes back to %v (%v), want %v", local, back, err, want)
			}
		}
		// Two more hosts, and back: SRS1 of the second host leads to the first at once.
		second, _ := theirs.Forward(made, today)
		third, _ := scheme.Forward(second, today)
		if !strings.HasPrefix(smtp.UnquoteLocal(third.Local), "SRS1=") {
			t.Errorf("%v is not SRS1", third)
		}
	}
}

// like compares with a form in which ? is any character.
func like(s, form string) bool {
	if len(s) != len(form) {
		return false
	}
	for i := range s {
		if form[i] != '?' && form[i] != s[i] {
			return false
		}
	}
	return true
}

// TestNone: senders that stay as they are.
func TestNone(t *testing.T) {
	for _, p := range []smtp.Path{{}, {Local: "postmaster"}, {Local: strings.Repeat("x", 64), Domain: strings.Repeat("d", 63) + "." + strings.Repeat("e", 63) + "." + strings.Repeat("f", 40)}} {
		if made, ok := scheme.Forward(p, today); ok {
			t.Errorf("%v: %v", p, made)
		}
	}
}

// TestReverse: what is forged, changed or old is refused.
func TestReverse(t *testing.T) {
	made, _ := scheme.Forward(addr(t, "user@example.org"), today)
	older := &Scheme{Domain: "ours.example", Separator: '-', Secrets: scheme.Secrets[1:], MaxAge: 21}
	before, _ := older.Forward(addr(t, "user@example.org"), today)
	foreign, _ := theirs.Forward(addr(t, "user@example.org"), today)
	chain, _ := scheme.Forward(addr(t, "SRS0=abcd=XY=a.example=user@b.example"), today)
	cases := []struct {
		local string
		after int // days
		want  error
	}{
		{made.Local, 0, nil},
		{made.Local, 21, nil},
		{made.Local, 22, ErrExpired},
		{made.Local, -2, ErrExpired}, // of the future
		{made.Local, 1024 - 1, ErrExpired},
		{before.Local, 3, nil},
		{foreign.Local, 0, ErrHash},
		{strings.Replace(made.Local, "user", "users", 1), 0, ErrHash},
		{strings.Replace(made.Local, "example", "exemple", 1), 0, ErrHash},
		{strings.Replace(made.Local, made.Local[5:9], "AAAA", 1), 0, ErrHash},
		{strings.Replace(made.Local, made.Local[5:9], "", 1), 0, ErrHash},
		{strings.Replace(made.Local, made.Local[5:9], made.Local[5:8], 1), 0, ErrHash},
		{chain.Local, 500, nil}, // the other host judges the time
		{strings.Replace(chain.Local, "b.example", "c.example", 1), 0, ErrHash},
		{"SRS0=abcd", 0, ErrForm},
		{"SRS0=abcd=XY=a.example", 0, ErrForm},
		{"SRS0=abcd=XY==user", 0, ErrForm},
		{"SRS1=abcd=host", 0, ErrForm},
		{"SRS1=abcd=host=x", 0, ErrForm},
		{"SRS1=abcd=host=xyz", 0, ErrForm},
		{"SRS0", 0, ErrForm},
		{"user", 0, ErrForm},
	}
	for _, c := range cases {
		back, err := scheme.Reverse(c.local, today.Add(time.Duration(c.after)*day))
		if !errors.Is(err, c.want) || (err == nil) == back.IsNull() {
			t.Errorf("%s after %d days: %v %v, want %v", c.local, c.after, back, err, c.want)
		}
	}
}

// TestVectors are addresses that srs of Mail::SRS makes, with the secret tops3cr3t at that time.
func TestVectors(t *testing.T) {
	for from, want := range vectors {
		if made, ok := scheme.Forward(addr(t, from), today); !ok || made.Addr() != want {
			t.Errorf("%s: %v, want %s", from, made, want)
		}
	}
}

// TestRewriter reads secrets, and takes others.
func TestRewriter(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secrets")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := Config{Present: true, Domain: "Ours.Example", SecretFile: file, MaxAge: 21}
	write("# old\ntops3cr3t\n")
	r, err := New(c, tlsconf.OS{}, func() time.Time { return today })
	if err != nil {
		t.Fatal(err)
	}
	first, _ := r.Forward(addr(t, "user@example.org"))
	write("# new\r\nanother one\r\n\r\ntops3cr3t\r\n")
	if err := r.Reconfigure(c); err != nil {
		t.Fatal(err)
	}
	second, _ := r.Forward(addr(t, "user@example.org"))
	if first == second {
		t.Errorf("%v is made by both secrets", first)
	}
	for _, p := range []smtp.Path{first, second} {
		if back, err := r.Reverse(p); err != nil || back.Addr() != "user@example.org" || !r.Takes(p) {
			t.Errorf("%v: %v %v", p, back, err)
		}
	}
	for _, text := range []string{"", "short\n", strings.Repeat("a good secret\n", 101)} {
		write(text)
		if err := r.Reconfigure(c); err == nil {
			t.Errorf("%q is taken", text)
		} else if strings.Contains(err.Error(), "short") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	if back, err := r.Reverse(first); err != nil || back.IsNull() {
		t.Errorf("after an error nothing works: %v", err)
	}
	if (*Rewriter)(nil).Takes(first) || r.Takes(smtp.Path{Local: first.Local, Domain: "other.example"}) || r.Takes(addr(t, "user@ours.example")) {
		t.Error("other mail is taken")
	}
	if err := Check(c, tlsconf.OS{}, func(string) bool { return true }); err == nil || !strings.Contains(err.Error(), "everybody") {
		t.Error(err)
	}
}

// FuzzReverse: what is reversed was made by us, but for the borders of its parts, which the hash does not have.
func FuzzReverse(f *testing.F) {
	made, _ := scheme.Forward(addr(f, "user@example.org"), today)
	f.Add(made.Local)
	f.Add("SRS1=abcd=host==xyz")
	f.Add(`"SRS0+abcd=XY=[1.2.3.4]=a b"`)
	f.Fuzz(func(t *testing.T, local string) {
		p, err := scheme.Reverse(local, today)
		if err != nil {
			return
		}
		if _, err := smtp.ParseMailbox(p.Addr(), smtp.UTF8); err != nil {
			t.Errorf("%q goes to %v: %v", local, p, err)
		}
	})
}

var vectors = map[string]string{
	"user@example.org":                                      "SRS0=L6wP=G3=example.org=user@ours.example",
	"User+d=x@Example.ORG":                                  "SRS0=mRkI=G3=Example.ORG=User+d=x@ours.example",
	"SRS0=abcd=XY=a.example=user@b.example":                 "SRS1=fjy0=b.example==abcd=XY=a.example=user@ours.example",
	"SRS0+abcd=XY=a.example=user@b.example":                 "SRS1=Tydh=b.example=+abcd=XY=a.example=user@ours.example",
	"SRS1=abcd=c.example==efgh=XY=a.example=user@b.example": "SRS1=H6br=c.example==efgh=XY=a.example=user@ours.example",
}
