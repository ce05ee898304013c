package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta1/confparse"
	"meta1/mta/account"
)

// table has the sections that Check looks at.
func table() *confparse.Table {
	option := func(name string, typ confparse.Type, deflt string) confparse.Option {
		return confparse.Option{Name: name, Type: typ, Default: deflt, Into: new(string), Doc: "d", Readme: "own"}
	}
	section := func(name string, sub *confparse.Table) confparse.Option {
		return confparse.Option{Name: name, Kind: confparse.KindSection, Sub: sub, Doc: "d", Readme: "own"}
	}
	repeated := func(name string, options ...confparse.Option) confparse.Option {
		return confparse.Option{
			Name: name, Kind: confparse.KindSection, Doc: "d", Readme: "own",
			New: func(string) *confparse.Table { return &confparse.Table{Options: options} },
		}
	}
	file := func(name, deflt string) confparse.Option { return option(name, confparse.File, deflt) }
	mapOf := func(deflt string) *confparse.Table {
		return &confparse.Table{Options: []confparse.Option{file("file", deflt), option("name", confparse.String, "")}}
	}
	tls := &confparse.Table{Options: []confparse.Option{
		file("cert_file", ""),
		{Name: "DSA_cert_file", Type: confparse.File, Effect: confparse.Host, Into: new(string), Doc: "d", Readme: "own"},
	}}
	defedb := &confparse.Table{Options: []confparse.Option{
		option("base_directory", confparse.Dir, "defedb"), option("log_directory", confparse.Dir, ""),
	}}
	return &confparse.Table{
		Any: func(string, string) *confparse.Table {
			return &confparse.Table{Options: []confparse.Option{file("file", "")}}
		},
		Options: []confparse.Option{
			option("hostname", confparse.String, ""), option("log_file", confparse.Path, ""), option("log_directory", confparse.Dir, ""),
			option("working_directory", confparse.Dir, ""), option("CDB_base_directory", confparse.Dir, `""`),
			section("tls", tls), section("mailertable", mapOf("mt")), section("access_map", mapOf("access.db")),
			section("greylisting", &confparse.Table{Options: []confparse.Option{file("main_DB_name", "")}}),
			section("qmgr", &confparse.Table{Options: []confparse.Option{section("DEFEDB", defedb)}}),
			repeated("sign", file("keyfile", "")),
		},
	}
}

// check checks a configuration that lies in dir, whose spool is the folder spool in it.
func check(t *testing.T, dir, text string, who *account.Account) (errs, warnings string) {
	t.Helper()
	return checkAs(t, dir, text, who, false)
}

// checkAs is check for an account that root starts or not.
func checkAs(t *testing.T, dir, text string, who *account.Account, byRoot bool) (errs, warnings string) {
	t.Helper()
	file := filepath.Join(dir, "meta1.conf")
	write(t, file, text, 0o644)
	r, err := confparse.Load(confparse.LoadOptions{}, file, table())
	if err != nil {
		t.Fatal(err)
	}
	e, w := Check(r, who, byRoot, filepath.Join(dir, "spool"))
	for _, d := range e {
		errs += strings.ReplaceAll(d.Pos.String()+" "+d.Message+"\n", dir+"/", "")
	}
	for _, d := range w {
		warnings += strings.ReplaceAll(d.Pos.String()+" "+d.Message+"\n", dir+"/", "")
	}
	return errs, warnings
}

func write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, mode); err != nil { // whatever the umask is
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
}

// makeKeys writes key.pem, and cert.pem for it.
func makeKeys(t *testing.T, dir string) {
	t.Helper()
	key := newKey(t)
	makeKey(t, dir+"/key.pem", key)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "cert.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o644)
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func makeKey(t *testing.T, file string, key *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), 0o600)
}

// TestFiles checks files of all kinds: text is the configuration, want the beginning
// of the one error or warning, "" for none.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	makeKeys(t, dir)
	write(t, dir+"/mt", "", 0o644)
	write(t, dir+"/open.pem", "x", 0o644)
	mkdir(t, dir+"/spool", 0o750)
	tests := map[string]struct{ text, errs, warnings string }{
		"nothing":              {"", "", ""},
		"no file":              {"mailertable { file = no; }", "meta1.conf:1:22 file of mailertable: no does not exist\n", ""},
		"a directory":          {"mailertable { file = spool; }", "meta1.conf:1:22 file of mailertable: spool is a directory\n", ""},
		"named instead":        {"mailertable { name = x; }", "", ""},
		"default, asked for":   {"access_map { }", "meta1.conf:1:1 file of access_map: access.db does not exist\n", ""},
		"of a service":         {"x { file = no; }", "", ""},
		"made by us":           {"greylisting { main_DB_name = no; }", "", ""},
		"no effect":            {"tls { DSA_cert_file = no; }", "", ""},
		"of mta/tlsconf":       {"tls { cert_file = no; }", "", ""},
		"two mistakes, by row": {"access_map { }\nmailertable { file = no; }", "meta1.conf:2:22 file of mailertable: no does not exist\nmeta1.conf:1:1 file of access_map: access.db does not exist\n", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			errs, warnings := check(t, dir, tt.text, account.Self())
			same := errs == tt.errs || tt.errs != "" && !strings.HasSuffix(tt.errs, "\n") && strings.HasPrefix(errs, tt.errs)
			if !same || warnings != tt.warnings {
				t.Errorf("errors\n%swant\n%s\nwarnings\n%swant\n%s", errs, tt.errs, warnings, tt.warnings)
			}
		})
	}
}

// TestMissingDefault: the mailertable must be there even if nothing names it.
func TestMissingDefault(t *testing.T) {
	errs, _ := check(t, t.TempDir(), "", &account.Account{})
	if errs != "default file of mailertable: mt does not exist\n" {
		t.Error(errs)
	}
}

// openDir makes a directory that everybody may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != filepath.Clean(os.TempDir()) && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestAccount checks for an account that is neither the owner nor root.
func TestAccount(t *testing.T) {
	dir := openDir(t)
	other := &account.Account{Name: "other", UID: 987654, Groups: []int{987654}}
	makeKeys(t, dir)
	write(t, dir+"/mt", "", 0o644)
	mkdir(t, dir+"/closed", 0o700)
	write(t, dir+"/closed/mt", "", 0o644)
	for text, want := range map[string]string{
		"mailertable { file = mt; }":            "",
		"mailertable { file = key.pem; }":       "user other cannot read key.pem (mode 0600)\n",
		"mailertable { file = \"closed/mt\"; }": "user other cannot read closed/mt: no permission to enter closed\n",
	} {
		if errs, _ := check(t, dir, text, other); want == "" && errs != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: %s, want %s", text, errs, want)
		}
	}
	group := &account.Account{Name: "group", UID: 987654, Groups: []int{os.Getgid()}}
	if err := os.Chmod(dir+"/key.pem", 0o640); err != nil {
		t.Fatal(err)
	}
	if errs, _ := check(t, dir, "mailertable { file = key.pem; }", group); errs != "" {
		t.Error(errs)
	}
}

// TestSpool checks directories of the queue that are not safe.
func TestSpool(t *testing.T) {
	self := account.Self()
	self.UID = max(self.UID, 1) // root may do more
	tests := map[string]struct {
		path  string
		mode  os.FileMode
		owner int
		text  string
		want  string
	}{
		"safe":             {"spool", 0o751, self.UID, "", ""},
		"root's":           {"spool", 0o755, 0, "", ""},
		"everybody writes": {"spool", 0o757, self.UID, "working_directory = spool;", "meta1.conf:1:21 the directory spool of the queue can be written by everybody (mode 0757): chmod o-w\n"},
		"CDB":              {"spool/A", 0o777, self.UID, "", "default the directory spool/A of the queue can be written by everybody"},
		"CDB elsewhere":    {"cdb/0", 0o777, self.UID, "CDB_base_directory = \"../cdb\";", "meta1.conf:1:22 the directory cdb/0 of the queue can be written by everybody"},
		"CDB as MeTA1":     {"spool/0", 0o771, self.UID, "", ""},
		"IBDB":             {"spool/defedb", 0o770, self.UID, "", "default the directory spool/defedb of the queue can be written by its group (mode 0770), "},
		"IBDB is read":     {"spool/defedb", 0o755, self.UID, "", "default the directory spool/defedb of the queue can be read by everybody"},
		"DEFEDB":           {"spool/d", 0o720, self.UID, "qmgr { DEFEDB { base_directory = d; } }", "meta1.conf:1:34 the directory spool/d of the queue can be written by its group"},
		"log of DEFEDB":    {"spool/l", 0o720, self.UID, "qmgr { DEFEDB { log_directory = l; } }", "meta1.conf:1:33 the directory spool/l of the queue can be written by its group"},
		"another's":        {"spool/defedb", 0o700, 987654, "", "default the directory spool/defedb of the queue belongs to user 987654"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := openDir(t)
			write(t, dir+"/mt", "", 0o644)
			mkdir(t, filepath.Join(dir, tt.path), tt.mode)
			if err := os.Chown(filepath.Join(dir, tt.path), tt.owner, -1); err != nil {
				t.Skip("only root can give files away")
			}
			errs, warnings := check(t, dir, tt.text, self)
			found := errs + warnings
			if name == "everybody writes" && errs != "" {
				t.Errorf("a volume that all may write is refused: %s", errs)
			}
			if tt.want == "" && found != "" || !strings.HasPrefix(found, tt.want) {
				t.Errorf("found\n%swant\n%s", found, tt.want)
			}
		})
	}
}

// TestVolume has directories as Kubernetes (an fsGroup) and OpenShift (an arbitrary user in
// root's group) make them, and some that are not safe.
func TestVolume(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	const us, fsGroup = 1000680000, 1000
	etc := t.TempDir()
	write(t, etc+"/passwd", "root:x:0:0::/:\nmeta1:x:10025:10025::/:\njoe:x:1001:1001::/:\nsync:x:5:0::/:\nbroken\n", 0o644)
	write(t, etc+"/group", "root:x:0:root\njoe:x:1001:\nmail:x:8:joe,sue\nown:x:9:me,root\nfs:x:1000:\n", 0o644)
	who := &account.Account{Name: "me", UID: us, Groups: []int{0, fsGroup, 1001, 8, 9}}
	tests := map[string]struct {
		path       string
		mode       os.FileMode
		owner, gid int
		errs, warn string
	}{
		"volume":          {"spool", 0o770, 0, fsGroup, "", ""},
		"store":           {"spool/defedb", 0o770, us, fsGroup, "", "the directory spool/defedb of the queue can be written by its group (mode 0770), which is nobody else's here"},
		"earlier uid":     {"spool/defedb", 0o770, 10025, fsGroup, "", "the directory spool/defedb of the queue belongs to user 10025; user me writes it as a member of its group"},
		"earlier content": {"spool/3", 0o770, 10025, fsGroup, "", ""},
		"image":           {"spool", 0o770, 10025, 0, "", "the directory spool of the queue belongs to user 10025; user me"},
		"own group":       {"spool/defedb", 0o770, us, 9, "", "which is nobody else's here"},
		"another's group": {"spool/defedb", 0o770, us, 1001, "can be written by its group (mode 0770), group 1001, shared with joe: chmod 0700", ""},
		"members":         {"spool/defedb", 0o770, us, 8, "can be written by its group (mode 0770), group 8, shared with joe, sue", ""},
		"no member":       {"spool/defedb", 0o770, us, 4242, "group 4242, which is not one of user me", ""},
		"everybody":       {"spool/defedb", 0o777, us, fsGroup, "can be written by everybody", ""},
		"foreign":         {"spool/defedb", 0o750, 10025, fsGroup, "belongs to user 10025, who could change it, and not to user me", ""},
		"foreign, shared": {"spool/5", 0o770, 10025, 8, "belongs to user 10025, who could change it, and not to user me", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := openDir(t)
			path := filepath.Join(dir, tt.path)
			mkdir(t, path, 0o755)
			if err := errors.Join(os.Chown(path, tt.owner, tt.gid), os.Chmod(path, tt.mode|os.ModeSetgid)); err != nil {
				t.Fatal(err)
			}
			write(t, dir+"/mt", "", 0o644)
			write(t, dir+"/meta1.conf", "", 0o644)
			r, err := confparse.Load(confparse.LoadOptions{}, dir+"/meta1.conf", table())
			if err != nil {
				t.Fatal(err)
			}
			c := &checker{who: who, dir: dir + "/spool", etc: etc}
			c.spool(r.Root)
			for _, list := range []struct {
				what, want string
				got        []confparse.Diagnostic
			}{{"errors", tt.errs, c.errs}, {"warnings", tt.warn, c.warnings}} {
				text := ""
				for _, d := range list.got {
					text += strings.ReplaceAll(d.Message, dir+"/", "") + "\n"
				}
				if list.want == "" && text != "" || !strings.Contains(text, list.want) {
					t.Errorf("%s: %swant %s", list.what, text, list.want)
				}
			}
		})
	}
}

// TestAbove checks what is said of directories above the queue.
func TestAbove(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/mt", "", 0o644)
	if _, warnings := check(t, dir, "", account.Self()); strings.Contains(warnings, dir) {
		t.Error(warnings)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, warnings := check(t, dir, "", account.Self()); !strings.Contains(warnings, "everybody may write ") {
		t.Errorf("nothing is said of a directory that everybody can write: %s", warnings)
	}
}
