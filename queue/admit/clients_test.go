package admit

import (
	"net/netip"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/budget"
	"meta1/queue/conf"
)

func table(cfg conf.SMTPSConfig, b *budget.Budget) *Clients {
	rules := &conf.Rules{Table: &conf.Table{}}
	return New(func() Limits { return Limits{&cfg, rules} }, b, &msg.Throttles{})
}

func addr(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }

func id(n int) smtp.ID { return smtp.ID{Counter: uint64(n)} }

// TestRate: a client has so many connections within any minute, those that were refused
// included, and as many again when they are over.
func TestRate(t *testing.T) {
	c := table(conf.SMTPSConfig{RateMax: 10, ConnectionsMax: 100, CacheSize: 16}, nil)
	now := time.Unix(1000, 0)
	in := 0
	try := func(n int) {
		for range n {
			if _, refusal := c.Connect(id(in), addr(1), now); refusal.IsZero() {
				in++
			}
		}
	}
	if try(30); in != 10 {
		t.Errorf("%d of 30 were let in at once", in)
	}
	now = now.Add(90 * time.Second) // half of the 30 count still
	if try(5); in != 10 {
		t.Errorf("%d of 5 were let in after a minute and a half", in-10)
	}
	now = now.Add(2 * time.Minute)
	if try(30); in != 20 {
		t.Errorf("%d of 30 were let in after two more minutes", in-10)
	}
}

// TestOpen: open sessions count until they end, once each, and those of another instance never.
func TestOpen(t *testing.T) {
	c := table(conf.SMTPSConfig{RateMax: 1000, ConnectionsMax: 2, CacheSize: 16}, budget.New(16))
	now := time.Unix(1000, 0)
	connect := func(n int) bool {
		_, refusal := c.Connect(id(n), addr(1), now)
		return refusal.IsZero()
	}
	if !connect(1) || !connect(2) || connect(3) {
		t.Fatal("two of three sessions are to be let in")
	}
	c.End(id(99))
	if connect(4) {
		t.Error("a session that is not known has ended, and made room")
	}
	c.End(id(1))
	c.End(id(1))
	if !connect(5) || connect(6) {
		t.Error("one that has ended twice makes room for one")
	}
}

// TestGrant: a session has one grant at a time, and none when it has ended.
func TestGrant(t *testing.T) {
	b := budget.New(16)
	c := table(conf.SMTPSConfig{RateMax: 1000, ConnectionsMax: 100, CacheSize: 16}, b)
	now := time.Unix(1000, 0)
	c.Connect(id(1), addr(1), now)
	for n := range 100 {
		if !c.Grant(id(1), id(100+n), now) {
			t.Fatalf("transaction %d of one session is not granted", n)
		}
	}
	if _, _, granted, _ := b.Used(); granted != 1 {
		t.Errorf("a session has %d grants", granted)
	}
	c.End(id(1))
	if _, _, granted, _ := b.Used(); granted != 0 {
		t.Errorf("%d grants are left", granted)
	}
}

// TestTableIsBounded: a full table forgets clients that are gone; while all are open, others
// are let in without being counted.
func TestTableIsBounded(t *testing.T) {
	c := table(conf.SMTPSConfig{RateMax: 1000, ConnectionsMax: 1, CacheSize: 16}, budget.New(16))
	now := time.Unix(1000, 0)
	for n := range 40 {
		if _, refusal := c.Connect(id(n), addr(byte(n)), now); !refusal.IsZero() {
			t.Fatalf("client %d: %v", n, refusal)
		}
	}
	if len(c.clients) != 16 {
		t.Errorf("%d clients are counted", len(c.clients))
	}
	for n := range 40 {
		c.End(id(n))
	}
	now = now.Add(2 * rateWindow)
	c.Connect(id(50), addr(50), now)
	if len(c.clients) != 1 || len(c.sessions) != 1 {
		t.Errorf("%d clients and %d sessions are left", len(c.clients), len(c.sessions))
	}
}

// TestWould: what would become of a session is what becomes of it, and to ask changes nothing.
func TestWould(t *testing.T) {
	c := table(conf.SMTPSConfig{RateMax: 3, ConnectionsMax: 2, CacheSize: 16}, budget.New(16))
	now := time.Unix(1000, 0)
	for n := range 8 {
		for range 5 {
			would := c.Would(addr(1), "", now)
			if want := n >= 2; would.IsZero() == want {
				t.Fatalf("session %d would be refused with %v", n, would)
			}
		}
		_, refusal := c.Connect(id(n), addr(1), now)
		if refusal.IsZero() != (n < 2) {
			t.Fatalf("session %d: %v", n, refusal)
		}
	}
	c.End(id(0))
	c.End(id(1))
	if r := c.Would(addr(1), "", now); r.IsZero() {
		t.Error("nine connections within a minute leave room for a tenth")
	}
	if r := c.Would(addr(1), "", now.Add(3*rateWindow)); !r.IsZero() {
		t.Errorf("three minutes later: %v", r)
	}
	if r := c.Would(addr(2), "", now); !r.IsZero() {
		t.Errorf("another client: %v", r)
	}
}
