package mta

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"meta1/confparse"
	"meta1/mta/settings"
	"meta1/server/auth"
	"meta1/server/dkim"
)

// whole makes a configuration that sets every option of the table tree, each on a
// line of its own. Options that exclude each other stand in several sections of a
// kind, or, where there is one only, in several variants of the file.
type whole struct {
	variant int
	values  map[string]string // by section path and name
	choices map[string][]map[string]string
	lines   []string
	options []wholeOption
	seen    map[string]bool
}

// wholeOption is an option or flag of the file.
type wholeOption struct {
	key   string // section path, name
	line  int    // from 1
	row   confparse.Option
	wrong string // the line with a value that is not valid
}

func (w *whole) line(format string, args ...any) {
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

func (w *whole) text() string { return strings.Join(w.lines, "\n") + "\n" }

// table writes the entries of a section. choice, if not nil, has the options that it
// takes, and their values; "" for one of its own.
func (w *whole) table(path string, t *confparse.Table, choice map[string]string) {
	var flags []confparse.Option
	for _, o := range t.Options {
		switch o.Kind {
		case confparse.KindFlag:
			flags = append(flags, o)
		case confparse.KindSection:
			w.section(path, &o)
		default:
			value, chosen := choice[o.Name]
			if choice != nil && !chosen {
				continue
			}
			if value == "" {
				value = w.value(path, &o)
			}
			if strings.HasSuffix(path, "/listen_socket") && (o.Name == "port" || o.Name == "path") {
				value = strconv.Itoa(1024 + len(w.lines)) // no address may be used twice
			}
			w.add(path, o, o.Name+assign(&o)+value+";", o.Name+assign(&o)+wrongValue(&o)+";")
		}
	}
	if len(flags) == 0 {
		return
	}
	w.line("flags = {")
	for _, o := range flags {
		w.add(path, o, o.Name+",", o.Name+"x,")
	}
	w.line("};")
}

func (w *whole) add(path string, o confparse.Option, right, wrong string) {
	key := strings.TrimPrefix(path+"/"+o.Name, "/")
	w.line("%s", right)
	w.options = append(w.options, wholeOption{key, len(w.lines), o, wrong})
	w.seen[key] = true
}

func (w *whole) section(path string, o *confparse.Option) {
	path = strings.TrimPrefix(path+"/"+o.Name, "/")
	choices := w.choices[path]
	if strings.HasSuffix(path, "/listen_socket") {
		choices = w.choices["listen_socket"]
	}
	if len(choices) == 0 {
		choices = []map[string]string{nil}
	}
	if o.New == nil {
		w.line("%s {", o.Name)
		w.table(path, o.Sub, choices[w.variant%len(choices)])
		w.line("}")
		return
	}
	for i, choice := range choices {
		name := ""
		switch {
		case len(o.Words) > 0:
			name = o.Words[0]
		case o.Named:
			name = fmt.Sprintf("%s%d", o.Name, i)
		}
		w.line("%s %s {", o.Name, name)
		w.table(path, o.New(name), choice)
		w.line("}")
	}
}

// services writes service sections.
func (w *whole) services(root *confparse.Table) {
	for i, choice := range w.choices["service"] {
		w.line("service%d {", i)
		t := root.Any(fmt.Sprintf("service%d", i), "")
		if choice["start_action"] == "wait" {
			t.Options = slices.DeleteFunc(t.Options, func(o confparse.Option) bool { return o.Name == "listen_socket" })
		}
		w.table("service", t, choice)
		w.line("}")
	}
}

func assign(o *confparse.Option) string {
	if o.Type == confparse.Expr {
		return " == "
	}
	return " = "
}

// value is a valid value: one of the test's, the default, or any of the type.
func (w *whole) value(path string, o *confparse.Option) string {
	for at := path; ; {
		if v, ok := w.values[strings.TrimPrefix(at+"/"+o.Name, "/")]; ok {
			return v
		}
		_, after, found := strings.Cut(at, "/")
		if !found {
			break
		}
		at = after
	}
	if v, ok := w.values[o.Name]; ok {
		return v
	}
	for _, v := range []string{o.Default, strings.Join(o.Words[:min(1, len(o.Words))], ""), o.Min, o.Max} {
		if v != "" {
			return v
		}
	}
	return map[confparse.Type]string{
		confparse.Int: "7", confparse.Size: "7KB", confparse.Time: "7s", confparse.Bool: "on", confparse.IP: "192.0.2.1",
		confparse.IPList: "{ 192.0.2.1, 2001:db8::1 }", confparse.List: "{ a, b }", confparse.Address: "<a@b.example>",
		confparse.Expr: `client_ip =~ "a"`,
	}[o.Type] + map[bool]string{true: "some"}[o.Type == confparse.String || o.Type == confparse.Path || o.Type == confparse.Dir || o.Type == confparse.File || o.Type == confparse.MapName]
}

// wrongValue is a value that is not valid.
func wrongValue(o *confparse.Option) string {
	switch {
	case len(o.Words) > 0:
		return "no_such_word_at_all"
	case o.Type == confparse.Int && o.Max != "":
		return "99999999999"
	}
	switch o.Type {
	case confparse.Int, confparse.Size:
		return "seven"
	case confparse.Time:
		return "5 parsec"
	case confparse.Bool:
		return "perhaps"
	case confparse.IP, confparse.IPList:
		return "192.0.2.256"
	case confparse.List:
		return "{ a b }"
	case confparse.Address:
		return "nobody"
	case confparse.Expr:
		return ""
	}
	return "two words"
}

// newWhole makes one variant. dir has the files.
func newWhole(t *testing.T, dir string, variant int) *whole {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Skip("who am I?")
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Skip("what is my group?")
	}
	w := &whole{variant: variant, seen: map[string]bool{}}
	w.values = map[string]string{
		"hostname": "mx.example.org", "working_directory": dir + "/spool", "user": me.Username, "group": group.Name, "allow_root": "on",
		"AQ_entries_max": "5000", "cache_entries_max": "5000", "IQDB/hash_table_entries": "5001", "disk_space_min": "100", "disk_space_ok": "200",
		"pass_id": "-i", "start_action": "wait", "restart_dependencies": "{ smtps }", "service/path": "meta1",
		"daemon_address": `{ "127.0.0.1:25", "[::1]:25" }`, "log_directory": dir, "DEFEDB/log_directory": "some", "CAcert_directory": dir, "CRL_directory": dir,
		"http/token_file": dir + "/tokens", "http/read_token_file": dir + "/tokens", "cert_file": dir + "/cert.pem", "key_file": dir + "/key.pem", "EC_cert_file": dir + "/cert.pem", "EC_key_file": dir + "/key.pem",
		"CAcert_file": dir + "/cert.pem", "traces/token_file": dir + "/cert.pem", "traces/attributes": "{ \"a=b\" }", "traces/endpoint": "\"http://127.0.0.1:4318/v1/traces\"", "CAlist_file": dir + "/cert.pem", "CRL_file": dir + "/crl.pem", "keyfile": dir + "/dkim.pem", "sign_header": "{ From, To }", "not_before": "2026-01-31", "sign/domain": "d.example",
		"secret_file": dir + "/secrets", "mailertable/file": dir + "/mt", "access_map/file": dir + "/mt", "aliases/file": dir + "/mt", "qmgr/conf": dir + "/mt",
		"local_user_map/name":     "map0",
		"log/server":              `"udp:192.0.2.1:514"`,
		"smtpc/auth/password_map": "map0", "session_features/auth/password_map": "map0",
		"authorized_xclient_hosts": "{ 192.0.2.1, 2001:db8::/32 }", "authorized_xforward_hosts": "{ 192.0.2.0/24 }",
		"tls/options": "{ no_TLSv1, no_ticket }", "CipherList": `"HIGH:!aNULL"`, "EC_curve": "{ X25519 }",
	}
	named := []map[string]string{{"file": ""}, {"name": "map0"}}
	w.choices = map[string][]map[string]string{
		"listen_socket": {
			{"type": "inet", "port": "25", "address": ""},
			{"type": "unix", "path": "sock", "umask": "", "user": "", "group": ""},
		},
		"smar/map": {
			{"type": "text", "file": dir + "/mt"},
			{"type": "sequence", "maps": "{ map0 }"},
			{"type": "socket", "mapname": "", "path": "sock", "timeout": ""},
			{"type": "socket", "mapname": "", "address": "", "port": "25"},
		},
		"smtps/auth": authChoices(),
		"smtps/proxy": {
			{"type": "inet", "port": "", "address": "", "networks": "{ 192.0.2.0/24 }", "client_key": "", "header_timeout": "", "others": ""},
			{"type": "unix", "path": "sock", "client_key": ""},
		},
		"smtps/policy_service/socket": {
			{"type": "inet", "port": "25", "address": ""},
			{"type": "unix", "path": "sock"},
		},
		"smtps/policy_milter/socket": {
			{"type": "inet", "port": "25", "address": ""},
			{"type": "unix", "path": "sock"},
		},
		"smtps/milter/socket": {
			{"type": "inet", "port": "25", "address": ""},
			{"type": "unix", "path": "sock"},
		},
		"smar/access_map": named, "smar/aliases": named, "smar/mailertable": named,
	}
	rest := map[string]string{}
	for _, o := range (&Config{}).Options().Any("x", "").Options {
		if o.Kind != confparse.KindSection {
			rest[o.Name] = ""
		}
	}
	for _, action := range []string{"wait", "accept", "pass"} {
		choice := map[string]string{"pass_fd_socket": ""}
		for name := range rest {
			if name != "pass_fd_socket" || action == "pass" {
				choice[name] = ""
			} else {
				delete(choice, name)
			}
		}
		choice["start_action"] = action
		w.choices["service"] = append(w.choices["service"], choice)
	}
	root := (&Config{}).Options()
	w.table("", root, nil)
	w.services(root)
	return w
}

// variants is the largest number of choices for a section that stands once.
const variants = 4

// authChoices are the options of section auth with each of the sources of passwords.
func authChoices() (choices []map[string]string) {
	sources := []string{"password_map", "dovecot_socket", "dovecot_address", "saslauthd_socket"}
	for _, source := range sources {
		choice := map[string]string{source: "map0"}
		for _, o := range (&auth.Config{}).Table().Options {
			if o.Kind == "" && !slices.Contains(sources, o.Name) {
				choice[o.Name] = ""
			}
		}
		choice["sender_login"] = "map0"
		choices = append(choices, choice)
	}
	return choices
}

// makeFiles writes the files that the configurations name.
func makeFiles(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block := func(name, kind string) func([]byte, error) {
		return func(der []byte, err error) {
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	block("key.pem", "PRIVATE KEY")(x509.MarshalPKCS8PrivateKey(key))
	_, signing, err := dkim.MakePrivate(dkim.KindEd25519, 0)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "dkim.pem"), string(signing))
	if err := os.WriteFile(filepath.Join(dir, "secrets"), []byte("a secret of some length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte{1},
	}
	write(t, dir+"/tokens", "0123456789-0123456789\n")
	block("cert.pem", "CERTIFICATE")(x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key))
	list := &x509.RevocationList{Number: big.NewInt(1), NextUpdate: time.Now().Add(time.Hour)}
	block("crl.pem", "X509 CRL")(x509.CreateRevocationList(rand.Reader, list, c, key))
	write(t, dir+"/mt", "")
}

// TestEveryOption loads files that set every option to a valid value. Each value in
// turn is then made wrong, which gives an error that names the option and the line.
func TestEveryOption(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir)
	seen := map[string]bool{}
	for variant := range variants {
		w := newWhole(t, dir, variant)
		for key := range w.seen {
			seen[key] = true
		}
		write(t, dir+"/meta1.conf", w.text())
		if _, _, err := Check(dir + "/meta1.conf"); err != nil {
			t.Fatalf("variant %d: %v", variant, err)
		}
		roundTrip(t, dir+"/meta1.conf")
		for i, o := range w.options {
			if (raceEnabled || testing.Short()) && i%10 != 0 { // one goroutine reads a configuration
				continue
			}
			t.Run(fmt.Sprintf("%d/%s:%d", variant, o.key, o.line), func(t *testing.T) { testWrong(t, w, o) })
		}
	}
	for _, r := range confparse.Rows((&Config{}).Options()) {
		key := strings.TrimPrefix(r.Section+"/"+r.Name, "global/")
		if r.Kind != confparse.KindSection && !seen[key] {
			t.Errorf("%s is set in no variant", key)
		}
	}
	if len(seen) < 400 {
		t.Errorf("only %d options are set", len(seen))
	}
}

// roundTrip reads what config show prints of a file.
func roundTrip(t *testing.T, file string) {
	t.Helper()
	_, r, err := settings.Load(file, confparse.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, defaults := range []bool{false, true} {
		_, again, err := settings.Load(file, confparse.LoadOptions{FS: confparse.Files{file: r.Show(defaults)}})
		if err != nil {
			t.Fatalf("what is shown is refused: %v", err)
		}
		want, got := r.Values(true), again.Values(true)
		for i := range want {
			want[i].Origin = ""
		}
		for i := range got {
			got[i].Origin = ""
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("shown and read again: %d and %d values, or others", len(got), len(want))
		}
	}
}

// testWrong makes one value wrong.
func testWrong(t *testing.T, w *whole, o wholeOption) {
	lines := slices.Clone(w.lines)
	lines[o.line-1] = o.wrong
	_, _, err := loadText(strings.Join(lines, "\n"))
	wantAt(t, err, o.line, o.row.Name)
}

// wantAt wants an error at a line that names something.
func wantAt(t *testing.T, err error, line int, name string) {
	t.Helper()
	var errs confparse.Errors
	if !errors.As(err, &errs) {
		t.Fatalf("error %v, want one of line %d about %s", err, line, name)
	}
	for _, d := range errs {
		if d.Line == line && d.Col > 0 && strings.Contains(d.Message, name) {
			return
		}
	}
	t.Errorf("errors\n%v\nwant one of line %d about %s", err, line, name)
}

// TestEveryFile has each option that names a file name one that does not exist.
func TestEveryFile(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir)
	w := newWhole(t, dir, 0)
	n := 0
	for _, o := range w.options {
		if o.row.Type != confparse.File || o.row.Effect == confparse.Host || strings.Contains(o.key, "greylisting/") {
			continue
		}
		n++
		t.Run(o.key, func(t *testing.T) {
			lines := slices.Clone(w.lines)
			lines[o.line-1] = o.row.Name + " = " + dir + "/nowhere;"
			write(t, dir+"/meta1.conf", strings.Join(lines, "\n"))
			_, _, err := Check(dir + "/meta1.conf")
			wantAt(t, err, o.line, o.row.Name)
			if !strings.Contains(fmt.Sprint(err), "nowhere does not exist") {
				t.Error(err)
			}
		})
	}
	if n < 20 {
		t.Errorf("only %d files", n)
	}
}
