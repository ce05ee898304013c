package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	msgauth "github.com/emersion/go-msgauth/dkim"
	"github.com/miekg/dns"
)

// txtServer serves TXT records by name, without the dot at the end.
func txtServer(t *testing.T, records map[string]string) (addr string) {
	t.Helper()
	addr = freeAddr(t)
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		name := q.Question[0].Name
		text, ok := records[strings.ToLower(strings.TrimSuffix(name, "."))]
		switch {
		case !ok:
			r.Rcode = dns.RcodeNameError
		case q.Question[0].Qtype == dns.TypeTXT:
			txt := &dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}}
			for ; text != ""; text = text[min(len(text), 255):] {
				txt.Txt = append(txt.Txt, text[:min(len(text), 255)])
			}
			r.Answer = append(r.Answer, txt)
		}
		_ = w.WriteMsg(r)
	})}
	ended := make(chan error, 1)
	go func() { ended <- s.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = s.Shutdown()
		<-ended
	})
	return addr
}

// genkey makes a key by the command, and gives the record that it prints.
func genkey(t *testing.T, dir, kind, domain, selector string) (file, record string) {
	t.Helper()
	file = filepath.Join(dir, selector+".pem")
	out, err := commandIn(t, dir, nil, "dkim", "genkey", "-d", domain, "-s", selector, "-t", kind, "-o", file)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for i, part := range strings.Split(out[:strings.Index(out, " )")], `"`) {
		if i%2 == 1 {
			record += part
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the key file: %v, %v", info, err)
	}
	return file, record
}

// pythonVerify verifies by dkimpy, which has its own DNS here.
const pythonVerify = `import sys
sys.path.insert(0, sys.argv[1])
import dkim
name, record = sys.argv[2], sys.argv[3].encode()
for path in sys.argv[4:]:
    d = dkim.DKIM(open(path, 'rb').read())
    print(d.verify(idx=0, dnsfunc=lambda n, timeout=5: record if n.decode().rstrip('.') == name else None))
`

// TestDKIM: what meta1 signs is verified by others: mail that stays in memory and mail that is in
// a file, by an RSA and an Ed25519 key at once, and its own notifications. Started as root,
// meta1 gets the keys, which only root may read.
func TestDKIM(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	refuseBad(s)
	dir := testDir(t)
	rsa, rsaRecord := genkey(t, dir, "rsa", "client.test", "r1")
	ed, edRecord := genkey(t, dir, "ed25519", "client.test", "e1")
	own, ownRecord := genkey(t, dir, "rsa", "mta.test", "own")
	records := map[string]string{
		"r1._domainkey.client.test": rsaRecord, "e1._domainkey.client.test": edRecord, "own._domainkey.mta.test": ownRecord,
	}
	m := run(t, settings{
		mailertable: toPort(t, ".", s.addr), qmgr: rfcFormat,
		smar: fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; }", port(t, txtServer(t, records))),
		smtps: fmt.Sprintf(`DKIM_signing { header_canonicalization = relaxed; skip_header = { "Received:" }; over_sign_headers = { From, Subject };
			sign { domain = client.test; selector = r1; from = client.test; keyfile = %q; }
			sign { domain = client.test; selector = e1; from = client.test; keyfile = %q; }
			sign { domain = mta.test; selector = own; keyfile = %q; } }`, rsa, ed, own),
	})
	if out, err := m.command("dkim", "check"); err != nil || strings.Count(out, ": good\n") != 3 {
		t.Fatalf("%v\n%s", err, out)
	}
	sizes := []int{0, 300, 40_000, 2_000_000}
	for i, size := range sizes {
		rcpt := "RCPT TO:<joe@sink.test>"
		if i == 1 {
			rcpt = "RCPT TO:<bad@sink.test>"
		}
		speak(t, m.smtp, testContent(i, size), "EHLO client.test", "MAIL FROM:<sender@client.test>", rcpt)
	}
	s.waitFor(len(sizes))
	m.queueEmpty()
	files := writeArrivals(t, s, dir)
	checkSigned(t, files, records)

	for selector, list := range files {
		for _, f := range list {
			out, err := m.command("dkim", "verify", f)
			if err != nil || !strings.Contains(out, "pass d=") || !strings.Contains(out, " s="+selector+" ") || strings.Contains(out, ":") {
				t.Errorf("our own verification of %s: %v\n%s", f, err, out)
			}
		}
	}
	verifiesOthers(t, m, dir, rsa)
	newKey(t, m, s, dir, records)

	selectors := map[string]string{"r1": "r1._domainkey.client.test", "own": "own._domainkey.mta.test"}
	keys := ""
	for _, name := range selectors {
		keys += name + " " + records[name] + "\n"
	}
	writeFile(t, dir+"/keys", keys)
	writeFile(t, dir+"/opendkim.conf", "TestPublicKeys "+dir+"/keys\nMode v\nSyslog no\n")
	for selector, list := range files {
		for _, f := range list {
			out, err := output(peerCommand(t, "opendkim", "-x", dir+"/opendkim.conf", "-t", f))
			if err != nil || !strings.Contains(out, "verification (s="+selector+",") || !strings.Contains(out, "succeeded") {
				t.Errorf("opendkim of %s: %v\n%s", f, err, out)
			}
		}
		script := dir + "/verify.py"
		writeFile(t, script, pythonVerify)
		packages := filepath.Join(filepath.Dir(peerCommand(t, "dkimverify").Path), "../lib/python3/dist-packages")
		args := append([]string{script, packages, selectors[selector], records[selectors[selector]]}, list...)
		if out, err := output(exec.Command("/usr/bin/python3", args...)); err != nil || strings.Count(out, "True\n") != len(list) {
			t.Errorf("dkimpy of %s: %v\n%s", selector, err, out)
		}
	}
}

// writeArrivals writes the messages of a sink to files, and sorts them by the selector of their
// first signature.
func writeArrivals(t *testing.T, s *sink, dir string) map[string][]string {
	t.Helper()
	files := map[string][]string{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, a := range s.got {
		_, rest, _ := strings.Cut(string(a.data[:min(len(a.data), 500)]), " s=")
		selector, _, _ := strings.Cut(rest, ";")
		path := fmt.Sprintf("%s/message%d", dir, i)
		writeFile(t, path, string(a.data))
		files[selector] = append(files[selector], path)
	}
	if len(files["r1"]) != len(s.got)-1 || len(files["own"]) != 1 {
		t.Fatalf("signed by: %v", files)
	}
	return files
}

// checkSigned has go-msgauth verify all signatures, and none after a change.
func checkSigned(t *testing.T, files map[string][]string, records map[string]string) {
	t.Helper()
	lookup := &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) { return []string{records[name]}, nil }}
	for selector, list := range files {
		want := map[string]int{"r1": 2, "own": 1}[selector]
		for _, f := range list {
			content, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, changed := range []bool{false, true} {
				if changed {
					content = bytes.Replace(content, []byte("\r\nFrom:"), []byte("\r\nFrom: x@evil.test\r\nFrom:"), 1)
				}
				vs, err := msgauth.VerifyWithOptions(bytes.NewReader(content), lookup)
				if err != nil || len(vs) != want {
					t.Errorf("%s has %d signatures, want %d: %v", f, len(vs), want, err)
				}
				for _, v := range vs {
					if (v.Err != nil) != changed {
						t.Errorf("%s, changed %v: signature of %s: %v", f, changed, v.Domain, v.Err)
					}
				}
			}
		}
	}
}

// newKey: a section that names another key, which only root may read, is taken by a reload; one
// whose key is damaged is not, and mail is signed as before.
func newKey(t *testing.T, m *mta, s *sink, dir string, records map[string]string) {
	t.Helper()
	file, record := genkey(t, dir, "rsa", "client.test", "r2")
	conf := strings.Replace(readFile(t, m.conf), "selector = r1;", "selector = r2;", 1)
	conf = strings.Replace(conf, dir+"/r1.pem", file, 1)
	for _, damaged := range []bool{false, true} {
		if damaged {
			writeFile(t, file, "no key")
			conf = strings.Replace(conf, "selector = r2;", "selector = r3;", 1)
		}
		writeFile(t, m.conf, conf)
		if out, err := m.command("ctl", "reload"); (err != nil) != damaged || strings.Contains(out, "restart") {
			t.Fatalf("reload, damaged %v: %v\n%s", damaged, err, out)
		}
		n := s.count()
		speak(t, m.smtp, testContent(7, 300), "EHLO client.test", "MAIL FROM:<sender@client.test>", "RCPT TO:<joe@sink.test>")
		s.waitFor(n + 1)
		s.mu.Lock()
		content := string(s.got[n].data)
		s.mu.Unlock()
		vs, err := msgauth.VerifyWithOptions(strings.NewReader(content), &msgauth.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
			if name == "r2._domainkey.client.test" {
				return []string{record}, nil
			}
			return []string{records[name]}, nil
		}})
		if err != nil || len(vs) != 2 || vs[0].Err != nil || vs[1].Err != nil || !strings.Contains(content[:200], " s=r2;") {
			t.Errorf("after the reload, damaged %v: %v\n%s", damaged, err, content[:500])
		}
	}
}

// verifiesOthers: a signature that dkimpy makes is verified, and none after a change.
func verifiesOthers(t *testing.T, m *mta, dir, key string) {
	t.Helper()
	// dkimpy reads PKCS #1.
	old := dir + "/old.key"
	if out, err := output(peerCommand(t, "openssl", "rsa", "-traditional", "-in", key, "-out", old)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	packages := filepath.Join(filepath.Dir(peerCommand(t, "dkimverify").Path), "../lib/python3/dist-packages")
	for _, canon := range []string{"simple", "relaxed"} {
		path, script := dir+"/theirs."+canon, dir+"/sign.py"
		writeFile(t, script, `import sys
sys.path.insert(0, sys.argv[1])
import dkim
message = open(sys.argv[2], 'rb').read()
canon = sys.argv[4].encode()
head = dkim.sign(message, b'r1', b'client.test', open(sys.argv[3], 'rb').read(), canonicalize=(canon, canon))
open(sys.argv[2], 'wb').write(head + message)
`)
		writeFile(t, path, string(testContent(5, 3000)))
		if out, err := output(exec.Command("/usr/bin/python3", script, packages, path, old, canon)); err != nil {
			t.Fatalf("dkimpy: %v\n%s", err, out)
		}
		if out, err := m.command("dkim", "verify", path); err != nil || out != "pass d=client.test s=r1 a=rsa-sha256\n" {
			t.Errorf("%s of dkimpy: %v\n%s", canon, err, out)
		}
		writeFile(t, path, strings.Replace(readFile(t, path), "Subject: test", "Subject: other", 1))
		if out, err := m.command("dkim", "verify", path); err == nil || !strings.HasPrefix(out, "fail d=client.test s=r1 a=rsa-sha256: the signature") {
			t.Errorf("changed, %s of dkimpy: %v\n%s", canon, err, out)
		}
	}
}
