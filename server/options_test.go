package server

import (
	"os"
	"strings"
	"testing"
	"time"

	"meta1/confparse"
)

func TestOptionDefaults(t *testing.T) {
	c := loadConfig(t, "")
	if c.IOTimeout != 5*time.Minute || c.MessageSizeMax != 10240000 || c.Limits.Hops != 50 ||
		c.Limits.RecipientsTransaction != 1000 || c.ThreadsMax != 1000 || c.Flags != (Flags{Offers: Offers{UTF8: true, Chunking: true, RequireTLS: true}}) || !c.TLS.Flags.RequestCert {
		t.Errorf("defaults are %+v", c)
	}
	if d := (Config{}).withDefaults(); d.IOTimeout != c.IOTimeout || d.ModuleTimeout != c.ModuleTimeout ||
		d.WaitForSMAR != c.WaitForSMAR || d.StopTimeout != c.StopTimeout {
		t.Errorf("a Config made by hand has other times: %+v", d)
	}
}

func TestOptionValues(t *testing.T) {
	c := loadConfig(t, `
		id = 3; flags = { 8bitmime, access, xverp };
		IO_timeout = 5m3s; message_size_max = 20MB; CDB_gid = 261;
		auth { password_map = users; trusted_mechanisms = "PLAIN LOGIN"; flags = { noplaintext }; }
		session_features notls { flags = { -starttls }; }
		check mail { condition == mail =~ "x"; action = permfail; }
		check mail { condition == mail =~ "y"; action = tempfail; }
		DKIM_signing { sign { keyfile = k; domain = d; selector = s; } sign { keyfile = l; domain = d; selector = t; from = x; } }
		protected_recipients { allow_by = { sender, client_ip }; }
		tls { flags = { dont_request_cert, use_chain }; }
	`)
	switch {
	case c.ID != 3, !c.Flags.EightBitMIME, !c.Flags.Access, !c.Flags.XVERP, c.Flags.DelayChecks,
		c.IOTimeout != 303*time.Second, c.MessageSizeMax != 20<<20, c.Host.CDBGid != 261,
		!c.AuthPresent, !c.Auth.Trusts("LOGIN"), c.Auth.Trusts("CRAM-MD5"), !c.Auth.NoPlaintext,
		len(c.SessionFeatures) != 1, c.SessionFeatures[0].Name != "notls",
		len(c.Checks) != 2, c.Checks[1].Action != "tempfail", c.Checks[0].Stage != "mail",
		len(c.DKIM.Sign) != 2, c.DKIM.Sign[1].From != "x",
		len(c.Protected.AllowBy) != 2, c.Protected.MatchType != "exact",
		c.TLS.Flags.RequestCert, !c.TLS.Flags.UseChain, c.Auth.PasswordMap != "users":
		t.Errorf("read as %+v", c)
	}
}

func TestOptionMistakes(t *testing.T) {
	for _, tt := range []struct{ options, want string }{
		{"id = 256;", "id"},
		{"recipients_per_transaction_max = 0;", "recipients_per_transaction_max"},
		{"greeting = \"a\\nb\";", "greeting"},
		{"protected_recipients { }", "allow_by"},
		{"DKIM_signing { }", "sign"},
		{"DKIM_signing { sign { } }", "keyfile"},
		{"check later { condition == 1; action = abort; }", "later"},
		{"check mail { action = abort; }", "condition"},
		{"flags = { 9bitmime };", "9bitmime"},
		{"auth { password_map = a; saslauthd_socket = b; }", "one source of passwords"},
		{"auth { dovecot_address = a; dovecot_socket = b; }", "one source of passwords"},
		{"flags = { smtps };", "smtps needs a section tls"},
		{"flags = { smtps }; tls { }", "smtps needs a section tls"},
	} {
		t.Run(tt.options, func(t *testing.T) {
			var cfg Config
			root := &confparse.Table{Options: []confparse.Option{{
				Name: "smtps", Kind: confparse.KindSection, Sub: cfg.Options(), Readme: "3.10", Doc: "x",
			}}}
			files := confparse.Files{"/meta1.conf": "smtps { " + tt.options + " }"}
			_, err := confparse.Load(confparse.LoadOptions{FS: files}, "/meta1.conf", root)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one about %s", err, tt.want)
			}
		})
	}
}

// TestOptionRows checks that each row can be documented and stored.
func TestOptionRows(t *testing.T) {
	var cfg Config
	var walk func(path string, table *confparse.Table)
	walk = func(path string, table *confparse.Table) {
		seen := map[string]bool{}
		for _, o := range table.Options {
			name := path + o.Name
			key := strings.ToLower(string(o.Kind) + o.Name)
			if seen[key] {
				t.Errorf("%s stands twice", name)
			}
			seen[key] = true
			if o.Doc == "" || o.Readme == "" {
				t.Errorf("%s has no documentation", name)
			}
			switch {
			case o.Sub != nil:
				walk(name+"/", o.Sub)
			case o.New != nil:
				walk(name+"/", o.New("mail"))
			case o.Into == nil:
				t.Errorf("%s is stored nowhere", name)
			}
		}
	}
	walk("", cfg.Options())
}

// TestOptionList compares the table with testdata/options.tsv, the rows of the list
// of all of MeTA1's options that belong to smtps: each must be here with its kind,
// default and effect.
func TestOptionList(t *testing.T) {
	text, err := os.ReadFile("testdata/options.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var cfg Config
	rows := map[string]confparse.Option{}
	var walk func(section string, table *confparse.Table)
	walk = func(section string, table *confparse.Table) {
		for _, o := range table.Options {
			if o.Kind == "" {
				o.Kind = confparse.KindOption
			}
			rows[section+" "+o.Name+" "+string(o.Kind)] = o
			switch {
			case o.Sub != nil:
				walk(section+"/"+o.Name, o.Sub)
			case o.New != nil:
				walk(section+"/"+o.Name, o.New("mail"))
			}
		}
	}
	walk("smtps", cfg.Options())
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		o, ok := rows[f[0]+" "+f[1]+" "+f[2]]
		if !ok {
			t.Errorf("%s/%s is missing", f[0], f[1])
			continue
		}
		if want := map[string]bool{"": true, "on": o.Default == "true", o.Default: true}; !want[f[5]] {
			t.Errorf("%s/%s has default %q, not %q", f[0], f[1], o.Default, f[5])
		}
		if (f[7] == "host") != (o.Effect == confparse.Host) {
			t.Errorf("%s/%s has effect %q, not %q", f[0], f[1], o.Effect, f[7])
		}
		if !strings.Contains(o.Readme, f[6]) {
			t.Errorf("%s/%s is in README %s, not %s", f[0], f[1], f[6], o.Readme)
		}
	}
}
