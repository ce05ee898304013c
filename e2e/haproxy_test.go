package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"meta1/mta/tlsconf/tlstest"
)

// startHAProxy starts HAProxy with some frontends, and waits until each of addrs is listened
// on. It ends with the test.
func startHAProxy(t *testing.T, sections string, addrs ...string) {
	t.Helper()
	conf := testDir(t) + "/haproxy.cfg"
	writeFile(t, conf, "defaults\n  mode tcp\n  timeout connect 60s\n  timeout client 300s\n  timeout server 300s\n"+sections)
	log, err := os.Create(conf + ".log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := peerCommand(t, "haproxy", "-db", "-f", conf)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("haproxy says:\n%s", readFile(t, conf+".log"))
		}
	})
	for _, addr := range addrs {
		must(t, func() error {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				c.Close()
			}
			return err
		})
	}
}

// TestHAProxy: mail through a real proxy, with both versions of its header, with TLS that ends
// there and with TLS that ends here, and its checks whether the server is alive.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	dir := testDir(t)
	cert := tlstest.SelfSigned(t, tlstest.Spec{CN: "mta.test", Names: []string{"mta.test"}})
	certFile, keyFile := cert.Write(t, dir, "mta")
	writeFile(t, dir+"/both.pem", readFile(t, certFile)+readFile(t, keyFile))
	m := newMTA(t, settings{mailertable: toPort(t, ".", s.addr), smtps: fmt.Sprintf(
		`proxy { address = 127.0.0.9; } tls { cert_file = %q; key_file = %q; flags = { dont_request_cert }; }`, certFile, keyFile)})
	writeFile(t, m.dir+"/access", "cltaddr:127.0.0.5 relay\ncltaddr:127.0.0.6 error:550 5.7.1 Not you\n")
	m.launch()
	v1, v2, ended := freeAddr(t), freeAddr(t), freeAddr(t)
	var sections strings.Builder
	for _, f := range []struct{ addr, bind, send string }{
		{v1, "", "send-proxy"},
		{v2, "", "send-proxy-v2 proxy-v2-options crc32c,unique-id check check-send-proxy inter 200ms"},
		{ended, " ssl crt " + dir + "/both.pem", "send-proxy-v2 proxy-v2-options ssl,cert-cn,authority"},
	} {
		name := "p" + port(t, f.addr)
		fmt.Fprintf(&sections, "frontend %s\n  bind %s%s\n  unique-id-format %%pid-%%rt\n  default_backend b%s\nbackend b%s\n  source 127.0.0.9\n  server m %s %s\n",
			name, f.addr, f.bind, name, name, m.smtp, f.send)
	}
	startHAProxy(t, sections.String(), v1, v2, ended)
	must(t, func() error { // meta1 listens, and HAProxy has found that out
		k, err := smtpFrom("127.0.0.5", v2, nil)
		if err == nil {
			k.close()
		}
		return err
	})

	client := &tls.Config{InsecureSkipVerify: true, ServerName: "mta.test", MinVersion: tls.VersionTLS12} // #nosec G402 - of a test
	for i, c := range []struct {
		name, addr string
		implicit   *tls.Config
		starttls   bool
	}{
		{"version 1", v1, nil, false},
		{"version 2", v2, nil, false},
		{"TLS ends at the proxy", ended, client, false},
		{"TLS ends here", v2, nil, true},
	} {
		k, err := smtpFrom("127.0.0.5", c.addr, c.implicit)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if c.starttls {
			if _, err := k.cmd("STARTTLS"); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			k.over(tls.Client(k.c, client))
			if _, err := k.cmd("EHLO client.test"); err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		if err := k.send(testMessage(i, 1000, "joe@sink.test")); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		k.close()
	}
	s.waitFor(4)
	for _, a := range s.arrivals() {
		says(t, string(a.data), "[127.0.0.5]")
	}
	if k, err := smtpFrom("127.0.0.6", v1, nil); err == nil || !strings.Contains(err.Error(), "550 5.7.1 Not you") {
		t.Errorf("a refused client behind the proxy: %v", err)
		if err == nil {
			k.close()
		}
	}
	if _, err := smtpFrom("127.0.0.5", m.smtp, nil); err == nil || !strings.Contains(err.Error(), "554 5.7.1 Only a proxy") {
		t.Errorf("past the proxy: %v", err)
	}
	m.alive()
	m.stop()
	log := readFile(t, m.log)
	says(t, log, "client_ip=127.0.0.5, client_name=localhost., proxy=127.0.0.9", "proxy_tls=TLSv1.3", "proxy_sni=mta.test", "proxy_id=")
	if strings.Contains(log, "wrong checksum") {
		t.Error("a checksum was found wrong")
	}
}

// smtpFrom connects from an address, with TLS first if it is given, and says EHLO.
func smtpFrom(from, addr string, first *tls.Config) (*smtpConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: hangs}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if first != nil {
		c = tls.Client(c, first)
	}
	k := &smtpConn{}
	k.over(c)
	return k.greeted()
}

// TestSwaksXClient: swaks names its client.
func TestSwaksXClient(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	m := newMTA(t, settings{mailertable: toPort(t, ".", s.addr), smtps: "authorized_xclient_hosts = { 127.0.0.1 };"})
	writeFile(t, m.dir+"/access", "cltaddr:127. relay\ncltaddr:203.0.113.5 relay\ncltaddr:203.0.113.66 error:550 5.7.1 Nor you\ncltname:x.bad.example. error:550 5.7.1 Not you\n")
	m.start()
	swaks := func(args ...string) (string, error) {
		return output(peerCommand(t, "swaks", append([]string{"--server", m.smtp, "--helo", "swaks.test", "--from", "a@client.test", "--to", "b@sink.test"}, args...)...))
	}
	out, err := swaks("--xclient-addr", "203.0.113.5", "--xclient-name", "client.good.example", "--xclient-port", "4711", "--xclient-proto", "ESMTP")
	if err != nil {
		t.Fatalf("swaks: %v\n%s", err, out)
	}
	s.waitFor(1)
	says(t, string(s.arrivals()[0].data), "Received: from swaks.test (client.good.example [203.0.113.5])")
	if out, err = swaks("--xclient-addr", "203.0.113.7", "--xclient-name", "x.bad.example"); err == nil || !strings.Contains(out, "550 5.7.1 Not you") {
		t.Errorf("a client with a bad name: %v\n%s", err, out)
	}
	if out, err = swaks("--xclient-addr", "203.0.113.66"); err == nil || !strings.Contains(out, "550 5.7.1 Nor you") {
		t.Errorf("a client with a bad address: %v\n%s", err, out)
	}
	m.stop()
}

// over makes the connection, or TLS over it, the one of the session.
func (k *smtpConn) over(c net.Conn) {
	k.c, k.r, k.w = c, bufio.NewReader(c), bufio.NewWriterSize(c, 32<<10)
	_ = c.SetDeadline(time.Now().Add(hangs)) // one that takes none only hangs the test
}
