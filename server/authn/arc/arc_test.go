package arc

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/server/dkim"
)

// base is a message of two hosts on, with the results that the last one found.
const base = "Authentication-Results: mx.example.org;\r\n\tspf=pass smtp.mfrom=jqd@d1.example;\r\n\tdkim=pass (1024-bit key) header.d=d1.example\r\n" +
	"Received: from d1.example by mx.example.org; Thu, 14 Jan 2015 15:01:30 -0800\r\n" +
	"Authentication-Results: mx.example.org; arc=pass\r\n" +
	"MIME-Version: 1.0\r\nMessage-ID: <54B84785.1060301@d1.example.org>\r\nDate: Thu, 14 Jan 2015 15:00:01 -0800\r\n" +
	"From: John Q Doe <jqd@d1.example.org>\r\nTo: arc@dmarc.org\r\nSubject: Example 1\r\n" +
	"\r\nHey gang,\r\nThis is a test message.\r\n--J.\r\n"

// start is a time in a test.
var start = time.Unix(1700000000, 0)

// world is keys and the DNS that has them.
type world struct {
	records map[string]string
}

// key makes a key and puts it into DNS.
func (w *world) key(t testing.TB, kind, domain string) Key {
	t.Helper()
	private, _, err := dkim.MakePrivate(kind, 2048)
	if err != nil {
		t.Fatal(err)
	}
	record, err := dkim.Record(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	if w.records == nil {
		w.records = map[string]string{}
	}
	w.records[dkim.RecordName("s", domain)] = record
	return Key{Domain: domain, Selector: "s", Private: private}
}

func (w *world) verify(content string) Result {
	chain := &Chain{}
	c := dkim.NewContent(chain.Bodies)
	for piece := range slices.Chunk([]byte(content), 50) {
		_, _ = c.Write(piece)
	}
	return chain.Verify(context.Background(), c, func(_ context.Context, name string) ([]string, error) {
		switch r, ok := w.records[name]; {
		case r == "fails":
			return nil, errors.New("no answer")
		case ok:
			return strings.Split(r, "|"), nil
		}
		return nil, nil
	}, start)
}

// sealed is a message behind its next set; chain is the result for the one it has.
func sealed(t testing.TB, content string, key Key, chain string) string {
	t.Helper()
	if chain != "" {
		content = "Authentication-Results: mx.example.org; arc=" + chain + " (by us)\r\n" +
			"Received: from a by mx.example.org; Thu, 14 Jan 2015 15:01:31 -0800\r\n" + content
	}
	head, _, err := Seal(strings.NewReader(content), key, "mx.example.org", start)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(head), "\r\n") {
		if len(line) > 100 {
			t.Errorf("line of %d bytes: %s", len(line), line)
		}
	}
	return string(head) + content
}

// TestChain: three hosts seal one after the other, by both algorithms.
func TestChain(t *testing.T) {
	w := &world{}
	a, b, c := w.key(t, dkim.KindRSA, "A.example"), w.key(t, dkim.KindEd25519, "b.example"), w.key(t, dkim.KindRSA, "c.example")
	w.records["s._domainkey.a.example"] = w.records["s._domainkey.A.example"]
	if r := w.verify(base); r.Verdict != dkim.None || r.Instance != 0 {
		t.Errorf("without sets: %+v", r)
	}
	one := sealed(t, base, a, "")
	if !strings.Contains(one, "ARC-Authentication-Results: i=1; mx.example.org;\r\n\tspf=pass smtp.mfrom=jqd@d1.example;\r\n\tdkim=pass (1024-bit key) header.d=d1.example\r\n") {
		t.Errorf("results are not ours:\n%s", one)
	}
	two := sealed(t, one, b, "pass")
	changed := strings.Replace(two, "Subject: Example 1", "Subject: [list] Example 1", 1)
	three := sealed(t, changed, c, "pass")
	cases := []struct {
		content string
		want    Result
	}{
		{one, Result{Verdict: dkim.Pass, Instance: 1, Sealers: []string{"a.example"}}},
		{two, Result{Verdict: dkim.Pass, Instance: 2, Sealers: []string{"a.example", "b.example"}}},
		{changed, Result{Verdict: dkim.Fail, Instance: 2, Reason: "message signature 2: the signature does not fit the header"}},
		{three, Result{Verdict: dkim.Pass, Instance: 3, OldestPass: 3, Sealers: []string{"a.example", "b.example", "c.example"}}},
		{sealed(t, two, c, "pass"), Result{Verdict: dkim.Pass, Instance: 3, Sealers: []string{"a.example", "b.example", "c.example"}}},
		{one + "changed\r\n", Result{Verdict: dkim.Fail, Instance: 1, Reason: "message signature 1: the body was changed"}},
	}
	for i, c := range cases {
		r := w.verify(c.content)
		results := r.Authenticated
		if r.Authenticated = nil; fmt.Sprint(r) != fmt.Sprint(c.want) {
			t.Errorf("case %d: %+v, want %+v", i, r, c.want)
		}
		if len(results) != len(r.Sealers) || len(results) > 0 && !strings.HasPrefix(strings.TrimSpace(results[0]), "mx.example.org;") {
			t.Errorf("case %d: the sealers say %q", i, results)
		}
	}
	w.records["s._domainkey.b.example"] = "fails"
	if r := w.verify(two); r.Verdict != dkim.TempError || r.Reason != "message signature 2: DNS does not answer" {
		t.Errorf("without DNS: %+v", r)
	}
	if r := w.verify(three); r.Verdict != dkim.TempError || r.Reason != "seal 2: DNS does not answer" {
		t.Errorf("without DNS for an older seal: %+v", r)
	}
}

// maker makes the fields of a set that lies about itself.
type maker struct {
	key        Key
	ams, as    string // the fields without the value of b=, which stands last
	aar        string
	afterwards func(string) string // changes what was signed
}

// signedBy signs like an honest host what is given.
func signedBy(t testing.TB, key crypto.Signer, b string, before []byte) string {
	t.Helper()
	sum := sha256.New()
	sum.Write(before)
	sum.Write(unsigned(dkim.Relaxed, dkim.Field{Raw: []byte(b + "\r\n")}))
	value, err := dkim.SignHash(key, sum.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(b, "b=") + 2
	return b[:at] + base64.StdEncoding.EncodeToString(value) + b[at:] + "\r\n"
}

// make is base behind one set as the maker says.
func (m *maker) make(t testing.TB) string {
	t.Helper()
	h, err := dkim.ParseHeader([]byte(base))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	if tags, err := dkim.ParseTags(m.ams[strings.IndexByte(m.ams, ':')+1:]); err == nil {
		names = strings.Split(strings.ToLower(tags.Packed("h")), ":")
	}
	aar := m.aar + "\r\n"
	withResults := append(dkim.Header{field([]byte(aar))}, h...)
	message := signedBy(t, m.key.Private, m.ams, dkim.CanonicalFields(dkim.Relaxed, withResults, names))
	seal := signedBy(t, m.key.Private, m.as, dkim.AppendCanonical(dkim.AppendCanonical(nil, dkim.Relaxed, []byte(aar)), dkim.Relaxed, []byte(message)))
	content := seal + message + aar + base
	if m.afterwards != nil {
		content = m.afterwards(content)
	}
	return content
}

// TestSets has a case for each group of those of the public test suite for ARC (ValiMail,
// arc_test_suite): sets that are whole and signed as they stand, but for what the case says.
func TestSets(t *testing.T) {
	w := &world{}
	key := w.key(t, dkim.KindRSA, "example.org")
	body := dkim.NewBodyHash(dkim.Relaxed)
	_, _ = body.Write([]byte(base[strings.Index(base, "\r\n\r\n")+4:]))
	bh := base64.StdEncoding.EncodeToString(body.Sum())
	const (
		aar = "ARC-Authentication-Results: i=1; lists.example.org; spf=pass smtp.mfrom=jqd@d1.example"
		as  = "ARC-Seal: a=rsa-sha256; cv=none; d=example.org; i=1; s=s; t=12345; b="
	)
	ams := "ARC-Message-Signature: a=rsa-sha256; bh=" + bh + "; c=relaxed/relaxed; d=example.org; h=from:to:date:subject:mime-version:arc-authentication-results; i=1; s=s; t=12345; b="
	replaced := func(in, from, to string) string {
		if !strings.Contains(in, from) {
			t.Fatalf("%q is not in %q", from, in)
		}
		return strings.Replace(in, from, to, 1)
	}
	seal := func(from, to string) func(*maker) { return func(m *maker) { m.as = replaced(m.as, from, to) } }
	message := func(from, to string) func(*maker) { return func(m *maker) { m.ams = replaced(m.ams, from, to) } }
	results := func(from, to string) func(*maker) { return func(m *maker) { m.aar = replaced(m.aar, from, to) } }
	after := func(from, to string) func(*maker) {
		return func(m *maker) { m.afterwards = func(s string) string { return replaced(s, from, to) } }
	}
	without := func(name string) func(*maker) {
		return func(m *maker) {
			m.afterwards = func(s string) string {
				i := strings.Index(s, name+":")
				return s[:i] + s[i+strings.Index(s[i:], "\r\n")+2:]
			}
		}
	}
	twice := func(name string) func(*maker) {
		return func(m *maker) {
			m.afterwards = func(s string) string {
				i := strings.Index(s, name+":")
				return s[i:i+strings.Index(s[i:], "\r\n")+2] + s
			}
		}
	}
	cases := []struct {
		name string
		do   func(*maker)
		want string // "" for pass
	}{
		{"pass", func(*maker) {}, ""},
		{"cv_fail", seal("cv=none", "cv=fail"), "it says that the chain had failed already"},
		{"cv_pass_i1", seal("cv=none", "cv=pass"), "cv=none"},
		{"as_cv_na", seal(" cv=none;", ""), "cv=none"},
		{"as_cv_invalid", seal("cv=none", "cv=never"), "cv=none"},
		{"as_cv_empty", seal("cv=none", "cv="), "cv=none"},

		{"ams_missing", without("ARC-Message-Signature"), "no field arc-message-signature"},
		{"as_missing", without("ARC-Seal"), "no field arc-seal"},
		{"aar_missing", without("ARC-Authentication-Results"), "no field arc-authentication-results"},
		{"ams_dup", twice("ARC-Message-Signature"), "two fields arc-message-signature"},
		{"as_dup", twice("ARC-Seal"), "two fields arc-seal"},
		{"aar_dup", twice("ARC-Authentication-Results"), "two fields arc-authentication-results"},
		{"gap", func(m *maker) { m.afterwards = func(s string) string { return strings.ReplaceAll(s, "i=1;", "i=2;") } }, "set 1 is missing"},
		{"headers_field_name_case", after("ARC-Seal:", "arc-sEaL:"), ""},
		{"i_99", seal("i=1", "i=99"), "from 1 to 50"},

		{"ams_i_na", message(" i=1;", ""), "from 1 to 50"},
		{"ams_i_empty", message("i=1", "i="), "from 1 to 50"},
		{"ams_i_zero", message("i=1", "i=0"), "from 1 to 50"},
		{"ams_i_51", message("i=1", "i=51"), "from 1 to 50"},
		{"ams_i_invalid", message("i=1", "i=nonsense"), "from 1 to 50"},
		{"ams_i_plus", message("i=1", "i=+1"), "from 1 to 50"},
		{"ams_i_huge", message("i=1", "i=100000000000000000001"), "from 1 to 50"},
		{"as_i_na", seal(" i=1;", ""), "from 1 to 50"},
		{"as_i_zero", seal("i=1", "i=0"), "from 1 to 50"},
		{"aar_i_na", results(" i=1;", ""), "field arc-authentication-results"},
		{"aar_i_zero", results("i=1", "i=0"), "from 1 to 50"},
		{"aar_i_not_prefixed", results("i=1; lists.example.org", "lists.example.org; i=1"), "field arc-authentication-results"},
		{"aar_i_wsp", results(" i=1;", "  \t i =  1 ;"), ""},

		{"ams_format_sc_na", message("rsa-sha256; bh", "rsa-sha256 bh"), "message signature 1"},
		{"ams_format_sc_wsp", message("a=rsa-sha256; bh", "a=rsa-sha256 ; bh"), ""},
		{"ams_format_tags_dup", message("s=s;", "s=s; s=s;"), "a tag stands twice"},
		{"ams_format_tags_key_case", message(" a=", " A="), "the tag a= is missing"},
		{"ams_format_tags_val_case", message("example.org", "EXAMPLE.org"), ""},
		{"ams_format_tags_wsp", message("; d=example.org;", ";   d  =  example.org  ;"), ""},
		{"ams_format_tags_sc", message("; b=", "; b=;"), ""},
		{"ams_format_eq_na", message("t=12345", "t12345"), "has no value"},
		{"ams_format_inv_tag_key", message("t=12345;", "t=12345; *=a;"), ""},

		{"ams_a_na", message("a=rsa-sha256; ", ""), "the tag a= is missing"},
		{"ams_a_empty", message("a=rsa-sha256", "a="), "the tag a= is missing"},
		{"ams_a_sha1", message("a=rsa-sha256", "a=rsa-sha1"), "the algorithm is not known"},
		{"ams_a_unknown", message("a=rsa-sha256", "a=poly1305"), "the algorithm is not known"},
		{"ams_b_ignores_wsp", func(m *maker) {
			m.afterwards = func(s string) string {
				i := strings.Index(s, "ARC-Message-Signature")
				i += strings.LastIndex(s[i:i+strings.Index(s[i:], "\r\n")], "b=") + 10
				return s[:i] + " \r\n\t " + s[i:]
			}
		}, "seal 1"}, // the message signature holds, its seal does not
		{"ams_b_head_case", after("\r\nARC-Message-Signature: a=rsa-sha256", "\r\nARC-Message-Signature: a=rsa-SHA256"), "the algorithm is not known"},
		{"ams_bh_na", message("bh="+bh+"; ", ""), "bh= is not base64"},
		{"ams_bh_empty", message("bh="+bh, "bh="), "bh= is not base64"},
		{"ams_bh_base64", message("bh="+bh, "bh=*"), "bh= is not base64"},
		{"ams_bh_other", message("bh="+bh, "bh="+base64.StdEncoding.EncodeToString(make([]byte, 32))), "the body was changed"},
		{"ams_c_na", message("c=relaxed/relaxed; ", ""), "message signature 1"}, // simple/simple
		{"ams_c_invalid", message("c=relaxed/relaxed", "c=larry"), "canonicalization"},
		{"ams_c_relaxed", message("c=relaxed/relaxed", "c=relaxed"), ""}, // the body is the same in simple
		{"ams_d_na", message(" d=example.org;", ""), "the tag d= is missing"},
		{"ams_d_empty", message("d=example.org", "d="), "the tag d= is missing"},
		{"ams_d_invalid", message("d=example.org", "d=not.example.org"), "DNS has no key"},
		{"ams_h_na", message(" h=from:to:date:subject:mime-version:arc-authentication-results;", ""), "From is not signed"},
		{"ams_h_empty", message("h=from:to:date:subject:mime-version:arc-authentication-results", "h="), "From is not signed"},
		{"ams_h_as", message("h=from:", "h=from:arc-seal:"), "h= has ARC-Seal"},
		{"ams_h_case", message("h=from:to", "h=from:tO"), ""},
		{"ams_h_wsp", message("h=from:to", "h=from :  to"), ""},
		{"ams_h_missing_field", message("h=from:to", "h=from:from:to:list-id"), ""},
		{"ams_l", message("t=12345", "t=12345; l=10"), "l= leaves"},
		{"ams_s_na", message(" s=s;", ""), "the tag s= is missing"},
		{"ams_s_invalid", message("s=s;", "s=invalid;"), "DNS has no key"},
		{"ams_t_na", message(" t=12345;", ""), ""},
		{"ams_t_empty", message("t=12345", "t="), "no time"},
		{"ams_t_invalid", message("t=12345", "t=12345.5"), "no time"},
		{"ams_v", message("t=12345", "t=12345; v=1"), ""},
		{"ams_x", message("t=12345", "t=12345; x=12346"), "expired"},
		{"ams_x_later", message("t=12345", "t=12345; x=1700000001"), ""},

		{"as_format_sc_na", seal("rsa-sha256; cv", "rsa-sha256 cv"), "seal 1"},
		{"as_format_tags_dup", seal("s=s;", "s=s; s=s;"), "arc-seal cannot be read"},
		{"as_format_tags_key_case", seal(" a=", " A="), "the tag a= is missing"},
		{"as_format_inv_tag_key", seal("t=12345;", "t=12345; *=a;"), ""},
		{"as_a_na", seal("a=rsa-sha256; ", ""), "the tag a= is missing"},
		{"as_a_sha1", seal("a=rsa-sha256", "a=rsa-sha1"), "the algorithm is not known"},
		{"as_a_other_kind", seal("a=rsa-sha256", "a=ed25519-sha256"), "the key is of another kind"},
		{"as_b_empty", func(m *maker) {
			m.afterwards = func(s string) string { return s[:strings.Index(s, "b=")+2] + s[strings.Index(s, "\r\n"):] }
		}, "the tag b= is missing"},
		{"as_d_na", seal(" d=example.org;", ""), "the tag d= is missing"},
		{"as_d_invalid", seal("d=example.org", "d=not.example.org"), "DNS has no key"},
		{"as_h", seal("t=12345", "t=12345; h=from"), "a seal has no tag h="},
		{"as_bh", seal("t=12345", "t=12345; bh="+bh), "a seal has no tag bh="},
		{"as_s_na", seal(" s=s;", ""), "the tag s= is missing"},
		{"as_t_na", seal(" t=12345;", ""), ""},
		{"as_t_invalid", seal("t=12345", "t=wrong"), "no time"},
		{"aar_changed", after("spf=pass smtp.mfrom=jqd@d1.example\r\nAuth", "spf=fail smtp.mfrom=jqd@d1.example\r\nAuth"), "message signature 1"},
		{"bcc_changed", after("Subject: Example 1", "Subject: Example 2"), "message signature 1"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			m := &maker{key: key, ams: ams, as: as, aar: aar}
			c.do(m)
			content := m.make(t)
			r := w.verify(content)
			switch {
			case c.want == "" && (r.Verdict != dkim.Pass || r.Reason != ""):
				t.Errorf("%+v\n%s", r, content)
			case c.want != "" && (r.Verdict != dkim.Fail || !strings.Contains(r.Reason, c.want)):
				t.Errorf("%+v, want %q\n%s", r, c.want, content)
			}
		})
	}
}

// TestPublicKeys changes the record of the key.
func TestPublicKeys(t *testing.T) {
	w := &world{}
	content := sealed(t, base, w.key(t, dkim.KindRSA, "example.org"), "")
	const name = "s._domainkey.example.org"
	good := w.records[name]
	cases := []struct {
		record, want string
	}{
		{good, ""},
		{strings.Replace(good, "v=DKIM1; ", "", 1), ""},
		{strings.Replace(good, "k=rsa; ", "", 1), ""},
		{"", "cannot be read"},
		{good + "|" + good, "several keys"},
		{strings.Replace(good, "p=", "q=", 1), "cannot be read"},
		{"v=DKIM1; k=rsa; p=", "revoked"},
		{strings.Replace(good, "k=rsa", "k=larry", 1), "not known"},
		{strings.Replace(good, "DKIM1", "DKIM2", 1), "cannot be read"},
		{good + "; h=sha1", "not for this use"},
		{good + "; s=tlsrpt", "not for this use"},
		{good + "; t=y", ""},
	}
	for _, c := range cases {
		w.records[name] = c.record
		r := w.verify(content)
		if c.want == "" && r.Verdict != dkim.Pass || c.want != "" && (r.Verdict != dkim.Fail || !strings.Contains(r.Reason, c.want)) {
			t.Errorf("%s: %+v, want %q", c.record, r, c.want)
		}
	}
	delete(w.records, name)
	if r := w.verify(content); r.Verdict != dkim.Fail || !strings.Contains(r.Reason, "DNS has no key") {
		t.Errorf("%+v", r)
	}
}

// TestFifty: a chain may have 50 sets, and gets no more.
func TestFifty(t *testing.T) {
	w := &world{}
	key := w.key(t, dkim.KindEd25519, "example.org")
	content := sealed(t, base, key, "")
	for range MaxSets - 1 {
		content = sealed(t, content, key, "pass")
	}
	if r := w.verify(content); r.Verdict != dkim.Pass || r.Instance != MaxSets || len(r.Sealers) != MaxSets {
		t.Errorf("%+v", r)
	}
	one := "Authentication-Results: mx.example.org; arc=pass\r\nReceived: x\r\n" + content
	if _, _, err := Seal(strings.NewReader(one), key, "mx", start); !errors.Is(err, errFull) {
		t.Errorf("set 51: %v", err)
	}
}

// TestSealing: what the next seal says of the chain, and when there is none.
func TestSealing(t *testing.T) {
	w := &world{}
	key := w.key(t, dkim.KindEd25519, "example.org")
	one := sealed(t, base, key, "")
	broken := strings.Replace(one, "ARC-Authentication-Results: i=1", "ARC-Authentication-Results: i=7", 1)
	const top, got = "Authentication-Results: mx.example.org; ", "\r\nReceived: from a by b; c\r\n"
	cases := []struct {
		content  string
		instance int
		cv       string
		wrong    error
	}{
		{base, 1, "none", nil},
		{base[strings.Index(base, "MIME"):], 1, "none", nil},
		{top + "spf=pass; arc=pass (i=1)" + got + one, 2, "pass", nil},
		{top + "spf=pass;\r\n\tARC = Pass header.oldest-pass=0" + got + one, 2, "pass", nil},
		{top + "spf=pass (arc=fail; arc=fail)\r\n smtp.mfrom=\"; arc=fail\"; arc=pass" + got + one, 2, "pass", nil},
		{top + "arc=fail" + got + one, 2, "fail", nil},
		{top + "arc=fail" + got + broken, 8, "fail", nil},
		{top + "arc=pass" + got + broken, 0, "", errWrongState},
		{top + "arc=temperror" + got + one, 0, "", errTempError},
		{top + "arc=none" + got + one, 0, "", errWrongState},
		{top + "spf=pass" + got + one, 0, "", errNotJudged},
		{"Received: from a by b; c\r\n" + one, 0, "", errNotJudged}, // those below are not ours
		{"Authentication-Results: other; spf=pass\r\n" + top + "arc=pass" + got + one, 0, "", errNotJudged},
		{top + "spf=pass\r\n" + top + "arc=pass" + got + one, 2, "pass", nil},
		{"Subject: no sender\r\n\r\n", 0, "", errNoFrom},
		{"", 0, "", errNoFrom},
	}
	for i, c := range cases {
		head, made, err := Seal(strings.NewReader(c.content), key, "mx.example.org", start)
		if !errors.Is(err, c.wrong) || made.Instance != c.instance || made.CV != c.cv || (err == nil) == (len(head) == 0) {
			t.Errorf("case %d: %+v %v\n%s", i, made, err, head)
			continue
		}
		if err != nil {
			continue
		}
		if r := w.verify(string(head) + c.content); (r.Verdict == dkim.Pass) != (c.cv != "fail") || r.Instance != c.instance {
			t.Errorf("case %d: %+v", i, r)
		}
		if c.cv != "fail" {
			continue
		}
		// The seal of a chain that failed covers its own set alone, and ends the chain.
		if r := w.verify(string(head) + base); !strings.Contains(r.Reason, "is missing") {
			t.Errorf("case %d alone: %+v", i, r)
		}
		again := top + "arc=fail" + got + string(head) + c.content
		if _, _, err := Seal(strings.NewReader(again), key, "mx", start); i == 5 && !errors.Is(err, errHadFailed) {
			t.Errorf("case %d again: %v", i, err)
		}
	}
}

// TestResults: the payload of the next set has the results of this host alone.
func TestResults(t *testing.T) {
	cases := []struct{ header, want string }{
		{"", " mx.example.org; none"},
		{"Authentication-Results: h; none\r\n", " h; none"},
		{"Authentication-Results: h\r\n", " h; none"},
		{"Authentication-Results: \"h\" 1; spf=pass;\r\n", " \"h\" 1; spf=pass"},
		{"Authentication-Results:h;spf=pass\r\n", " h;spf=pass"},
		{"Authentication-Results: h; spf=pass\r\nAuthentication-Results: other; dkim=pass\r\nAuthentication-Results: H; dmarc=pass (p=none)\r\n", " h; spf=pass;\r\n\tdmarc=pass"},
		{"Authentication-Results: (nothing\r\n", " mx.example.org; none"},
		{"Authentication-Results: \"h\r\n", " mx.example.org; none"},
		{"Subject: x\r\nReceived: y\r\nAuthentication-Results: h; spf=pass\r\n", " mx.example.org; none"},
	}
	for _, c := range cases {
		h, err := dkim.ParseHeader([]byte(c.header))
		if err != nil {
			t.Fatal(err)
		}
		if o := ownResults(h, "mx.example.org"); o.payload != c.want {
			t.Errorf("%q: %q, want %q", c.header, o.payload, c.want)
		}
	}
}

// FuzzVerify: what strangers send is judged, and what passes was signed.
func FuzzVerify(f *testing.F) {
	w := &world{}
	key := w.key(f, dkim.KindEd25519, "example.org")
	one := sealed(f, base, key, "")
	two := sealed(f, one, key, "pass")
	f.Add(one)
	f.Add(two)
	f.Add(base)
	f.Add("ARC-Seal: i=1; a=rsa-sha256\r\nARC-Message-Signature: i=1\r\nARC-Authentication-Results: i=1; a\r\n\r\n")
	f.Add("Authentication-Results: (a\\" + got() + "\r\n\r\n")
	f.Fuzz(func(t *testing.T, content string) {
		r := w.verify(content)
		switch r.Verdict {
		case dkim.Pass:
			if len(r.Sealers) != r.Instance || r.Instance < 1 || r.OldestPass > r.Instance || r.Reason != "" {
				t.Errorf("%+v", r)
			}
		case dkim.None, dkim.Fail:
		default:
			t.Errorf("%+v", r)
		}
		head, made, err := Seal(strings.NewReader(content), key, "mx.example.org", start)
		if err != nil {
			return
		}
		if bytes.Count(head, []byte("\n")) != bytes.Count(head, []byte("\r\n")) && !strings.Contains(strings.ReplaceAll(content, "\r\n", ""), "\n") {
			t.Errorf("the head has a bare line end: %q", head)
		}
		if after := w.verify(string(head) + content); made.CV == "pass" && r.Verdict == dkim.Pass && after.Verdict != dkim.Pass || made.CV == "none" && after.Verdict != dkim.Pass {
			t.Errorf("%+v does not pass: %+v", made, after)
		}
	})
}

// got is a header field on which the results end.
func got() string { return "\r\nReceived: from a by b; c" }
