package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meta1/confparse"
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
		file("cert_file", ""), file("key_file", ""), file("CAcert_file", ""), file("CRL_file", ""),
		option("CAcert_directory", confparse.Dir, ""), file("EC_cert_file", ""), file("EC_key_file", ""),
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
			option("working_directory", confparse.Dir, ""), option("CDB_base_directory", confparse.Dir, `""`),
			section("tls", tls), section("mailertable", mapOf("mt")), section("access_map", mapOf("access.db")),
			section("greylisting", &confparse.Table{Options: []confparse.Option{file("main_DB_name", "")}}),
			section("qmgr", &confparse.Table{Options: []confparse.Option{section("DEFEDB", defedb)}}),
			repeated("sign", file("keyfile", "")),
		},
	}
}

// check checks a configuration that lies in dir, whose spool is the folder spool in it.
func check(t *testing.T, dir, text string, who Account) (errs, warnings string) {
	t.Helper()
	file := filepath.Join(dir, "meta1.conf")
	write(t, file, text, 0o644)
	r, err := confparse.Load(confparse.LoadOptions{}, file, table())
	if err != nil {
		t.Fatal(err)
	}
	e, w := Check(r, who, filepath.Join(dir, "spool"))
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

// makeKeys writes key.pem, cert.pem for it, old.pem, which has expired, and other.pem,
// a key of its own.
func makeKeys(t *testing.T, dir string) {
	t.Helper()
	key := newKey(t)
	makeKey(t, dir+"/key.pem", key)
	makeKey(t, dir+"/other.pem", newKey(t))
	for name, until := range map[string]time.Time{"cert.pem": time.Now().Add(time.Hour), "old.pem": time.Unix(1e9, 0)} {
		c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: until}
		der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), 0o644)
	}
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
	mkdir(t, dir+"/spool/ca", 0o750)
	tests := map[string]struct{ text, errs, warnings string }{
		"nothing":              {"", "", ""},
		"no file":              {"mailertable { file = no; }", "meta1.conf:1:22 file of mailertable: no does not exist\n", ""},
		"a directory":          {"mailertable { file = spool; }", "meta1.conf:1:22 file of mailertable: spool is a directory\n", ""},
		"named instead":        {"mailertable { name = x; }", "", ""},
		"default, asked for":   {"access_map { }", "meta1.conf:1:1 file of access_map: access.db does not exist\n", ""},
		"of a service":         {"x { file = no; }", "", ""},
		"made by us":           {"greylisting { main_DB_name = no; }", "", ""},
		"no effect":            {"tls { DSA_cert_file = no; }", "", ""},
		"certificate":          {"tls { cert_file = cert.pem; key_file = key.pem; }", "", ""},
		"expired":              {"tls { cert_file = old.pem; key_file = key.pem; }", "", "meta1.conf:1:19 the certificate in old.pem expired at 2001-09-09T01:46:40Z\n"},
		"no key":               {"tls { cert_file = cert.pem; }", "meta1.conf:1:19 cert_file needs key_file\n", ""},
		"no certificate":       {"tls { EC_key_file = key.pem; }", "meta1.conf:1:21 EC_key_file needs EC_cert_file\n", ""},
		"missing":              {"tls { cert_file = cert.pem;\nkey_file = no.pem; }", "meta1.conf:2:12 key_file of tls: no.pem does not exist\n", ""},
		"another key":          {"tls { cert_file = cert.pem;\nkey_file = other.pem; }", "meta1.conf:2:12 key_file other.pem does not fit cert_file cert.pem: tls: private key does not match public key\n", ""},
		"CA":                   {"tls { CAcert_file = cert.pem; }", "", ""},
		"CA without":           {"tls { CAcert_file = key.pem; }", "meta1.conf:1:21 CAcert_file key.pem has no PEM block CERTIFICATE\n", ""},
		"CRL":                  {"tls { CRL_file = cert.pem; }", "meta1.conf:1:18 CRL_file cert.pem has no PEM block X509 CRL\n", ""},
		"directory":            {"tls { CAcert_directory = ca; }", "", ""},
		"no directory":         {"tls { CAcert_directory = no; }", "meta1.conf:1:26 CAcert_directory of tls: spool/no does not exist\n", ""},
		"signing key":          {"sign { keyfile = key.pem; }", "", ""},
		"no signing key":       {"sign { keyfile = key.pem; }\nsign { keyfile = no.pem; }", "meta1.conf:2:18 keyfile of sign: no.pem does not exist\n", ""},
		"certificate as key":   {"sign { keyfile = cert.pem; }", "meta1.conf:1:18 keyfile cert.pem: PEM block \"CERTIFICATE\" is no private key", "meta1.conf:1:18 everybody may read the private key cert.pem (mode 0644)\n"},
		"no PEM":               {"sign { keyfile = open.pem; }", "meta1.conf:1:18 keyfile open.pem has no private key in PEM format\n", "meta1.conf:1:18 everybody may read the private key open.pem (mode 0644)\n"},
		"two mistakes, by row": {"access_map { }\nmailertable { file = no; }", "meta1.conf:2:22 file of mailertable: no does not exist\nmeta1.conf:1:1 file of access_map: access.db does not exist\n", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			errs, warnings := check(t, dir, tt.text, Self())
			same := errs == tt.errs || tt.errs != "" && !strings.HasSuffix(tt.errs, "\n") && strings.HasPrefix(errs, tt.errs)
			if !same || warnings != tt.warnings {
				t.Errorf("errors\n%swant\n%s\nwarnings\n%swant\n%s", errs, tt.errs, warnings, tt.warnings)
			}
		})
	}
}

// TestMissingDefault: the mailertable must be there even if nothing names it.
func TestMissingDefault(t *testing.T) {
	errs, _ := check(t, t.TempDir(), "", Account{})
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
	other := Account{Name: "other", UID: 987654, Groups: []int{987654}}
	makeKeys(t, dir)
	write(t, dir+"/mt", "", 0o644)
	mkdir(t, dir+"/closed", 0o700)
	write(t, dir+"/closed/mt", "", 0o644)
	for text, want := range map[string]string{
		"mailertable { file = mt; }":                    "",
		"sign { keyfile = key.pem; }":                   "user other cannot read key.pem (mode 0600)\n",
		"mailertable { file = \"closed/mt\"; }":         "user other cannot read closed/mt: no permission to enter closed\n",
		"tls { cert_file = cert.pem; key_file = mt; } ": "does not fit",
	} {
		if errs, _ := check(t, dir, text, other); want == "" && errs != "" || !strings.Contains(errs, want) {
			t.Errorf("%s: %s, want %s", text, errs, want)
		}
	}
	group := Account{Name: "group", UID: 987654, Groups: []int{os.Getgid()}}
	if err := os.Chmod(dir+"/key.pem", 0o640); err != nil {
		t.Fatal(err)
	}
	if errs, _ := check(t, dir, "sign { keyfile = key.pem; }", group); errs != "" {
		t.Error(errs)
	}
}

// TestSpool checks directories of the queue that are not safe.
func TestSpool(t *testing.T) {
	self := Self()
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
		"IBDB":             {"spool/ibdb", 0o770, self.UID, "", "default the directory spool/ibdb of the queue can be written by its group (mode 0770): chmod 0700\n"},
		"IBDB is read":     {"spool/ibdb", 0o755, self.UID, "", "default the directory spool/ibdb of the queue can be read by everybody"},
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

// TestAbove checks what is said of directories above the queue.
func TestAbove(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/mt", "", 0o644)
	if _, warnings := check(t, dir, "", Self()); strings.Contains(warnings, dir) {
		t.Error(warnings)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, warnings := check(t, dir, "", Self()); !strings.Contains(warnings, "everybody may write ") {
		t.Errorf("nothing is said of a directory that everybody can write: %s", warnings)
	}
}
