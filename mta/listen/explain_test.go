package listen

import (
	"errors"
	"net"
	"strings"
	"testing"
)

// TestExplain: a socket that cannot be bound is told with those that systemd has passed instead.
func TestExplain(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	in := &Inherited{left: []Passed{{Listener: l}}}
	denied := errors.New("denied")
	if err := in.Explain(denied); !errors.Is(err, denied) || !strings.Contains(err.Error(), "systemd passes other sockets: "+l.Addr().String()) {
		t.Error(err)
	}
	if err := in.Explain(nil); err != nil {
		t.Error(err)
	}
	if err := in.Unused(); err == nil || !strings.Contains(err.Error(), l.Addr().String()) {
		t.Error(err)
	}
	// Those of another meta1 are no unit's, and nothing is left after Unused.
	for _, in := range []*Inherited{nil, in, Handed([]Passed{{Listener: l}})} {
		if err := in.Explain(denied); err != denied {
			t.Error(err)
		}
	}
}
