package e2e

import (
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// nameServer answers for domains without DNSSEC, as records say: "mx.a.test. A" -> data. It ends
// with the test. What is not named has no records.
func nameServer(t *testing.T, records map[string][]string) (port string) {
	t.Helper()
	udp, tcp := udpAndTCP(t)
	handler := dns.HandlerFunc(func(rw dns.ResponseWriter, q *dns.Msg) {
		r := new(dns.Msg).SetReply(q)
		kind := dns.TypeToString[q.Question[0].Qtype]
		for _, data := range records[strings.ToLower(q.Question[0].Name)+" "+kind] {
			if rr, err := dns.NewRR(q.Question[0].Name + " 60 IN " + kind + " " + data); err == nil {
				r.Answer = append(r.Answer, rr)
			}
		}
		_ = rw.WriteMsg(r)
	})
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		ended, started := make(chan error, 1), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- s.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}
	_, port, _ = net.SplitHostPort(udp.LocalAddr().String())
	return port
}

// udpAndTCP listens on one port, which somebody else's connection may hold with TCP: then it takes another.
func udpAndTCP(t *testing.T) (net.PacketConn, net.Listener) {
	t.Helper()
	for try := 1; ; try++ {
		udp, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		tcp, err := net.Listen("tcp", udp.LocalAddr().String())
		if err == nil {
			return udp, tcp
		}
		_ = udp.Close()
		if try == 20 {
			t.Fatal(err)
		}
	}
}
