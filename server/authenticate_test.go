package server

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/server/dkim"
)

// fakeDNS answers for records of TXT and A.
type fakeDNS struct {
	mu   sync.Mutex // guards the following
	txt  map[string]string
	down map[string]bool
}

func (d *fakeDNS) answer(q msg.DNSQ) msg.DNSA {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	switch text, ok := d.txt[name]; {
	case d.down[name]:
		return msg.DNSA{Status: msg.DNSUnavailable, Err: "no answer"}
	case ok && q.Type == msg.RecordTXT:
		return msg.DNSA{Texts: []string{text}}
	}
	return msg.DNSA{Status: msg.DNSNoName}
}

// authenticated runs one session from 198.51.100.7 against a server with a section
// authentication, and returns the replies, what was committed, and the log.
func authenticated(t *testing.T, options string, change func(*fakeMTA, *Deps, *Config), dns *fakeDNS, lines ...string) (commits []msg.CommitQ, fake *fakeMTA) {
	t.Helper()
	l, fake := newPipeListener(), newFakeMTA()
	cfg := loadConfig(t, options)
	deps := fake.deps(l)
	deps.Memory = msg.NewMemory(1 << 22)
	if change != nil {
		change(fake, &deps, &cfg)
	}
	g := supervise.NewGroup(context.Background())
	serveFake(g.Context(), g, fake.ports.DNS, dns.answer)
	b := startDeps(t, cfg, fake, deps)
	c := l.talkerFrom(t, "198.51.100.7")
	c.reply("220")
	for i := 0; i < len(lines); i += 2 {
		c.say(lines[i], lines[i+1])
	}
	c.say("QUIT", "221")
	b.end(t)
	g.Stop()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if used := deps.Memory.Used(); used != 0 {
		for _, q := range fake.committed {
			q.Memory.Release()
		}
		if used = deps.Memory.Used(); used != 0 {
			t.Errorf("%d bytes of the budget are left", used)
		}
	}
	return fake.committed, fake
}

func transaction1(from, content, reply string) []string {
	return []string{"EHLO client.test", "250", "MAIL FROM:<" + from + ">", "250", "RCPT TO:<a@example.org>", "250", "DATA", "354", content + "\r\n.", reply}
}

// TestResultsOnTop: the field stands on top, forged ones are gone, and the rest is as it was:
// in memory and in a file, with filters and without.
func TestResultsOnTop(t *testing.T) {
	dns := &fakeDNS{txt: map[string]string{"sender.test": "v=spf1 -all", "client.test": "v=spf1 ip4:192.0.2.1 ~all"}}
	forged := "Authentication-Results: mx.example.org; dkim=pass header.d=bank.test\r\n"
	others := "authentication-results : other.test; none\r\n"
	const rest = "Subject: x\r\n\r\nAuthentication-Results: mx.example.org; in the body\r\n"
	const top = "Authentication-Results: mx.example.org;\r\n\tspf=fail reason=\"matched all\" smtp.mailfrom=sender.test;\r\n" +
		"\tspf=softfail reason=\"matched all\" smtp.helo=client.test; dkim=none"
	for _, filters := range []int{0, 1, 2} {
		for _, inlineMax := range []int64{0, 400, 1 << 20} {
			for name, c := range map[string]struct{ sent, kept string }{
				"none":        {rest, rest},
				"forged":      {forged + others + rest, others + rest},
				"folded":      {"Authentication-Results:\r\n (c (d)) \"MX.example.org\" 1; dkim=pass\r\n" + rest, rest},
				"unreadable":  {"AUTHENTICATION-RESULTS: (mx.example.org; dkim=pass\r\n" + rest, rest},
				"no field":    {"Subject: x\r\nodd\r\n" + forged + "\r\nbody\r\n", "Subject: x\r\n\r\nodd\r\n" + forged + "\r\nbody\r\n"},
				"header only": {forged + "Subject: x\r\n", "Subject: x\r\n"},
			} {
				synctest.Test(t, func(t *testing.T) {
					cfg := "authentication { }"
					got, fake := authenticated(t, cfg, func(f *fakeMTA, d *Deps, c *Config) {
						f.inlineMax = inlineMax
						c.Milters, d.Dial = filterConfig(filters).Milters, pipeFilter("hX-A\x00b\x00")
					}, dns, transaction1("joe@sender.test", strings.TrimSuffix(c.sent, "\r\n"), "250")...)
					if len(got) != 1 {
						t.Fatalf("%s: %d messages", name, len(got))
					}
					content, err := fake.content(got[0])
					text := string(content)
					if err != nil || got[0].Size != int64(len(text)) {
						t.Errorf("%s: %v, size %d of %d", name, err, got[0].Size, len(text))
					}
					i := strings.Index(text, "\r\nReceived:")
					j := strings.Index(text, "+0000\r\n")
					if i < 0 || !strings.HasPrefix(strings.ReplaceAll(text[:i], "\r\n\tdkim", " dkim"), top) || strings.Contains(text[:i], "forged") {
						t.Errorf("%s, %d filters: on top %q\nwant %q", name, filters, text, top)
						return
					}
					kept := strings.ReplaceAll(text[j+len("+0000\r\n"):], "X-A: b\r\n", "")
					// Filters end a header that has no body with an empty line.
					if strings.TrimRight(kept, "\r\n") != strings.TrimRight(c.kept, "\r\n") || filters != strings.Count(text, "X-A: b") {
						t.Errorf("%s, %d filters, inline up to %d: %q\nwant %q", name, filters, inlineMax, kept, c.kept)
					}
				})
			}
		}
	}
}

// TestSPFAtMail: what the options make of a result.
func TestSPFAtMail(t *testing.T) {
	dns := &fakeDNS{
		txt: map[string]string{
			"fail.test": "v=spf1 -all", "soft.test": "v=spf1 ~all", "wrong.test": "v=spf1 x", "pass.test": "v=spf1 ip4:198.51.100.7",
			"helo.test": "v=spf1 -all",
		},
		down: map[string]bool{"down.test": true},
	}
	for _, c := range []struct{ options, helo, from, reply, hold, log string }{
		{"", "x", "a@fail.test", "250", "", "spf=fail spf_domain=fail.test"},
		{"spf { fail = reject; }", "x", "a@fail.test", "550 5.7.23", "", "check=spf"},
		{"spf { fail = reject; }", "x", "a@soft.test", "250", "", "spf=softfail"},
		{"spf { fail = reject; }", "x", "a@pass.test", "250", "", "auth=\"spf=pass"},
		{"spf { fail = reject; }", "fail.test", "", "550 5.7.23", "", "key=fail.test"},
		{"spf { fail = quarantine; }", "x", "a@fail.test", "250", "quarantined by SPF: fail of fail.test", ""},
		{"spf { helo_fail = reject; }", "helo.test", "a@pass.test", "550 5.7.23", "", "key=helo.test"},
		{"spf { permerror = reject; }", "x", "a@wrong.test", "550 5.7.24", "", ""},
		{"spf { temperror = tempfail; }", "x", "a@down.test", "451 4.7.24", "", ""},
		{"", "x", "a@down.test", "250", "", "spf=temperror"},
		{"spf { check = false; fail = reject; }", "x", "a@fail.test", "250", "", "auth=\"dkim=none"},
		{"spf { fail = reject; } } check eom { condition == strcmp(spf_result, \"softfail\") == 0 && dkim_result =~ \"none\"; action = permfail;", "x", "a@soft.test", "250", "refused", "check=\"check eom\""},
	} {
		t.Run(c.options+c.from, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lines := []string{"EHLO " + c.helo, "250", "MAIL FROM:<" + c.from + ">", c.reply}
				if c.reply == "250" {
					end := "250"
					if c.hold == "refused" {
						end = "550"
					}
					lines = append(lines, "RCPT TO:<a@example.org>", "250", "DATA", "354", "Subject: x\r\n\r\nx\r\n.", end)
				}
				got, fake := authenticated(t, "authentication { "+c.options+" }", nil, dns, lines...)
				if len(got) == 1 && got[0].Hold != c.hold {
					t.Errorf("hold %q", got[0].Hold)
				}
				if !strings.Contains(fake.log.String(), c.log) {
					t.Errorf("the log has no %s:\n%s", c.log, fake.log)
				}
			})
		})
	}
}

// TestTrustedNotChecked: clients that may relay are not checked unless it is asked for; forged
// fields go all the same, unless the option keeps them.
func TestTrustedNotChecked(t *testing.T) {
	dns := &fakeDNS{txt: map[string]string{"fail.test": "v=spf1 -all"}}
	forged := "Authentication-Results: mx.example.org; spf=pass\r\n"
	for options, want := range map[string]string{
		" ": "mx.example.org; none", "check_trusted = true;": "spf=fail", "remove_results = untrusted;": forged,
		"authserv_id = \"a b\"; own_authserv_ids = { .example.org };": "\"a b\"; none",
	} {
		synctest.Test(t, func(t *testing.T) {
			got, fake := authenticated(t, "flags = { access }; authentication { spf { check = true; } "+options+" }", func(f *fakeMTA, _ *Deps, _ *Config) {
				f.check = func(msg.CheckQ) msg.Verdict { return msg.Verdict{Relay: true} }
			}, dns, transaction1("a@fail.test", forged+"Subject: x\r\n\r\nx", "250")...)
			text, err := fake.content(got[0])
			if err != nil || !strings.Contains(string(text), want) || strings.Contains(string(text), "spf=pass") != (want == forged) {
				t.Errorf("%s: %q, %v", options, text, err)
			}
		})
	}
}

// TestSignatureVerified: a signature is verified from memory and from a file, and the first
// octet that somebody changes is found.
func TestSignatureVerified(t *testing.T) {
	signer := testSigner(t, dkim.Config{SignFor: dkim.ForAll, HeaderCanon: "relaxed", BodyCanon: "simple"})
	content := "From: a@d.test\r\nSubject: x\r\n\r\n" + strings.Repeat("line\r\n", 1000)
	m := signer.Begin()
	_, _ = m.Write([]byte(content))
	fields, made, err := m.SignAll()
	if err != nil || len(made) != 1 {
		t.Fatal(err, made)
	}
	record := recordOf(t, signer)
	for name, c := range map[string]struct{ content, want string }{
		"good":    {string(fields) + content, "dkim=pass header.d=d.test"},
		"changed": {string(fields) + strings.Replace(content, "line", "lime", 1), "dkim=fail reason=\"the body was changed\""},
		"none":    {content, "dkim=none"},
	} {
		for _, inlineMax := range []int64{0, 1 << 20} {
			synctest.Test(t, func(t *testing.T) {
				got, fake := authenticated(t, "authentication { }", func(f *fakeMTA, _ *Deps, _ *Config) { f.inlineMax = inlineMax },
					&fakeDNS{txt: map[string]string{"s._domainkey.d.test": record}}, transaction1("a@d.test", strings.TrimSuffix(c.content, "\r\n"), "250")...)
				text, err := fake.content(got[0])
				if err != nil || !strings.Contains(strings.ReplaceAll(string(text), "\r\n\t", " "), c.want) || !strings.HasSuffix(string(text), c.content) {
					t.Errorf("%s: %v, %.600s", name, err, text)
				}
			})
		}
	}
}

// recordOf is the record of the signer's key.
func recordOf(t *testing.T, s *dkim.Signer) string {
	t.Helper()
	record, err := dkim.Record(s.Keys(time.Now())[0].Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return record
}
