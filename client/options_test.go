package client

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"meta1/confparse"
	"meta1/mta/tlsconf"
)

// walk visits every row of a table with its path.
func walk(t *testing.T, path string, table *confparse.Table, visit func(path string, o confparse.Option)) {
	t.Helper()
	for _, o := range table.Options {
		visit(path+o.Name, o)
		switch {
		case o.Sub != nil:
			walk(t, path+o.Name+"/", o.Sub, visit)
		case o.New != nil:
			walk(t, path+o.Name+"/", o.New("x"), visit)
		}
	}
}

// TestOptionsComplete compares the table with the rows of section smtpc in the README.
func TestOptionsComplete(t *testing.T) {
	const readme = `IO_timeout LMTP_socket tls session_features session_features/flags session_features/tls
		wait_for_server proxy proxy/type proxy/port proxy/address proxy/path proxy/proxy_key
		connect_only_to smtps timing read_QUIT_reply separate_final_dot_and_QUIT talk_to_myself
		threads_max wait_threads_max wait_threads_min module_timeout remote_port
		tls/cache_size tls/cache_timeout tls/cert_file tls/key_file tls/CAcert_file tls/CAlist_file
		tls/CAcert_directory tls/options tls/CipherList tls/CipherSuites tls/CRL_file tls/CRL_directory
		tls/Digest tls/DHParam tls/DHParam/bits tls/DHParam/file tls/allow_relaying_if_verified
		tls/check_access_map_for_relaying tls/request_cert tls/use_chain tls/violation tls/verify_depth
		tls/DSA_cert_file tls/DSA_key_file tls/EC_cert_file tls/EC_key_file tls/EC_curve
		session_features/tls/cert_file session_features/tls/key_file session_features/tls/flags
		session_features/tls/options session_features/tls/CipherList session_features/tls/CipherSuites`
	want := map[string]bool{}
	for _, name := range strings.Fields(readme) {
		want[name] = true
	}
	host := map[string]bool{
		"wait_for_server": true, "wait_threads_max": true, "wait_threads_min": true,
		"tls/DHParam": true, "tls/DHParam/bits": true, "tls/DHParam/file": true,
		"tls/DSA_cert_file": true, "tls/DSA_key_file": true,
	}
	var cfg Config
	walk(t, "", cfg.Options(), func(path string, o confparse.Option) {
		if !want[path] && o.Readme != "own" {
			t.Errorf("%s is not in the README, or twice in the table", path)
		}
		delete(want, path)
		if o.Doc == "" || o.Readme == "" {
			t.Errorf("%s lacks Doc or Readme", path)
		}
		if host[path] != (o.Effect == confparse.Host) {
			t.Errorf("%s: effect %q", path, o.Effect)
		}
		if section := o.Kind == confparse.KindSection; section == (o.Into != nil) {
			t.Errorf("%s: Into is %T", path, o.Into)
		}
	})
	for name := range want {
		t.Errorf("%s is missing", name)
	}
}

// TestOptionsReach has every row of the table lead to a field of its own.
func TestOptionsReach(t *testing.T) {
	var cfg Config
	seen := map[any]string{}
	walk(t, "", cfg.Options(), func(path string, o confparse.Option) {
		if o.Into == nil {
			return
		}
		if other, twice := seen[o.Into]; twice {
			t.Errorf("%s and %s share a field", path, other)
		}
		seen[o.Into] = path
	})
	fields := reflect.ValueOf(&cfg).Elem()
	for i := range fields.NumField() {
		f := fields.Type().Field(i)
		switch f.Name {
		case "TLS", "Auth", "Proxy", "SessionFeatures", "TLSPresent", "AuthPresent", "ProxyPresent", "TLSReports":
			continue
		}
		if _, ok := seen[fields.Field(i).Addr().Interface()]; !ok {
			t.Errorf("field %s has no row", f.Name)
		}
	}
}

// load reads the text of a section smtpc.
func load(t *testing.T, text string) (cfg Config, warnings string) {
	t.Helper()
	cfg, warnings, err := tryLoad(text)
	if err != nil {
		t.Fatal(err)
	}
	return cfg, warnings
}

func tryLoad(text string) (cfg Config, warnings string, err error) {
	root := &confparse.Table{Options: []confparse.Option{{
		Name: "smtpc", Kind: confparse.KindSection, Readme: "3.11", Doc: "section under test", Sub: cfg.Options(),
	}}}
	files := confparse.Files{"/test.conf": "smtpc { " + text + " }"}
	res, err := confparse.Load(confparse.LoadOptions{FS: files}, "/test.conf", root)
	if err != nil {
		return cfg, "", err
	}
	for _, w := range res.Warnings {
		warnings += w.Message + "\n"
	}
	return cfg, warnings, nil
}

// TestWarnings: what would not do what it is meant to is said.
func TestWarnings(t *testing.T) {
	for text, want := range map[string]string{
		"flags = { smtps };": "smtps: servers at port 25",
		"session_features a { flags = { -starttls }; tls { CipherList = HIGH; } }": "session_features a: its section tls has no effect",
	} {
		if _, got := load(t, text); !strings.Contains(got, want) {
			t.Errorf("%s: warnings %q", text, got)
		}
	}
	cfg, warnings := load(t, "tls { cache_size = 0; } session_features s { flags = { smtps }; tls { CipherList = HIGH; } } IO_timeout = 2m; flags = { timing, talk_to_myself }; threads_max = 7; session_features notls { flags = { dont_starttls }; }")
	if warnings != "" || cfg.IOTimeout != 2*time.Minute || !cfg.Timing || !cfg.TalkToMyself || cfg.ThreadsMax != 7 {
		t.Errorf("%+v %s", cfg, warnings)
	}
}

// TestDefaults: a Config made by hand has the defaults of the table.
func TestDefaults(t *testing.T) {
	read, _ := load(t, "")
	made := Config{}.withDefaults()
	if again := read.withDefaults(); !reflect.DeepEqual(again, read) {
		t.Errorf("the table leaves something open: %+v", read)
	}
	for _, o := range made.Options().Options {
		if o.Into == nil || o.Effect == confparse.Host || o.Name == "module_timeout" {
			continue
		}
		var other any
		for _, r := range read.Options().Options {
			if r.Name == o.Name {
				other = reflect.ValueOf(r.Into).Elem().Interface()
			}
		}
		if value := reflect.ValueOf(o.Into).Elem().Interface(); value != other {
			t.Errorf("%s: %v made by hand, %v from the table", o.Name, value, other)
		}
	}
}

// TestClasses: a class has the flags of section smtpc but for those that it names.
func TestClasses(t *testing.T) {
	cfg, _ := load(t, "flags = { timing, talk_to_myself }; session_features a { flags = { -timing, read_QUIT_reply, separate_final_dot_and_QUIT, -chunking }; } session_features b { flags = { smtps, dont_starttls }; }")
	general, own := new(tlsconf.Provider), new(tlsconf.Provider)
	got := cfg.classes(&Deps{TLS: general, TLSClasses: map[string]*tlsconf.Provider{"a": own}})
	for name, want := range map[string]class{
		"":  {starttls: true, tls: general, timing: true, talkToMyself: true, chunking: true},
		"a": {name: "a", starttls: true, tls: own, readQuit: true, separateQuit: true, talkToMyself: true},
		"b": {name: "b", smtps: true, tls: general, timing: true, talkToMyself: true, chunking: true},
	} {
		want.section = got[name].section // which sections have is for their own tests
		if got[name] == nil || !reflect.DeepEqual(*got[name], want) {
			t.Errorf("class %q is %+v, want %+v", name, got[name], want)
		}
	}
	if len(got) != 3 {
		t.Errorf("%d classes", len(got))
	}
}
