package conf

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"meta1/maps"
	"meta1/mta/msg"
)

func names() Names {
	return Names{Limits: []string{"low", "high"}, Sources: []string{"net10", "netex", "two words"}, Features: []string{"notls"}, Providers: []string{"big"}}
}

// create makes a map in the given form: .db, .cdb, or text.
func create(t testing.TB, ext, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "qmgr_conf"+ext)
	if ext != ".db" && ext != ".cdb" {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := maps.Create(path, strings.NewReader(text), maps.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return path
}

const example = `oci:	5
ocm:	10
oci:10	10
ocm:10.1.	50
ocm:10.1.2.3	4
ocr:2001:db8:	7
octo:	25m 5m
octo:192.0.2.1	90
icr:10	5
icr:	100
icm:	120
icl:example.com	3
icl:.Example.net	4
smtpc_session_conf:10.	session_feature=notls;
smtpc_session_conf:10.1.2.3	tls_requirements { flags={verified}; violation=permfail; }
smtpc_session_conf:2001:db8:	session_feature = notls; tls_requirements { flags = encrypted }
smtpc_conf_rcpt_domain:Example.COM	connection_limits=low;
smtpc_conf_rcpt_domain:.example.com	connection_limits = high
smtpc_conf_cltaddr:10.	source = net10;  source = netex;
smtpc_conf_mail:user@example.org	source = "two words";
smtpc_conf_mail:example.org	source=netex;
smtpc_conf_mail:@.example.org	source=net10;
`

func TestLookups(t *testing.T) {
	for _, ext := range []string{".db", ".cdb", ".txt"} {
		t.Run(ext, func(t *testing.T) {
			c, err := Open(create(t, ext, example), names())
			if err != nil {
				t.Fatal(err)
			}
			checkNumbers(t, c)
			checkNames(t, c)
			checkSessions(t, c)
			if c.Entries != 22 || c.Sessions() != 3 {
				t.Errorf("%d entries, %d of sessions", c.Entries, c.Sessions())
			}
		})
	}
}

func checkNumbers(t *testing.T, c *Table) {
	t.Helper()
	for _, want := range []struct {
		tag   string
		table IPTable
		ip    string
		n     int // 0: not found
	}{
		{"oci", c.Initial, "10.9.9.9", 10},
		{"oci", c.Initial, "11.0.0.1", 0},
		{"oci", c.Initial, "100.0.0.1", 0},
		{"ocm", c.Max, "10.1.2.3", 4},
		{"ocm", c.Max, "10.1.2.4", 50},
		{"ocm", c.Max, "10.2.0.1", 0},
		{"ocm", c.Max, "::ffff:10.1.2.3", 4},
		{"ocr", c.Rate, "2001:db8::5", 7},
		{"ocr", c.Rate, "2001:db9::5", 0},
		{"octo", c.Timeout, "192.0.2.1", 90},
		{"icr", c.InRate, "10.0.0.1", 5},
		{"icm", c.InOpen, "10.0.0.1", 0},
	} {
		if n, found := want.table.Of(netip.MustParseAddr(want.ip)); n != want.n || found != (want.n > 0) {
			t.Errorf("%s of %s is %d, %v, want %d", want.tag, want.ip, n, found, want.n)
		}
	}
	for name, want := range map[string]int{"example.com": 3, "Example.com.": 3, "a.example.com": 0, "a.b.example.net.": 4, "example.net": 0, "": 0, ".": 0} {
		if n, found := c.InNameRate.Of(name); n != want || found != (n > 0) {
			t.Errorf("icl of %q is %d, %v, want %d", name, n, found, want)
		}
	}
	if c.InNameRate.Max() != 4 || c.InNameOpen.Max() != 0 {
		t.Errorf("largest icl %d, icc %d", c.InNameRate.Max(), c.InNameOpen.Max())
	}
	if c.Initial.Default(1) != 5 || c.Timeout.Default(1) != 1800 || c.Rate.Default(1) != 1 || c.InOpen.Default(1) != 120 {
		t.Errorf("defaults %v %v %v %v", c.Initial[""], c.Timeout[""], c.Rate[""], c.InOpen[""])
	}
}

func checkNames(t *testing.T, c *Table) {
	t.Helper()
	for domain, want := range map[string]string{
		"example.com": "low", "EXAMPLE.com": "low", "a.b.example.com": "high", "com": "", "notexample.com": "",
	} {
		if got := c.Limits(domain); got != want {
			t.Errorf("limits of %s are %q, want %q", domain, got, want)
		}
	}
	for _, want := range []struct{ ip, local, domain, sources string }{
		{"10.1.1.1", "user", "example.org", "net10 netex"}, // the client's address goes first
		{"11.1.1.1", "User", "Example.org", "two words"},
		{"11.1.1.1", "other", "example.org", "netex"},
		{"", "other", "sub.example.org", "net10"},
		{"11.1.1.1", "user", "example.net", ""},
		{"11.1.1.1", "", "", ""},
	} {
		var ip netip.Addr
		if want.ip != "" {
			ip = netip.MustParseAddr(want.ip)
		}
		if got := strings.Join(c.Sources(ip, want.local, want.domain), " "); got != want.sources {
			t.Errorf("sources of %+v are %q", want, got)
		}
	}
}

func checkSessions(t *testing.T, c *Table) {
	t.Helper()
	verified := msg.TLSRequirements{Verified: true, Violation: "permfail"}
	for ip, want := range map[string]*msg.Conf{
		"10.0.0.1": {SessionFeature: "notls"}, "::ffff:10.1.2.3": {TLS: &verified}, "11.0.0.1": nil,
		"2001:db8::1": {SessionFeature: "notls", TLS: &msg.TLSRequirements{Encrypted: true}},
	} {
		if got, _ := c.Session(netip.MustParseAddr(ip), ""); !reflect.DeepEqual(got, want) {
			t.Errorf("session with %s: %+v, want %+v", ip, got, want)
		}
	}
	if got, _ := c.Session(netip.Addr{}, ""); got != nil {
		t.Error("a session without an address has a configuration")
	}
	var all Table
	n := names()
	if err := all.add(Tags(), "smtpc_session_conf", "session_feature=notls;", &n); err != nil {
		t.Error(err)
	}
	if got, key := all.Session(netip.MustParseAddr("::1"), "mx.test"); got == nil || key != "" {
		t.Error("an entry without address is not for all")
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct{ key, value, want string }{
		{"oci:", "0", "not a number from 1"},
		{"ocm:10.", "-1", "not a number"},
		{"ocr:", "5 6", "not a number"},
		{"icm:", "many", "not a number"},
		{"icc:example.com", "x", "not a number"},
		{"icl:", "5", "not a host name"},
		{"icl:.", "5", "not a host name"},
		{"icl:..a", "5", "not a host name"},
		{"icl:b@c", "5", "not a host name"},
		{"icl:10.", "5", "the tags icr and icm"},
		{"icc:10.1.2.3", "5", "the tags icr and icm"},
		{"icc:2001:db8:", "5", "the tags icr and icm"},
		{"icc:example.com", "0", "not a number"},
		{"smtpc_session_conf:a@b", "session_feature=notls;", "not an IP"},
		{"smtpc_session_conf:a..b", "session_feature=notls;", "not an IP"},
		{"smtpc_session_conf:10.1.2.3.4", "session_feature=notls;", "not an IP"},
		{"smtpc_session_conf:2001::1", "session_feature=notls;", "in full"},
		{"smtpc_session_conf:.example.com", "provider=small;", `no section provider "small"`},
		{"smtpc_session_conf:10.", "session_feature=none;", `no section session_features "none"`},
		{"smtpc_session_conf:10.", "session_feature=", "expected a value"},
		{"smtpc_session_conf:10.", "sauce=notls;", "unknown option"},
		{"smtpc_session_conf:10.", "source=net10;", "nothing else"},
		{"smtpc_session_conf:10.", "session_feature=notls; connection_limits=low;", "nothing else"},
		{"smtpc_session_conf:10.", "session_feature=notls; flags=x;", "nothing else"},
		{"smtpc_session_conf:10.", ";", "expected the name of an option"},
		{"smtpc_session_conf:10.", "tls_requirements { flags=encrypted; violation={tempfail, delay} }", "smtpc_rcpt_conf: only"},
		{"smtpc_session_conf:10.", "tls_requirements { flags=secret }", "not one of the flags"},
		{"octo:", "5x", "not a time"},
		{"octo:", "0", "not a time"},
		{"octo:", "99999999w", "not a time"},
		{"octo:", "h", "not a time"},
		{"octo:", "500ms", "not a time"},
		{"octo:", "53w", "not a time"},
		{"oci:256.", "1", "not an IP"},
		{"oci:1.2.3.4.5", "1", "not an IP"},
		{"oci:1..2", "1", "not an IP"},
		{"oci:010.", "1", "not an IP"},
		{"oci:2001:db8::1", "1", "in full"},
		{"oci:g:1", "1", "not an IP"},
		{"oci:example.com", "1", "not an IP"},
		{"oci:10/8", "1", "not an IP"},
		{"occ:", "1", "unknown tag"},
		{"nonsense", "1", "unknown tag"},
		{"smtpc_conf_rcpt_domain:", "connection_limits=low;", "not a domain"},
		{"smtpc_conf_rcpt_domain:a@b", "connection_limits=low;", "not a domain"},
		{"smtpc_conf_rcpt_domain:b", "connection_limits=none;", `no section connection_limits "none"`},
		{"smtpc_conf_rcpt_domain:b", "source=net10;", "expected connection_limits"},
		{"smtpc_conf_rcpt_domain:b", "connection_limits=low; connection_limits=high;", "twice"},
		{"smtpc_conf_rcpt_domain:b", "connection_limits low", "expected connection_limits"},
		{"smtpc_conf_cltaddr:x", "source=net10;", "not an IP"},
		{"smtpc_conf_cltaddr:10.", "source=net11;", `no section source "net11"`},
		{"smtpc_conf_cltaddr:10.", "source=;", "expected a value"},
		{"smtpc_conf_cltaddr:10.", `source="net10`, "not closed"},
		{"smtpc_conf_cltaddr:10.", `source="net10" x`, `expected ";"`},
		{"smtpc_conf_cltaddr:10.", "source=net10 netex;", "expected source"},
		{"smtpc_conf_cltaddr:10.", ";", "expected source"},
		{"smtpc_conf_mail:", "source=net10;", "needs a mail address"},
		{"smtpc_conf_mail:user@", "source=net10;", "not a mail address"},
	} {
		_, err := Open(create(t, ".cdb", c.key+"\t"+c.value+"\n"), names())
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `entry "`+strings.TrimSuffix(c.key, ":")) {
			t.Errorf("%s %s: %v", c.key, c.value, err)
		}
	}
}

// TestMistakesHaveLines: what is wrong in a text file is told with its line, the first
// line first.
func TestMistakesHaveLines(t *testing.T) {
	path := create(t, ".txt", "# map\noci: 5\nicl:a 0\nsmtpc_session_conf:10. session_feature=none;\n")
	_, err := Open(path, names())
	want := path + ":3: entry \"icl:a\": \"0\" is not a number from 1 to 1000000\n" +
		path + ":4: entry \"smtpc_session_conf:10.\": there is no section session_features \"none\" in smtpc"
	var line *maps.LineError
	if err == nil || !strings.HasSuffix(err.Error(), want) || !errors.As(err, &line) || line.Line != 3 {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestContradictions(t *testing.T) {
	if _, err := Open(create(t, ".txt", "oci:10 5\noci:10. 6\n"), names()); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("two numbers for one net: %v", err)
	}
	if _, err := Open(create(t, ".txt", "oci:10 5\noci:10. 5\n"), names()); err != nil {
		t.Errorf("the same twice: %v", err)
	}
}

func TestFiles(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "no.db"), Names{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "bad.db")
	if err := os.WriteFile(path, []byte("oci: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Names{}); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a text file as hash map: %v", err)
	}
}

// FuzzAdd: no entry makes a table that cannot be asked, and a number that is accepted
// is within its bounds.
func FuzzAdd(f *testing.F) {
	for line := range strings.Lines(example) {
		key, value, _ := strings.Cut(line, "\t")
		f.Add(key, value)
	}
	f.Fuzz(func(t *testing.T, key, value string) {
		var c Table
		n := names()
		if err := c.add(Tags(), key, value, &n); err != nil {
			return
		}
		for _, table := range []IPTable{c.Initial, c.Max, c.Rate, c.InRate, c.InOpen} {
			for k, n := range table {
				if n < 1 || n > countMax || strings.Contains(k, "::") {
					t.Errorf("%q %q gives %q %d", key, value, k, n)
				}
			}
		}
		for k, s := range c.client {
			if len(s) == 0 {
				t.Errorf("%q %q gives %q nothing", key, value, k)
			}
		}
		c.Limits("a.b")
		if n, _ := c.InNameRate.Of("a.b"); n > c.InNameRate.Max() {
			t.Errorf("%q %q: %d", key, value, n)
		}
		c.Sources(netip.MustParseAddr("10.0.0.1"), "a", "b.c")
	})
}

// TestTagsAreDescribed: the manual of maps is made of the tags.
func TestTagsAreDescribed(t *testing.T) {
	for _, tag := range Tags() {
		if !strings.HasSuffix(tag.Name, ":") || tag.Keys == "" || tag.Values == "" || !strings.HasSuffix(tag.Doc, ".") {
			t.Errorf("%+v", tag)
		}
	}
	if _, err := Open(create(t, ".txt", "ocx:10. 5\n"), names()); err == nil || !strings.Contains(err.Error(), "did you mean oc") {
		t.Error(err)
	}
}

// TestSessionsByName: an entry for an address or a net goes before one for the name, and the one for
// a longer part of the name before others.
func TestSessionsByName(t *testing.T) {
	const text = `smtpc_session_conf:.big.example	provider=big;
smtpc_session_conf:mx1.big.example	tls_requirements { flags = verified; }
smtpc_session_conf:.MX.Big.example	session_feature = notls; provider = big;
smtpc_session_conf:192.0.2.	provider=big; tls_requirements { flags = encrypted }
smtpc_session_conf:	session_feature = notls;
`
	for _, ext := range []string{".db", ".cdb", ".txt"} {
		c, err := Open(create(t, ext, text), names())
		if err != nil {
			t.Fatal(err)
		}
		big, all := &msg.Conf{Provider: "big"}, &msg.Conf{SessionFeature: "notls"}
		for _, want := range []struct {
			ip, name string
			conf     *msg.Conf
		}{
			{"198.51.100.1", "a.big.example", big},
			{"2001:db8::1", "A.b.BIG.example.", big},
			{"198.51.100.1", "mx1.big.example", &msg.Conf{TLS: &msg.TLSRequirements{Verified: true}}},
			{"198.51.100.1", "x.mx.big.example", &msg.Conf{SessionFeature: "notls", Provider: "big"}},
			{"192.0.2.7", "mx1.big.example", &msg.Conf{Provider: "big", TLS: &msg.TLSRequirements{Encrypted: true}}},
			{"198.51.100.1", "big.example", all},
			{"198.51.100.1", "notbig.example", all},
			{"198.51.100.1", "", all},
		} {
			if got, _ := c.Session(netip.MustParseAddr(want.ip), want.name); !reflect.DeepEqual(got, want.conf) {
				t.Errorf("%s: sessions with %s[%s]: %+v", ext, want.name, want.ip, got)
			}
		}
		if _, key := c.Session(netip.MustParseAddr("198.51.100.1"), "a.big.example"); key != ".big.example" {
			t.Errorf("the entry is %q", key)
		}
		if got, _ := c.Session(netip.Addr{}, ""); got != nil || c.Sessions() != 5 {
			t.Errorf("%s: a socket has a configuration, or there are not 5 entries but %d", ext, c.Sessions())
		}
	}
}
