package resolver

import (
	"math/bits"
	"slices"
	"time"

	"meta1/confparse"
)

// Options is the option table of the section smar, bound to c.
func (c *Config) Options() *confparse.Table {
	t := &confparse.Table{Options: []confparse.Option{
		{
			Name: "map", Kind: confparse.KindSection, Named: true, Readme: "3.9.1", Reload: confparse.AtOnce,
			Doc: "Declares a map under the name of the section, by which other options refer to it.",
			New: c.newMap,
		},
		{
			Name: "access_map", Kind: confparse.KindSection, Readme: "3.9.2", Reload: confparse.AtOnce, Present: &c.Access.Present, Sub: c.accessMap(),
			Doc: "The access control map (docs/maps.md). Without this section there is none.",
		},
		{
			Name: "address_delimiter", Type: confparse.String, Default: `"+"`, Readme: "3.9.2", Reload: confparse.AtOnce, Into: &c.Delimiter,
			Doc: "Characters that divide a local part into user and detail; the one that comes first in the local part does.",
		},
		{
			Name: "aliases", Kind: confparse.KindSection, Readme: "3.9.2", Reload: confparse.AtOnce, Present: &c.Aliases.Present, Sub: c.aliases(),
			Doc: "The map of aliases (docs/maps.md). Without this section there is none.",
		},
		{
			Name: "DNS", Kind: confparse.KindSection, Readme: "3.9.2", Sub: c.dns(),
			Doc: "How name servers are asked.",
		},
		{
			Name: "dnsbl", Kind: confparse.KindSection, Readme: "3.9.2", New: c.newDNSBL,
			Doc: "A DNS blocklist in which clients are looked up; the result is looked up in the access map.",
		},
		{
			Name: "mta_sts", Kind: confparse.KindSection, Readme: "own", Present: &c.MTASTS.Present, Sub: c.mtasts(),
			Doc: "If this section is there, the MTA-STS policies of recipients' domains count (RFC 8461): they are fetched over HTTPS and kept in the directory mtasts of the main queue directory. docs/mta-sts.md tells more.",
		},
		{
			Name: "srs", Kind: confparse.KindSection, Readme: "own", Present: &c.SRS.Present, Sub: c.SRS.Table(),
			Doc: "If this section is there, mail that an alias forwards from a domain that is not ours to another one gets a sender of ours by the Sender Rewriting Scheme, and bounces find their way back by it. docs/srs.md tells more.",
		},
		{
			Name: "greylisting", Kind: confparse.KindSection, Readme: "3.9.2", Present: &c.Greylist.Present, Sub: c.greylisting(),
			Doc: "Greylisting; the SMTP server's flags greylisting and fullgreylisting turn it on.",
		},
		{
			Name: "local_user_map", Kind: confparse.KindSection, Readme: "3.9.2", Sub: c.localUserMap(),
			Doc: "A map of valid local addresses. With it, or with aliases, other local addresses are refused.",
		},
		{
			Name: "mailertable", Kind: confparse.KindSection, Readme: "3.9.2", Reload: confparse.AtOnce, Sub: c.mailertable(),
			Doc: "Routes by domain or address (docs/maps.md).",
		},
		{
			Name: "DANE", Type: confparse.Enum, Words: []string{"secure", "never", "always"}, Default: "secure", Readme: "14.2", Into: &c.DANE,
			Doc: "Whether the TLSA records of mail hosts are looked up (DANE, RFC 7672): only if DNSSEC secures them, which takes the flag Use_DNSSEC; never; or also without DNSSEC, which is for trials and protects against nobody (docs/dane.md).",
		},
		{
			Name: "IPv_Select", Type: confparse.Enum, Readme: "own", Into: &c.IPSelect, Default: defaultIPSelect,
			Words: []string{"IPv4_Only", "IPv4_Preferred", "IPv6_Only", "IPv6_Preferred"},
			Doc:   "Which family of addresses of a mail host is used or tried first, unless the mailertable says so. MeTA1 used IPv4.",
		},
		{
			Name: "MX_max", Type: confparse.Int, Unit: "entries", Default: "20", Min: "1", Max: "100", Readme: "own", Into: &c.MXMax,
			Doc: "How many MX records of a domain are used, the best preferences first.",
		},
		{
			Name: "addresses_per_host_max", Type: confparse.Int, Unit: "entries", Default: "10", Min: "1", Max: "100", Readme: "own", Into: &c.AddrMax,
			Doc: "How many addresses of each family are used of one mail host.",
		},
		hostInt("fds_max", &c.FDsMax, "Maximum number of file descriptors."),
		hostInt("threads_max", &c.ThreadsMax, "Maximum number of threads."),
		hostInt("threads_min", &c.ThreadsMin, "Minimum number of threads."),
	}, Check: c.check}
	return t.Declare(confparse.AtOnce, "")
}

// check makes the cross-checks of the section: that a map is given by file or by
// name (README 3.9.2, items 1, 3, 9), and how many name servers there are.
func (c *Config) check(r *confparse.Report) {
	for _, section := range []string{"access_map", "aliases", "mailertable"} {
		_, file := r.Origin(section + "/file")
		_, name := r.Origin(section + "/name")
		if file && name {
			r.Errorf(section+"/name", "only one of file and name may be given")
		}
	}
	for section, name := range map[string]string{
		"access_map": c.Access.Name, "aliases": c.Aliases.Name,
		"local_user_map": c.LocalUser.Name, "mailertable": c.Mailertable.Name,
	} {
		if name != "" && c.declared(name) == nil {
			r.Errorf(section+"/name", "map %q is not declared", name)
		}
	}
	if _, set := r.Origin("local_user_map"); set && c.LocalUser.Name == "" {
		r.Errorf("local_user_map", "local_user_map needs name")
	}
	if access := c.Access.Present || c.Access.Name != ""; len(c.DNSBLs) > 0 && !access {
		r.Warnf("dnsbl#1", "dnsbl has no effect without an access_map, which says what its answers mean")
	}
	c.checkSequences(r)
	if n := len(c.DNS.Servers); n > 4 {
		r.Errorf("DNS/nameservers", "%d addresses are given, at most 4 are possible", n)
	}
}

// checkSequences checks that the maps of sequences are declared, and that none
// contains itself.
func (c *Config) checkSequences(r *confparse.Report) {
	for i := range c.Maps {
		m := &c.Maps[i]
		for _, name := range m.Maps {
			switch in := c.declared(name); {
			case in == nil:
				r.Errorf("map "+m.Name+"/maps", "map %q is not declared", name)
			case c.reaches(in, m.Name, map[string]bool{}):
				r.Errorf("map "+m.Name+"/maps", "sequence %q contains itself", m.Name)
			}
		}
	}
}

// reaches says whether a map is the named one or contains it; seen are those that do
// not.
func (c *Config) reaches(m *MapConfig, name string, seen map[string]bool) bool {
	if m.Name == name || seen[m.Name] {
		return m.Name == name
	}
	seen[m.Name] = true
	for _, inner := range m.Maps {
		if in := c.declared(inner); in != nil && c.reaches(in, name, seen) {
			return true
		}
	}
	return false
}

// check checks that a map has what its type needs (README 3.9.1).
func (m *MapConfig) check(r *confparse.Report) {
	switch m.Type {
	case "hash", "cdb", "regex", "text":
		if m.File == "" {
			r.Errorf("", "map %s of type %s lacks file", m.Name, m.Type)
		}
	case "sequence":
		if len(m.Maps) == 0 {
			r.Errorf("", "map %s of type sequence lacks maps", m.Name)
		}
	case "socket":
		inet := m.Address.IsValid() && m.Port != 0
		if inet == (m.Path != "") || m.Path != "" && (m.Address.IsValid() || m.Port != 0) {
			r.Errorf("", "map %s of type socket needs either path, or address and port", m.Name)
		}
	}
	fits := map[string][]string{
		"file": {"hash", "cdb", "regex", "text", "passwd"}, "maps": {"sequence"}, "mapname": {"socket"},
		"address": {"socket"}, "path": {"socket"}, "port": {"socket"}, "timeout": {"socket"},
	}
	for _, option := range []string{"file", "mapname", "address", "path", "port", "maps", "timeout"} {
		if _, set := r.Origin(option); set && m.Type != "" && !slices.Contains(fits[option], m.Type) {
			r.Warnf(option, "%s has no effect in a map of type %s", option, m.Type)
		}
	}
}

// Declares reports whether a map of that name is declared.
func (c *Config) Declares(name string) bool { return c.declared(name) != nil }

// declared finds the map that is declared under name, nil if there is none.
func (c *Config) declared(name string) *MapConfig {
	for i := range c.Maps {
		if c.Maps[i].Name == name {
			return &c.Maps[i]
		}
	}
	return nil
}

func hostInt(name string, into *int, doc string) confparse.Option {
	return confparse.Option{
		Name: name, Type: confparse.Int, Unit: "entries", Min: "0", Readme: "8.4", Effect: confparse.Host, Into: into, Doc: doc,
	}
}

// Defaults that New needs when a Config was not made by the table.
const (
	defaultFile     = "mt"
	defaultIPSelect = "IPv4_Preferred"

	defaultSocketTime = 10 * time.Second
)

func (c *Config) newMap(name string) *confparse.Table {
	m := &MapConfig{Name: name}
	return &confparse.Table{
		Options: []confparse.Option{
			{
				Name: "type", Type: confparse.Enum, Required: true, Readme: "3.9.1", Reload: confparse.AtOnce, Into: &m.Type,
				Words: []string{"hash", "cdb", "regex", "sequence", "socket", "passwd", "text"},
				Doc:   "Type of the map; text, an addition of ours, is a flat text file that is read at start and reload.",
			},
			{
				Name: "file", Type: confparse.File, Readme: "3.9.1", Reload: confparse.AtOnce, Into: &m.File,
				Doc: "File of the map, with its extension (types hash, cdb, regex, text); for type passwd another file than /etc/passwd.",
			},
			{
				Name: "mapname", Type: confparse.String, Readme: "3.9.1", Reload: confparse.AtOnce, Into: &m.MapName,
				Doc: "Name of the map in the protocol of a socket map.",
			},
			{
				Name: "address", Type: confparse.IP, Readme: "3.9.1", Reload: confparse.AtOnce, Into: &m.Address,
				Doc: "IP address of the server of a socket map.",
			},
			{
				Name: "path", Type: confparse.Path, Readme: "3.9.1", Reload: confparse.AtOnce, Into: &m.Path,
				Doc: "Unix socket of the server of a socket map.",
			},
			{
				Name: "port", Type: confparse.Int, Min: "1", Max: "65535", Readme: "3.9.1", Reload: confparse.AtOnce, Into: &m.Port,
				Doc: "Port of the server of a socket map.",
			},
			{
				Name: "maps", Type: confparse.List, Readme: "3.9.1", Reload: confparse.AtOnce, Into: &m.Maps,
				Doc: "Names of the maps that a sequence map tries in turn.",
			},
			{
				Name: "case_sensitive", Kind: confparse.KindFlag, Readme: "own", Reload: confparse.AtOnce, Into: &m.CaseSensitive,
				Doc: "Keys are looked up as they are. Without it they are converted to lower case first.",
			},
			{
				Name: "timeout", Type: confparse.Time, Unit: "s", Default: "10s", Min: "1s", Max: "5m", Readme: "own", Reload: confparse.AtOnce, Into: &m.Timeout,
				Doc: "How long one lookup in a socket map may take.",
			},
		},
		Check: m.check,
		Done:  func() { c.Maps = append(c.Maps, *m) },
	}
}

func (c *Config) accessMap() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "file", Type: confparse.File, Default: "access.db", Readme: "3.9.2", Reload: confparse.AtOnce, Into: &c.Access.File,
			Doc: "File of the access map, made by meta1 createmap.",
		},
		mapName("Name of a declared map to use as access map.", &c.Access.Name),
	}}
}

func mapName(doc string, into *string) confparse.Option {
	return confparse.Option{Name: "name", Type: confparse.MapName, Readme: "3.9.2", Reload: confparse.AtOnce, Into: into, Doc: doc}
}

func flag(name, deflt string, into *bool, doc string) confparse.Option {
	return confparse.Option{
		Name: name, Kind: confparse.KindFlag, Default: deflt, Readme: "3.9.2", Reload: confparse.AtOnce, Into: into, Doc: doc,
	}
}

func (c *Config) aliases() *confparse.Table {
	a := &c.Aliases
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "file", Type: confparse.File, Default: "aliases.db", Readme: "3.9.2", Reload: confparse.AtOnce, Into: &a.File,
			Doc: "File of the aliases map, made by meta1 createmap.",
		},
		mapName("Name of a declared map to use as aliases map.", &a.Name),
		flag("localpart", "", &a.LocalPart, "The map has local parts, which are looked up for local addresses."),
		flag("local_domains", "", &a.LocalDomains, "The map has full addresses, which are looked up for local addresses."),
		flag("all_domains", "", &a.AllDomains, "The map has full addresses, which are looked up for all addresses."),
		flag("implicitly_match_detail", "", &a.MatchDetail, "An entry user@host also stands for user+detail@host."),
		flag("replace_macros", "", &a.ReplaceMacros, "Macros in the right hand side are replaced."),
		flag("preserve_domain", "", &a.PreserveDomain, "An address without domain gets the domain of the original address, not the local hostname."),
	}}
}

// check warns of name servers whose word on DNSSEC is asked for and not believed.
func (d *DNSConfig) check(r *confparse.Report) {
	if !d.DNSSEC {
		return
	}
	for _, a := range d.Servers {
		if !a.IsLoopback() && !slices.Contains(d.Trusted, a) {
			r.Warnf("nameservers", "Use_DNSSEC: the name server %s is neither on this machine nor among trusted_nameservers, so its answers make nothing secure", a)
		}
	}
}

func (c *Config) dns() *confparse.Table {
	d := &c.DNS
	return &confparse.Table{Check: d.check, Options: []confparse.Option{
		{
			Name: "nameservers", Type: confparse.IPList, DefaultWords: "resolv.conf, else 127.0.0.1", Readme: "3.9.2", Into: &d.Servers,
			Doc: "IP addresses of up to four name servers; the default is the list in /etc/resolv.conf, else 127.0.0.1.",
		},
		{
			Name: "retries", Type: confparse.Int, Default: "3", Min: "0", Max: "20", Readme: "3.9.2", Into: &d.Retries,
			Doc: "Further tries after the first one failed. The default is ours.",
		},
		{
			Name: "timeout", Type: confparse.Time, Unit: "s", Default: "4s", Min: "1s", Max: "2m", Readme: "3.9.2", Into: &d.Timeout,
			Doc: "Time limit of one try; a lookup ends after (retries + 1) * timeout. For mail in the queue a name that did not resolve in earlier tries gets two and four times as long, up to 50 s for a lookup. The default is ours.",
		},
		{
			Name: "use_resolvconf", Kind: confparse.KindFlag, Default: "on", DefaultWords: "on unless nameservers", Readme: "3.9.2", Into: &d.ResolvConf,
			Doc: "Take the name servers from /etc/resolv.conf; without effect if nameservers is given.",
		},
		{
			Name: "use_TCP", Kind: confparse.KindFlag, Readme: "8.4", Into: &d.TCP,
			Doc: "Always ask by TCP. Without it TCP is used when a reply by UDP was truncated.",
		},
		{
			Name: "use_connect", Kind: confparse.KindFlag, Default: "on", Readme: "8.4", Into: &d.Connect,
			Doc: "Connect UDP sockets. On by default, because an absent name server is then noticed at once.",
		},
		{
			Name: "port", Type: confparse.Int, Default: "53", Min: "0", Max: "65535", Readme: "3.9.2", Into: &d.Port,
			Doc: "Port of the name servers; 0 means 53.",
		},
		{
			Name: "Use_DNSSEC", Kind: confparse.KindFlag, Readme: "3.9.2", Into: &d.DNSSEC,
			Doc: "Ask the name servers whether DNSSEC has validated an answer (AD bit), and believe those that have a loopback address or stand in trusted_nameservers. They must validate themselves, as unbound does. DANE is what it is for (docs/dane.md).",
		},
		{
			Name: "trusted_nameservers", Type: confparse.IPList, Readme: "own", Into: &d.Trusted,
			Doc: "Name servers on other machines whose word on DNSSEC is believed: only such to which nobody can get in between, for the AD bit is not protected on the way. They must be among the name servers in use, too.",
		},
		{
			Name: "randomize_case", Kind: confparse.KindFlag, Readme: "own", Into: &d.MixCase,
			Doc: "Ask with random case of letters, which the reply must repeat (DNS 0x20). Some name servers cannot.",
		},
		{
			Name: "cache_size", Type: confparse.Size, Unit: "B", Default: "32MB", Min: "0B", Max: "4GB", Readme: "own", Into: &d.CacheSize,
			Doc: "Memory for answers of name servers; 0 turns the cache off.",
		},
	}}
}

func (c *Config) newDNSBL(string) *confparse.Table {
	d := &DNSBLConfig{}
	return &confparse.Table{
		Options: []confparse.Option{
			{
				Name: "domain", Type: confparse.String, Required: true, Readme: "3.9.2", Into: &d.Domain,
				Doc: "Domain of the list; a client A.B.C.D is looked up as D.C.B.A.domain.",
			},
			{
				Name: "tag", Type: confparse.String, Required: true, Readme: "3.9.2", Into: &d.Tag,
				Doc: "Tag of the lookup in the access map: tag:W.X.Y.Z, tag:temp, tag:perm.",
			},
		},
		Done: func() { c.DNSBLs = append(c.DNSBLs, *d) },
	}
}

func (c *Config) mtasts() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{{
		Name: "CAcert_file", Type: confparse.File, Readme: "own", Into: &c.MTASTS.CAFile,
		Doc: "File with the certificates, in PEM format, of the authorities that are trusted for the hosts from which policies are fetched, and for mail hosts under a policy. The default are those of the system. It is read at the start and by each reload.",
	}}}
}

func (c *Config) greylisting() *confparse.Table {
	g := &c.Greylist
	return &confparse.Table{Check: g.check, Options: []confparse.Option{
		greyTime("grey_wait", "5m", "0s", &g.Wait, "How long an unknown client must wait before it is accepted. The default is that of postgrey: 5 minutes."),
		greyTime("grey_expire", "1d", "1s", &g.Expire, "How long a client has to come back; longer than grey_wait. The default is ours."),
		greyTime("white_expire", "35d", "0s", &g.WhiteExpire, "A known client may be forgotten after this time without mail. The default is that of postgrey: 35 days."),
		greyTime("white_timeout", "70d", "1s", &g.WhiteTimeout, "A known client must wait again after this time without mail. The default is ours."),
		{
			Name: "main_DB_name", Type: confparse.File, Readme: "3.9.2", Effect: confparse.None, Into: &g.MainDB,
			Doc: "Name of the main database; here one store in the directory greylist of the spool stands for both.",
		},
		{
			Name: "secondary_DB_name", Type: confparse.File, Readme: "3.9.2", Effect: confparse.None, Into: &g.SecondaryDB,
			Doc: "Name of the index by time; here one store stands for both.",
		},
		{
			Name: "expire_limit", Type: confparse.Int, Unit: "entries", Default: "100000", Min: "0", Readme: "3.9.2", Into: &g.ExpireLimit,
			Doc: "Entries are removed only if there are more than this. The default is ours.",
		},
		{
			Name: "netmask", Type: confparse.Int, Default: "0xFFFFFFFF", Min: "0", Max: "0xFFFFFFFF", Readme: "3.9.2", Into: &g.Netmask,
			Doc: "Bits of an IPv4 address that are the key, the first ones: 0xFFFFFF00 makes one client of a net /24.",
		},
		{
			Name: "IPv6_prefix", Type: confparse.Int, Default: "64", Min: "1", Max: "128", Readme: "own", Into: &g.Prefix6,
			Doc: "Number of leading bits of an IPv6 address that are the key.",
		},
	}}
}

// check refuses times by which no client would ever be accepted and a netmask that keeps
// other bits than the first ones.
func (g *GreylistConfig) check(r *confparse.Report) {
	if g.Expire <= g.Wait {
		at := "grey_expire"
		if _, set := r.Origin(at); !set {
			at = "grey_wait"
		}
		r.Errorf(at, "grey_expire (%v) must be longer than grey_wait (%v): a client may come back between both", g.Expire, g.Wait)
	}
	if m := uint32(g.Netmask); m != 0 && bits.LeadingZeros32(^m)+bits.TrailingZeros32(m) != 32 {
		r.Errorf("netmask", "netmask 0x%08X: its bits must begin with the first of the address, as those of 0xFFFFFF00 do", m)
	}
}

func greyTime(name, deflt, least string, into any, doc string) confparse.Option {
	return confparse.Option{
		Name: name, Type: confparse.Time, Unit: "s", Default: deflt, Min: least, Readme: "3.9.2", Into: into, Doc: doc,
	}
}

func (c *Config) localUserMap() *confparse.Table {
	return &confparse.Table{Options: []confparse.Option{
		mapName("Name of the declared map of valid local addresses.", &c.LocalUser.Name),
		flag("implicitly_match_detail", "", &c.LocalUser.MatchDetail, "An entry user@host also stands for user+detail@host."),
	}}
}

func (c *Config) mailertable() *confparse.Table {
	m := &c.Mailertable
	return &confparse.Table{Options: []confparse.Option{
		{
			Name: "file", Type: confparse.File, Default: defaultFile, Readme: "3.9.2", Reload: confparse.AtOnce, Into: &m.File,
			Doc: "Flat text file of the mailertable. It must exist, even if it is empty.",
		},
		mapName("Name of a declared map to use as mailertable in the place of file.", &m.Name),
		flag("full_address", "", &m.FullAddress, "Look up user+detail@domain and user@domain."),
		flag("detail_plus", "", &m.DetailPlus, "Look up user++@domain."),
		flag("detail_star", "", &m.DetailStar, "Look up user+*@domain."),
		flag("star", "", &m.Star, "Look up user*@domain."),
		flag("domain", "on", &m.Domain, "Look up the domain."),
		flag("dotsubdomain", "on", &m.DotSubdomain, "Iterate through the subdomains, each with a leading dot."),
		flag("dot", "on", &m.Dot, "Look up the default entry, a single dot."),
	}}
}
