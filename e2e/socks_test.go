package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// startPeer starts a program that listens on an address, ends it with the test and returns
// where its output goes.
func startPeer(t *testing.T, addr string, cmd *exec.Cmd) (log string) {
	t.Helper()
	log = testDir(t) + "/log"
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Start()
	_ = f.Close() // the program has it
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // so that it ends its own processes, too
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		<-ended
		kill.Stop()
	})
	must(t, func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", cmd.Path, err, readFile(t, log))
		default:
		}
		nc, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			err = nc.Close()
		}
		return err
	})
	return log
}

// socks is a section proxy for addr.
func socks(t *testing.T, addr, more string) string {
	return fmt.Sprintf("proxy { type = inet; address = 127.0.0.1; port = %s; %s }", port(t, addr), more)
}

// TestSOCKS sends through real SOCKS5 proxies (README 3.11, item 7).
func TestSOCKS(t *testing.T) {
	t.Parallel()
	const n = 20
	make := func(id int) message { return testMessage(id, 3000, fmt.Sprintf("u%d@sink.test", id)) }

	t.Run("microsocks with a key", func(t *testing.T) {
		t.Parallel()
		s, at := newSink(t, ""), freeAddr(t)
		m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtpc: socks(t, at, `proxy_key = "sesame";`)})
		sendAll(t, m.smtp, 5, n, make)
		must(t, func() error { return m.queueShows(n, "the proxy failed") }) // it does not run yet
		log := startPeer(t, at, peerCommand(t, "microsocks", "-i", "127.0.0.1", "-p", port(t, at), "-u", "meta1", "-P", "sesame"))
		s.waitFor(n)
		m.queueEmpty()
		checkArrivals(t, s, n, make)
		if !bytes.Contains([]byte(readFile(t, log)), []byte(s.addr)) {
			t.Errorf("the proxy did not connect to %s:\n%s", s.addr, readFile(t, log))
		}
	})
	t.Run("microsocks with another key", func(t *testing.T) {
		t.Parallel()
		s, at := newSink(t, ""), freeAddr(t)
		startPeer(t, at, peerCommand(t, "microsocks", "-i", "127.0.0.1", "-p", port(t, at), "-u", "meta1", "-P", "sesame"))
		m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtpc: socks(t, at, `proxy_key = "wrong";`)})
		sendAll(t, m.smtp, 5, n, make)
		must(t, func() error { return m.queueShows(n, "the proxy failed") })
		if got := s.count(); got != 0 {
			t.Errorf("%d messages arrived", got)
		}
	})
	t.Run("dante", func(t *testing.T) {
		t.Parallel()
		s, at := newSink(t, ""), freeAddr(t)
		conf := testDir(t) + "/danted.conf"
		writeFile(t, conf, fmt.Sprintf(`logoutput: stderr
internal: 127.0.0.1 port = %s
external: 127.0.0.1
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 127.0.0.0/8 to: 0.0.0.0/0 }
socks pass { from: 127.0.0.0/8 to: 0.0.0.0/0 log: connect }
`, port(t, at)))
		log := startPeer(t, at, peerCommand(t, "danted", "-f", conf, "-p", testDir(t)+"/pid"))
		m := run(t, settings{mailertable: toPort(t, ".", s.addr), smtpc: socks(t, at, "")})
		s.close() // the proxy answers, and the host does not
		sendAll(t, m.smtp, 5, n, make)
		must(t, func() error { return m.queueShows(n, "the proxy says: connection refused") })
		s.open()
		s.waitFor(n)
		m.queueEmpty()
		checkArrivals(t, s, n, make)
		must(t, func() error {
			if _, p, _ := net.SplitHostPort(s.addr); !bytes.Contains([]byte(readFile(t, log)), []byte("."+p)) {
				return errors.New("the proxy did not log the connection")
			}
			return nil
		})
	})
}
