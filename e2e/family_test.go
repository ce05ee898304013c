package e2e

import (
	"fmt"
	"net"
	"testing"
)

// TestFamilies: a host whose first address nobody serves takes mail at its address of the other
// family, and a host that has IPv6 alone gets its mail by that.
func TestFamilies(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skipf("no IPv6 on the loopback interface: %v", err)
	}
	_ = l.Close()
	smtpPort := port(t, freeAddr(t))
	dns := nameServer(t, map[string][]string{
		"both.test. MX": {"10 mx.both.test."}, "mx.both.test. A": {"127.0.8.9"}, "mx.both.test. AAAA": {"::1"},
		"six.test. MX": {"10 mx.six.test."}, "mx.six.test. AAAA": {"::1"},
	})
	s := newSink(t, "[::1]:"+smtpPort)
	m := run(t, settings{
		smar:  fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; }", dns),
		smtpc: "remote_port = " + smtpPort + ";",
	})
	for i, to := range []string{"a@both.test", "b@six.test"} {
		msg := testMessage(i, 500, to)
		msg.from = "" // of no domain that DNS would have to know
		if err := sendOne(m.smtp, msg); err != nil {
			t.Fatal(err)
		}
	}
	s.waitFor(2)
	m.queueEmpty()
	for _, words := range [][]string{
		{"not connected", "addr=127.0.8.9", "mx.both.test"},
		{"delivered", "a@both.test", "relay=mx.both.test[::1]"},
		{"delivered", "b@six.test", "relay=mx.six.test[::1]"},
	} {
		must(t, func() error {
			if lineWith(readFile(t, m.log), words...) == "" {
				return fmt.Errorf("no line of the log has %q", words)
			}
			return nil
		})
	}
}
