package resolver

import (
	"bufio"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"meta1/confparse"
)

// load reads the text of a section smar.
func load(t *testing.T, smar string) (Config, error) {
	t.Helper()
	var c Config
	root := &confparse.Table{Options: []confparse.Option{{
		Name: "smar", Kind: confparse.KindSection, Sub: c.Options(), Doc: "resolver", Readme: "3.9",
	}}}
	_, err := confparse.Load(confparse.LoadOptions{FS: confparse.Files{"/c/meta1.conf": "smar {\n" + smar + "\n}\n"}}, "/c/meta1.conf", root)
	return c, err
}

func TestDefaults(t *testing.T) {
	c, err := load(t, "")
	if err != nil {
		t.Fatal(err)
	}
	m, d := c.Mailertable, c.DNS
	if !m.Domain || !m.DotSubdomain || !m.Dot || m.FullAddress || !strings.HasSuffix(m.File, "mt") {
		t.Errorf("mailertable %+v", m)
	}
	if d.Retries != 3 || d.Timeout != 4*time.Second || d.Port != 53 || !d.ResolvConf || !d.Connect || d.TCP || d.CacheSize != 32<<20 {
		t.Errorf("DNS %+v", d)
	}
	if c.Access.Present || c.Aliases.Present || c.Greylist.Present || c.Delimiter != "+" || c.IPSelect != "IPv4_Preferred" || c.DANE != "secure" {
		t.Errorf("%+v", c)
	}
	if c.Greylist.Netmask != 0xFFFFFFFF || c.Greylist.Wait != 5*time.Minute {
		t.Errorf("greylisting %+v", c.Greylist)
	}
}

// README 3.9.1 and 3.9.2, with the nameservers and the dnsbl domain as in its text.
func TestSection(t *testing.T) {
	c, err := load(t, `
map localusers { type = hash; file = "/etc/meta1/localusr.db"; }
map otherusers { type = cdb; file = "/etc/meta1/otherusr.cdb"; }
map password { type = passwd; }
map seq1 { type = sequence; maps = { localusers, otherusers }; }
map seq2 { type = sequence; maps = { password, otherusers }; }
map sock { type = socket; path = sock; mapname = aliases; flags = { case_sensitive }; }
address_delimiter = "/_-";
dnsbl { domain = dnsbl.tld; tag = dnsbltld; }
dnsbl { domain = other.tld; tag = other; }
DNS { nameservers = { 127.0.0.1, 127.0.0.2 }; timeout = 6; flags = { use_TCP, -use_connect }; }
aliases { name = localusers; flags = { localpart, local_domains }; }
mailertable { flags = { full_address, ~dot }; }
greylisting { netmask = 0xFFFFFF00; grey_wait = 1m; }
access_map { }
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Maps) != 6 || c.Maps[3].Maps[1] != "otherusers" || !c.Maps[5].CaseSensitive || c.Maps[5].Timeout != 10*time.Second {
		t.Errorf("maps %+v", c.Maps)
	}
	if len(c.DNSBLs) != 2 || c.DNSBLs[1] != (DNSBLConfig{"other.tld", "other"}) {
		t.Errorf("dnsbl %+v", c.DNSBLs)
	}
	d := c.DNS
	if len(d.Servers) != 2 || d.Servers[1] != netip.MustParseAddr("127.0.0.2") || d.Timeout != 6*time.Second || !d.TCP || d.Connect {
		t.Errorf("DNS %+v", d)
	}
	if a := c.Aliases; !a.Present || a.Name != "localusers" || !a.LocalPart || !a.LocalDomains || a.AllDomains {
		t.Errorf("aliases %+v", a)
	}
	if m := c.Mailertable; !m.FullAddress || m.Dot || !m.Domain {
		t.Errorf("mailertable %+v", m)
	}
	if !c.Access.Present || c.Greylist.Netmask != 0xFFFFFF00 || c.Greylist.Wait != time.Minute || c.Delimiter != "/_-" {
		t.Errorf("%+v", c)
	}
}

func TestSectionErrors(t *testing.T) {
	for text, want := range map[string]string{
		"map m { type = hash; file = a; }\nmailertable { file = a; name = m; }": "only one of file and name",
		"DNS { nameservers = { 1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4, 1.1.1.5 } }": "at most 4",
		"map { type = hash; }":                  "name",
		"map m { file = a; }":                   "type",
		"map m { type = berkeley; }":            "berkeley",
		"mailertable { name = undeclared; }":    "undeclared",
		"DANE = perhaps;":                       "perhaps",
		"greylisting { grey_expire = 5m; }":     "grey_expire (5m0s) must be longer than grey_wait (5m0s)",
		"greylisting { grey_wait = 2d; }":       "grey_expire (24h0m0s) must be longer than grey_wait (48h0m0s)",
		"greylisting { white_timeout = 0; }":    "white_timeout: 0s is less than 1s",
		"greylisting { netmask = 0xFFFFFF; }":   "netmask 0x00FFFFFF",
		"greylisting { netmask = 0xFFFF00FF; }": "netmask 0xFFFF00FF",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// Netmasks that keep the first bits, also none or all, are taken.
func TestNetmasks(t *testing.T) {
	for _, m := range []string{"0", "0x80000000", "0xFFFFFF00", "0xFFFFFFFE", "0xFFFFFFFF"} {
		if _, err := load(t, "greylisting { netmask = "+m+"; }"); err != nil {
			t.Errorf("%s: %v", m, err)
		}
	}
}

// Every row of the option list for smar must be in the table.
func TestOptionList(t *testing.T) {
	f, err := os.Open("testdata/options.tsv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c Config
	rows := 0
	for in := bufio.NewScanner(f); in.Scan(); rows++ {
		col := strings.Split(in.Text(), "\t")
		table := c.Options()
		if _, sub, ok := strings.Cut(col[0], "/"); ok {
			o := option(table, sub)
			if table = o.Sub; table == nil {
				table = o.New("x")
			}
		}
		o := option(table, col[1])
		if o == nil {
			t.Errorf("%s/%s is missing", col[0], col[1])
			continue
		}
		kind := o.Kind
		if kind == "" {
			kind = confparse.KindOption
		}
		if string(kind) != col[2] || (o.Effect == confparse.Host) != (col[7] == "host") || o.Unit != col[4] && col[4] != "" || o.Readme != col[6] || o.Doc == "" {
			t.Errorf("%v: have kind %s, unit %q, README %s, effect %q, doc %q", col, kind, o.Unit, o.Readme, o.Effect, o.Doc)
		}
	}
	if rows != 59 {
		t.Errorf("%d rows", rows)
	}
}

func option(t *confparse.Table, name string) *confparse.Option {
	for i := range t.Options {
		if t.Options[i].Name == name {
			return &t.Options[i]
		}
	}
	return nil
}
