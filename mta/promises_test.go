package mta

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"meta1/mta/control"
	"meta1/mta/lda"
	"meta1/mta/msg"
	"meta1/mta/supervise"
)

// The addresses from which tests speak to an example, in place of those that it names. The
// loopback net has as many as one likes.
const (
	fromHost     = "127.0.0.1"  // programs on the host: cltaddr:127.
	fromNet      = "127.0.12.1" // the net inside, the office: cltaddr:10.12., cltaddr:192.0.2.
	fromStranger = "127.0.66.1"
	fromFarm     = "127.0.66.2"   // in the same net
	fromBlocked  = "127.0.203.66" // cltaddr:203.0.113.66, and in the blocklist
)

// inExample are the changes that let an example run anywhere.
var inExample = []struct{ pattern, by string }{
	{`type = inet6?;\s+(address = [0-9.]+;\s+)?port = [0-9]+;`, `type = inet; address = 127.0.0.1; port = 0;`},
	{`metrics \{\s+address = [0-9.]+;\s+port = [0-9]+;\s+\}`, ``},
	{`log \{\s+facility[^}]*\}`, ``},
	{`(?s)\nlda \{.*?\n\}`, ``},
	{`grey_wait = 5m`, `grey_wait = 1s`},
	{`control_socket = "control";`, ``},
	{`(?m)^(working_directory|allow_root) = [^;]*;.*$`, ``},
	{`LMTP_socket = "lmtpsock"`, `LMTP_socket = "DIR/lmtp"`},
	{`smar \{`, `smar { DNS { nameservers = { 127.0.0.1 }; port = DNS; timeout = 2s; }`},
	{`(?m)^smtpc \{`, `smtpc { remote_port = 1;`},
	{`cltaddr:127\. `, `cltaddr:127.0.0. `},
	{`cltaddr:(10\.12\.|192\.0\.2\.) `, `cltaddr:127.0.12. `},
	{`cltaddr:203\.0\.113\.66 `, `cltaddr:127.0.203.66 `},
	{`esmtp:\[10\.12\.0\.25\]`, `1^esmtp:[127.0.0.1]`},
	{`24\^lmtp:\[192\.0\.2\.40\]`, `1^lmtp:[127.0.0.1]`},
}

// exampleZone is the DNS of the world around the examples.
var exampleZone = []string{
	"sender.example. 60 IN A 192.0.2.99", "spammer.example. 60 IN A 192.0.2.99", "x.spammer.example. 60 IN A 192.0.2.99",
	"elsewhere.example. 60 IN MX 10 mx.elsewhere.example.", "mx.elsewhere.example. 60 IN A 127.0.0.1",
	"example.net. 60 IN MX 20 mx2.example.net.", "example.net. 60 IN MX 10 mx1.example.net.",
	"mx1.example.net. 60 IN A 127.0.0.1", "mx2.example.net. 60 IN A 127.0.0.2",
	"example.org. 60 IN MX 10 hub.example.org.", "hub.example.org. 60 IN A 127.0.0.1",
	"66.203.0.127.dnsbl.example.net. 60 IN A 127.0.0.4", "1.66.0.127.dnsbl.example.net. 60 IN A 127.255.255.254",
}

// serveDNS answers from records until the test ends, and gives its port.
func serveDNS(t *testing.T, lines []string) int {
	t.Helper()
	records := map[mdns.Question][]mdns.RR{}
	names := map[string]bool{}
	for _, l := range lines {
		rr, err := mdns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		q := mdns.Question{Name: rr.Header().Name, Qtype: rr.Header().Rrtype, Qclass: mdns.ClassINET}
		records[q] = append(records[q], rr)
		names[q.Name] = true
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var started, ended sync.WaitGroup
	started.Add(1)
	srv := &mdns.Server{PacketConn: pc, NotifyStartedFunc: started.Done, Handler: mdns.HandlerFunc(func(w mdns.ResponseWriter, q *mdns.Msg) {
		m := new(mdns.Msg).SetReply(q)
		asked := q.Question[0]
		asked.Name = mdns.CanonicalName(asked.Name)
		m.Answer = records[asked]
		if !names[asked.Name] {
			m.Rcode = mdns.RcodeNameError
		}
		_ = w.WriteMsg(m) // a question that gets no answer is asked again
	})}
	ended.Go(func() { _ = srv.ActivateAndServe() })
	started.Wait()
	t.Cleanup(func() { _ = srv.Shutdown(); ended.Wait() })
	return pc.LocalAddr().(*net.UDPAddr).Port
}

// startExample starts an example with a delivery agent whose mailboxes are in dir/mail.
func startExample(t *testing.T, name string) *running {
	t.Helper()
	dir := shortDir(t)
	source := filepath.Join("../examples", filepath.Dir(name))
	if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
		t.Fatal(err)
	}
	files := t.TempDir()
	makeFiles(t, files)
	with := strings.NewReplacer("DIR", dir, "= DNS;", fmt.Sprintf("= %d;", serveDNS(t, exampleZone)))
	for _, file := range []string{filepath.Base(name), "access", "mt", "quickstart.access"} {
		text, err := os.ReadFile(dir + "/" + file)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range inExample {
			text = regexp.MustCompile(r.pattern).ReplaceAll(text, []byte(with.Replace(r.by)))
		}
		write(t, dir+"/"+file, string(text))
	}
	text, err := os.ReadFile(dir + "/" + filepath.Base(name))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range missingFile.FindAllStringSubmatch(string(text), -1) {
		provide(t, files, dir, strings.TrimSpace(m[1]), m[2])
	}
	write(t, dir+"/meta1.conf", string(text)+"\nallow_root = on; working_directory = \""+dir+"/spool\";\n")
	deliverTo(t, dir)
	return startIn(t, dir)
}

// deliverTo runs a delivery agent at dir/lmtp.
func deliverTo(t *testing.T, dir string) {
	t.Helper()
	l, err := net.Listen("unix", dir+"/lmtp")
	if err != nil {
		t.Fatal(err)
	}
	agent := supervise.NewGroup(context.Background())
	agent.Go(func(ctx context.Context) error {
		return lda.Run(ctx, lda.Options{MailDir: dir + "/mail", Create: true, Listener: l, Hostname: "box.test"})
	})
	t.Cleanup(func() {
		agent.Stop()
		if err := agent.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// offer gives a message to a server from an address, and returns the first reply that
// refuses it, or the one to the final dot.
func (r *running) offer(server, client, from, to string) string {
	r.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}, Timeout: 20 * time.Second}
	conn, err := d.Dial("tcp", r.address(server))
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	reply := ""
	for _, line := range []string{"", "EHLO client.example", "MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA", "Subject: x\r\n\r\nx\r\n."} {
		if line != "" {
			if _, err := fmt.Fprintf(conn, "%s\r\n", line); err != nil {
				r.t.Fatalf("sending %q: %v", line, err)
			}
		}
		for reply = "250-"; strings.HasPrefix(reply[3:], "-"); {
			if reply, err = in.ReadString('\n'); err != nil || len(reply) < 4 {
				r.t.Fatalf("reply to %q: %q, %v", line, reply, err)
			}
		}
		if reply[0] > '3' {
			return reply
		}
	}
	return reply
}

// promise is what an example says about one message.
type promise struct {
	server, client, from, to string
	reply                    string // beginning of the reply
	then                     string // of what became of it: a mailbox, or "destination recipient" in the queue
}

// keeps checks promises.
func (r *running) keeps(promises []promise) {
	r.t.Helper()
	for _, p := range promises {
		before := r.boxes()
		reply := r.offer(p.server, p.client, p.from, p.to)
		if !strings.HasPrefix(reply, p.reply) {
			r.t.Errorf("%+v: %s", p, reply)
			continue
		}
		if p.then == "" {
			continue
		}
		found := ""
		for range 500 {
			if found = r.became(before); strings.Contains(found, p.then) {
				break
			}
			time.Sleep(20 * time.Millisecond)
		}
		if !strings.Contains(found, p.then) {
			r.t.Errorf("%+v: found %q", p, found)
		}
		for _, e := range r.queued() {
			if _, err := r.control.Operate(r.t.Context(), control.Operation{Op: msg.OpRemove, TA: e.TA}); err != nil {
				r.t.Error(err)
			}
		}
	}
}

// boxes counts the messages in each mailbox.
func (r *running) boxes() map[string]int {
	files, _ := filepath.Glob(r.dir + "/mail/*/new/*")
	n := map[string]int{}
	for _, f := range files {
		n[filepath.Base(filepath.Dir(filepath.Dir(f)))]++
	}
	return n
}

func (r *running) queued() []control.Entry {
	var all []control.Entry
	if err := r.control.Queue(r.t.Context(), func(e control.Entry) error { all = append(all, e); return nil }); err != nil {
		r.t.Fatal(err)
	}
	return all
}

// became lists the mailboxes that have got mail, and where the queue has tried to send it.
func (r *running) became(before map[string]int) string {
	var list []string
	for user, n := range r.boxes() {
		if n > before[user] {
			list = append(list, "mailbox "+user)
		}
	}
	for _, e := range r.queued() {
		list = append(list, e.Dest+" "+e.Rcpt)
	}
	return strings.Join(list, ", ")
}

// refused finds the line of the log that tells of a refusal, and wants each of words in it.
func (r *running) refused(words ...string) {
	r.t.Helper()
	eventually(r.t, "a line of the log with "+strings.Join(words, " "), func() bool {
		for line := range strings.Lines(r.log.String()) {
			has := strings.Contains(line, "event=refused,")
			for _, w := range words {
				has = has && strings.Contains(line, w)
			}
			if has {
				return true
			}
		}
		return false
	})
}

// TestDoubleBounceDiscarded: a bounce to double_bounce_address is accepted and dropped
// (README 3.8, item 6), other mail to it is delivered.
func TestDoubleBounceDiscarded(t *testing.T) {
	dir := shortDir(t)
	write(t, dir+"/meta1.conf", strings.Replace(config(dir, `smtpc { LMTP_socket = "`+dir+`/lmtp"; }`),
		"qmgr {", `qmgr { double_bounce_address = "<Bounces@mx.test>";`, 1))
	write(t, dir+"/mt", "mx.test lmtp:\n")
	write(t, dir+"/access", "cltaddr:127. quick:relay\n")
	deliverTo(t, dir)
	r := startIn(t, dir)
	for _, from := range []string{"", "me@mx.test"} {
		if reply := r.offer("smtps", fromHost, from, "bounces@mx.test"); !strings.HasPrefix(reply, "250") {
			t.Error(reply)
		}
	}
	eventually(t, "one message", func() bool { return r.boxes()["bounces"] == 1 && len(r.queued()) == 0 })
	eventually(t, "the log", func() bool {
		log := r.log.String()
		return strings.Count(log, "event=message discarded,") == 1 && strings.Contains(log, "check=double_bounce_address")
	})
}

// TestExamplePromises starts each example and checks what its comments say of who may
// send what, and where it goes.
func TestExamplePromises(t *testing.T) {
	const world = "joe@elsewhere.example"
	t.Run("gateway", func(t *testing.T) {
		r := startExample(t, "gateway/meta1.conf")
		r.keeps([]promise{
			{"smtps", fromStranger, "a@sender.example", "jane@example.com", "250 ", "esmtp:[127.0.0.1]:1 jane@example.com"},
			{"smtps", fromStranger, "a@sender.example", "nobody@example.com", "550 5.7.1", ""},
			{"smtps", fromStranger, "a@sender.example", world, "550 5.7.1", ""},
			{"smtps", fromStranger, "a@sender.example", "jane%elsewhere.example@example.com", "550 5.7.1", ""},
			{"smtps", fromNet, "jane@example.com", world, "250 ", "elsewhere.example " + world},
			{"smtps", fromHost, "root@mx.example.com", world, "250 ", "elsewhere.example " + world},
			{"smtps", fromHost, "root@mx.example.com", "root@mx.example.com", "250 ", "postmaster@example.com"},
			{"smtps", fromStranger, "a@sender.example", "postmaster", "250 ", "postmaster@example.com"},
			{"smtps", fromStranger, "a@sender.example", "Postmaster@mx.example.com", "250 ", "postmaster@example.com"},
			{"smtps", fromStranger, "a@spammer.example", "jane@example.com", "550 5.7.1 No spammers", ""},
			{"smtps", fromStranger, "a@x.spammer.example", "jane@example.com", "550 5.7.1 No spammers in", ""},
			{"smtps", fromBlocked, "b@sender.example", "joe@example.com", "550 5.7.1 Your mail", ""},
			{"smtps", fromBlocked, "b@sender.example", "abuse@example.com", "250 ", "abuse@example.com"},
			{"smtps", fromBlocked, "b@sender.example", "postmaster@example.com", "250 ", "postmaster@example.com"},
		})
		r.refused("where=rcpt", "client_ip="+fromBlocked, "ehlo=client.example", "mail=<b@sender.example>", "rcpt=<joe@example.com>",
			"ss_se=S", "ss_ta=S", "map="+r.dir+"/access", "key=cltaddr:"+fromBlocked, "reply=550 5.7.1 Your mail is not wanted here")
		r.refused("where=rcpt", "client_name=localhost.", "mail=<a@sender.example>", "rcpt=<nobody@example.com>", "check=relay", "reply=550 5.7.1 Relaying denied")
		r.refused("mail=<a@x.spammer.example>", "rcpt=<jane@example.com>", "check=from", "key=from:@.spammer.example")
	})
	t.Run("backup-mx", func(t *testing.T) {
		r := startExample(t, "backup-mx/meta1.conf")
		r.keeps([]promise{
			{"smtps", fromStranger, "a@sender.example", "user1@example.net", "250 ", "example.net user1@example.net"},
			{"smtps", fromStranger, "a@sender.example", "user3@example.net", "451 4.3.3 Try main MX", ""},
			{"smtps", fromStranger, "a@sender.example", world, "550 5.7.1", ""},
			{"smtps", fromNet, "a@example.net", "user3@example.net", "250 ", "example.net user3@example.net"},
			{"smtps", fromNet, "a@example.net", world, "250 ", "elsewhere.example " + world},
			{"smtps", fromStranger, "a@sender.example", "postmaster", "250 ", "example.net postmaster@example.net"},
			{"smtps", fromHost, "root@mx2.example.net", "root@mx2.example.net", "250 ", "example.net postmaster@example.net"},
		})
	})
	t.Run("outgoing", func(t *testing.T) {
		r := startExample(t, "outgoing/meta1.conf")
		r.keeps([]promise{
			{"smtps local", fromHost, "root@out.example.org", world, "250 ", "elsewhere.example " + world},
			{"smtps local", fromHost, "root@out.example.org", "root@out.example.org", "250 ", "postmaster@example.org"},
			{"smtps submission", fromNet, "user@example.org", world, "250 ", "elsewhere.example " + world},
			{"smtps submission", fromStranger, "a@sender.example", world, "530 5.7.0", ""},
			{"smtps submission", fromStranger, "a@sender.example", "user@example.org", "530 5.7.0", ""},
			{"smtps submission", fromStranger, "a@sender.example", "postmaster@out.example.org", "530 5.7.0", ""},
		})
	})
	t.Run("incoming-lmtp", func(t *testing.T) {
		r := startExample(t, "incoming-lmtp/meta1.conf")
		r.keeps([]promise{
			{"smtps", fromStranger, "a@sender.example", "joe@example.org", "250 ", "mailbox joe"},
			{"smtps", fromStranger, "a@sender.example", "joe+lists@mail.example.org", "250 ", "mailbox joe"},
			{"smtps", fromStranger, "a@sender.example", "joe-lists@example.org", "250 ", "mailbox joe"},
			{"smtps", fromStranger, "a@sender.example", "team@example.org", "250 ", "mailbox jane"},
			{"smtps", fromStranger, "a@sender.example", "nobody@example.org", "550 5.1.1", ""},
			{"smtps", fromStranger, "a@sender.example", world, "550 5.7.1", ""},
			{"smtps", fromStranger, "a@sender.example", "root@example.org", "550 5.7.1 No mail to root", ""},
			{"smtps", fromStranger, "a@sender.example", "postmaster", "250 ", "mailbox jane"},
			{"smtps", fromHost, "root@mail.example.org", "root@mail.example.org", "250 ", "mailbox jane"},
			{"smtps", fromHost, "joe@example.org", world, "250 ", "elsewhere.example " + world},
		})
	})
	t.Run("mta-msa", func(t *testing.T) {
		r := startExample(t, "mta-msa/meta1.conf")
		r.keeps([]promise{
			{"smtps MTA", fromBlocked, "a@sender.example", "jane@example.org", "550 5.7.1 Your address is listed", ""},
			{"smtps MTA", fromStranger, "a@sender.example", "jane@example.org", "421 4.7.1 Greylisted", ""},
			{"smtps MTA", fromStranger, "a@sender.example", world, "550 5.7.1", ""},
			{"smtps MSA", fromStranger, "a@sender.example", world, "530 5.7.0", ""},
			{"smtps MSA", fromStranger, "a@sender.example", "postmaster@mail.example.org", "530 5.7.0", ""},
			{"smtps MSA", fromNet, "user@example.org", world, "250 ", "elsewhere.example " + world},
			{"smtps MTA", fromHost, "root@mail.example.org", "root@mail.example.org", "250 ", "lmtp:[127.0.0.1]:1 root@mail.example.org"},
		})
		r.refused("where=connect", "client_ip="+fromBlocked, "check=dnsblex", "key=dnsblex:127.0.")
		eventually(t, "a client of the same net comes back after grey_wait", func() bool {
			return strings.HasPrefix(r.offer("smtps MTA", fromFarm, "b@sender.example", "postmaster"), "250 ")
		})
		r.keeps([]promise{{"smtps MTA", fromStranger, "a@sender.example", "jane@example.org", "250 ", "lmtp:[127.0.0.1]:1 jane@example.org"}})
	})
	t.Run("quickstart", func(t *testing.T) {
		r := startExample(t, "quickstart.conf")
		r.keeps([]promise{
			{"smtps", fromHost, "me@localhost", "user@localhost", "250 ", "mailbox user"},
			{"smtps", fromHost, "me@localhost", "user@example.test", "250 ", "mailbox user"},
			{"smtps", fromHost, "me@localhost", "postmaster", "250 ", "mailbox postmaster"},
			{"smtps", fromHost, "me@localhost", "root@localhost", "250 ", "mailbox root"},
			{"smtps", fromHost, "me@localhost", world, "250 ", "elsewhere.example " + world},
			{"smtps", fromStranger, "a@sender.example", "user@example.test", "250 ", "mailbox user"},
			{"smtps", fromStranger, "a@sender.example", world, "550 5.7.1", ""},
			{"smtps", fromHost, "me@localhost", "nobody@no.such.domain.example", "250 ", "mailbox me"},
		})
		bounces, _ := filepath.Glob(r.dir + "/mail/me/new/*")
		if len(bounces) != 1 {
			t.Fatalf("%d bounces", len(bounces))
		}
		if text, err := os.ReadFile(bounces[0]); err != nil || !strings.Contains(string(text), "message/delivery-status") {
			t.Errorf("a bounce that programs cannot read (RFC 3464): %v\n%s", err, text)
		}
	})
}
