package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// pythonARC verifies the chains of files by dkimpy, or seals a message; keys are in a file of names and records.
const pythonARC = `import sys
sys.path.insert(0, sys.argv[1])
import dkim
records = dict(line.split(' ', 1) for line in open(sys.argv[2]).read().splitlines())
def dns(name, timeout=5):
    return records.get(name.decode().rstrip('.'), '').encode() or None
if sys.argv[3] == 'seal':
    message = open(sys.argv[5], 'rb').read()
    sys.stdout.buffer.write(b''.join(dkim.arc_sign(message, b'a', b'list.test', open(sys.argv[4], 'rb').read(), b'list.test')) + message)
else:
    for path in sys.argv[4:]:
        cv, results, reason = dkim.arc_verify(open(path, 'rb').read(), dnsfunc=dns)
        print((cv or b'fail').decode(), len(results), reason)
`

// perlARC is the same by Mail::DKIM.
const perlARC = `use Mail::DKIM::DNS; use Net::DNS; use Mail::DKIM::ARC::Verifier; use Mail::DKIM::ARC::Signer; use Mail::DKIM::PrivateKey;
my ($port, $what, @args) = @ARGV;
Mail::DKIM::DNS::resolver(Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, udp_timeout => 20));
if ($what eq 'seal') {
	my ($key, $path) = @args;
	my $s = Mail::DKIM::ARC::Signer->new(Algorithm => 'rsa-sha256', Chain => 'none', Domain => 'list.test', SrvId => 'list.test', Selector => 'a', KeyFile => $key, Headers => 'x-header:x-header2');
	open my $in, '<', $path; my $text = do { local $/; <$in> };
	$s->PRINT($text); $s->CLOSE;
	die $s->result_detail if $s->result ne 'sealed';
	print join("\015\012", $s->as_strings), "\015\012", $text;
} else {
	for my $path (@args) {
		open my $in, '<', $path; my $text = do { local $/; <$in> };
		my $v = Mail::DKIM::ARC::Verifier->new; $v->PRINT($text); $v->CLOSE;
		print $v->result_detail, "\n";
	}
}
`

// arcPeers are the two other programs for ARC.
type arcPeers struct {
	t                    *testing.T
	dir, python, library string
	port                 string
}

func newARCPeers(t *testing.T, dir, dnsAddr string, records map[string]string) *arcPeers {
	t.Helper()
	p := &arcPeers{
		t: t, dir: dir, port: port(t, dnsAddr),
		python: filepath.Join(filepath.Dir(peerCommand(t, "arcverify").Path), "../lib/python3/dist-packages"),
	}
	p.library = filepath.Join(p.python, "../../../share/perl5")
	keys := ""
	for name, record := range records {
		keys += name + " " + record + "\n"
	}
	writeFile(t, dir+"/keys", keys)
	writeFile(t, dir+"/arc.py", pythonARC)
	writeFile(t, dir+"/arc.pl", perlARC)
	return p
}

// run runs one of the programs.
func (p *arcPeers) run(name string, args ...string) string {
	p.t.Helper()
	cmd := exec.Command("/usr/bin/python3", append([]string{p.dir + "/arc.py", p.python, p.dir + "/keys"}, args...)...)
	if name == "Mail::DKIM" {
		cmd = exec.Command("perl", append([]string{"-I", p.library, p.dir + "/arc.pl", p.port}, args...)...)
	}
	out, err := output(cmd)
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return out
}

// TestARC: what an alias forwards to another domain is sealed, and others verify the seal; what stays or was
// addressed there at once is as it came. A chain that others began is verified and goes on, and a broken
// one is told.
func TestARC(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	dir := testDir(t)
	ours, oursRecord := genkey(t, dir, "rsa", "ours.test", "o")
	list, listRecord := genkey(t, dir, "rsa", "list.test", "a")
	records := map[string]string{"o._domainkey.ours.test": oursRecord, "a._domainkey.list.test": listRecord}
	dnsAddr := txtServer(t, records)
	m := newMTA(t, settings{
		mailertable: toPort(t, ".", s.addr), smar: fmt.Sprintf(`DNS { nameservers = 127.0.0.1; port = %s; } aliases { file = "aliases"; flags = { all_domains }; }`, port(t, dnsAddr)),
		smtps: fmt.Sprintf(`authentication { authserv_id = "mx.ours.test"; check_trusted = true; } ARC_sealing { seal { domain = ours.test; selector = o; keyfile = %q; } }`, ours),
	})
	writeFile(t, m.dir+"/aliases", "fwd@ours.test <out@sink.test>\n")
	m.start()
	peers := newARCPeers(t, dir, dnsAddr, records)

	const header = "From: <sender@client.test>\r\nTo: <fwd@ours.test>\r\nSubject: test\r\nDate: Thu, 14 Jan 2027 15:00:01 -0800\r\nMessage-ID: <1@client.test>\r\n"
	body := "\r\nHello,\r\n\r\n" + strings.Repeat("a line of some length  \r\n", 20_000)
	results := "Authentication-Results: list.test; spf=pass smtp.mfrom=client.test\r\n"
	writeFile(t, dir+"/first", results+header+body)
	python := peers.run("dkimpy", "seal", list, dir+"/first")
	perl := peers.run("Mail::DKIM", "seal", list, dir+"/first")
	cases := []struct {
		name, content, results string
		sets                   int
		passes                 bool
	}{
		{"no chain", header + "\r\nHello\r\n", "arc=none", 1, true},
		{"large, no chain", header + body, "arc=none", 1, true},
		{"dkimpy", python, "arc=pass (i=1 sealed by list.test)", 2, true},
		{"Mail::DKIM", perl, "arc=pass (i=1 sealed by list.test)", 2, true},
		{"broken", strings.Replace(python, "Hello,", "Hullo,", 1), "arc=fail (i=1) reason=\"message signature 1: the body was changed\"", 2, false},
	}
	var files []string
	for i, c := range cases {
		speak(t, m.smtp, []byte(c.content), "EHLO client.test", "MAIL FROM:<sender@client.test>", "RCPT TO:<fwd@ours.test>", "RCPT TO:<direct@sink.test>")
		s.waitFor(2 * (i + 1))
		for _, a := range s.arrivals()[2*i:] {
			sealed, text := a.rcpts[0] == "out@sink.test", string(a.data)
			if got := strings.HasPrefix(text, fmt.Sprintf("ARC-Seal: i=%d; a=rsa-sha256; cv=", c.sets)); got != sealed {
				t.Errorf("%s: sealed is %v for %v:\n%.1000s", c.name, got, a.rcpts, text)
			}
			if unfolded := strings.ReplaceAll(strings.ReplaceAll(text, "\r\n\t", " "), "\r\n ", " "); !strings.Contains(unfolded, c.results) {
				t.Errorf("%s: %s is missing:\n%.2000s", c.name, c.results, text)
			}
			if sealed {
				path := fmt.Sprintf("%s/message%d", dir, i)
				writeFile(t, path, text)
				files = append(files, path)
			}
		}
	}
	m.queueEmpty()
	for name, word := range map[string]string{"dkimpy": "pass %d ", "Mail::DKIM": "pass"} {
		lines := strings.Split(strings.TrimSpace(peers.run(name, append([]string{"verify"}, files...)...)), "\n")
		if len(lines) != len(cases) {
			t.Fatalf("%s says %q", name, lines)
		}
		for i, c := range cases {
			if want := strings.ReplaceAll(word, "%d", fmt.Sprint(c.sets)); strings.HasPrefix(lines[i], want) != c.passes {
				t.Errorf("%s of %s: %s", name, c.name, lines[i])
			}
		}
	}
	if all, err := m.get("/metrics"); err != nil || !strings.Contains(all, `meta1_qmgr_arc_messages_total{result="sealed"} 5`) {
		t.Errorf("the metrics do not count the seals: %v", err)
	}
}
