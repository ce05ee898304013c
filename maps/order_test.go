package maps

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// README 3.12.1: "for sub2.sub1.tld the lookup order is ...".
func TestDomainKeys(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps Steps
		want  string
	}{
		{"sub2.sub1.tld", DotSubdomain | Dot, "sub2.sub1.tld .sub1.tld .tld ."},
		{"sub2.sub1.tld", DotSubdomain, "sub2.sub1.tld .sub1.tld .tld"},
		{"sub2.sub1.tld", Dot, "sub2.sub1.tld ."},
		{"sub2.sub1.tld", 0, "sub2.sub1.tld"},
		{"localhost", DotSubdomain | Dot, "localhost ."},
		{"[192.0.2.1]", DotSubdomain | Dot, "[192.0.2.1] ."},
		{"host.spammer.domain.", DotSubdomain, "host.spammer.domain. .spammer.domain. .domain."},
	} {
		if got := strings.Join(slices.Collect(DomainKeys(c.name, c.steps)), " "); got != c.want {
			t.Errorf("%s %b: %s, want %s", c.name, c.steps, got, c.want)
		}
	}
}

// README 3.12.1: A.B.C.D, A.B.C., A.B., A.; IPv6 without "::".
func TestIPKeys(t *testing.T) {
	for ip, want := range map[string]string{
		"10.12.13.14":      "10.12.13.14 10.12.13. 10.12. 10.",
		"2001:db8::1":      "2001:db8:0:0:0:0:0:1 2001:db8:0:0:0:0:0: 2001:db8:0:0:0:0: 2001:db8:0:0:0: 2001:db8:0:0: 2001:db8:0: 2001:db8: 2001:",
		"::ffff:192.0.2.7": "192.0.2.7 192.0.2. 192.0. 192.",
		"fe80::1%eth0":     "fe80:0:0:0:0:0:0:1 fe80:0:0:0:0:0:0: fe80:0:0:0:0:0: fe80:0:0:0:0: fe80:0:0:0: fe80:0:0: fe80:0: fe80:",
	} {
		if got := strings.Join(slices.Collect(IPKeys(netip.MustParseAddr(ip))), " "); got != want {
			t.Errorf("%s: %s, want %s", ip, got, want)
		}
	}
	for k := range IPKeys(netip.Addr{}) {
		t.Errorf("no address has the key %q", k)
	}
}

// README 3.9.2 item 2.
func TestParseAddress(t *testing.T) {
	for _, c := range []struct {
		local, delimiters string
		want              Address
	}{
		{"user+detail", "+", Address{User: "user", Delimiter: "+", Detail: "detail"}},
		{"user/ext-list", "/_-", Address{User: "user", Delimiter: "/", Detail: "ext-list"}},
		{"user-ext_list", "/_-", Address{User: "user", Delimiter: "-", Detail: "ext_list"}},
		{"user+", "+", Address{User: "user", Delimiter: "+"}},
		{"user", "+", Address{User: "user"}},
		{"+user", "+", Address{User: "+user"}},
		{"u+v", "", Address{User: "u+v"}},
		{`"user+x"`, "+", Address{User: "user", Delimiter: "+", Detail: "x"}},
		{`"a\"b"`, "+", Address{User: `a"b`}},
		{`"`, "+", Address{User: `"`}},
		{`"\`, "+", Address{User: `"\`}},
	} {
		if got := ParseAddress(c.local, "", c.delimiters); got != c.want {
			t.Errorf("%s %q: %+v, want %+v", c.local, c.delimiters, got, c.want)
		}
	}
}

// README 3.12.1, the sequence for addresses.
func TestAddressKeys(t *testing.T) {
	for _, c := range []struct {
		local string
		steps Steps
		want  string
	}{
		{"user+detail", AllAddress, "user+detail@sub.tld user++@sub.tld user+*@sub.tld user*@sub.tld @sub.tld " +
			"user+detail@.tld user++@.tld user+*@.tld user*@.tld @.tld user+detail user++ user+* user*"},
		{"user+", AllAddress, "user+@sub.tld user+*@sub.tld user*@sub.tld @sub.tld user+@.tld user+*@.tld user*@.tld @.tld user+ user+* user*"},
		{"user", AllAddress, "user*@sub.tld user@sub.tld @sub.tld user*@.tld user@.tld @.tld user* user"},
		{"user+detail", FullAddress | MatchDetail, "user+detail@sub.tld user@sub.tld"},
		{"user+detail", FullAddress, "user+detail@sub.tld"},
		{"user+detail", DetailPlus | DetailStar, "user++@sub.tld user+*@sub.tld"},
		{"user+detail", Star, "user*@sub.tld"},
		{"user", Star | LocalPart, "user*@sub.tld user* user"},
		{"user", Mailertable, "sub.tld .tld ."},
		{"user", Mailertable | FullAddress, "user@sub.tld sub.tld user@.tld .tld user@. ."},
		{"user", Domain | DotSubdomain | Dot, "@sub.tld @.tld ."},
		{"user+x", LocalPart | MatchDetail, "user+x user++ user+* user* user"},
	} {
		var got []string
		for k := range ParseAddress(c.local, "sub.tld", "+").Keys(c.steps) {
			got = append(got, k)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s %b:\n got %s\nwant %s", c.local, c.steps, s, c.want)
		}
	}
}

func TestKeysStop(t *testing.T) {
	a := ParseAddress("user+detail", "a.b.c.tld", "+")
	total := 0
	for range a.Keys(AllAddress | Dot | MatchDetail) {
		total++
	}
	for stop := 1; stop <= total; stop++ {
		n := 0
		for range a.Keys(AllAddress | Dot | MatchDetail) {
			if n++; n == stop {
				break
			}
		}
		if n != stop {
			t.Errorf("stopped after %d of %d", n, stop)
		}
	}
}

func TestFindSubdomain(t *testing.T) {
	m, err := ReadText(strings.NewReader("alias*@.domain x\n"), "t", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		local, domain, key, sub string
		r                       Result
	}{
		{"alias", "host.domain", "alias*@.domain", "host", OK},
		{"alias+detail", "Host2.domain", "alias*@.domain", "host2", OK},
		{"alias", "a.b.domain", "alias*@.domain", "a.b", OK},
		{"alias", "domain", "", "", NotFound},
	} {
		key, sub, _, r := FindAddress(context.Background(), m, "", ParseAddress(c.local, c.domain, "+"), AllAddress)
		if key != c.key || sub != c.sub || r != c.r {
			t.Errorf("%s@%s: %q %q %v", c.local, c.domain, key, sub, r)
		}
	}
}
