package whatif

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"

	"meta1/mta/explain"
	"meta1/mta/maillog"
)

// log is what SMTPS writes of a few sessions, with the sections of id 0 and 1.
const log = `
2026-11-22T05:11:06.199Z sev=INFO, module=smtps, event=session, ss_se=S000000000000000100, client_ip=192.0.2.7, client_name=mail.example.
2026-11-22T05:11:06.205Z sev=INFO, module=smtps, event=mail, ss_se=S000000000000000100, ss_ta=S000000000000000200, mail=<a@b.test>, stat=0, ehlo=mail.example
2026-11-22T05:11:06.209Z sev=INFO, module=smtps, event=rcpt, ss_se=S000000000000000100, ss_ta=S000000000000000200, rcpt=<joe@c.test>, idx=0, stat=0
2026-11-22T05:11:06.209Z sev=INFO, module=smtps, event=rcpt, ss_se=S000000000000000100, ss_ta=S000000000000000200, rcpt=<jim@c.test>, idx=1, stat=0
2026-11-22T05:11:06.209Z sev=INFO, module=smtps, event=message, ss_se=S000000000000000100, ss_ta=S000000000000000200, mail=<a@b.test>, msgid=, size=18, stat=0
2026-11-22T05:11:06.219Z sev=INFO, module=smtps, event=mail, ss_se=S000000000000000100, ss_ta=S000000000000000400, mail=<a@b.test>, stat=0, ehlo=mail.example
2026-11-22T05:11:06.219Z sev=INFO, module=smtps, event=rcpt, ss_se=S000000000000000100, ss_ta=S000000000000000400, rcpt=<joe@c.test>, idx=0, stat=0
2026-11-22T05:11:06.219Z sev=INFO, module=smtps, event=message, ss_se=S000000000000000100, ss_ta=S000000000000000400, mail=<a@b.test>, msgid=, size=2000, stat=0
2026-11-22T05:11:07.000Z sev=INFO, module=smtps, event=session, ss_se=S000000000000000501, client_ip=2001:db8::1, client_resolve=no
2026-11-22T05:11:07.000Z sev=INFO, module=smtps, event=starttls, ss_se=S000000000000000501, starttls=TLSv1.3, cipher=TLS_AES_128_GCM_SHA256, bits=128, verify=OK, cert_subject=/CN=c, cert_issuer=/CN=ca
2026-11-22T05:11:07.000Z sev=INFO, module=smtps, event=authenticated, ss_se=S000000000000000501, client_ip=2001:db8::1, client_resolve=no, mech=PLAIN, user=joe, relay=true
2026-11-22T05:11:07.000Z sev=NOTICE, module=smtps, event=refused, ss_se=S000000000000000501, ss_ta=S000000000000000601, client_ip=2001:db8::1, client_resolve=no, ehlo=x, mail=<>, rcpt=<"a, b"@c.test>, where=rcpt, stat=550, reply=550 no
2026-11-22T05:11:08.000Z sev=NOTICE, module=smtps, event=refused, ss_se=S000000000000000700, client_ip=192.0.2.9, client_resolve=no, where=connect, check=cltaddr, stat=550, reply=550 no
2026-11-22T05:11:08.000Z sev=NOTICE, module=smtps, event=refused, ss_se=S000000000000000800, client_ip=192.0.2.9, client_resolve=no, where=auth, stat=535, reply=535 no
2026-11-22T05:11:08.000Z sev=INFO, module=qmgr, event=delivered, rcpt_id=S0000000000000002000001
nonsense
2026-11-22T05:11:09.000Z sev=INFO, module=smtps, event=message, ss_se=S000000000000000900, ss_ta=S000000000000000a00, mail=<a@b.test>, msgid=, size=1, stat=0
`

func gather(t *testing.T, most int, text string) *Envelopes {
	t.Helper()
	e := &Envelopes{Max: most}
	// A comma within a value is written as %2C.
	text = strings.ReplaceAll(text, `"a, b"`, `"a%2C b"`)
	if err := maillog.Read(context.Background(), []io.Reader{strings.NewReader(text)}, e.Add); err != nil {
		t.Fatal(err)
	}
	return e
}

func show(e *Envelopes) (lines []string) {
	for _, v := range e.List() {
		tls := ""
		if v.TLS != nil {
			tls = fmt.Sprintf(" %s %s %d %s %s", v.TLS.Version, v.TLS.Cipher, v.TLS.Bits, v.TLS.Subject, v.TLS.Issuer)
		}
		lines = append(lines, fmt.Sprintf("%d %s %s %s <%s> %q %d× %d%s %s %s", v.ServerID, v.Client, v.Name, v.Helo, v.From, v.To, v.Seen, v.Size, tls, v.Auth, v.Mechanism))
	}
	return lines
}

func TestEnvelopesOfALog(t *testing.T) {
	got := show(gather(t, 100, log))
	want := []string{
		`0 192.0.2.7 mail.example. mail.example <a@b.test> ["joe@c.test"] 2× 2000  `,
		`0 192.0.2.7 mail.example. mail.example <a@b.test> ["jim@c.test"] 1× 18  `,
		`1 2001:db8::1  x <> ["\"a, b\"@c.test"] 1× 0 TLSv1.3 TLS_AES_128_GCM_SHA256 128 /CN=c /CN=ca joe PLAIN`,
		`0 192.0.2.9  [192.0.2.9] <> [] 1× 0  `,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestEnvelopesAreBounded: of more than Max it is said how many were left out, and sessions that
// never end are forgotten.
func TestEnvelopesAreBounded(t *testing.T) {
	if e := gather(t, 1, log); len(e.List()) != 1 || e.Left != 3 {
		t.Errorf("%d kept, %d left out", len(e.List()), e.Left)
	}
	e := &Envelopes{Max: 1}
	for i := range 2 * sessionsMax {
		l := maillog.Line{Fields: []maillog.Field{{Name: "event", Value: "session"}, {Name: "ss_se", Value: fmt.Sprintf("S%016X00", i)}}}
		if err := e.Add(&l); err != nil {
			t.Fatal(err)
		}
	}
	if len(e.sessions) > sessionsMax || len(e.order) != len(e.sessions) {
		t.Errorf("%d sessions, %d in order", len(e.sessions), len(e.order))
	}
}

func TestEnvelopesOfAFile(t *testing.T) {
	const file = `# a comment
{"client":"192.0.2.7","from":"a@b.test","to":["c@d.test"]}

{"client":"::ffff:192.0.2.7","from":"a@b.test","to":["c@d.test"],"seen":4}
{"client":"2001:db8::1","name":"h.test.","tls":{"version":"TLSv1.3"},"auth":"joe","from":"","to":["c@d.test","e@f.test"],"size":10}
`
	e := &Envelopes{Max: 10}
	if err := e.Read(strings.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		`0 192.0.2.7  [192.0.2.7] <a@b.test> ["c@d.test"] 5× 0  `,
		`0 2001:db8::1 h.test. h.test <> ["c@d.test" "e@f.test"] 1× 10 TLSv1.3  0   joe `,
	}
	if got := show(e); !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, c := range []struct{ file, err string }{
		{"\n{\"client\":\"192.0.2.7\",", "line 2: "},
		{"{\"client\":\"192.0.2.7\",\"form\":\"a@b.test\"}", "line 1: json: unknown field \"form\""},
		{"{\"from\":\"a@b.test\"}", "line 1: the address of the client is missing"},
		{"{\"client\":\"192.0.2.7\",\"from\":\"a\\r\\nRSET\"}", "line 1: \"a\\r\\nRSET\" is too long, or has control characters"},
		{"{\"client\":\"192.0.2.7\"} {}", "line 1: something follows"},
		{"\n" + strings.Repeat("x", questionMax+1), "line 2: bufio.Scanner: token too long"},
	} {
		if err := (&Envelopes{Max: 10}).Read(strings.NewReader(c.file)); err == nil || !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%.60q: %v, want %q", c.file, err, c.err)
		}
	}
}

// report makes one with a recipient, of which change says what is special.
func report(change func(*explain.Report)) *explain.Report {
	r := &explain.Report{
		Verdict: explain.Accepted,
		Stages: []*explain.Stage{
			{Stage: "connect", Reply: "220 hello", Verdict: explain.Accepted},
			{
				Stage: "rcpt", Reply: "250 ok", Verdict: explain.Accepted,
				Checks: []explain.Check{{Check: "to", Key: "to:x@y.test"}, {Check: "relay", Map: "/mt", Key: "y.test", Value: "[192.0.2.1]", Decides: true}},
			},
		},
		Recipients: []explain.Recipient{{Rcpt: "x@y.test", Reply: "250 ok", Verdict: explain.Accepted, Routes: []explain.Route{{
			Rcpt: "x@y.test", Dest: "mx:y.test",
			Hops: []explain.Hop{{Hop: "a:25", TLS: "used if offered"}, {Hop: "b:25", TLS: "used if offered", Limits: []explain.Option{{Option: "connections_max", Value: "10", Where: "default"}}}},
		}}}},
	}
	if change != nil {
		change(r)
	}
	return r
}

func TestCompare(t *testing.T) {
	refuse := func(r *explain.Report) {
		s := r.Stages[1]
		s.Reply, s.Verdict = "550 no", explain.Rejected
		s.Options = []explain.Option{{Option: "smar/access_map", Value: "a", Where: "c:1"}}
		r.Recipients[0] = explain.Recipient{Rcpt: "x@y.test", Reply: s.Reply, Verdict: s.Verdict}
		r.Verdict = s.Verdict
	}
	hops := func(r *explain.Report) []explain.Hop { return r.Recipients[0].Routes[0].Hops }
	for _, c := range []struct {
		name   string
		change func(*explain.Report)
		want   []string
	}{
		{"nothing", nil, nil},
		{"hosts in another order", func(r *explain.Report) { h := hops(r); h[0], h[1] = h[1], h[0] }, nil},
		{"refused", refuse, []string{"verdict x@y.test accept: 250 ok [relay: y.test in /mt: [192.0.2.1]] | reject: 550 no [relay: y.test in /mt: [192.0.2.1] smar/access_map = a (c:1)]"}},
		{"refused at connect", func(r *explain.Report) {
			r.Stages, r.Recipients = r.Stages[:1], nil
			r.Stages[0].Reply, r.Stages[0].Verdict = "554 no", explain.Rejected
		}, []string{"verdict x@y.test accept: 250 ok [relay: y.test in /mt: [192.0.2.1]] | reject: 554 no []"}},
		{"another text", func(r *explain.Report) { r.Recipients[0].Reply = "250 fine" }, []string{"reply x@y.test accept: 250 ok [relay: y.test in /mt: [192.0.2.1]] | accept: 250 fine [relay: y.test in /mt: [192.0.2.1]]"}},
		{"another host", func(r *explain.Report) { hops(r)[0].Hop = "c:25" }, []string{"route x@y.test <x@y.test> goes to mx:y.test at a:25, b:25 [] | <x@y.test> goes to mx:y.test at c:25, b:25 []"}},
		{"TLS", func(r *explain.Report) { hops(r)[0].TLS = "required" }, []string{"tls x@y.test a:25: used if offered; b:25: used if offered [] | a:25: required; b:25: used if offered []"}},
		{"limits", func(r *explain.Report) { hops(r)[1].Limits[0].Value = "5" }, []string{"limits x@y.test b:25: connections_max = 10 [connections_max: default] | b:25: connections_max = 5 [connections_max: default]"}},
		{"sender", func(r *explain.Report) { r.Recipients[0].Routes[0].Sender = "owner@y.test" }, []string{"sender x@y.test  [] | <x@y.test> from <owner@y.test> []"}},
		{"no route", func(r *explain.Report) {
			r.Recipients[0].Routes[0] = explain.Route{Rcpt: "x@y.test", Reply: "451 later"}
		}, []string{"route x@y.test <x@y.test> goes to mx:y.test at a:25, b:25 [] | <x@y.test> has no route: 451 later []"}},
	} {
		var got []string
		for _, d := range Compare(report(nil), report(c.change)) {
			got = append(got, fmt.Sprintf("%s %s %s %v | %s %v", d.Kind, d.Rcpt, d.Old.Text, d.Old.Why, d.New.Text, d.New.Why))
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s:\ngot  %q\nwant %q", c.name, got, c.want)
		}
		if back := Compare(report(c.change), report(nil)); len(back) != len(c.want) {
			t.Errorf("%s: the other way round %d changes", c.name, len(back))
		}
	}
}

// FuzzEnvelopes: neither a log nor a file of questions breaks anything, and what is taken can be tried.
func FuzzEnvelopes(f *testing.F) {
	f.Add([]byte(log))
	f.Add([]byte(`{"client":"192.0.2.7","from":"a@b.test","to":["c@d.test"]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		e := &Envelopes{Max: 20}
		if err := maillog.Read(context.Background(), []io.Reader{bytes.NewReader(in)}, e.Add); err != nil {
			t.Skip() // not a log, such as broken gzip
		}
		_ = e.Read(bytes.NewReader(in))
		if len(e.List()) > 20 {
			t.Fatal("too many")
		}
		for _, v := range e.List() {
			if err := v.Check(); err != nil {
				t.Fatalf("%+v: %v", v, err)
			}
		}
	})
}
