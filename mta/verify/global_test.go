package verify

import (
	"os"
	"strings"
	"testing"

	"meta1/mta/account"
)

// TestLogFile has log files for an account that root starts, and for one that starts itself.
func TestLogFile(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give files away")
	}
	dir := openDir(t)
	const uid = 987654
	for path, mode := range map[string]os.FileMode{"/spool": 0o750, "/root": 0o755, "/theirs": 0o755, "/open": 0o777, "/closed": 0o700} {
		mkdir(t, dir+path, mode)
	}
	write(t, dir+"/mt", "", 0o644)
	write(t, dir+"/root/log", "", 0o640)
	write(t, dir+"/open/log", "", 0o640)
	write(t, dir+"/spool/log", "", 0o640)
	for _, path := range []string{"/spool", "/spool/log", "/theirs"} {
		if err := os.Chown(dir+path, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("log", dir+"/spool/link"); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ file, byRoot, alone string }{
		{"log", "", ""},
		{"new", "", ""},
		{dir + "/theirs/log", "", ""},
		{dir + "/open/new", "", ""},
		{dir + "/root/new", "", "user u cannot make a file in root (mode 0755)"},
		{dir + "/root/log", "", "user u cannot write root/log (mode 0640)"},
		{dir + "/open/log", "user u cannot write open/log (mode 0640)", "user u cannot write open/log (mode 0640)"},
		{dir + "/closed/log", "", "user u cannot make a file in closed (mode 0700)"},
		{"no/log", "spool/no does not exist", "spool/no does not exist"},
		{"link", "spool/link is a symbolic link", "spool/link is a symbolic link"},
		{"../root", "root is a directory", "root is a directory"},
	}
	for _, tt := range tests {
		for want, root := range map[*string]bool{&tt.byRoot: true, &tt.alone: false} {
			who := &account.Account{Name: "u", UID: uid, Groups: []int{uid}}
			errs, _ := checkAs(t, dir, "log_file = \""+tt.file+"\";", who, root)
			if *want == "" && errs != "" || !strings.Contains(errs, *want) {
				t.Errorf("%s, started by root %v: %swant %s", tt.file, root, errs, *want)
			}
		}
	}
}

// TestLogDirectory: the account must be able to make files in log_directory.
func TestLogDirectory(t *testing.T) {
	dir := openDir(t)
	write(t, dir+"/mt", "", 0o644)
	mkdir(t, dir+"/logs", 0o755)
	who := &account.Account{Name: "u", UID: 987654, GID: 987654, Groups: []int{987654}}
	for name, want := range map[string]string{
		"logs": "log_directory: user u cannot make a file in logs (mode 0755)", "none": "log_directory: none does not exist",
	} {
		if errs, _ := check(t, dir, "log_directory = \"../"+name+"\";", who); !strings.Contains(errs, want) {
			t.Errorf("%s: %s", name, errs)
		}
	}
	if errs, _ := check(t, dir, "log_directory = \"../logs\";", account.Self()); errs != "" {
		t.Error(errs)
	}
}

// TestReloadable: the account reads the configuration at a reload.
func TestReloadable(t *testing.T) {
	dir := openDir(t)
	write(t, dir+"/mt", "", 0o644)
	write(t, dir+"/more", "", 0o600)
	who := &account.Account{Name: "u", UID: 987654, Groups: []int{987654}}
	if _, warnings := check(t, dir, "", who); strings.Contains(warnings, "reload") {
		t.Error(warnings)
	}
	if _, warnings := check(t, dir, "include more;", who); !strings.Contains(warnings, "more:1:1 a reload will fail: user u cannot read more (mode 0600)\n") {
		t.Error(warnings)
	}
}

// TestHostname: a name without a dot is a warning.
func TestHostname(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/mt", "", 0o644)
	for name, warned := range map[string]bool{"mx.example.org": false, "localhost": false, "mx": true, "mx.": true} {
		if _, warnings := check(t, dir, "hostname = \""+name+"\";", account.Self()); strings.Contains(warnings, "not fully qualified") != warned {
			t.Errorf("%s: %s", name, warnings)
		}
	}
}
