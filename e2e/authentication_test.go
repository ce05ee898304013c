package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// spfRecords are what the name server of TestAuthentication says.
var spfRecords = map[string][]string{
	"plain.test. TXT":      {`"v=spf1 ip4:192.0.2.0/28 -all"`},
	"soft.test. TXT":       {`"v=spf1 ip6:2001:db8::/32 ~all"`},
	"include.test. TXT":    {`"v=spf1 include:plain.test include:mx.test ?all"`},
	"redirect.test. TXT":   {`"v=spf1 " "redirect=plain.test"`},
	"mx.test. TXT":         {`"v=spf1 mx/30 -all"`},
	"mx.test. MX":          {"10 a.mx.test."},
	"a.mx.test. A":         {"198.51.100.4"},
	"ptr.test. TXT":        {`"v=spf1 ptr -all"`},
	"host.ptr.test. A":     {"203.0.113.5"},
	"exists.test. TXT":     {`"v=spf1 exists:%{ir}.%{l}.%{v}.ok.test -all"`},
	"broken.test. TXT":     {`"v=spf1 a:host.test/99 -all"`},
	"late.test. TXT":       {`"v=spf1 +all nonsense"`},
	"two.test. TXT":        {`"v=spf1 -all"`, `"v=spf1 +all"`},
	"loop.test. TXT":       {`"v=spf1 include:loop.test -all"`},
	"void.test. TXT":       {`"v=spf1 a:x1.test a:x2.test a:x3.test +all"`},
	"long.test. TXT":       {`"v=spf1 a:a1.long.test a:a1.long.test a:a1.long.test a:a1.long.test a:a1.long.test a:a1.long.test a:a1.long.test a:a1.long.test a:a1.long.test a:a1.long.test a:a1.long.test +all"`},
	"a1.long.test. A":      {"198.51.100.77"},
	"helo.plain.test. TXT": {`"v=spf1 ip4:192.0.2.1 -all"`},

	"5.113.0.203.in-addr.arpa. PTR":    {"host.ptr.test."},
	"1.2.0.192.joe.in-addr.ok.test. A": {"127.0.0.2"},
}

// spfCases are clients and senders.
var spfCases = [][3]string{
	{"192.0.2.1", "helo.plain.test", "joe@plain.test"},
	{"192.0.2.17", "helo.plain.test", "joe@plain.test"},
	{"192.0.2.1", "helo.plain.test", ""},
	{"192.0.2.2", "helo.plain.test", ""},
	{"2001:db8::7", "x.test", "joe@soft.test"},
	{"192.0.2.1", "x.test", "joe@soft.test"},
	{"192.0.2.1", "x.test", "joe@include.test"},
	{"198.51.100.6", "x.test", "joe@include.test"},
	{"203.0.113.9", "x.test", "joe@include.test"},
	{"192.0.2.99", "x.test", "joe@redirect.test"},
	{"203.0.113.5", "x.test", "joe@ptr.test"},
	{"203.0.113.6", "x.test", "joe@ptr.test"},
	{"192.0.2.1", "x.test", "joe@exists.test"},
	{"192.0.2.1", "x.test", "jane@exists.test"},
	{"192.0.2.1", "x.test", "joe@broken.test"},
	{"192.0.2.1", "x.test", "joe@late.test"},
	{"192.0.2.1", "x.test", "joe@two.test"},
	{"192.0.2.1", "x.test", "joe@loop.test"},
	{"192.0.2.1", "x.test", "joe@void.test"},
	{"192.0.2.1", "x.test", "joe@long.test"},
	{"192.0.2.1", "x.test", "joe@nothing.test"},
}

// pythonSPF judges by pyspf, with the same name server.
const pythonSPF = `import sys, spf, DNS
DNS.defaults['server'], DNS.defaults['port'] = ['127.0.0.1'], int(sys.argv[1])
for case in sys.argv[2:]:
    ip, helo, sender = case.split(' ')
    print(spf.check2(i=ip, s=sender or 'postmaster@' + helo, h=helo)[0])
`

// TestAuthentication: the server finds of SPF what pyspf finds, explain says so before any mail
// comes, and a signature of dkimpy is verified while the message comes in.
func TestAuthentication(t *testing.T) {
	t.Parallel()
	dir := testDir(t)
	key, record := genkey(t, dir, "rsa", "client.test", "r1")
	records := map[string][]string{}
	for name, data := range spfRecords {
		records[name] = data
	}
	var parts []string
	for ; record != ""; record = record[min(len(record), 200):] {
		parts = append(parts, `"`+record[:min(len(record), 200)]+`"`)
	}
	records["r1._domainkey.client.test. TXT"] = []string{strings.Join(parts, " ")}
	dns := nameServer(t, records)
	s := newSink(t, "")
	m := run(t, settings{
		mailertable: toPort(t, ".", s.addr),
		smar:        fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; }", dns),
		smtps:       `authentication { check_trusted = true; authserv_id = mx.test; spf { fail = reject; } }`,
	})

	args := []string{"-c", pythonSPF, dns}
	for _, c := range spfCases {
		args = append(args, strings.Join(c[:], " "))
	}
	out, err := output(exec.Command("/usr/bin/python3", args...))
	theirs := strings.Fields(out)
	if err != nil || len(theirs) != len(spfCases) {
		t.Fatalf("pyspf: %v\n%s", err, out)
	}
	for i, c := range spfCases {
		r, _ := m.explain("--socket", m.spool+"/control", "--client", c[0], "--helo", c[1], "--from", c[2], "--to", "joe@sink.test")
		got := strings.Fields(r.check("mail", "spf") + " -")[0]
		if got != theirs[i] || (got == "fail") != strings.HasPrefix(r.reply("mail"), "550 5.7.23") {
			t.Errorf("%v: %q, %s; pyspf says %s", c, r.check("mail", "spf"), r.reply("mail"), theirs[i])
		}
	}
	for _, word := range []string{"pass", "fail", "softfail", "neutral", "none", "permerror"} {
		if !slices.Contains(theirs, word) {
			t.Errorf("no case ends with %s: something is wrong with the test", word)
		}
	}

	message := signedByPython(t, dir, key)
	for _, c := range []struct{ content, want string }{
		{message, "dkim=pass header.d=client.test"},
		{strings.Replace(message, "Subject: test", "Subject: tests", 1), "dkim=fail"},
		{"Authentication-Results: mx.test; dkim=pass header.d=forged.test\r\n" + string(testContent(3, 300)), "dkim=none"},
	} {
		n := s.count()
		speak(t, m.smtp, []byte(c.content), "EHLO client.test", "MAIL FROM:<joe@nothing.test>", "RCPT TO:<joe@sink.test>")
		s.waitFor(n + 1)
		head, _, _ := bytes.Cut(s.arrivals()[n].data, []byte("\r\n\r\n"))
		text := strings.ReplaceAll(string(head), "\r\n\t", " ")
		if !strings.HasPrefix(text, "Authentication-Results: mx.test; iprev=pass ") || !strings.Contains(text, c.want) || strings.Contains(text, "forged.test") {
			t.Errorf("want %s:\n%.1500s", c.want, head)
		}
	}
}

// signedByPython is a message with a signature of dkimpy by the key of r1._domainkey.client.test.
func signedByPython(t *testing.T, dir, key string) string {
	t.Helper()
	old, path := dir+"/pkcs1.key", dir+"/message" // dkimpy reads PKCS #1
	if out, err := output(peerCommand(t, "openssl", "rsa", "-traditional", "-in", key, "-out", old)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	packages := filepath.Join(filepath.Dir(peerCommand(t, "dkimverify").Path), "../lib/python3/dist-packages")
	writeFile(t, path, string(testContent(5, 200_000)))
	script := `import sys
sys.path.insert(0, sys.argv[1])
import dkim
message = open(sys.argv[2], 'rb').read()
open(sys.argv[2], 'wb').write(dkim.sign(message, b'r1', b'client.test', open(sys.argv[3], 'rb').read()) + message)
`
	if out, err := output(exec.Command("/usr/bin/python3", "-c", script, packages, path, old)); err != nil {
		t.Fatalf("dkimpy: %v\n%s", err, out)
	}
	return readFile(t, path)
}
