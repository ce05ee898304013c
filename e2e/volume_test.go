package e2e

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

const volume = 10000

// TestVolume sends 10,000 messages by smtp-source through meta1 into smtp-sink.
// Each has a recipient of its own, so each arrival is known. All must arrive once,
// unchanged but for the Received: fields on top.
func TestVolume(t *testing.T) {
	sinkAddr := freeAddr(t)
	dumps := smtpSink(t, sinkAddr)
	m := run(t, settings{mailertable: toPort(t, ".", sinkAddr)})

	args := []string{"-s", "50", "-d", "-N", "-F", testMessageFile(t), "-f", "sender@client.test", "-t", "rcpt@sink.test"}
	want := sentBySource(t, args)
	start := time.Now()
	smtpSource(t, append(args, "-m", fmt.Sprint(volume), m.smtp)...)
	accepted := time.Since(start)
	waitFiles(t, dumps, volume)
	t.Logf("%d messages in %v, the last was accepted after %v", volume, time.Since(start), accepted)
	m.queueEmpty()

	seen := map[string]int{}
	for _, name := range mustFiles(t, dumps) {
		dump, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rcpt, err := checkDump(dump, want)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		seen[rcpt]++
	}
	for i := 1; i <= volume; i++ {
		if rcpt := fmt.Sprintf("%drcpt@sink.test", i); seen[rcpt] != 1 {
			t.Errorf("%s: %d messages", rcpt, seen[rcpt])
		}
	}
	if len(seen) != volume {
		t.Errorf("%d recipients, want %d", len(seen), volume)
	}
}

// toPort is a mailertable entry: a domain, or "." for all, goes to an address.
func toPort(t *testing.T, domain, addr string) string {
	t.Helper()
	host, _, _ := strings.Cut(addr, ":")
	return fmt.Sprintf("%s %s^esmtp:[%s]\n", domain, port(t, addr), host)
}

// testMessageFile is a message for smtp-source -F, of somewhat more than 1 KiB.
func testMessageFile(t *testing.T) string {
	t.Helper()
	path := testDir(t) + "/message"
	text := "From: <sender@client.test>\nSubject: volume\n\tand more\n\n.\n..\n.a line with a dot\n \n" +
		strings.Repeat("0123456789 abcdefghij \xe4\xf6\xfc ABCDEFGHIJ KLMNOPQRST\n", 20) + "\nthe end\n"
	writeFile(t, path, text)
	return path
}

// sentBySource is a message of smtp-source as it sends it, but with LF line ends,
// as the files have in which we find it again.
func sentBySource(t *testing.T, args []string) []byte {
	t.Helper()
	direct := newSink(t, "")
	smtpSource(t, append(args, "-m", "1", direct.addr)...)
	direct.waitFor(1)
	return bytes.ReplaceAll(direct.arrivals()[0].data, []byte("\r\n"), []byte("\n"))
}

// checkDump checks one file of smtp-sink: its own lines, its Received: field, ours,
// and then the message. It returns the recipient.
func checkDump(dump, want []byte) (rcpt string, err error) {
	rest := dump
	for bytes.HasPrefix(rest, []byte("X-")) {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		if r, ok := bytes.CutPrefix(line, []byte("X-Rcpt-Args: <")); ok {
			rcpt = string(bytes.TrimSuffix(r, []byte(">")))
		}
		rest = cutField(rest)
	}
	for _, by := range []string{"by smtp-sink", "by mta.test"} {
		if !bytes.HasPrefix(rest, []byte("Received: from ")) {
			return "", fmt.Errorf("no Received: field: %.80q", rest)
		}
		field := rest[:len(rest)-len(cutField(rest))]
		if !bytes.Contains(field, []byte(by)) {
			return "", fmt.Errorf("no %q in %q", by, field)
		}
		rest = cutField(rest)
	}
	// smtp-sink ends a file with an empty line
	if got := bytes.TrimSuffix(rest, []byte("\n")); !bytes.Equal(got, want) {
		return "", fmt.Errorf("content has changed: %q", got)
	}
	return rcpt, nil
}

// waitFiles waits until a folder holds n files, and fails the test when it does not.
func waitFiles(t *testing.T, dir string, n int) {
	t.Helper()
	must(t, func() error {
		names, err := files(dir)
		if err == nil && len(names) < n {
			err = fmt.Errorf("%d of %d messages arrived", len(names), n)
		}
		return err
	})
}

func mustFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := files(dir)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestVolumeLMTP sends 10,000 messages by smtp-source over LMTP to the lda service,
// which files them in a Maildir.
func TestVolumeLMTP(t *testing.T) {
	m, mail := runLDA(t, settings{})
	args := []string{"-s", "50", "-d", "-l", "1024", "-f", "sender@client.test", "-t", "joe@box.test"}
	want := template(sentBySource(t, args))

	start := time.Now()
	smtpSource(t, append(args, "-m", fmt.Sprint(volume), m.smtp)...)
	waitFiles(t, mail+"/joe/new", volume)
	t.Logf("%d messages in %v", volume, time.Since(start))
	m.queueEmpty()

	seen := map[string]bool{}
	for _, name := range mustFiles(t, mail+"/joe/new") {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		const local = "Return-Path: <sender@client.test>\nDelivered-To: joe@box.test\n"
		rest, ok := bytes.CutPrefix(data, []byte(local))
		if !ok {
			t.Fatalf("%s begins with %.100q, want %q", name, data, local)
		}
		if err := checkContent(template(rest), want); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		seen[string(messageID.Find(data))] = true
	}
	if len(seen) != volume {
		t.Errorf("%d different messages, want %d", len(seen), volume)
	}
	if left := mustFiles(t, mail+"/joe/tmp"); len(left) > 0 {
		t.Errorf("files left in tmp: %v", left)
	}
}

var (
	messageID = regexp.MustCompile(`(?m)^Message-Id: .*$`)
	dateField = regexp.MustCompile(`(?m)^Date: .*$`)
)

// template is a message of smtp-source without what differs between two of them.
func template(data []byte) []byte {
	return dateField.ReplaceAll(messageID.ReplaceAll(data, []byte("Message-Id: x")), []byte("Date: x"))
}

// runLDA starts an MTA with our delivery agent as a service, which files mail for
// box.test into the Maildirs below mail.
func runLDA(t *testing.T, s settings) (m *mta, mail string) {
	t.Helper()
	mail = testDir(t) + "/mail"
	if err := os.Mkdir(mail, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(mail, 0o777); err != nil {
		t.Fatal(err)
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user = daemon;" // another one than meta1 itself
	}
	s.mailertable += "box.test lmtp:\nclient.test 9^esmtp:[127.0.0.1]\n" // senders must have a route
	s.add += fmt.Sprintf(`lda {
  start_action = nostartaccept; %s
  listen_socket { type = unix; path = "lmtpsock"; }
  path = "%s"; arguments = "meta1 lda --create --maildir %s";
}
`, user, meta1(t), mail)
	return run(t, s), mail
}
