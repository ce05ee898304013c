package pmult

import (
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"meta1/confparse/mailutils"
	"meta1/pmilter"
	"meta1/server/milter"
)

func load(text string, set ...string) (*Loaded, error) {
	return Load(Source{File: "p.conf", Must: true, Set: set, From: mailutils.Map{"p.conf": text}})
}

// TestManualExample reads the example of pmult's manual, section "Pmult Example".
func TestManualExample(t *testing.T) {
	l, err := load(`listen inet://127.0.0.1:3333;

logging {
   facility local2;
};

debug {
   level "pmult.trace7";
}

define-macros envmail (auth_type, auth_authen, auth_author, tls_vrfy);
define-macros envrcpt (auth_type, auth_authen, auth_author);

client {
   type milter;
   url /usr/local/var/mailfromd/mailfrom;
   log-level ">info";
   # Set write timeout.
   write-timeout 30 seconds;
   # Set read timeout.
   read-timeout 5 minutes;
   # Set timeout for EOM.
   eom-timeout 5 minutes;
}
`)
	if err != nil || len(l.Warnings) > 0 {
		t.Fatal(err, l.Warnings)
	}
	want := defaults()
	want.Listen = Address{Network: "tcp4", Host: "127.0.0.1", Port: 3333}
	want.Log.Facility = "local2"
	want.Debug = 1<<9 - 1
	want.Macros[pmilter.StageMail] = []string{"auth_type", "auth_authen", "auth_author", "tls_vrfy"}
	want.Macros[pmilter.StageRcpt] = []string{"auth_type", "auth_authen", "auth_author"}
	want.Clients = []Client{{
		Name: "client1", Address: Address{Network: "unix", Path: "/usr/local/var/mailfromd/mailfrom"}, Failure: milter.Reconnect,
		Levels: allLevels &^ 3,
		Timeouts: milter.Timeouts{
			Connect: 5 * time.Minute, Write: 30 * time.Second, Command: 5 * time.Minute, Content: 5 * time.Minute,
			End: 5 * time.Minute, Progress: progressMax,
		},
	}}
	if !reflect.DeepEqual(l.Config, want) {
		t.Errorf("%+v\nwant\n%+v", l.Config, want)
	}
}

// TestStatements: each statement does what its documentation says, or says what is wrong with it.
func TestStatements(t *testing.T) {
	const rest = " listen inet:3333@127.0.0.1; client mf { url unix:/mf; }"
	for _, c := range []struct {
		text  string
		wrong string // error or warning
		check func(*Config) bool
	}{
		{"pidfile /run/p.pid;" + rest, "", func(c *Config) bool { return c.PidFile == "/run/p.pid" }},
		{"max-threads-hard 7; max-pmilter-fd 20;" + rest, "", func(c *Config) bool { return c.Threads == 7 && c.Servers == 20 }},
		{"max-threads-soft 2;" + rest, "p.conf:1:1: warning: max-threads-soft has no effect", func(c *Config) bool { return c.Servers == 10 }},
		{"max-threads-hard many;" + rest, "p.conf:1:18: error: max-threads-hard takes a number from 1 to", nil},
		{"pmilter-debug 100;" + rest, "", func(c *Config) bool { return c.PmilterDebug == 100 }},
		{"pmilter-debug 101;" + rest, "from 0 to 100", nil},
		{"debug \"pmult.trace1;acl.prot\";" + rest, `the debug category "acl" has no effect`, func(c *Config) bool { return c.Debug == 7 }},
		{"debug { level \"!pmult\"; line-info yes; }" + rest, "line-info has no effect", func(c *Config) bool { return c.Debug == 0 }},
		{"debug { level pmult.loud; }" + rest, `"loud" is not a debug level`, nil},
		{"logging { syslog no; tag x; severity notice; session-id no; print-severity yes; }" + rest, "", func(c *Config) bool {
			return c.Log == LogConfig{Facility: "mail", Tag: "x", Level: slog.LevelInfo + 2}
		}},
		{"logging { print-severity no; }" + rest, "print-severity has no effect", func(*Config) bool { return true }},
		{"logging { facility loud; }" + rest, `"loud" is not a facility`, nil},
		{"logging { severity loud; }" + rest, `"loud" is not a severity`, nil},
		{"logging { syslog perhaps; }" + rest, "expected yes or no", nil},
		{"auth-macros yes;" + rest, "", func(c *Config) bool { return len(c.Macros[pmilter.StageMail]) == 3 }},
		{"auth-macros no;" + rest, "", func(c *Config) bool { return len(c.Macros[pmilter.StageMail]) == 0 }},
		{"define-macros (connect, eom) (hostname, c);" + rest, "", func(c *Config) bool {
			return len(c.Macros[pmilter.StageConnect]) == 2 && len(c.Macros[pmilter.StageDot]) == 2
		}},
		{"define-macros helo taid;" + rest, "taid has no value before the handler mail", nil},
		{"define-macros data msgid;" + rest, "msgid has a value in the handler dot alone", nil},
		{"define-macros eom (nothing);" + rest, `there is no macro "nothing"`, nil},
		{"define-macros quit (c);" + rest, `there is no handler "quit"`, nil},
		{"define-macros eom;" + rest, "define-macros takes handlers and macros", nil},
		{"user mail; group adm; group \"disk\";" + rest, "", func(c *Config) bool { return c.User == "mail" && len(c.Groups) == 2 }},
		{`metrics "inet6://[::1]:9100";` + rest, "", func(c *Config) bool {
			return c.Metrics == Address{Network: "tcp6", Host: "::1", Port: 9100}
		}},
		{"program pmult { pidfile /x; } program mailfromd { script-file y; }" + rest, "", func(c *Config) bool { return c.PidFile == "/x" }},
		{`listen inet:3333@127.0.0.1; client { url "inet://[::1]:1"; }`, "an address of the other family", nil},
		{"listen inet:3333@127.0.0.1; client mf { type pmilter; url /x; }", `p.conf:1:46: error: the type of a client is milter, not "pmilter"`, nil},
		{"listen inet:3333@127.0.0.1; client mf { }", `the client "mf" has no url`, nil},
		{rest + "client mf { url /x; }", `there are two clients with the name "mf"`, nil},
		{"client { url /x; }", "the statement listen is missing", nil},
		{"listen unix:/x;", "there is no client", func(c *Config) bool { return len(c.Clients) == 0 }},
		{"listen unix:x;", "must begin with a slash", nil},
		{"script-file /x;" + rest, `p.conf:1:1: error: pmult has no statement "script-file"`, nil},
		{"client { user x; }", `the block client has no statement "user"`, nil},
		{"logging yes;" + rest, "logging is a block", nil},
		{"pidfile { }" + rest, "pidfile is not a block", nil},
		{"pidfile;" + rest, "pidfile takes one value", nil},
		{"pidfile (a, b);" + rest, "pidfile takes one value", nil},
		{rest + "client x { url /x; on-failure tempfail; connections-kept 3; log-level (err, \"!fatal\", <debug); }", `"<" is not part of a word`, nil},
		{rest + "client x { url /x; on-failure tempfail; connections-kept 3; log-level \"err <debug\"; connect-timeout 1 hour 2 min; }", "", func(c *Config) bool {
			x := c.Clients[1]
			return x.Failure == milter.Tempfail && x.Kept == 3 && x.Levels == 1<<4|3 && x.Timeouts.Connect == 62*time.Minute
		}},
		{rest + "client x { url /x; on-failure maybe; }", "on-failure cannot be", nil},
		{rest + "client x { url /x; log-level loud; }", `"loud" is not a log level`, nil},
		{rest + "client x { url /x; read-timeout 0; }", "read-timeout: must not be 0", nil},
		{rest + "client x { url /x; eom-timeout 1 hour; }", "", func(c *Config) bool { return c.Clients[1].Timeouts.Progress == time.Hour }},
	} {
		l, err := load(c.text)
		said := ""
		if err != nil {
			said = err.Error()
		}
		for _, w := range l.Warnings {
			said += w.String()
		}
		if (c.check == nil) != (err != nil) || c.wrong == "" && said != "" || !strings.Contains(said, c.wrong) {
			t.Errorf("%s\nsays %q, want %q", c.text, said, c.wrong)
		}
		if c.check != nil && !c.check(&l.Config) {
			t.Errorf("%s\n%+v", c.text, l.Config)
		}
	}
}

func TestSet(t *testing.T) {
	const text = "listen unix:/x; client mf { url /x; read-timeout 5; }"
	l, err := load(text, ".client=mf.read-timeout=7 minutes", "logging.facility=local1", ".program=pmult.pidfile=/p", `/client="two words"/url=/y`)
	if err != nil || l.Clients[0].Timeouts.Command != 7*time.Minute || l.Log.Facility != "local1" || l.PidFile != "/p" ||
		len(l.Clients) != 2 || l.Clients[1].Name != "two words" || l.Clients[1].Address.Path != "/y" {
		t.Errorf("%+v %v", l, err)
	}
	for _, set := range []string{"", "=", "x", "..x=1", ".a b=1", ".client=x=1", ".nothing=1", ".client=\"x.url=1"} {
		if _, err := load(text, set); err == nil {
			t.Errorf("--set %q is taken", set)
		}
	}
}

// TestSummary: the answer to --config-help has all statements and can be read when its places
// for values are filled in.
func TestSummary(t *testing.T) {
	text := Summary()
	for _, want := range []string{"listen <URL>;", "client <NAME> {\n", "  read-timeout <INTERVAL>;", "auth-macros <BOOL>;"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	filled := strings.NewReplacer("<URL>", "unix:/x", "<NAME>", "user", "<INTERVAL>", "5 s", "<BOOL>", "yes", "<N>", "5", "<LEVEL>", "1",
		"<SPEC>", "pmult", "<FILE>", "/x", "<TEXT>", "x", "<WORD>", "reject", "<LEVELS>", "err", "<milter>", "milter",
		"<HANDLER (MACROS)>", "mail (auth_type)", "<FACILITY>", "mail", "<SEVERITY>", "info").Replace(text)
	if _, err := load(filled); err != nil {
		t.Errorf("%v\n%s", err, filled)
	}
}

func TestURL(t *testing.T) {
	for s, want := range map[string]string{
		"unix:///run/x": "unix:///run/x", "unix:/run/x": "unix:///run/x", "local:/x": "unix:///x", "local:///x": "unix:///x", "/x": "unix:///x",
		"inet://127.0.0.1:3333": "inet://127.0.0.1:3333", "inet:smtp@localhost": "inet://localhost:25", "inet6:25@[::1]": "inet6://[::1]:25",
		"inet6://[::1]:25": "inet6://[::1]:25", "inet:25@::1": "", "inet://127.0.0.1": "", "inet:25": "", "x": "", "": "", "http://x": "",
		"inet://:25": "", "inet:0@127.0.0.1": "", "inet:99999@127.0.0.1": "", "unix:": "", "inet6:25@127.0.0.1": "",
	} {
		a, err := parseURL(s)
		if (err != nil) != (want == "") || err == nil && a.URL() != want {
			t.Errorf("%q: %v %v, want %q", s, a, err, want)
		}
	}
}

func TestInterval(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"5": 5 * time.Second, "1 hour": time.Hour, "2 hours 35 seconds": 2*time.Hour + 35*time.Second, "5m": 5 * time.Minute,
		"1 day 2 weeks 1 s": 15*24*time.Hour + time.Second, "1 month": 30 * 24 * time.Hour, "2 days 1 hour": 49 * time.Hour,
		"": 0, "x": 0, "5 apples": 0, "0": 0, "2 years": 0, "-5": 0, "99999999999999999999": 0, "1 year 1": 0, "minutes": 0,
	} {
		if d, err := parseInterval(s); d != want || (err != nil) != (want == 0) {
			if err == nil || want != 0 {
				t.Errorf("%q: %v %v, want %v", s, d, err, want)
			}
		}
	}
}

func TestDebugLevels(t *testing.T) {
	for s, want := range map[string]Debug{
		"pmult": debugAll, "pmult.error": 1, "pmult.trace7": 1<<9 - 1, "pmult.=trace1": debugTrace1, "pmult;pmult.!trace2": debugAll &^ 15,
		"pmult.trace1-trace3": 4 | 8 | 16, "pmult.trace9,!=trace7": (1<<11 - 1) &^ debugTrace7, "pmult.prot": debugAll, "": 0,
	} {
		if d, _, err := parseDebug(s); d != want || err != nil {
			t.Errorf("%q: %b %v, want %b", s, d, err, want)
		}
	}
	for _, s := range []string{"pmult.", "pmult.trace", "pmult.trace3-trace1", "pmult.trace1,,"} {
		if d, _, err := parseDebug(s); err == nil {
			t.Errorf("%q: %b", s, d)
		}
	}
}

// FuzzConfig reads arbitrary configurations.
func FuzzConfig(f *testing.F) {
	f.Add("listen inet://127.0.0.1:3333; client x { url /x; read-timeout 5 minutes; log-level \">info\"; } define-macros (mail, rcpt) (taid, c);")
	f.Add(Summary())
	f.Fuzz(func(t *testing.T, text string) {
		l, err := load(text)
		if err == nil && l.Listen.Network == "" {
			t.Error("a configuration without listen")
		}
	})
}
