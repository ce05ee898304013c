package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
)

// offersUTF8 is a sink's reply to EHLO with SMTPUTF8.
const offersUTF8 = "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE 100000000"

// recordMail lets a sink offer SMTPUTF8 and keeps the arguments of MAIL and RCPT.
func recordMail(s *sink) (said func() string) {
	list := make(chan string, 1000)
	s.answer(func(verb, argument string) string {
		switch verb {
		case "EHLO":
			return offersUTF8
		case "MAIL", "RCPT":
			list <- argument
		}
		return ""
	})
	text := ""
	return func() string {
		for len(list) > 0 {
			text += <-list + "\n"
		}
		return text
	}
}

// relay is a mail server of others that hands all mail on.
type relay struct{ smtp, log string }

// startExim runs an Exim with CHUNKING, PRDR and SMTPUTF8 on both sides that hands all mail on
// to addr. Content is refused for the local part "bad".
func startExim(t *testing.T, addr string) relay {
	t.Helper()
	needRoot(t, "Exim changes the user")
	dir := testDir(t)
	r := relay{smtp: freeAddr(t), log: dir + "/mainlog"}
	writeFile(t, dir+"/exim.conf", fmt.Sprintf(`exim_user = root
exim_group = root
primary_hostname = exim.test
spool_directory = %[1]s/spool
log_file_path = %[1]s/%%slog
log_selector = +all
pid_file_path = %[1]s/pid
local_interfaces = <; [127.0.0.1]:%[2]s
tls_advertise_hosts =
never_users =
smtputf8_advertise_hosts = *
chunking_advertise_hosts = *
prdr_enable = true
acl_smtp_rcpt = all
acl_smtp_data_prdr = each
begin acl
all:
  accept
each:
  deny local_parts = bad
       message = content is not for this one
  accept
begin routers
on:
  driver = manualroute
  route_list = * 127.0.0.1 byname
  self = send
  transport = on
begin transports
on:
  driver = smtp
  port = %[3]s
  allow_localhost
  user = nobody
  hosts_try_prdr = *
  hosts_avoid_tls = *
`, dir, port(t, r.smtp), port(t, addr)))
	daemon(t, peerCommand(t, "exim4", "-bdf", "-q1s", "-C", dir+"/exim.conf"), r.smtp)
	return r
}

// TestExtensionPeers sends mail from one server of others through meta1 to another: large,
// with dots, and with SMTPUTF8. Their logs say which extensions were used.
func TestExtensionPeers(t *testing.T) {
	for name, peer := range map[string]struct {
		start func(t *testing.T, addr string) relay
		// sent and taken are in its log when it has sent a large message by CHUNKING and has
		// taken one; "" if it has no such client.
		sent, taken []string
	}{
		"postfix": {
			func(t *testing.T, addr string) relay {
				p := startPostfix(t, map[string]string{"*": "smtp:[127.0.0.1]:" + port(t, addr)}, "smtputf8_enable = yes")
				return relay{p.smtp, p.log}
			},
			nil,
			[]string{"disconnect from", " bdat="},
		},
		"exim": {startExim, []string{" => ", " K "}, []string{" <= ", " K "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, "")
			said := recordMail(s)
			behind := peer.start(t, s.addr)
			m := run(t, settings{mailertable: toPort(t, ".", behind.smtp), flags: ", prdr"})
			before := peer.start(t, m.smtp)

			contents := [][]byte{testContent(1, 500), testContent(2, 300_000), []byte("Subject: Grüße\r\nFrom: jürgen@münchen.test\r\n\r\n.\r\n..größer\r\n")}
			speak(t, before.smtp, contents[0], "MAIL FROM:<a@client.test>", "RCPT TO:<one@sink.test>", "RCPT TO:<two@sink.test>")
			speak(t, before.smtp, contents[1], "MAIL FROM:<a@client.test>", "RCPT TO:<one@sink.test>")
			speak(t, before.smtp, contents[2], "MAIL FROM:<jürgen@münchen.test> SMTPUTF8 BODY=8BITMIME", "RCPT TO:<ü@größe.test>")
			s.waitFor(3)
			for _, c := range contents {
				_, body, _ := bytes.Cut(c, []byte("\r\n\r\n"))
				found := false
				for _, a := range s.arrivals() {
					found = found || bytes.HasSuffix(a.data, body) && len(a.rcpts) > 0
				}
				if !found {
					t.Errorf("the content that ends in %q did not arrive", tailOf(body))
				}
			}
			says(t, said(), "<jürgen@münchen.test>", "SMTPUTF8", "<ü@größe.test>")
			must(t, func() error { return logged(behind.log, peer.taken) })
			must(t, func() error { return logged(before.log, peer.sent) })
		})
	}
}

func tailOf(b []byte) []byte { return b[max(0, len(b)-40):] }

// logged reports that a line of a log has all the words.
func logged(file string, words []string) error {
	if words == nil {
		return nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if lineWith(string(text), words...) == "" {
		return fmt.Errorf("no line of %s has %q:\n%s", file, words, text)
	}
	return nil
}

// TestPRDRToExim: one recipient's content is refused by PRDR, which only that recipient's
// bounce tells; the other has the message.
func TestPRDRToExim(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	exim := startExim(t, s.addr)
	m := run(t, settings{mailertable: toPort(t, "sink.test", exim.smtp) + toPort(t, ".", s.addr)})
	speak(t, m.smtp, testContent(1, 500), "MAIL FROM:<back@client.test>", "RCPT TO:<good@sink.test>", "RCPT TO:<bad@sink.test>")
	s.waitFor(2)
	for _, a := range s.arrivals() {
		switch a.rcpts[0] {
		case "good@sink.test":
			if len(a.rcpts) != 1 {
				t.Errorf("the message is for %v", a.rcpts)
			}
		case "back@client.test":
			says(t, string(a.data), "content is not for this one", "bad@sink.test")
			if strings.Contains(string(a.data), "<good@sink.test>...") {
				t.Errorf("the bounce tells of the good recipient:\n%s", a.data)
			}
		default:
			t.Errorf("a message for %v", a.rcpts)
		}
	}
	m.queueEmpty()
}

// TestSmtplib lets Python's smtplib send by SMTPUTF8 and by BDAT.
func TestSmtplib(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	said := recordMail(s)
	m := run(t, settings{mailertable: toPort(t, ".", s.addr)})
	host, p, _ := strings.Cut(m.smtp, ":")
	out, err := output(peerCommand(t, "/usr/bin/python3", "-c", `
import smtplib, sys
from email.message import EmailMessage
m = EmailMessage()
m["Subject"], m["From"], m["To"] = "Grüße", "jürgen@client.test", "ü@sink.test"
m.set_content("größer\n")
s = smtplib.SMTP(sys.argv[1], int(sys.argv[2]), "python.test")
s.send_message(m)
def ok(reply):
    if reply[0] // 100 != 2:
        sys.exit(repr(reply))
ok(s.docmd("MAIL FROM:<a@client.test>"))
ok(s.docmd("RCPT TO:<b@sink.test>"))
for chunk, last in (b"Subject: by BDAT\r\n\r\n.\r", b""), (b"\n..\r\nlast\r\n", b" LAST"):
    s.send(b"BDAT %d%s\r\n%s" % (len(chunk), last, chunk))
    ok(s.getreply())
ok(s.quit())
`, host, p))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.waitFor(2)
	says(t, said(), "<jürgen@client.test>", "SMTPUTF8", "<ü@sink.test>", "<a@client.test>")
	for _, a := range s.arrivals() {
		switch a.rcpts[0] {
		case "b@sink.test":
			says(t, string(a.data), "Subject: by BDAT\r\n\r\n.\r\n..\r\nlast\r\n")
		default:
			says(t, string(a.data), "with UTF8SMTP", "Subject: Grüße\r\n")
		}
	}
}

// TestSwaksPRDR lets swaks ask for PRDR.
func TestSwaksPRDR(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := run(t, settings{mailertable: toPort(t, ".", s.addr), flags: ", prdr"})
	out, err := output(peerCommand(t, "swaks", "--server", m.smtp, "--prdr", "--helo", "swaks.test",
		"--from", "a@client.test", "--to", "b@sink.test,c@sink.test", "--body", "x"))
	if err != nil {
		t.Fatalf("swaks: %v\n%s", err, out)
	}
	says(t, out, "MAIL FROM:<a@client.test> PRDR", "353 A reply for each recipient follows", "250 2.1.5 Recipient takes the message")
	s.waitFor(1)
}
