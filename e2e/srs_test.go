package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// perlSRS has Mail::SRS rewrite or reverse addresses, with the secret that comes first.
const perlSRS = `use Mail::SRS::Guarded;
my ($secret, $what, @list) = @ARGV;
my $srs = Mail::SRS::Guarded->new(Secret => [$secret], MaxAge => 21, HashLength => 4, AlwaysRewrite => 1);
for (@list) { print $what eq 'forward' ? $srs->forward($_, 'srs.test') : $srs->reverse($_), "\n" }
`

// TestSRS: the sender of mail that an alias forwards to another domain is rewritten, so that Mail::SRS can read
// it; bounces to it, and to what Mail::SRS makes, find their way back; forged addresses are refused.
func TestSRS(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	refuseBad(s)
	secrets := testDir(t) + "/secrets"
	writeFile(t, secrets, "the newest secret\nan older secret\n")
	if err := os.Chmod(secrets, 0o600); err != nil {
		t.Fatal(err)
	}
	m := newMTA(t, settings{
		mailertable: toPort(t, ".", s.addr), flags: ", xverp", qmgr: rfcFormat,
		smar: `aliases { file = "aliases"; flags = { all_domains }; } srs { domain = "srs.test"; secret_file = "` + secrets + `"; }`,
	})
	writeFile(t, m.dir+"/access", "cltaddr:127. relay\nto:@ours.test RELAY\n")
	writeFile(t, m.dir+"/aliases", "fwd@ours.test <out@sink.test>\nboth@ours.test <in@ours.test> <out@sink.test>\nfails@ours.test <bad@sink.test>\n")
	m.start()

	send := func(from string, more string, rcpt string) {
		speak(t, m.smtp, testContent(1, 300), "EHLO client.test", "MAIL FROM:<"+from+">"+more, "RCPT TO:<"+rcpt+">")
	}
	got := 0
	next := func(n int) map[string]string { // senders by recipient
		t.Helper()
		s.waitFor(got + n)
		found := map[string]string{}
		for _, a := range s.arrivals()[got:] {
			found[strings.Join(a.rcpts, " ")] = a.from
		}
		got += n
		return found
	}
	send("User@client.test", "", "fwd@ours.test")
	made := next(1)["out@sink.test"]
	if !strings.HasPrefix(made, "SRS0=") || !strings.HasSuffix(made, "=client.test=User@srs.test") {
		t.Fatalf("the sender is %q", made)
	}
	send("user@client.test", "", "both@ours.test")
	if got := next(2); got["in@ours.test"] != "user@client.test" || !strings.HasPrefix(got["out@sink.test"], "SRS0=") {
		t.Errorf("one here and one elsewhere: %v", got)
	}
	for _, c := range []struct{ from, rcpt, want string }{
		{"user@client.test", "direct@sink.test", "user@client.test"},                        // no alias
		{"", "fwd@ours.test", ""},                                                           // a bounce stays one
		{"me@ours.test", "fwd@ours.test", "me@ours.test"},                                   // a sender of ours
		{"SRS0=abcd=AB=first.test=user@second.test", "fwd@ours.test", "SRS1="},              // the second host
		{"SRS1=abcd=first.test==abcd=AB=zero.test=u@second.test", "fwd@ours.test", "SRS1="}, // the third
	} {
		send(c.from, "", c.rcpt)
		for rcpt, from := range next(1) {
			if from != c.want && (c.want != "SRS1=" || !strings.HasPrefix(from, c.want)) {
				t.Errorf("%q to %s has the sender %q", c.from, rcpt, from)
			}
		}
	}
	// VERP is in the address.
	send("user@client.test", " XVERP", "fwd@ours.test")
	if named := next(1)["out@sink.test"]; !strings.HasSuffix(named, "=client.test=user+out=sink.test@srs.test") {
		t.Errorf("with VERP the sender is %q", named)
	}
	// A bounce of our own goes back by the address at once.
	send("user@client.test", "", "fails@ours.test")
	if got := next(1); got["user@client.test"] != "" || len(got) != 1 {
		t.Errorf("our own bounce: %v", got)
	}

	// Mail::SRS agrees, and an address that it makes by the older secret comes back.
	writeFile(t, m.dir+"/srs.pl", perlSRS)
	library := filepath.Join(filepath.Dir(peerCommand(t, "dkimverify").Path), "../share/perl5")
	perl := func(args ...string) string {
		out, err := output(exec.Command("perl", append([]string{"-I", library, m.dir + "/srs.pl"}, args...)...))
		if err != nil {
			t.Fatalf("Mail::SRS: %v\n%s", err, out)
		}
		return strings.TrimSpace(out)
	}
	if back := perl("the newest secret", "reverse", made); back != "User@client.test" {
		t.Errorf("Mail::SRS reverses %s to %s", made, back)
	}
	theirs := perl("an older secret", "forward", "Other@client.test")
	for rcpt, want := range map[string]string{made: "User@client.test", strings.ToLower(made): "user@client.test", theirs: "Other@client.test"} {
		send("", "", rcpt)
		if got := next(1); len(got) != 1 || got[want] != "" {
			t.Errorf("a bounce to %s went to %v", rcpt, got)
		}
	}
	m.queueEmpty()
	for rcpt, want := range map[string]string{
		strings.Replace(made, "User", "Admin", 1):              "550 5.1.1 SRS address is forged",
		perl("a secret of others", "forward", "o@client.test"): "550 5.1.1 SRS address is forged",
		"SRS0=abcd@srs.test":                                   "550 5.1.3 SRS address has a wrong form",
	} {
		if reply := replyTo(t, m.smtp, "EHLO client.test", "MAIL FROM:<>", "RCPT TO:<"+rcpt+">"); !strings.HasPrefix(reply, want) {
			t.Errorf("%s: %s, want %s", rcpt, reply, want)
		}
	}
}

// replyTo gives the reply to the last of some commands.
func replyTo(t *testing.T, addr string, commands ...string) (reply string) {
	t.Helper()
	k, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	for _, c := range commands {
		if reply, err = k.cmd(c); err != nil {
			t.Fatal(err)
		}
	}
	return reply
}
