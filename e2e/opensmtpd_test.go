package e2e

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"meta1/mta/tlsconf/tlstest"
)

// openSMTPDScript starts OpenSMTPD in a mount namespace of its own, because its paths and its
// accounts are built in: what it writes to the system's directories goes nowhere, and its
// accounts are there for it alone. $1 is where it is unpacked. The working directory has
// scratch, accounts and smtpd.conf.
const openSMTPDScript = `set -eu
mount -t tmpfs tmpfs scratch
for d in etc usr var; do
	below=/$d
	[ $d != usr ] || below=/usr:$1/usr
	mkdir -p scratch/$d/upper scratch/$d/work
	mount -t overlay -o "lowerdir=$below,upperdir=scratch/$d/upper,workdir=scratch/$d/work" overlay /$d
done
mount -t tmpfs tmpfs /run
while IFS=: read -r name id home; do
	echo "$name:x:$id:$id::$home:/usr/sbin/nologin" >>/etc/passwd
	echo "$name:x:$id:" >>/etc/group
done <accounts
rm -f /etc/resolv.conf /etc/hosts /etc/mailname
echo lookup file >/etc/resolv.conf
echo 127.0.0.1 localhost >/etc/hosts
mkdir -p /var/lib/opensmtpd/empty
exec /usr/sbin/smtpd -d -f smtpd.conf
`

// openSMTPDConfig is for its directory and its port.
const openSMTPDConfig = `pki mx.peer.test cert "%[1]s/peer.pem"
pki mx.peer.test key "%[1]s/peer.key"
smtp max-message-size "20K"
listen on 127.0.0.1 port %[2]s tls pki mx.peer.test hostname mx.peer.test
action "local" maildir "%[1]s/mail/%%{user.username}"
action "dsns" maildir "%[1]s/mail/dsns" virtual { "@" = "jane" }
match from any for domain { "peer.test", "strict.test" } action "local"
match from local for any action "dsns"
`

// openSMTPD is an OpenSMTPD with the user jane. Its own DSNs are in mail/dsns.
type openSMTPD struct {
	addr, dir, log string
	// tls reports whether its STARTTLS works. That of Debian 12 is offered and ends in an
	// alert (OpenSMTPD 6.8.0 does not work with OpenSSL 3: OpenSMTPD/OpenSMTPD#1171).
	tls bool
}

// startOpenSMTPD runs it until the test ends.
func startOpenSMTPD(t *testing.T, cert *tlstest.Cert) *openSMTPD {
	t.Helper()
	unpacked := filepath.Join(cmp.Or(os.Getenv("META1_TEST_CACHE"), "/var/cache/meta1-test"), "peers/opensmtpd")
	missing := ""
	if _, err := os.Stat(unpacked + "/usr/sbin/smtpd"); err != nil {
		missing = "OpenSMTPD is missing; \"make needs\" installs it"
	} else if out, err := output(exec.Command("unshare", "--mount", "true")); err != nil {
		missing = fmt.Sprintf("OpenSMTPD needs root and a mount namespace: %v %s", err, out)
	}
	switch {
	case missing != "" && os.Getenv("META1_TEST_PEERS") == "":
		t.Skip(missing)
	case missing != "":
		t.Fatal(missing)
	}
	dir := testDir(t)
	p := &openSMTPD{addr: freeAddr(t), dir: dir, log: dir + "/log"}
	cert.Write(t, dir, "peer")
	makeDirs(t, 0o755, dir+"/scratch")
	makeDirs(t, 0o777, dir+"/mail")
	writeFile(t, dir+"/accounts", "opensmtpd:64901:/var/lib/opensmtpd/empty\nopensmtpq:64902:/var/lib/opensmtpd/empty\njane:64903:/nonexistent\n")
	writeFile(t, dir+"/smtpd.conf", fmt.Sprintf(openSMTPDConfig, dir, port(t, p.addr)))
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("unshare", "--mount", "sh", "-c", openSMTPDScript, "sh", unpacked)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	runPeer(t, cmd, p.log)
	must(t, func() error {
		k, err := dial(p.addr)
		if err != nil {
			return err
		}
		defer k.close()
		reply, err := k.cmd("STARTTLS")
		if err == nil && positive(reply) {
			p.tls = tls.Client(k.c, &tls.Config{InsecureSkipVerify: true}).Handshake() == nil
		}
		return err
	})
	return p
}

// TestOpenSMTPD delivers to OpenSMTPD: a message of which one recipient is refused, one that
// asks for a DSN of success, one above its size, and one that demands a verified certificate.
// Where its STARTTLS is broken that one waits, and the others go without TLS.
func TestOpenSMTPD(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	ca, dir := tlstest.Root(t, "Test CA"), testDir(t)
	writeFile(t, dir+"/ca.pem", string(ca.PEM()))
	p := startOpenSMTPD(t, ca.Issue(t, tlstest.Spec{CN: "mx.peer.test", Names: []string{"mx.peer.test"}}))
	m := newMTA(t, settings{
		mailertable: toPort(t, "client.test", s.addr) + toPort(t, ".", p.addr),
		qmgr:        "smtpc { flags = { lookup_rcpt_conf }; }", smtpc: fmt.Sprintf(`tls { CAcert_file = "%s/ca.pem"; }`, dir),
	})
	writeFile(t, m.dir+"/access", `cltaddr:127. relay
smtpc_rcpt_conf:@strict.test tls_requirements { flags = verified; hostnames = { mx.peer.test }; violation = tempfail; }
`)
	m.start()

	speak(t, m.smtp, testContent(0, 5000), "MAIL FROM:<sender@client.test>", "RCPT TO:<jane@peer.test>", "RCPT TO:<ghost@peer.test>")
	speak(t, m.smtp, testContent(1, 5000), "MAIL FROM:<sender@client.test> RET=HDRS ENVID=QQ+2B1",
		"RCPT TO:<jane+a@peer.test> NOTIFY=SUCCESS ORCPT=rfc822;first+2Btry@peer.test")
	speak(t, m.smtp, testContent(2, 30_000), "MAIL FROM:<sender@client.test>", "RCPT TO:<jane+big@peer.test>")
	speak(t, m.smtp, testContent(3, 5000), "MAIL FROM:<sender@client.test>", "RCPT TO:<jane@strict.test>")
	arrive := []int{0, 1, 3}
	if p.tls {
		m.queueEmpty()
	} else {
		arrive = arrive[:2]
		must(t, func() error { return m.queueShows(1, "TLS handshake with") })
	}
	must(t, func() error { return p.mailbox(arrive) })
	must(t, func() error {
		dsns, err := filepath.Glob(p.dir + "/mail/dsns/new/*")
		if err != nil || len(dsns) != 1 {
			return fmt.Errorf("OpenSMTPD made %d DSNs (%v)", len(dsns), err)
		}
		says(t, readFile(t, dsns[0]), "status notification: delivered", "jane+a@peer.test")
		return nil
	})
	s.waitFor(2)
	bounces := ""
	for _, a := range s.arrivals() {
		bounces += string(a.data)
	}
	says(t, bounces, "550 <ghost@peer.test>... Invalid recipient", "552 5.3.4 <jane+big@peer.test>... message size")
	p.logs(t, m)
	samples := scrape(t, m.metrics)
	for result, want := range map[string]int{"delivered": len(arrive) + 2, "failed": 2} { // with our DSNs
		if got := samples[`meta1_smtpc_recipients_total{result="`+result+`"}`]; got != strconv.Itoa(want) {
			t.Errorf("%s recipients are %s, want %d", got, result, want)
		}
	}
	if got := samples["meta1_smtpc_tls_failures_total"]; (got == "0") != p.tls {
		t.Errorf("%s TLS handshakes failed", got)
	}
}

// logs waits until both logs tell what happened: ours is written behind the deliveries.
func (p *openSMTPD) logs(t *testing.T, m *mta) {
	t.Helper()
	ours := [][]string{
		{"event=delivered,", "module=smtpc", "where=final_dot,", "rcpt=<jane@peer.test>", "stat=0"},
		{"event=delivered,", "module=smtpc", "where=final_dot,", "rcpt=<jane+a@peer.test>", "stat=0"},
		{"event=delivery failed,", "where=rcpt,", "rcpt=<ghost@peer.test>", "stat=550"},
		{"event=delivery failed,", "where=mail,", "rcpt=<jane+big@peer.test>", "stat=552"},
	}
	if p.tls {
		ours[0], ours[1] = append(ours[0], "tls=verified, verify=OK"), append(ours[1], "tls=verified, verify=OK")
		ours = append(ours, []string{"event=delivered,", "module=smtpc", "rcpt=<jane@strict.test>", "tls=verified, verify=OK"})
	} else {
		ours = append(ours, []string{"event=TLS failed: connecting in another way,", "next=plain"},
			[]string{"event=delivery failed,", "rcpt=<jane@strict.test>", "stat=451", "4.7.4 smtpc_rcpt_conf demands a verified TLS certificate"})
	}
	for _, words := range ours {
		must(t, func() error { return logged(m.log, words) })
	}
	must(t, func() error { return logged(p.log, []string{"mda delivery", "rcpt=<jane@peer.test>", "result=Ok"}) })
	must(t, func() error { return logged(p.log, []string{"failed-command", "ghost@peer.test", "550 "}) })
	if !p.tls && lineWith(readFile(t, m.log), "event=delivered,", "tls=") != "" {
		t.Error("a delivery went by TLS, which does not work")
	}
}

// mailbox returns nil if these messages of testContent have arrived for jane, and no others.
func (p *openSMTPD) mailbox(ids []int) error {
	arrived, err := filepath.Glob(p.dir + "/mail/jane/new/*")
	if err != nil || len(arrived) != len(ids) {
		return fmt.Errorf("%d messages for jane, want %d (%v)", len(arrived), len(ids), err)
	}
	texts := [][]byte{}
	for _, file := range arrived {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		texts = append(texts, bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")))
	}
	for _, id := range ids {
		header, body, _ := bytes.Cut(testContent(id, 5000), []byte("\r\n\r\n"))
		found := false
		for _, text := range texts { // it adds Date: and Message-ID:
			got, rest, _ := bytes.Cut(text, []byte("\r\n\r\n"))
			found = found || bytes.Contains(got, header) && bytes.Equal(rest, body)
		}
		if !found {
			return fmt.Errorf("message %d has not arrived whole", id)
		}
	}
	return nil
}
