package mta

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/listen"
	"meta1/mta/supervise"
)

// reconfigure writes the configuration with changes, old and new text in turns, and with more at its end.
func (r *running) reconfigure(more string, changes ...string) {
	r.t.Helper()
	write(r.t, r.dir+"/meta1.conf", strings.NewReplacer(changes...).Replace(config(r.dir, more)))
}

// reload applies it.
func (r *running) reload() {
	r.t.Helper()
	report, err := r.control.Reload(r.t.Context())
	if err != nil || len(report.Errors)+len(report.NeedRestart) > 0 {
		r.t.Fatalf("%+v, %v", report, err)
	}
	if r.status, err = r.control.Status(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// refusesReload has it refuse the configuration, for a reason, and checks that it listens where it did.
func (r *running) refusesReload(want string) {
	r.t.Helper()
	before := r.listens()
	report, err := r.control.Reload(r.t.Context())
	if err != nil || !strings.Contains(strings.Join(report.Errors, "\n"), want) || len(report.Changed) > 0 {
		r.t.Errorf("%+v, %v, want an error with %q", report, err, want)
	}
	if now := r.listens(); !slices.Equal(now, before) {
		r.t.Errorf("it listens on %q, not on %q", now, before)
	}
}

// listens are the sockets that it has.
func (r *running) listens() (all []string) {
	r.t.Helper()
	s, err := r.control.Status(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, l := range s.Listen {
		all = append(all, l.Section+" "+l.Address)
	}
	return all
}

// addresses are where a section listens.
func (r *running) addresses(section string) (all []string) {
	for _, l := range r.status.Listen {
		if l.Section == section {
			all = append(all, l.Address)
		}
	}
	return all
}

// greets reports whether a server greets at an address.
func greets(network, address string) bool {
	conn, err := net.Dial(network, address)
	if err != nil {
		return false
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	line, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.HasPrefix(line, "220 ")
}

// closed reports whether nobody listens at an address.
func closed(t *testing.T, network, address string) bool {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err == nil {
		_ = conn.Close()
	}
	return err != nil
}

const (
	firstSocket = "listen_socket { address = 127.0.0.1; port = 0; }"
	unixSocket  = "listen_socket { type = unix; path = in; }"
)

// TestReloadListens: sockets come and go with reloads. A session goes on when its socket goes, and a reload
// that fails opens and closes none.
func TestReloadListens(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	session, old := r.talk(t), r.address("smtps")
	session.say("EHLO x", "SIZE")

	// Another program has one of the addresses.
	taken := fmt.Sprintf("%s %s daemon_address = { %q };", unixSocket, firstSocket, other.Addr())
	r.reconfigure("", firstSocket, taken, "metrics { port = 0; pprof = true; }", "")
	r.refusesReload("address already in use")
	if _, err := os.Lstat(r.dir + "/spool/in"); err == nil {
		t.Error("the socket of a reload that failed is there")
	}
	if status, _ := r.get("/healthz"); status != http.StatusOK || !greets("tcp", old) {
		t.Errorf("status %d after a reload that failed", status)
	}

	r.reconfigure("", firstSocket, firstSocket+unixSocket+`daemon_address = { "127.0.0.1:0" };`)
	r.reload()
	all := r.addresses("smtps")
	if len(all) != 3 || all[0] != old || !greets("unix", r.dir+"/spool/in") || !greets("tcp", all[0]) || !greets("tcp", all[1]) {
		t.Fatalf("%q", all)
	}
	if info, err := os.Stat(r.dir + "/spool/in"); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("%v, %v", info, err)
	}
	session.say("NOOP", "250")

	// Its mode changes, with the other sockets gone; the session has come by one of them.
	r.reconfigure("", firstSocket, "listen_socket { type = unix; path = in; umask = 0; }")
	r.reload()
	if info, err := os.Stat(r.dir + "/spool/in"); err != nil || info.Mode().Perm() != 0o777 || !greets("unix", r.dir+"/spool/in") {
		t.Errorf("%v, %v", info, err)
	}
	if !closed(t, "tcp", all[0]) || !closed(t, "tcp", all[1]) {
		t.Error("a socket that went is open")
	}
	session.say("NOOP", "250")

	// A socket that another section takes is not closed in between.
	r.reconfigure("", firstSocket, firstSocket)
	r.reload()
	if _, err := os.Lstat(r.dir + "/spool/in"); err == nil {
		t.Error("the path of a socket that went is there")
	}
	if !greets("tcp", r.address("smtps")) {
		t.Error("no greeting")
	}
	session.say("QUIT", "221")
}

// TestReloadRefusesNobody: connections that come during reloads are all taken.
func TestReloadRefusesNobody(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	address, tried := r.address("smtps"), 0
	clients := supervise.NewGroup(t.Context())
	begun := make(chan struct{})
	clients.Go(func(ctx context.Context) error {
		for ctx.Err() == nil {
			if !greets("tcp", address) {
				return fmt.Errorf("connection %d was refused", tried)
			}
			if tried++; tried == 1 {
				close(begun)
			}
		}
		return nil
	})
	<-begun
	for i := range 20 {
		r.reconfigure("", firstSocket, firstSocket+strings.Repeat(unixSocket, i%2), "8bitmime }", fmt.Sprintf("8bitmime }; message_size_max = %d", 100+i))
		r.reload()
	}
	clients.Stop()
	if err := clients.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d connections", tried)
}

// TestReloadHTTP: the API over TCP and the metrics come, move and go, and the request is answered
// that has them go.
func TestReloadHTTP(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	write(t, r.dir+"/token", "0123456789abcdef0123456789abcdef\n")
	write(t, r.dir+"/token2", "abcdef0123456789abcdef0123456789\n")
	ask := func(method, path, token string) int {
		t.Helper()
		q, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.address("control/http")+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer "+token)
		a, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
		return a.StatusCode
	}
	const first, second = "0123456789abcdef0123456789abcdef", "abcdef0123456789abcdef0123456789"
	r.reconfigure(`control { http { port = 0; console = false; token_file = "`+r.dir+`/nothing"; } }`, "pprof = true", "pprof = false")
	r.refusesReload("nothing")
	if status, _ := r.get("/debug/pprof/cmdline"); status != http.StatusOK {
		t.Errorf("profiles: %d", status)
	}
	r.reconfigure(`control { http { port = 0; console = false; token_file = "`+r.dir+`/token"; } }`, "pprof = true", "pprof = false")
	r.reload()
	if status, _ := r.get("/debug/pprof/cmdline"); status != http.StatusNotFound {
		t.Errorf("profiles: %d", status)
	}
	if status := ask(http.MethodGet, "/status", first); status != http.StatusOK {
		t.Errorf("with the token: %d", status)
	}
	if status := ask(http.MethodGet, "/", first); status != http.StatusNotFound {
		t.Errorf("the console: %d", status)
	}
	r.reconfigure(`control { http { port = 0; token_file = "` + r.dir + `/token2"; } }`)
	r.reload()
	if old, now, page := ask(http.MethodGet, "/status", first), ask(http.MethodGet, "/status", second), ask(http.MethodGet, "/", ""); old != http.StatusUnauthorized || now != http.StatusOK || page != http.StatusOK {
		t.Errorf("old token %d, new token %d, console %d", old, now, page)
	}

	// The request that has the socket go by which it came is answered.
	api, metrics := r.address("control/http"), r.address("metrics")
	r.reconfigure("", "metrics { port = 0; pprof = true; }", "")
	if status := ask(http.MethodPost, "/reload", second); status != http.StatusOK {
		t.Errorf("the reload: %d", status)
	}
	if !closed(t, "tcp", api) || !closed(t, "tcp", metrics) {
		t.Error("a socket that went is open")
	}
}

// TestReloadControlTLS: the section tls of the API over TCP comes and goes while the socket stays.
func TestReloadControlTLS(t *testing.T) {
	r := start(t, "a.test lmtp:\n", "")
	makeFiles(t, r.dir)
	const without = `control { http { port = 0; token_file = tokens; } }`
	with := strings.Replace(without, "tokens;", `tokens; tls { cert_file = "`+r.dir+`/cert.pem"; key_file = "`+r.dir+`/key.pem"; }`, 1)
	status := func(scheme, address string) int {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+address+"/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer 0123456789-0123456789")
		a, err := client.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		_ = a.Body.Close()
		return a.StatusCode
	}
	r.reconfigure(without)
	r.reload()
	address := r.address("control/http")
	if got := status("http", address); got != http.StatusOK {
		t.Errorf("without TLS: %d", got)
	}
	r.reconfigure(with)
	r.reload()
	if now := r.address("control/http"); now != address {
		t.Errorf("the socket has moved from %s to %s", address, now)
	}
	if got := status("https", address); got != http.StatusOK {
		t.Errorf("with TLS: %d", got)
	}
	if got := status("http", address); got == http.StatusOK {
		t.Error("a request in plain text was answered")
	}
	r.reconfigure(without)
	r.reload()
	if got := status("http", address); got != http.StatusOK {
		t.Errorf("without TLS again: %d", got)
	}
}

// TestReloadActivated: a socket that systemd has passed stays when others come, and cannot be taken out by a reload.
func TestReloadActivated(t *testing.T) {
	passed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := passed.Addr().String()
	activated := fmt.Sprintf("listen_socket { address = 127.0.0.1; port = %d; }", passed.Addr().(*net.TCPAddr).Port)
	dir := shortDir(t)
	write(t, dir+"/meta1.conf", strings.Replace(config(dir, ""), firstSocket, activated, 1))
	write(t, dir+"/mt", "a.test lmtp:\n")
	write(t, dir+"/access", "cltaddr:127. relay\n")
	r := startIn(t, dir, func(s *Setup) { s.Inherited = listen.Handed([]listen.Passed{{Listener: passed}}) })
	r.reconfigure("", firstSocket, activated+unixSocket)
	r.reload()
	if !greets("tcp", address) || !greets("unix", dir+"/spool/in") {
		t.Errorf("%q", r.listens())
	}
	r.reconfigure("", firstSocket, unixSocket)
	r.refusesReload("systemd passes the socket " + address)
	if !greets("tcp", address) {
		t.Error("no greeting")
	}
}
