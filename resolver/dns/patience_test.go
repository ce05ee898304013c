package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	mdns "github.com/miekg/dns"
)

// TestPatience: a name that did not resolve gets more time in each further try of mail
// that waits; a client that waits for an answer waits no longer than before.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		cfg := Config{Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53")}, Retries: 1, Timeout: 4 * time.Second, CacheSize: 1 << 20}
		c, err := New(cfg, Deps{Dial: silent})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		took := func(ctx context.Context, name string) time.Duration {
			t.Helper()
			time.Sleep(failureTTL + time.Second)
			start := time.Now()
			if a := c.Lookup(ctx, name, mdns.TypeMX); a.Status != Temporary {
				t.Errorf("%s: %v", name, a.Status)
			}
			return time.Since(start)
		}
		mail := Patient(t.Context())
		for i, want := range []time.Duration{8 * time.Second, 16 * time.Second, 32 * time.Second, 32 * time.Second} {
			if got := took(mail, "slow.example."); got != want {
				t.Errorf("try %d took %v, want %v", i+1, got, want)
			}
		}
		if got := took(t.Context(), "slow.example."); got != 8*time.Second {
			t.Errorf("a client waited %v", got)
		}
		if got := took(mail, "other.example."); got != 8*time.Second {
			t.Errorf("another name took %v", got)
		}
		time.Sleep(lateTTL)
		if got := took(mail, "slow.example."); got != 8*time.Second {
			t.Errorf("a day later it took %v", got)
		}
	})
}

// TestLateIsBounded: what is remembered is bounded, and ends with an answer; no lookup takes
// longer than maxPatience unless it is configured so.
func TestLateIsBounded(t *testing.T) {
	l, now := late{}, time.Now()
	slow := &Answer{Status: Temporary}
	for i := range maxLate + 100 {
		l.note(key{fmt.Sprint(i), mdns.TypeA}, slow, now)
	}
	if len(l) != maxLate {
		t.Errorf("%d names", len(l))
	}
	k := key{"x.", mdns.TypeA}
	for range 100 {
		l.note(k, slow, now)
	}
	for _, of := range []Config{{Timeout: 4 * time.Second, Retries: 3}, {Timeout: 2 * time.Minute, Retries: 20}, {Timeout: time.Second}} {
		got := l.timeout(k, &of, now)
		if got < of.Timeout || got > max(of.Timeout, maxPatience/time.Duration(of.Retries+1)) {
			t.Errorf("%+v: %v", of, got)
		}
	}
	for _, a := range []*Answer{{Status: Success}, {Status: Temporary, Refused: true}} {
		l.note(k, slow, now)
		if l.note(k, a, now); l[k].fails != 0 {
			t.Errorf("%+v: it is still late", a)
		}
	}
}
