package mta

import (
	"bufio"
	"crypto/tls"
	"errors"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meta1/mta/account"
	"meta1/mta/control"
	"meta1/mta/tlsconf"
	"meta1/mta/tlsconf/tlstest"
)

// process is an MTA in a process of its own.
type process struct {
	t       *testing.T
	cmd     *exec.Cmd
	log     logBuffer
	listen  map[string]string // addresses by section
	control *control.Client
}

// startProcess starts an MTA with the configuration that is in dir, and waits until it
// serves.
func startProcess(t *testing.T, dir string) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0], "SERVE", dir+"/meta1.conf"), listen: map[string]string{}, control: control.NewClient(dir + "/spool/control")}
	p.cmd.Stderr = &p.log
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		if err := p.cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, &p.log)
		}
	})
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if f := strings.Fields(lines.Text()); len(f) > 2 && f[0] == "listen" {
			p.listen[strings.Join(f[1:len(f)-1], " ")] = f[len(f)-1]
		}
	}
	return p
}

// presents is the common name of the certificate that a section smtps presents.
func (p *process) presents(section string) string {
	p.t.Helper()
	c, err := smtp.Dial(p.listen[section])
	if err != nil {
		p.t.Fatalf("%v\n%s", err, &p.log)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true}); err != nil {
		p.t.Fatalf("%v\n%s", err, &p.log)
	}
	state, _ := c.TLSConnectionState()
	return state.PeerCertificates[0].Subject.CommonName
}

// reload reloads and returns the errors.
func (p *process) reload() string {
	p.t.Helper()
	report, err := p.control.Reload(p.t.Context())
	if err != nil {
		p.t.Fatalf("%v\n%s", err, &p.log)
	}
	return strings.Join(report.Errors, "\n")
}

// acme is a folder as certbot keeps it: live has links to archive, which only root may enter.
type acme struct {
	t   *testing.T
	dir string
	ca  *tlstest.Cert
}

func newACME(t *testing.T, dir string) *acme {
	t.Helper()
	for _, sub := range []string{"live", "archive"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &acme{t, dir, tlstest.Root(t, "Root")}
}

// renew makes the nth certificate and has the links lead to it.
func (a *acme) renew(cn string) {
	a.t.Helper()
	cert := a.ca.Issue(a.t, tlstest.Spec{CN: cn, Names: []string{"mx.test"}})
	tlstest.WriteFile(a.t, a.dir+"/archive/fullchain-"+cn+".pem", cert.Chain(), 0o644)
	tlstest.WriteFile(a.t, a.dir+"/archive/privkey-"+cn+".pem", cert.KeyPEM(a.t), 0o600)
	for _, name := range []string{"fullchain", "privkey"} {
		link := a.dir + "/live/" + name + ".pem"
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			a.t.Fatal(err)
		}
		if err := os.Symlink("../archive/"+name+"-"+cn+".pem", link); err != nil {
			a.t.Fatal(err)
		}
	}
}

// TestRootKeys: keys that only root may read work, and so do renewed ones after a reload,
// though the server has dropped root's rights. A broken certificate leaves the old one in use.
func TestRootKeys(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	a := newACME(t, dir+"/acme")
	a.renew("first")
	section := func(more string) string {
		return strings.Replace(config(dir, `smtps TLS { id = 1; listen_socket { address = 127.0.0.1; port = 0; }
			tls { cert_file = "acme/live/fullchain.pem"; key_file = "acme/live/privkey.pem"; `+more+` } }`), "allow_root = true;", "user = nobody;", 1)
	}
	write(t, dir+"/meta1.conf", section(""))
	write(t, dir+"/mt", "")
	write(t, dir+"/access", "")
	p := startProcess(t, dir)
	presents := func(want string) {
		t.Helper()
		if got := p.presents("smtps TLS"); got != want {
			t.Errorf("presents %s, want %s", got, want)
		}
	}
	presents("first")
	a.renew("second")
	if errs := p.reload(); errs != "" {
		t.Errorf("reload: %s", errs)
	}
	presents("second")
	tlstest.WriteFile(t, dir+"/acme/archive/privkey-second.pem", []byte("rubbish, secret"), 0o600)
	if errs := p.reload(); !strings.Contains(errs, "no private key") {
		t.Errorf("a broken key: %q", errs)
	}
	presents("second")
	a.renew("third")
	other := a.ca.Issue(t, tlstest.Spec{CN: "other", Names: []string{"other.test"}})
	other.Write(t, dir+"/acme", "other")
	write(t, dir+"/meta1.conf", section(`certificate { cert_file = "acme/other.pem"; key_file = "acme/other.key"; }`))
	if errs := p.reload(); errs != "" {
		t.Errorf("a further certificate: %s", errs)
	}
	presents("third")
	write(t, dir+"/secret", "this is secret")
	if err := os.Chmod(dir+"/secret", 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/meta1.conf", section(`certificate { cert_file = "acme/other.pem"; key_file = "secret"; }`))
	if errs := p.reload(); !strings.Contains(errs, "no private key") || strings.Contains(errs, "this is") {
		t.Errorf("a file that is no key: %q", errs)
	}
	presents("third")
	if log := p.log.String(); strings.Contains(log, "this is secret") || strings.Contains(log, "rubbish") || !strings.Contains(log, "sev=ERR") {
		t.Errorf("log\n%s", log)
	}
}

// TestReadAsRoot: root reads for the account only what root alone has chosen.
func TestReadAsRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const nobody = 65534
	dir := shortDir(t)
	key := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		tlstest.WriteFile(t, path, []byte("key of "+filepath.Base(path)), 0o600)
	}
	for _, name := range []string{"key", "theirs/key", "open/key", "target/key", "unnamed", "class", "ca", "token", "token2"} {
		key(dir + "/etc/" + name)
	}
	for link, to := range map[string]string{"link": "target/key", "theirs/link": "../key", "loop": "loop", "out": dir + "/theirs/key"} {
		if err := os.Symlink(to, dir+"/etc/"+link); err != nil {
			t.Fatal(err)
		}
	}
	key(dir + "/theirs/key")
	for _, theirs := range []string{"/etc/theirs", "/theirs"} {
		if err := os.Chown(dir+theirs, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir+"/etc/open", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/etc/dir", 0o700); err != nil {
		t.Fatal(err)
	}
	conf := dir + "/etc/meta1.conf"
	text := "smtps { listen_socket { port = 25; } tls { cert_file = key; key_file = link;"
	for _, name := range []string{"theirs/key", "open/key", "theirs/link", "loop", "out", "dir", "nowhere"} {
		text += ` certificate { cert_file = key; key_file = "` + name + `"; }`
	}
	text += ` } } smtpc { tls { CAcert_file = ca; } auth { token_file = token; } session_features a { auth { token_file = token2; } tls { cert_file = key; key_file = class; } } }`
	write(t, conf, text)
	for name, want := range map[string]string{
		"key": "", "link": "", "class": "", "ca": "", "token": "", "token2": "",
		"unnamed":        "no section that may name such a file does",
		"meta1.conf":     "no section that may name such a file does",
		"target/key":     "no section that may name such a file does", // it is named as link
		"../etc/key":     "no section that may name such a file does", // nor in another way
		"theirs/key":     "theirs belongs to user 65534",
		"open/key":       "everybody may write",
		"theirs/link":    "theirs belongs to user 65534",
		"loop":           "too many levels of symbolic links",
		"out":            "theirs belongs to user 65534",
		"dir":            "is not a regular file",
		"nowhere":        "no such file",
		"../../x\x00y/z": "no section that may name such a file does",
	} {
		content, stamp, err := ReadAsRoot(conf, dir+"/etc/"+name, "")
		if want == "" {
			if again, same, againErr := ReadAsRoot(conf, dir+"/etc/"+name, stamp); err != nil || !strings.HasPrefix(string(content), "key of ") || again != nil || same != stamp || againErr != nil {
				t.Errorf("%s: %q %q %v; again %q %q %v", name, content, stamp, err, again, same, againErr)
			}
			continue
		}
		if content != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v, want %s", name, content, err, want)
		}
	}
	refused := func(what, want string) {
		t.Helper()
		if content, _, err := ReadAsRoot(conf, dir+"/etc/key", ""); content != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v, want %s", what, content, err, want)
		}
	}
	write(t, conf, text+"\ninclude \"theirs/more.conf\";")
	write(t, dir+"/etc/theirs/more.conf", "")
	refused("a file of the account is included", "theirs belongs to user 65534")
	write(t, conf, text+"\ninclude \"../shadow\";")
	write(t, dir+"/shadow", "root:secret")
	if _, _, err := ReadAsRoot(conf, dir+"/etc/key", ""); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("another file is included: %v", err)
	}
	write(t, conf, text)
	if err := os.Chown(conf, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	refused("the configuration is the account's", "meta1.conf belongs to user 65534")
	if err := os.Remove(conf); err != nil {
		t.Fatal(err)
	}
	refused("there is no configuration", "")
}

// TestRefusedFile: what the account may not read is told with what can be done.
func TestRefusedFile(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := shortDir(t)
	tlstest.WriteFile(t, dir+"/key", []byte("key"), 0o600)
	nobody := &account.Account{Name: "nobody", UID: 65534, GID: 65534, Groups: []int{65534}}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f := &tlsFiles{account: nobody}
	if _, _, err := f.Read(dir+"/key", ""); !errors.Is(err, errNoRoot) || f.needed.Load() {
		t.Errorf("nobody has root's rights: %v", err)
	}
	err := nobody.Do(func() error { _, _, err := (&tlsFiles{}).Read(dir+"/key", ""); return err })
	if !errors.Is(err, errNeverRoot) {
		t.Errorf("never root: %v", err)
	}
	asked := ""
	f.asRoot = func(path string, _ tlsconf.Stamp) ([]byte, tlsconf.Stamp, error) {
		asked = path
		return []byte("x"), "1", nil
	}
	if content, _, err := f.Read(dir+"/key", ""); string(content) != "x" || err != nil || asked != dir+"/key" || !f.needed.Load() {
		t.Errorf("%q, %v", content, err)
	}
	f.needed.Store(false)
	tlstest.WriteFile(t, dir+"/open", []byte("open"), 0o644)
	if content, _, err := f.Read(dir+"/open", ""); string(content) != "open" || err != nil || f.needed.Load() {
		t.Errorf("a file for everybody: %q, %v", content, err)
	}
	if names, err := f.List(dir); len(names) != 2 || err != nil {
		t.Errorf("%q, %v", names, err)
	}
}
