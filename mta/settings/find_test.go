package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta1/confparse"
)

// TestFind finds a running meta1 by what can be read of its configuration.
func TestFind(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir+"/more", "qmgr { control_socket = ctl; }\n")
	here, err := filepath.Abs("rel")
	if err != nil {
		t.Fatal(err)
	}
	const listen = "smtps { listen_socket { type = inet6; port = 2525; address = \"::1\"; } listen_socket { port = 25; } }\n"
	tests := map[string]struct{ text, socket, host, servers string }{
		"empty":             {"", DefaultSocket, "", ""},
		"right":             {"hostname = a.b; working_directory = \"/s\"; qmgr { control_socket = \"x/ctl\"; }\n" + listen, "/s/x/ctl", "a.b", "[::1]:2525 :25"},
		"absolute":          {"qmgr { control_socket = \"/run/ctl\"; }", "/run/ctl", "", ""},
		"relative":          {"working_directory = rel;", here + "/control", "", ""},
		"none":              {"qmgr { control_socket = \"\"; }", "", "", ""},
		"included":          {"include more; hostnme = x;", DefaultDirectory + "/ctl", "", ""},
		"not included":      {"include none; hostname = a.b;", DefaultSocket, "a.b", ""},
		"mistake":           {"hostname = a.b; user = nobody; user = x; working_directory = \"/s\"; qmgr { AQ_entries_max = many; }\n" + listen, "/s/control", "a.b", "[::1]:2525 :25"},
		"wrong value":       {"working_directory = { a, b }; qmgr { control_socket = { a, b }; }", DefaultSocket, "", ""},
		"syntax, behind":    {"working_directory = \"/s\"; hostname = a.b; smar { x = ; } }", "/s/control", "a.b", ""},
		"syntax, before":    {"smar { mailertable file; }\nworking_directory = \"/s\";\n" + listen, "/s/control", "", "[::1]:2525 :25"},
		"not closed":        {"working_directory = \"/s\"; qmgr { control_socket = ctl;", "/s/ctl", "", ""},
		"a comment, open":   {"working_directory = \"/s\"; /* qmgr { control_socket = ctl; }", "/s/control", "", ""},
		"not text":          {"\x00\xff\x7fELF", DefaultSocket, "", ""},
		"listens by nobody": {"smtps { listen_socket { type = unix; path = x; } listen_socket { port = many; } }", DefaultSocket, "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			writeFile(t, dir+"/meta1.conf", tt.text)
			got, err := Find(dir + "/meta1.conf")
			if err != nil || got.Socket != tt.socket || got.Hostname != tt.host || strings.Join(got.Servers, " ") != tt.servers {
				t.Errorf("found %+v, %v", got, err)
			}
		})
	}
	if err := os.Mkdir(dir+"/dir", 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/large", strings.Repeat("# many comments\n", confparse.MaxBytes/16+1))
	for name, want := range map[string]string{"none": "no such file", "dir": "is a directory", "large": "larger than"} {
		if _, err := Find(dir + "/" + name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
