package mta

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestReloadFilters: sections milter and policy_service change with a reload, for sessions that
// begin later; with a reload that fails in another part they stay as they are.
func TestReloadFilters(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, nowhere, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	const server = "smtps"
	smtps := func(sections string) {
		t.Helper()
		text := config(r.dir, "")
		write(t, r.dir+"/meta1.conf", strings.Replace(text, "flags = { access, 8bitmime };", "flags = { access, 8bitmime }; "+sections, 1))
	}
	reload := func(failed bool) []string {
		t.Helper()
		report, err := r.control.Reload(t.Context())
		if err != nil || len(report.NeedRestart) > 0 || (len(report.Errors) > 0) != failed {
			t.Errorf("%+v, %v", report, err)
		}
		return append(paths(report.Changed), report.Errors...)
	}
	try := func(want string) {
		t.Helper()
		if reply := r.offer(server, "127.0.0.1", "x@a.test", "y@a.test"); !strings.HasPrefix(reply, want) {
			t.Errorf("%s, want %s", reply, want)
		}
	}
	try("250")
	old, err := net.Dial("tcp", r.address(server))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	said := make([]byte, 1000)
	say := func(line, want string) {
		t.Helper()
		_, err := old.Write([]byte(line))
		n, err2 := old.Read(said)
		if err != nil || err2 != nil || !strings.HasPrefix(string(said[:n]), want) {
			t.Errorf("%q, %v, %v, want %s", said[:n], err, err2, want)
		}
	}
	say("", "220")

	smtps("milter gone { socket { type = inet; address = 127.0.0.1; port = " + nowhere + "; }; flags = { tempfail }; }")
	if list := reload(false); !slices.Contains(list, "smtps/milter gone") {
		t.Errorf("%q", list)
	}
	try("451 4.7.1")
	say("HELO x\r\n", "250")
	say("MAIL FROM:<x@a.test>\r\n", "250")

	smtps("policy_service gone { socket { type = unix; path = nowhere; }; relaying_clients = true; }")
	reload(false)
	try("451 4.3.5")

	write(t, r.dir+"/mt", "a.test nonsense:x:y:z\n")
	smtps("")
	if list := reload(true); len(list) != 1 || !strings.Contains(list[0], "/mt:1:") {
		t.Errorf("%q", list)
	}
	try("451 4.3.5")
	write(t, r.dir+"/mt", "a.test lmtp:\n")
	reload(false)
	try("250")
	smtps("milter a { socket { type = inet; address = 127.0.0.1; port = " + strconv.Itoa(1) + "; path = x; }; }")
	reload(true)
	try("250")
}
