package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// controlTokens are the tokens of the API of a test.
const (
	changeToken = "change-0123456789-change"
	readToken   = "read-0123456789-read"
)

// withAPI is a section control that serves the API at an address.
func withAPI(t *testing.T, addr, more string) string {
	dir := testDir(t)
	writeFile(t, dir+"/change", changeToken+"\n")
	writeFile(t, dir+"/read", "# of the console\n"+readToken+"\n")
	return fmt.Sprintf(`control { %s http { port = %s; token_file = "%s/change"; read_token_file = "%s/read"; } }`, more, port(t, addr), dir, dir)
}

// api asks the API over TCP; the body is JSON.
func apiAsk(addr, method, path, token, host, body string) (status int, answer string, err error) {
	r, err := http.NewRequest(method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if host != "" {
		r.Host = host
	}
	client := http.Client{Timeout: hangs}
	a, err := client.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	return a.StatusCode, string(text), err
}

// TestControlOverTCP: tokens give levels, a wrong name of the host gives nothing, nothing of a token is
// in the log, and a reload takes new tokens.
func TestControlOverTCP(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	global := withAPI(t, addr, "")
	m := run(t, settings{global: global})
	defer m.stop()
	for _, c := range []struct {
		method, path, token, host, body string
		status                          int
		has                             string
	}{
		{"GET", "/stats", readToken, "", "", 200, `"accepting":"yes"`},
		{"GET", "/queue/summary", readToken, "", "", 200, `"recipients":0`},
		{"GET", "/config", readToken, "mta.test", "", 200, `"hostname"`},
		{"GET", "/openapi.json", readToken, "", "", 200, `"3.1.0"`},
		{"GET", "/messages/S00000000000000100", readToken, "", "", 404, "nothing is known"},
		{"POST", "/explain", readToken, "", `{"client":"127.0.0.1","helo":"h","from":"a@b.test","to":["x@a.test"]}`, 200, `"stages"`},
		{"POST", "/reload", readToken, "", "{}", 403, "change"},
		{"POST", "/reload", changeToken, "", "{}", 200, "control"},
		{"GET", "/status", "", "", "", 401, "token"},
		{"GET", "/status", "wrong-0123456789-wrong", "", "", 401, "wrong"},
		{"GET", "/status", changeToken, "evil.example", "", 403, "Host"},
	} {
		status, text, err := apiAsk(addr, c.method, c.path, c.token, c.host, c.body)
		if err != nil || c.status != 0 && status != c.status || !strings.Contains(text, c.has) || status >= 500 {
			t.Errorf("%+v: %d %.300s %v", c, status, text, err)
		}
		if c.status == 200 && !json.Valid([]byte(text)) {
			t.Errorf("%+v: no JSON: %.100s", c, text)
		}
	}
	log, err := os.ReadFile(m.log)
	if err != nil || strings.Contains(string(log), "0123456789") || !strings.Contains(string(log), "control request refused") {
		t.Errorf("the log tells a token, or does not tell of refusals: %v", err)
	}
}

// TestControlPeers: strangers are refused at the Unix socket, and who is named gets in.
func TestControlPeers(t *testing.T) {
	t.Parallel()
	needRoot(t, "to be another account")
	status := func(m *mta, uid uint32) (string, error) {
		cmd := exec.Command(meta1(t), "ctl", "status", "--socket", m.spool+"/control")
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: 54321}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const friend, stranger = 54322, 54323
	m := run(t, settings{global: fmt.Sprintf("control { read_users = { %d }; }", friend)})
	defer m.stop()
	if out, err := status(m, friend); err != nil || !strings.Contains(out, "hostname") {
		t.Errorf("%s %v", out, err)
	}
	if out, err := status(m, stranger); err == nil || !strings.Contains(out, "may not use the control socket") {
		t.Errorf("%s %v", out, err)
	}
	if out, err := m.command("ctl", "status"); err != nil {
		t.Errorf("root: %s %v", out, err)
	}
}

// TestControlSteers: connections, limits and a drain of a running meta1.
func TestControlSteers(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	s.answer(func(verb, _ string) string { return map[string]string{"RCPT": "451 4.7.1 not now"}[verb] })
	m := run(t, settings{mailertable: toPort(t, "a.test", s.addr) + toPort(t, "client.test", s.addr)})
	if err := sendOne(m.smtp, testMessage(1, 100, "x@a.test")); err != nil {
		t.Fatal(err)
	}
	must(t, func() error { return m.queueShows(1, "4.7.1") })
	ctl := func(args ...string) string {
		t.Helper()
		out, err := m.command(append([]string{"ctl"}, args...)...)
		if err != nil {
			t.Errorf("%v: %s %v", args, out, err)
		}
		return out
	}
	if out := ctl("stats"); !strings.Contains(out, "accepted") {
		t.Error(out)
	}
	if out := ctl("top"); !strings.Contains(out, "4.7.1 not now") || strings.Contains(out, "\x1b") {
		t.Error(out)
	}
	k, err := dial(m.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	var all struct {
		Connections []struct{ ID, Direction, Peer, State string }
	}
	if err := json.Unmarshal([]byte(ctl("connections", "--json")), &all); err != nil || len(all.Connections) == 0 || all.Connections[0].Direction != "in" {
		t.Fatalf("%+v %v", all, err)
	}
	ctl("connections", "close", all.Connections[0].ID)
	must(t, func() error {
		if out := ctl("connections"); strings.Contains(out, all.Connections[0].ID) {
			return fmt.Errorf("it is still there: %s", out)
		}
		return nil
	})
	if out, err := m.command("ctl", "connections", "close", "S0"); err == nil {
		t.Errorf("nothing was closed: %s", out)
	}
	if out := ctl("throttle", "set", "in_open", "0", "--net", "127.0.0.0/8", "--for", "1h", "--reason", "a test"); !strings.Contains(out, "a test") {
		t.Error(out)
	}
	if err := sendOne(m.smtp, testMessage(2, 100, "x@a.test")); err == nil || !strings.Contains(err.Error(), "421") {
		t.Errorf("beyond the limit: %v", err)
	}
	ctl("throttle", "clear", "--all")
	if out, err := m.command("queue", "hold", "--reason", "4.9.9"); err != nil || !strings.Contains(out, "hold: 0 rec") {
		t.Errorf("another reason: %s %v", out, err)
	}
	must(t, func() error { // it may be on its way
		out, err := m.command("queue", "hold", "--reason", "4.7.1 NOT", "--max-age", "1h")
		if err == nil && !strings.Contains(out, "hold: 1 rec") {
			err = fmt.Errorf("by reason: %s", out)
		}
		return err
	})
	ctl("drain", "--keep", "--wait", "--reason", "an upgrade")
	if err := sendOne(m.smtp, testMessage(3, 100, "x@a.test")); err == nil || !strings.Contains(err.Error(), "421 4.3.2 no mail is taken now: an upgrade") {
		t.Errorf("drained: %v", err)
	}
	if _, err := m.get("/readyz"); err == nil || !strings.Contains(err.Error(), "an upgrade") {
		t.Errorf("readiness: %v", err)
	}
	if _, err := m.get("/healthz"); err != nil {
		t.Errorf("health: %v", err)
	}
	ctl("drain", "--cancel")
	if err := sendOne(m.smtp, testMessage(4, 100, "x@a.test")); err != nil {
		t.Errorf("after the drain: %v", err)
	}
	if out := ctl("drain", "--wait", "--until", "20s"); !strings.Contains(out, "ended") {
		t.Error(out)
	}
	<-m.ended
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}
