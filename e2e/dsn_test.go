package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meta1/mta/smtp"
	"meta1/queue/verp"
)

// readers are programs of others that read DSNs. Each prints a line for each
// recipient: the file's name, the address, and what it knows of action and status.
var readers = map[string]struct {
	interpreter, script string
	// address, action, status: what is printed; the rest of a line of ours is ignored.
	tells []string
}{
	"python email": {"/usr/bin/python3", `
import email, os, sys
for name in sys.argv[1:]:
    with open(name, "rb") as f:
        m = email.message_from_binary_file(f)
    if m.defects:
        sys.exit(name + ": " + str(m.defects))
    for p in m.walk():
        if p.get_content_type() == "message/delivery-status":
            for b in p.get_payload()[1:]:
                if b.keys():
                    print(os.path.basename(name), b["final-recipient"].split("; ")[1], b["action"], b["status"])
`, []string{"address", "action", "status"}},
	"sisimai": {"perl", `
use Sisimai;
for my $f (@ARGV) {
    my ($name) = $f =~ m{([^/]+)$};
    for my $e (@{Sisimai->make($f, delivered => 1) || []}) {
        print join(" ", $name, $e->recipient->address, $e->action, $e->deliverystatus), "\n";
    }
}
`, []string{"address", "action", "status"}},
	"flufl.bounce": {"/usr/bin/python3", `
import email, os, sys
from flufl.bounce import scan_message
for name in sys.argv[1:]:
    with open(name, "rb") as f:
        m = email.message_from_binary_file(f)
    for a in sorted(scan_message(m)):
        print(os.path.basename(name), a.decode())
`, []string{"original"}},
}

// TestDSNParsers has programs of others read the DSNs of mta/dsn's tests: they find
// the same recipients, actions and status codes.
func TestDSNParsers(t *testing.T) {
	t.Parallel()
	evil := dsnRcpt{address: "evil@c.test", original: "evil@c.test"}
	a := dsnRcpt{address: "a@b.test", original: "first+try@b.test"}
	utf8 := dsnRcpt{address: `j\x{F6}rg\x{2B}x@b\x{FC}cher.test`}
	want := map[string][]dsnRcpt{
		"rfc-failed.eml":            {a.is("failed", "5.7.1"), evil.is("failed", "5.0.0")},
		"rfc-expired.eml":           {a.is("failed", "4.3.0"), evil.is("failed", "5.0.0")},
		"rfc-delayed.eml":           {a.is("delayed", "4.2.2"), evil.is("delayed", "4.2.2")},
		"rfc-delivered.eml":         {a.is("delivered", "2.1.5"), evil.is("delivered", "2.1.5")},
		"rfc-relayed.eml":           {a.is("relayed", "2.1.5"), evil.is("relayed", "2.1.5")},
		"rfc-expanded.eml":          {a.is("expanded", "2.0.0"), evil.is("expanded", "2.0.0")},
		"rfc-utf8-ascii-sender.eml": {utf8.is("failed", "5.7.1"), evil.is("failed", "5.0.0")},
	}
	for name, reader := range readers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var expect []string
			for file, rcpts := range want {
				for _, r := range rcpts {
					if line := r.line(file, reader.tells); line != "" {
						expect = append(expect, line)
					}
				}
			}
			slices.Sort(expect)
			got := runReader(t, reader.interpreter, reader.script, want)
			if !slices.Equal(got, expect) {
				t.Errorf("it reads\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(expect, "\n"))
			}
		})
	}
}

// dsnRcpt is a recipient in a DSN.
type dsnRcpt struct{ address, original, action, status string }

func (r dsnRcpt) is(action, status string) dsnRcpt {
	r.action, r.status = action, status
	return r
}

// line is what a reader prints of a recipient; "" if it passes over it.
func (r dsnRcpt) line(file string, tells []string) string {
	if tells[0] == "original" { // of bounces only
		if r.original == "" || r.action != "failed" {
			return ""
		}
		return file + " " + r.original
	}
	return strings.Join([]string{file, r.address, r.action, r.status}, " ")
}

func runReader(t *testing.T, interpreter, script string, files map[string][]dsnRcpt) []string {
	t.Helper()
	path := testDir(t) + "/reader"
	writeFile(t, path, script)
	args := []string{path}
	for f := range files {
		args = append(args, filepath.Join("../mta/dsn/testdata", f))
	}
	out, err := output(exec.Command(interpreter, args...))
	if err != nil {
		t.Fatalf("%v (\"make needs\" installs what it needs)\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(lines)
	return lines
}

// report is what a test looks at in a DSN.
type report struct {
	to     []string // envelope
	header mail.Header
	parts  []string               // types
	fields []textproto.MIMEHeader // of the message, then of each recipient
}

// reports are the DSNs that a sink got, by the name of the MTA that made them.
func (s *sink) reports() map[string][]report {
	s.t.Helper()
	all := map[string][]report{}
	for _, a := range s.arrivals() {
		if a.from == "" {
			r := readReport(s.t, a)
			mta := value(r.fields[0], "Reporting-Mta")
			all[mta] = append(all[mta], r)
		}
	}
	return all
}

func readReport(t *testing.T, a arrival) report {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(a.data))
	if err != nil {
		t.Fatalf("%v in %q", err, a.data)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		t.Fatalf("a DSN of type %q, %v:\n%s", m.Header.Get("Content-Type"), err, a.data)
	}
	r := report{to: a.rcpts, header: m.Header}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, a.data)
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		r.parts = append(r.parts, kind)
		if kind == "message/delivery-status" {
			r.fields = readFields(t, p)
		}
	}
	if len(r.fields) < 2 {
		t.Fatalf("no recipients in\n%s", a.data)
	}
	return r
}

func readFields(t *testing.T, r io.Reader) (groups []textproto.MIMEHeader) {
	t.Helper()
	in := textproto.NewReader(bufio.NewReader(r))
	for {
		h, err := in.ReadMIMEHeader()
		if len(h) > 0 {
			groups = append(groups, h)
		}
		if err == io.EOF {
			return groups
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// value is a field without the blanks in which programs differ, and without a type.
func value(h textproto.MIMEHeader, name string) string {
	v := strings.Join(strings.Fields(h.Get(name)), " ")
	if kind, rest, ok := strings.Cut(v, ";"); ok && kind == "dns" {
		v = strings.Trim(rest, " []") // Postfix has addresses without brackets
	}
	return strings.Replace(v, "; ", ";", 1)
}

// speak gives an SMTP server commands and a message, all of which it must take.
func speak(t *testing.T, addr string, data []byte, commands ...string) {
	t.Helper()
	k, err := dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	for _, c := range append(commands, "DATA") {
		if reply, err := k.cmd(c); err != nil || !positive(reply) {
			t.Fatalf("%s: %s, %v", c, reply, err)
		}
	}
	writeDotted(k.w, data)
	if reply, err := k.cmd("."); err != nil || !positive(reply) {
		t.Fatalf("final dot: %s, %v", reply, err)
	}
}

const rfcFormat = "DSN_handling { flags = { RFC_Format }; }"

// refuseBad lets a sink refuse the recipients that begin with "bad", and for now those
// that begin with "slow".
func refuseBad(s *sink) {
	s.answer(func(verb, argument string) string {
		if verb == "RCPT" && strings.Contains(argument, "<bad") {
			return "550-5.1.1 nobody here\r\n550 5.1.1 by that name"
		}
		if verb == "RCPT" && strings.Contains(argument, "<slow") {
			return "450-4.2.2 no room\r\n450 4.2.2 in this mailbox"
		}
		return ""
	})
}

// TestDSNBesidePostfix has meta1 and Postfix tell of the same failure, and of the same
// delay. What Postfix says in fields that are not its own, meta1 says as well.
func TestDSNBesidePostfix(t *testing.T) {
	t.Parallel()
	for action, rcpts := range map[string][]string{
		"failed": {
			"<bad@sink.test> NOTIFY=FAILURE ORCPT=rfc822;first+2Btry@sink.test", "<bad.two@sink.test>",
			"<bad.never@sink.test> NOTIFY=NEVER", "<bad.success@sink.test> NOTIFY=SUCCESS",
		},
		"delayed": {"<slow@sink.test> NOTIFY=DELAY,FAILURE", "<slow.two@sink.test> NOTIFY=FAILURE"},
	} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, "")
			refuseBad(s)
			m := run(t, settings{mailertable: toPort(t, ".", s.addr), qmgr: rfcFormat + "queue_delay { default = 1s; }"})
			p := startPostfix(t, map[string]string{"*": "smtp:[127.0.0.1]:" + port(t, s.addr)})
			commands := []string{"MAIL FROM:<sender@client.test> RET=HDRS ENVID=QQ+2B1"}
			for _, r := range rcpts {
				commands = append(commands, "RCPT TO:"+r)
			}
			for _, addr := range []string{m.smtp, p.smtp} {
				speak(t, addr, testContent(1, 500), commands...)
			}
			s.waitFor(2)
			got := s.reports()
			if len(got["mta.test"]) != 1 || len(got["postfix.test"]) != 1 {
				t.Fatalf("DSNs: %v", got)
			}
			compareReports(t, got["mta.test"][0], got["postfix.test"][0])
			if told := value(got["mta.test"][0].fields[1], "Action"); told != action {
				t.Errorf("%s is told of as %s", action, told)
			}
		})
	}
}

func compareReports(t *testing.T, ours, theirs report) {
	t.Helper()
	if !slices.Equal(ours.parts, theirs.parts) || !slices.Equal(ours.to, theirs.to) || len(ours.fields) != len(theirs.fields) {
		t.Fatalf("ours has parts %q for %q with %d groups, theirs %q for %q with %d",
			ours.parts, ours.to, len(ours.fields), theirs.parts, theirs.to, len(theirs.fields))
	}
	for name := range theirs.header {
		if name != "Received" && ours.header.Get(name) == "" {
			t.Errorf("Postfix has the header field %s: %s", name, theirs.header.Get(name))
		}
	}
	for _, r := range []report{ours, theirs} { // each in an order of its own
		slices.SortFunc(r.fields[1:], func(a, b textproto.MIMEHeader) int {
			return strings.Compare(a.Get("Final-Recipient"), b.Get("Final-Recipient"))
		})
	}
	for i, group := range theirs.fields {
		compareFields(t, ours.fields[i], group)
	}
}

// compareFields: a field must be in ours, and say the same unless it is a time or the
// name of the MTA.
func compareFields(t *testing.T, ours, theirs textproto.MIMEHeader) {
	t.Helper()
	for name := range theirs {
		switch {
		case strings.HasPrefix(name, "X-"):
		case name == "Original-Recipient" && ours.Get(name) == "" && value(theirs, name) == value(theirs, "Final-Recipient"):
			// Postfix makes one where there was no ORCPT. RFC 3461 section 6.3d forbids it.
		case ours.Get(name) == "":
			t.Errorf("Postfix has %s: %s", name, theirs.Get(name))
		case name == "Reporting-Mta", name == "Will-Retry-Until", strings.HasSuffix(name, "-Date"):
		case value(ours, name) != value(theirs, name):
			t.Errorf("%s: %q, Postfix has %q", name, value(ours, name), value(theirs, name))
		}
	}
}

// TestDSNThroughPostfix: the parameters of RFC 3461 go on to Postfix, which offers
// DSN, and come from it; the last one of a chain, whose next hop has no DSN, tells.
func TestDSNThroughPostfix(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := newMTA(t, settings{qmgr: rfcFormat})
	p := startPostfix(t, map[string]string{
		"frompostfix.test": "smtp:[127.0.0.1]:" + port(t, m.smtp), "*": "smtp:[127.0.0.1]:" + port(t, s.addr),
	})
	writeFile(t, m.dir+"/mt", toPort(t, "topostfix.test", p.smtp)+toPort(t, ".", s.addr))
	m.start()
	for addr, domain := range map[string]string{m.smtp: "topostfix.test", p.smtp: "frompostfix.test"} {
		speak(t, addr, testContent(1, 500), "MAIL FROM:<sender@client.test> RET=HDRS ENVID=QQ+2B1",
			"RCPT TO:<u@"+domain+"> NOTIFY=SUCCESS ORCPT=rfc822;first+2Btry@"+domain, "RCPT TO:<v@"+domain+"> NOTIFY=FAILURE")
	}
	s.waitFor(4)
	m.queueEmpty()
	got := s.reports()
	for mta, domain := range map[string]string{"mta.test": "frompostfix.test", "postfix.test": "topostfix.test"} {
		if len(got[mta]) != 1 || len(got[mta][0].fields) != 2 {
			t.Fatalf("%s made the DSNs %v", mta, got[mta])
		}
		r := got[mta][0]
		for name, want := range map[string]string{
			"Original-Recipient": "rfc822;first+try@" + domain, "Final-Recipient": "rfc822;u@" + domain,
			"Action": "relayed", "Status": "2.1.5",
		} {
			if v := value(r.fields[1], name); v != want && (name != "Status" || v[0] != '2') {
				t.Errorf("%s: %s is %q, want %q", mta, name, v, want)
			}
		}
		if id := r.fields[0].Get("Original-Envelope-Id"); id != "QQ+1" {
			t.Errorf("%s: Original-Envelope-Id is %q", mta, id)
		}
	}
}

// TestVERPBesidePostfix: with XVERP both give each recipient a sender of its own, and
// send bounces to it; the addresses are the same, and can be read back.
func TestVERPBesidePostfix(t *testing.T) {
	t.Parallel()
	seen := map[string][]string{}
	for name, start := range map[string]func(*sink) string{
		"meta1": func(s *sink) string {
			return run(t, settings{mailertable: toPort(t, ".", s.addr), qmgr: rfcFormat, flags: ", xverp"}).smtp
		},
		"postfix": func(s *sink) string {
			return startPostfix(t, map[string]string{"*": "smtp:[127.0.0.1]:" + port(t, s.addr)}).smtp
		},
	} {
		s := newSink(t, "")
		refuseBad(s)
		speak(t, start(s), testContent(1, 500), "MAIL FROM:<list@client.test> XVERP", "RCPT TO:<u@a.test>", "RCPT TO:<v@a.test>",
			"RCPT TO:<bad@a.test>", "RCPT TO:<bad+x@b.test>")
		s.waitFor(4)
		for _, a := range s.arrivals() {
			seen[name] = append(seen[name], fmt.Sprint(a.from, " to ", a.rcpts))
			if a.from == "" {
				checkVERP(t, a)
			}
		}
		slices.Sort(seen[name])
	}
	if !slices.Equal(seen["meta1"], seen["postfix"]) || !slices.Contains(seen["meta1"], "list+u=a.test@client.test to [u@a.test]") {
		t.Errorf("meta1 sends\n%s\nPostfix\n%s", strings.Join(seen["meta1"], "\n"), strings.Join(seen["postfix"], "\n"))
	}
}

// checkVERP: the address of a bounce names the recipient of which it tells.
func checkVERP(t *testing.T, a arrival) {
	t.Helper()
	told, _ := strings.CutPrefix(value(readReport(t, a).fields[1], "Final-Recipient"), "rfc822;")
	local, domain, _ := strings.Cut(told, "@")
	want, ok := new(verp.Config).Sender(smtp.Path{Local: "list", Domain: "client.test"}, smtp.Path{Local: local, Domain: domain})
	if !ok || a.rcpts[0] != want.Addr() {
		t.Errorf("%s tells of %s, whose address is %s", a.rcpts[0], told, want.Addr())
	}
}

// TestDoubleBounce: a bounce that is refused goes to the double bounce address, and
// by default nowhere; what is refused there is dropped. Nothing loops.
func TestDoubleBounce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		option string
		want   string // where it arrives
	}{
		"default":          {},
		"an address":       {option: `double_bounce_address = "<admin@sink.test>";`, want: "admin@sink.test"},
		"a refusing one":   {option: `double_bounce_address = "<bad.admin@sink.test>";`},
		"our own, default": {option: `double_bounce_address = "<doublebounce@mta.test>";`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, "")
			refuseBad(s)
			m := run(t, settings{mailertable: toPort(t, ".", s.addr), qmgr: rfcFormat + c.option})
			speak(t, m.smtp, testContent(1, 500), "MAIL FROM:<bad.sender@client.test>", "RCPT TO:<bad@sink.test>")
			must(t, func() error {
				log, err := os.ReadFile(m.log)
				if n := s.count(); err == nil && n != len(c.want)/max(1, len(c.want)) {
					err = fmt.Errorf("%d messages arrived", n)
				}
				if err == nil && c.want == "" && !bytes.Contains(log, []byte("dropped: nobody is to be told")) {
					err = fmt.Errorf("nothing is logged")
				}
				return err
			})
			m.queueEmpty()
			for _, a := range s.arrivals() {
				r := readReport(t, a)
				if a.from != "" || a.rcpts[0] != c.want || value(r.fields[1], "Final-Recipient") != "rfc822;bad.sender@client.test" {
					t.Errorf("from <%s> to %v:\n%s", a.from, a.rcpts, a.data)
				}
			}
		})
	}
}
