package mta

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"meta1/confparse"
	"meta1/mta/account"
	"meta1/mta/service"
	"meta1/mta/settings"
)

// TestReloadServices: services come, change and go; those that stay what they are are not touched, and a reload that fails leaves all
// as it is.
func TestReloadServices(t *testing.T) {
	dir := shortDir(t)
	if err := os.Chmod(dir, 0o755); err != nil { // for a program of another account
		t.Fatal(err)
	}
	write(t, dir+"/say", "echo $1; id -u\n")
	write(t, dir+"/stay", "echo $1 $$ >>$2\nexec sleep 1000\n")
	const says = `says { start_action = accept; path = "/bin/sh"; arguments = "sh DIR/say one"; processes_max = 3; listen_socket { address = 127.0.0.1; port = 0; } }
`
	const stays = `stays { start_action = wait; path = "/bin/sh"; arguments = "sh DIR/stay one DIR/pids"; }
`
	in := strings.NewReplacer("DIR", dir)
	r := start(t, "a.test lmtp:\n", in.Replace(says+stays))
	answer := func(address string) string {
		t.Helper()
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		b, _ := io.ReadAll(conn)
		return string(b)
	}
	pids := func(n int) (all []string) {
		t.Helper()
		eventually(t, "the programs run", func() bool {
			b, _ := os.ReadFile(dir + "/pids")
			all = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
			return len(b) > 0 && len(all) >= n
		})
		return all
	}
	apply := func(more string) {
		t.Helper()
		r.reconfigure(in.Replace(more))
		r.reload()
	}
	address := r.address("says")
	if got := answer(address); !strings.HasPrefix(got, "one\n") {
		t.Fatalf("%q", got)
	}
	pids(1)

	// One changes, another only its restart policy and log level, and a third comes.
	two := strings.Replace(says, "say one", "say two", 1)
	third := strings.NewReplacer("says {", "third {", "one", "three").Replace(says)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	_, taken, _ := net.SplitHostPort(other.Addr().String())
	r.reconfigure(in.Replace(two + stays + strings.Replace(third, "port = 0", "port = "+taken, 1)))
	r.refusesReload("address already in use")
	if got := answer(address); !strings.HasPrefix(got, "one\n") {
		t.Errorf("after a reload that failed: %q", got)
	}
	apply(two + strings.Replace(stays, "}", "failure_max = 7; log_level = 12; }", 1) + third)
	if now := r.address("says"); now != address {
		t.Errorf("the socket has moved from %s to %s", address, now)
	}
	eventually(t, "the new program answers", func() bool { return strings.HasPrefix(answer(address), "two\n") })
	gone := r.address("third")
	if got := answer(gone); !strings.HasPrefix(got, "three\n") {
		t.Errorf("%q", got)
	}
	if all := pids(1); len(all) != 1 {
		t.Errorf("a program that has not changed was started anew: %q", all)
	}

	// The number of processes grows: the one that runs stays. Then the program changes: both are started anew.
	three := strings.Replace(stays, "start_action", "processes_min = 2; processes_max = 2; start_action", 1)
	apply(two + strings.Replace(stays, "start_action", "processes_max = 2; start_action", 1))
	pids(2)
	apply(two + three)
	pids(3)
	apply(two + strings.Replace(three, "stay one", "stay two", 1))
	if all := pids(5); len(all) != 5 || !strings.HasPrefix(all[3], "two ") || !strings.HasPrefix(all[4], "two ") || !strings.HasPrefix(all[2], "one ") {
		t.Errorf("%q", all)
	}
	eventually(t, "the service has gone", func() bool { _, there := r.unit("third"); return !there && closed(t, "tcp", gone) })
	if _, metrics := r.get("/metrics"); strings.Contains(metrics, `service="third"`) || !strings.Contains(metrics, `meta1_mta_service_processes{service="stays"} 2`) {
		t.Errorf("metrics: %s", metrics)
	}

	// One that is given up is started anew, with its socket.
	apply(strings.Replace(two, "path = \"/bin/sh\"", "failure_max = 1; path = \"/nothing\"", 1))
	eventually(t, "it is given up", func() bool {
		if u, _ := r.unit("says"); u.State == "failed" {
			return true
		}
		if conn, err := net.Dial("tcp", r.address("says")); err == nil {
			_ = conn.Close()
		}
		return false
	})
	as, uid := "", ""
	if nobody, err := account.Lookup("nobody", ""); err == nil && os.Geteuid() == 0 {
		as, uid = "user = nobody; working_directory = \"/\"; ", "three\n65534\n"
		if nobody.UID != 65534 {
			uid = "three\n"
		}
	}
	apply(strings.NewReplacer("start_action", as+"start_action", "say one", "say three", "path = \"/bin/sh\"", "failure_max = 1; path = \"/bin/sh\"").Replace(says))
	eventually(t, "it runs again", func() bool { u, _ := r.unit("says"); return u.State == "up" })
	if got := answer(r.address("says")); !strings.HasPrefix(got, "three\n") || !strings.HasPrefix(got, uid) {
		t.Errorf("%q, want %q", got, uid)
	}
}

// TestReloadServicesOfOthers: services of other accounts stay as they are, but for their logs, and those that come wait; others change.
func TestReloadServicesOfOthers(t *testing.T) {
	dir := t.TempDir()
	load := func(text string) (*Config, *confparse.Result) {
		t.Helper()
		write(t, dir+"/meta1.conf", `working_directory = "`+dir+`"; `+text)
		c, result, err := settings.Load(dir+"/meta1.conf", confparse.LoadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return c, result
	}
	section := func(name, more string) string {
		return name + ` { start_action = wait; path = "/bin/sh"; ` + more + "}\n"
	}
	conf, result := load(section("a", "user = root; ") + section("gone", "user = root; ") + section("ours", ""))
	m := &mta{account: &account.Account{UID: 12345, GID: 12345}, conf: conf, dir: dir, programs: map[string]*runs{}}
	programs, err := programs(conf, dir, "", m.account)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range conf.Services {
		m.programs[s.Of.Section] = &runs{program: programs[i], action: service.Wait}
	}
	p := &reloading{mta: m, now: &effective{conf: conf, result: result}}
	p.conf, p.result = load(section("a", "user = root; arguments = x; log_level = 3; ") + section("come", "user = root; ") + section("ours", "arguments = y; ") + section("new", ""))
	p.compare()
	if len(p.errs) > 0 {
		t.Fatal(p.errs)
	}
	if got, want := strings.Join(paths(p.changed), " "), "a/log_level ours/arguments new gone"; got != want {
		t.Errorf("changed: %s, want %s", got, want)
	}
	if got, want := strings.Join(paths(p.pending), " "), "a/arguments come"; got != want {
		t.Errorf("needs a restart: %s, want %s", got, want)
	}
	for _, c := range p.pending {
		if c.Reload != confparse.Restart || c.Why != otherAccountWhy {
			t.Errorf("%+v", c)
		}
	}
	var fields, shown []string
	for _, s := range p.conf.Services {
		fields = append(fields, fmt.Sprintf("%s %q %d", s.Of.Section, s.Of.Arguments, s.Of.LogLevel))
	}
	p.result.Each(func(s *confparse.Section, v *confparse.Setting) {
		if v.IsSet && (v.Option.Name == "arguments" || v.Option.Name == "log_level") {
			shown = append(shown, s.Title()+" "+v.Text())
		}
	})
	if got, want := strings.Join(fields, ", "), `a "" 3, ours "y" 9, new "" 9`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := strings.Join(shown, ", "), "a 3, ours y"; got != want {
		t.Errorf("config shows %s, want %s", got, want)
	}
}

// TestServiceNeedsRestart: what this process may not start.
func TestServiceNeedsRestart(t *testing.T) {
	ours := &account.Account{UID: 7, GID: 8}
	for _, c := range []struct {
		account  *account.Account
		landlock bool
		uid, gid int
		want     string
	}{
		{nil, false, -1, 0, ""},
		{ours, false, 7, 8, ""},
		{ours, false, 7, 9, otherAccountWhy},
		{ours, false, 0, 8, otherAccountWhy},
		{ours, true, 7, 8, landlockWhy},
		{nil, true, -1, 0, landlockWhy},
	} {
		m := &mta{account: c.account, conf: &Config{Landlock: c.landlock}}
		if got := m.cannotStart(&service.Program{UID: c.uid, GID: c.gid}); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
