package mta

import (
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"meta1/confparse"
	"meta1/maps"
	"meta1/mta/settings"
	"meta1/mta/tlsconf/tlstest"
)

// exampleFolders are the configurations that the project promises.
var exampleFolders = []string{"quickstart.conf", "gateway/meta1.conf", "backup-mx/meta1.conf", "outgoing/meta1.conf", "providers/meta1.conf", "incoming-lmtp/meta1.conf", "mta-msa/meta1.conf", "submission/meta1.conf", "smarthost/meta1.conf"}

// missingFile finds the files that a configuration names.
var missingFile = regexp.MustCompile(`(cert_file|key_file|keyfile|[^_]file) = "([^"]+)"`)

// TestExamples checks every configuration in examples/. Each is complete but for what
// only a host has: keys and certificates, maps made of their text, accounts, the
// directory of the queue.
func TestExamples(t *testing.T) {
	root := t.TempDir()
	if err := os.CopyFS(root, os.DirFS("../examples")); err != nil {
		t.Fatal(err)
	}
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".conf") {
			found = append(found, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range exampleFolders {
		if !slices.Contains(found, name) {
			t.Errorf("there is no examples/%s", name)
		}
	}
	for _, name := range found {
		t.Run(name, func(t *testing.T) { testExample(t, filepath.Join(root, name)) })
	}
}

// TestLayout: the configurations that we ship are laid out as meta1 config fmt does it.
func TestLayout(t *testing.T) {
	n := 0
	for _, dir := range []string{"../examples", "../container", "../scripts"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".conf") {
				return err
			}
			n++
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			want, err := confparse.Format(path, text)
			if err == nil && string(want) != string(text) {
				t.Errorf("%s differs from what meta1 config fmt makes of it", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if n < 8 {
		t.Errorf("%d configurations", n)
	}
}

func testExample(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	files := t.TempDir()
	makeFiles(t, files)
	ca := tlstest.Root(t, "Root")
	host := ca.Issue(t, tlstest.Spec{CN: "host", Names: []string{"mail.example.org", "out.example.org", "submit.example.org"}})
	write(t, files+"/cert.pem", string(host.PEM())+string(ca.PEM()))
	write(t, files+"/key.pem", string(host.KeyPEM(t)))
	for _, m := range missingFile.FindAllStringSubmatch(string(text), -1) {
		provide(t, files, dir, strings.TrimSpace(m[1]), m[2])
	}
	me, err := user.Current()
	if err != nil {
		t.Skip("who am I?")
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Skip("what is my group?")
	}
	here := strings.NewReplacer("user = vmail;", "user = "+me.Username+";", "group = vmail;", "group = "+group.Name+";",
		`working_directory = "var/spool";`, "", "allow_root = true;", "").Replace(string(text))
	write(t, file, here+"\nallow_root = on; working_directory = \""+dir+"/spool\";\n")
	c, r, err := Check(file)
	if err == nil {
		r, err = CheckAll(t.Context(), file)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !c.Queue.DSN.RFC {
		t.Error("its bounces are not as RFC 3464 has them")
	}
	for _, w := range r.Warnings {
		if !strings.Contains(w.Message, "ot yet in effect") && !strings.Contains(w.Message, "could replace the queue") {
			t.Errorf("%v", w)
		}
	}
	if formatted, err := confparse.Format(file, text); err != nil || len(formatted) == 0 {
		t.Errorf("cannot be formatted: %v", err)
	}
}

// TestContainerConfiguration checks the configuration of the image, which e2e runs.
func TestContainerConfiguration(t *testing.T) {
	c, _, err := settings.Load("../container/meta1.conf", confparse.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !c.Queue.DSN.RFC {
		t.Error("its bounces are not as RFC 3464 has them")
	}
}

// provide makes a file that a configuration in dir names, if it is of a kind that each
// host makes for itself. files has keys and certificates.
func provide(t *testing.T, files, dir, option, name string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	from := map[string]string{"cert_file": "cert.pem", "key_file": "key.pem", "keyfile": "dkim.pem"}[option]
	if from != "" {
		text, err := os.ReadFile(filepath.Join(files, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	source, isMap := strings.CutSuffix(path, ".db")
	if !isMap {
		return
	}
	in, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := maps.Create(path, in, maps.CreateOptions{Source: source}); err != nil {
		t.Fatal(err)
	}
}
