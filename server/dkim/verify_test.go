package dkim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	msgauth "github.com/emersion/go-msgauth/dkim"
	"pgregory.net/rapid"
)

// verify verifies a content with records by name.
func verify(content string, records map[string]string, now time.Time) []Result {
	v := NewVerification()
	_, _ = v.Write([]byte(content))
	return v.Results(context.Background(), func(_ context.Context, name string) ([]string, error) {
		switch r, ok := records[name]; {
		case r == "fails":
			return nil, errors.New("no answer")
		case ok:
			return strings.Split(r, "|"), nil
		}
		return nil, nil
	}, now)
}

// rfc8463 is the message of RFC 8463 appendix A.3, with its two signatures.
const rfc8463 = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n" +
	" d=football.example.com; i=@football.example.com;\r\n" +
	" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n" +
	" subject : date : message-id : from : subject : date;\r\n" +
	" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n" +
	" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n" +
	" Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n" +
	"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n" +
	" d=football.example.com; i=@football.example.com;\r\n" +
	" q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n" +
	" date : message-id : from : subject : date;\r\n" +
	" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n" +
	" b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n" +
	" DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n" +
	" dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n" +
	"From: Joe SixPack <joe@football.example.com>\r\n" +
	"To: Suzie Q <suzie@shopping.example.net>\r\n" +
	"Subject: Is dinner ready?\r\n" +
	"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n" +
	"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n" +
	"\r\n" +
	"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"

var rfc8463Records = map[string]string{
	"brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
	"test._domainkey.football.example.com": "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR" +
		"iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqM" +
		"KrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB",
}

func TestRFC8463(t *testing.T) {
	for i, r := range verify(rfc8463, rfc8463Records, time.Now()) {
		want := Result{
			Verdict: Pass, Domain: "football.example.com", Identifier: "@football.example.com",
			Selector: []string{"brisbane", "test"}[i], Algorithm: []string{"ed25519-sha256", "rsa-sha256"}[i], Signature: []string{"/gCrinpc", "F45dVWDf"}[i],
		}
		if r != want {
			t.Errorf("%+v, want %+v", r, want)
		}
	}
	if n := len(verify(rfc8463, rfc8463Records, time.Now())); n != 2 {
		t.Errorf("%d results", n)
	}
}

// TestVerdicts changes a good message or its key.
func TestVerdicts(t *testing.T) {
	const name = "brisbane._domainkey.football.example.com"
	good := rfc8463[:strings.Index(rfc8463, "DKIM-Signature: v=1; a=rsa")] + rfc8463[strings.Index(rfc8463, "From: "):]
	for _, c := range []struct {
		old, new, record string
		verdict          Verdict
		reason           string
	}{
		{"", "", "", Pass, ""},
		{"Is dinner ready?", "Is  dinner\r\n\tready?  ", "", Pass, ""},
		{"Joe.", "Joe. ", "", Pass, ""},
		{"Joe.", "Jim.", "", Fail, "the body was changed"},
		{"Is dinner", "Was dinner", "", Fail, "the signature does not fit the header"},
		{"To: Suzie", "From: x\r\nTo: Suzie", "", Fail, "the signature does not fit the header"},
		{"a=ed25519-sha256", "a=rsa-sha1", "", PermError, "rsa-sha1 does not count (RFC 8301)"},
		{"a=ed25519-sha256", "a=rsa-sha256", "", PermError, "the key is of another kind"},
		{"a=ed25519-sha256", "a=x", "", PermError, "the algorithm is not known"},
		{"c=relaxed/relaxed", "c=other", "", PermError, "the canonicalization is not known"},
		{"v=1;", "v=2;", "", PermError, "the version is not known"},
		{"v=1;", "", "", PermError, "the tag v= is missing"},
		{"v=1;", "v=1; v=1;", "", PermError, "a tag stands twice"},
		{"v=1;", "v=1; x=5;", "", PermError, "the signature has expired"},
		{"v=1;", "v=1; x=y;", "", PermError, "t= or x= is no time"},
		{"v=1;", "v=1; l=5;", "", Policy, "l= leaves a part of the body unsigned"},
		{"i=@football", "i=@basketball", "", PermError, "i= is not of the domain d="},
		{"h=from : to", "h=to; y=from : to", "", PermError, "From: is not signed"},
		{"d=football.example.com", "d=..", "", PermError, "d= or s= is no domain name"},
		{"d=football.example.com", "d=a\x1b[2Jb.example", "", PermError, "d= or s= is no domain name"},
		{"bh=2", "bh=*2", "", PermError, "b= or bh= is not base64"},
		{"q=dns/txt", "q=x", "", PermError, "the key is not in DNS"},
		{"h=from : to", "h=" + strings.Repeat("x:", 1001) + "from : to", "", PermError, "h= has too many names"},
		{"Subject:", "odd\r\nSubject:", "", PermError, errNoField.Error()},
		{"", "", "none", PermError, "DNS has no key"},
		{"", "", "fails", TempError, "DNS does not answer"},
		{"", "", "v=DKIM1; p=", PermError, "the key is revoked"},
		{"", "", "v=DKIM1; k=ed25519; p=AAAA", PermError, "the key record cannot be read"},
		{"", "", "v=DKIM2; p=AAAA", PermError, "the key record cannot be read"},
		{"", "", "k=other; p=AAAA", PermError, "the key is of a kind that is not known"},
		{"", "", "a|b", PermError, "DNS has several keys"},
		{"", "", rfc8463Records[name] + "; s=other", PermError, "the key is not for this use"},
		{"", "", rfc8463Records[name] + "; h=sha1", PermError, "the key is not for this use"},
		{"", "", rfc8463Records[name] + "; h=sha1:sha256; s=email; t=s", Pass, ""},
		{"", "", "k=ed25519; p=AAAAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo0=", Fail, "the signature does not fit the header"},
	} {
		records := map[string]string{name: rfc8463Records[name]}
		switch c.record {
		case "":
		case "none":
			records = nil
		default:
			records[name] = c.record
		}
		rs := verify(strings.Replace(good, c.old, c.new, 1), records, time.Now())
		if len(rs) != 1 || rs[0].Verdict != c.verdict || rs[0].Reason != c.reason {
			t.Errorf("%q for %q, record %q: %+v, want %s, %s", c.new, c.old, c.record, rs, c.verdict, c.reason)
		}
	}
	if rs := verify("From: a@b\r\n\r\n", nil, time.Now()); len(rs) != 0 {
		t.Errorf("unsigned: %+v", rs)
	}
	if rs := verify(strings.Repeat("DKIM-Signature: x\r\n", 50)+good, nil, time.Now()); len(rs) != MaxSignatures {
		t.Errorf("%d signatures are verified", len(rs))
	}
	if rs := verify(strings.Repeat("X: "+strings.Repeat("y", 900)+"\r\n", 1300)+good, nil, time.Now()); len(rs) != 1 || rs[0].Verdict != PermError {
		t.Errorf("a long header: %+v", rs)
	}
}

// TestVerifiesOthers: signatures of another implementation, and what becomes of them when a byte
// changes, are judged as it judges them.
func TestVerifiesOthers(t *testing.T) {
	key, _, err := MakePrivate(KindEd25519, 0)
	if err != nil {
		t.Fatal(err)
	}
	record, err := Record(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]string{"s._domainkey.d.test": record}
	rapid.Check(t, func(rt *rapid.T) {
		canon := rapid.SampledFrom([]msgauth.Canonicalization{msgauth.CanonicalizationSimple, msgauth.CanonicalizationRelaxed})
		body := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"\r\n", " ", "word", "\t", "é"})).Draw(rt, "body"), "")
		var signed bytes.Buffer
		if err := msgauth.Sign(&signed, strings.NewReader(message+body), &msgauth.SignOptions{
			Domain: "d.test", Selector: "s", Signer: key, HeaderCanonicalization: canon.Draw(rt, "header canon"), BodyCanonicalization: canon.Draw(rt, "body canon"),
		}); err != nil {
			rt.Fatal(err)
		}
		content := signed.Bytes()
		if rs := verify(string(content), records, time.Now()); len(rs) != 1 || rs[0].Verdict != Pass {
			rt.Fatalf("%+v\n%s", rs, content)
		}
		at := rapid.IntRange(bytes.Index(content, []byte("From:"))+6, len(content)-1).Draw(rt, "at")
		if b := content[at]; b == '\r' || b == '\n' || b == ' ' || b == '\t' || b == ':' {
			return
		}
		content[at] ^= 1
		_, theirs := verified(string(content), records)
		if ours := verify(string(content), records, time.Now()); len(ours) != 1 || (ours[0].Verdict == Pass) != (theirs == nil) {
			rt.Fatalf("ours %+v, theirs %v\n%q", ours, theirs, content)
		}
	})
}

// TestHostileMail: neither many empty lines, nor many fields and names, nor a folded field make
// the time grow faster than the message: each of these took minutes otherwise.
func TestHostileMail(t *testing.T) {
	head := "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=d.test; s=s; bh=AA==; b=AA==; h=from" + strings.Repeat(":x", 900) + "\r\n"
	for name, content := range map[string]string{
		"empty lines": head + "From: a@b\r\n\r\n" + strings.Repeat("\r\n", 4<<20) + "x",
		"fields":      head + "From: a@b\r\n" + strings.Repeat("x:\r\n", 200_000) + "\r\n",
		"folded":      head + "From: a@b\r\n" + strings.Repeat(" x\r\n", 200_000) + "\r\n",
	} {
		v := NewVerification()
		for rest := []byte(content); len(rest) > 0; {
			n := min(len(rest), 1000)
			_, _ = v.Write(rest[:n])
			rest = rest[n:]
		}
		if v.Held() > 4*MaxHeader {
			t.Errorf("%s: %d bytes are held", name, v.Held())
		}
		if rs := v.Results(context.Background(), func(context.Context, string) ([]string, error) { return nil, nil }, time.Now()); len(rs) != 1 || rs[0].Verdict != PermError {
			t.Errorf("%s: %+v", name, rs)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add([]byte(rfc8463), rfc8463Records["test._domainkey.football.example.com"])
	f.Add([]byte("DKIM-Signature: v=1; a=ed25519-sha256; b=AA==; bh=AA==; d=d; s=s; h=from\r\nFrom: x\r\n\r\n"), "p=")
	f.Fuzz(func(t *testing.T, content []byte, record string) {
		v := NewVerification()
		_, _ = v.Write(content)
		for _, r := range v.Results(context.Background(), func(context.Context, string) ([]string, error) { return []string{record}, nil }, time.Unix(1, 0)) {
			if r.Verdict == "" || (r.Verdict == Pass) != (r.Reason == "") {
				t.Fatalf("%+v", r)
			}
			for _, s := range []string{r.Domain, r.Selector, r.Algorithm, r.Signature} {
				if strings.ContainsAny(s, " \t\r\n;\"()\x1b") {
					t.Fatalf("%+v can forge a header", r)
				}
			}
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	body := strings.Repeat("Some words of a line, as mail has them, up to its end.\r\n", 180)
	for _, n := range []int{1, 1000} {
		content := rfc8463 + strings.Repeat(body, n)
		b.Run(fmt.Sprintf("%dKB", len(content)>>10), func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				if rs := verify(content, rfc8463Records, time.Now()); len(rs) != 2 {
					b.Fatal(rs)
				}
			}
		})
	}
}
