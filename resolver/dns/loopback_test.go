package dns

import (
	"net/netip"
	"testing"
)

func TestLoopbackNeedsNoDNS(t *testing.T) {
	for _, ip := range []string{"127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"} {
		n, ok := FindClientName(netip.MustParseAddr(ip), "mx.example", func(name string, _ uint16) *Answer {
			t.Errorf("%s: asked for %s", ip, name)
			return nil
		})
		if !ok || n.Name != "localhost." || n.Result != ResolveOK {
			t.Errorf("%s: %+v, %v", ip, n, ok)
		}
	}
}
