package dkim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"
	"pgregory.net/rapid"
)

// keyFile makes a key, and gives its file and its record.
func keyFile(t testing.TB, kind string) (file, record string) {
	t.Helper()
	key, text, err := MakePrivate(kind, RSAFit)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), kind+".key")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if record, err = Record(key.Public()); err != nil {
		t.Fatal(err)
	}
	return file, record
}

// config is one that has a section's defaults.
func config(sections ...Section) Config {
	return Config{BodyCanon: "simple", HeaderCanon: "simple", TotalHeaderLen: 1 << 20, HeaderValLenMax: 64 << 10, SignFor: ForRelaying, Sign: sections}
}

func newSigner(t testing.TB, c Config) *Signer {
	t.Helper()
	s, err := New(c, Deps{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

const message = "From: Joe SixPack <joe@football.example.com>\r\nTo: Suzie Q <suzie@shopping.example.net>\r\n" +
	"Subject: Is dinner ready?\r\nX-Folded: a\r\n\tb  \r\nDate: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\r\nHi.\r\n\r\nJoe.\r\n\r\n\r\n"

// verified has go-msgauth verify all signatures, and gives their h=.
func verified(content string, records map[string]string) ([][]string, error) {
	vs, err := msgauth.VerifyWithOptions(strings.NewReader(content), &msgauth.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			if r, ok := records[name]; ok {
				return []string{r}, nil
			}
			return nil, errors.New("no record " + name)
		},
	})
	var lists [][]string
	for _, v := range vs {
		err = errors.Join(err, v.Err)
		lists = append(lists, v.HeaderKeys)
	}
	return lists, err
}

// TestSignaturesVerify: another implementation verifies both signatures, whatever the
// canonicalizations, the pieces in which the message comes, and the message.
func TestSignaturesVerify(t *testing.T) {
	rsa, rsaRecord := keyFile(t, KindRSA)
	ed, edRecord := keyFile(t, KindEd25519)
	records := map[string]string{"r._domainkey.example.com": rsaRecord, "e._domainkey.example.com": edRecord}
	rapid.Check(t, func(rt *rapid.T) {
		c := config(Section{KeyFile: rsa, Domain: "example.com", Selector: "r"}, Section{KeyFile: ed, Domain: "example.com", Selector: "e"})
		canon := rapid.SampledFrom([]string{"simple", "relaxed"})
		c.BodyCanon, c.HeaderCanon = canon.Draw(rt, "body"), canon.Draw(rt, "header")
		c.OverSignHeaders = []string{"From", "Subject", "Reply-To"}
		content := message
		if rapid.Bool().Draw(rt, "random") {
			content = "From: a@example.com\r\n"
			for i := range rapid.IntRange(0, 40).Draw(rt, "fields") {
				content += fmt.Sprintf("X-%d: %s\r\n", i%5, rapid.SampledFrom([]string{"a", " b\t c ", "x\r\n y", strings.Repeat("long ", 60)}).Draw(rt, "value"))
			}
			content += "\r\n" + strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"\r\n", " ", "word", "\t", ".", "é"})).Draw(rt, "text"), "")
		}
		m := newSigner(t, c).Begin()
		for rest := content; rest != ""; {
			n := min(len(rest), rapid.IntRange(1, 60).Draw(rt, "piece"))
			_, _ = m.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		head, err := m.Sign()
		if err != nil {
			rt.Fatal(err)
		}
		lists, err := verified(string(head)+content, records)
		if err != nil || len(lists) != 2 {
			rt.Fatalf("%v\n%s%s", err, head, content)
		}
		for _, line := range strings.Split(string(head), "\r\n") {
			if len(line) > 78 {
				rt.Fatalf("a line of %d bytes: %s", len(line), line)
			}
		}
	})
	if _, err := verified("DKIM-Signature: v=1\r\n"+message, records); err == nil {
		t.Error("the other implementation verifies everything")
	}
}

func TestNames(t *testing.T) {
	h, err := ParseHeader([]byte("Received: a\r\nReceived: b\r\nX-Spam: c\r\nFrom: d\r\nSubject: e\r\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ sign, skip, over, want string }{
		{"", "", "", "received received x-spam from subject"},
		{"From Subject Date", "", "", "from subject"},
		{"", "x- RECEIVED:", "", "from subject"},
		{"", "Rec", "", "x-spam from subject"},
		{"", "Rec:", "", "received received x-spam from subject"},
		{"From Received", "Received:", "", "from"},
		{"From", "", "From Subject To", "from subject from subject to"},
		{"From", "Subject:", "Subject Received", "received received from received"},
	} {
		conf := Config{SignHeader: strings.Fields(c.sign), SkipHeader: strings.Fields(c.skip), OverSignHeaders: strings.Fields(c.over)}
		n := conf.names()
		if got := strings.Join(n.list(h), " "); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestChoice: README 3.10 item 3 h, in the order of 3.12.1.
func TestChoice(t *testing.T) {
	file, _ := keyFile(t, KindEd25519)
	sec := func(selector, from, notBefore string) Section {
		return Section{KeyFile: file, Domain: "d.test", Selector: selector, From: from, NotBefore: notBefore}
	}
	all := []Section{
		sec("default", "", ""), sec("user", "Joe@sub.example.net", ""), sec("net", "example.net", ""), sec("below", ".example.net", ""),
		sec("org", "example.org", ""), sec("old", "turn.test", "2026-01-01"), sec("new", "turn.test", "2027-01-01T00:00:00Z"), sec("later", "later.test", "2030-01-01"),
		sec("userbelow", "root@.example.net", ""),
	}
	s, err := New(config(all...), Deps{})
	if err != nil {
		t.Fatal(err)
	}
	for from, want := range map[string]string{
		"joe@SUB.example.net": "user", "joe+x@sub.example.net": "below", "x@example.net": "net", "x@a.b.example.net": "below", "root@a.example.net": "userbelow",
		"x@example.org": "org", "x@sub.example.org": "default", "": "default", "x": "default", "x@turn.test": "old",
	} {
		keys, err := s.now.Load().choose(from, time.Date(2026, 12, 31, 23, 59, 59, 0, time.UTC))
		if err != nil || len(keys) != 1 || keys[0].Selector != want {
			t.Errorf("%s: %v, %v, want %s", from, keys, err, want)
		}
	}
	keys, err := s.now.Load().choose("x@turn.test", time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))
	if err != nil || len(keys) != 1 || keys[0].Selector != "new" {
		t.Errorf("after the turn: %v, %v", keys, err)
	}
	if _, err := s.now.Load().choose("x@later.test", time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)); !errors.Is(err, errNoKey) {
		t.Errorf("before the first: %v", err)
	}
	if got := s.begun(time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)); len(got) != 1 || got[0].Selector != "new" {
		t.Errorf("begun: %v", got)
	}
	if _, err := New(config(sec("a", "", ""), sec("b", "", "")), Deps{}); err == nil || !strings.Contains(err.Error(), "not_before must say") {
		t.Errorf("two keys of one kind: %v", err)
	}
}

func TestNotSigned(t *testing.T) {
	file, _ := keyFile(t, KindEd25519)
	byFrom := config(Section{KeyFile: file, Domain: "d.test", Selector: "s", From: "d.test"})
	byDefault := config(Section{KeyFile: file, Domain: "d.test", Selector: "s"})
	small := byDefault
	small.TotalHeaderLen, small.HeaderValLenMax = 300, 260
	for _, c := range []struct {
		name, content string
		config        Config
		want          error // nil: it is not to be signed
	}{
		{"other domain", "From: a@x.test\r\n\r\n", byFrom, nil},
		{"no From, no default", "To: a@x.test\r\n\r\n", byFrom, nil},
		{"odd line, no default", "From: a@x.test\r\nodd\r\n\r\n", byFrom, nil},
		{"no From", "To: a@d.test\r\n\r\n", byDefault, nil},
		{"no header", "\r\nFrom: a@d.test\r\n\r\n", byDefault, nil},
		{"two From", "From: a@d.test\r\nFROM : b@d.test\r\n\r\n", byFrom, errManyFr},
		{"odd line", "From: a@d.test\r\nodd\r\n\r\n", byFrom, errNoField},
		{"long header", "From: a@d.test\r\n" + strings.Repeat("X: 123456789\r\n", 50) + "\r\n", small, errLongHeader},
		{"header without end", "From: a@d.test\r\n" + strings.Repeat("X: 123456789\r\n", 50), small, errLongHeader},
		{"long field", "From: a@d.test\r\nX:" + strings.Repeat("x", 265) + "\r\n\r\n", small, errLongField},
		{"many fields", "From: a@d.test\r\n" + strings.Repeat("X: 1\r\n", 9000) + "\r\n", byDefault, errLongNames},
	} {
		head, err := newSigner(t, c.config).Sign([]byte(c.content))
		if len(head) > 0 || !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %q, %v, want %v", c.name, head, err, c.want)
		}
	}
	head, err := newSigner(t, byDefault).Sign([]byte("From: a@x.test\r\nnothing: but a header"))
	if err != nil || !bytes.HasPrefix(head, []byte("DKIM-Signature: v=1; a=ed25519-sha256; c=simple/simple;\r\n\td=d.test; s=s;")) {
		t.Errorf("a header alone: %q, %v", head, err)
	}
}

func TestAddress(t *testing.T) {
	for value, want := range map[string]string{
		" Joe <joe@x.test>": "joe@x.test", " joe@x.test (Joe)": "joe@x.test", " \"a, b\" <c@x.test>, d@y.test": "c@x.test",
		" =?utf-8?q?J=C3=B6?=\r\n <j@x.test>": "j@x.test", " odd [words] <j@x.test>": "j@x.test", "": "", " nobody": "", " a@b@c": "", " group: a@x.test, b@x.test;": "a@x.test",
	} {
		if got := Address(Field{Name: "from", Raw: []byte("From:" + value + "\r\n")}); got != want {
			t.Errorf("%q: %q, want %q", value, got, want)
		}
	}
}

// TestRenewed: a key that is replaced is taken, and one that cannot be read changes nothing.
func TestRenewed(t *testing.T) {
	file, _ := keyFile(t, KindEd25519)
	s := newSigner(t, config(Section{KeyFile: file, Domain: "d.test", Selector: "s"}))
	if s.renewed() {
		t.Error("nothing has changed")
	}
	before := s.now.Load()
	if err := os.WriteFile(file, []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !s.renewed() || s.Reconfigure(s.Config()) == nil || s.now.Load() != before {
		t.Error("a damaged key was taken")
	}
	other, _ := keyFile(t, KindEd25519)
	if err := os.Rename(other, file); err != nil {
		t.Fatal(err)
	}
	if !s.renewed() || s.Reconfigure(s.Config()) != nil || s.now.Load() == before || s.renewed() {
		t.Error("the new key was not taken")
	}
}

func TestPrivateKeys(t *testing.T) {
	for _, text := range []string{"", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"} {
		if _, err := ParsePrivate([]byte(text)); err == nil || strings.Contains(err.Error(), "AAAA") {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, bits := range []int{512, 1024, 1 << 20} {
		if _, _, err := MakePrivate(KindRSA, bits); err == nil {
			t.Errorf("a key of %d bits was made", bits)
		}
	}
	key, _, err := MakePrivate(KindRSA, RSAFit)
	if err != nil {
		t.Fatal(err)
	}
	record, err := Record(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParseRecord(record)
	if err != nil || !p.Equal(key.Public()) {
		t.Errorf("%v, %v", p, err)
	}
	line := ZoneLine(RecordName("s", "d.test"), record)
	if strings.Count(line, `"`) < 4 || !strings.HasPrefix(line, "s._domainkey.d.test. IN TXT (\n\t\"v=DKIM1;") {
		t.Error(line)
	}
}

func BenchmarkSign(b *testing.B) {
	rsa, _ := keyFile(b, KindRSA)
	ed, _ := keyFile(b, KindEd25519)
	line := "Some words of a line, as mail has them, up to its end.\r\n"
	for _, size := range []int{10 << 10, 10 << 20} {
		content := []byte(message + strings.Repeat(line, size/len(line)))
		for name, c := range map[string]Config{
			"rsa": config(Section{KeyFile: rsa, Domain: "d.test", Selector: "r"}), "ed25519": config(Section{KeyFile: ed, Domain: "d.test", Selector: "e"}),
			"both": config(Section{KeyFile: rsa, Domain: "d.test", Selector: "r"}, Section{KeyFile: ed, Domain: "d.test", Selector: "e"}),
		} {
			b.Run(fmt.Sprintf("%s/%dKB", name, size>>10), func(b *testing.B) {
				c.BodyCanon = "relaxed"
				s := newSigner(b, c)
				b.SetBytes(int64(len(content)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := s.Sign(content); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
