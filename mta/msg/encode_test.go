package msg

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"meta1/mta/smtp"
)

func sampleEnvelope() *Envelope {
	return &Envelope{
		TA: smtp.ID{Counter: 0x407CE492, Process: 3}, Session: smtp.ID{Counter: 1},
		Arrival: time.Unix(1700000000, 123456789),
		Client:  Client{IP: netip.MustParseAddr("2001:db8::1"), Port: 4242, Helo: "h", Name: "n.", Resolve: "ok", Protocol: "ESMTP"},
		Mail:    Mail{From: smtp.Path{Local: "a", Domain: "b.test"}, Size: 77, Body: "8BITMIME", Ret: "HDRS", EnvID: "x+2B", UTF8: true, VERP: true},
		Rcpts: []Rcpt{
			{To: smtp.Path{Local: "c", Domain: "d.test"}, Notify: "NEVER", ORcpt: "rfc822;c@d.test"},
			{To: smtp.Path{Local: "postmaster"}},
		},
		Expanded: true,
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	for _, e := range []*Envelope{sampleEnvelope(), {Arrival: time.Unix(0, 0), Rcpts: []Rcpt{}}} {
		got, err := DecodeEnvelope(AppendEnvelope(nil, e))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, e) {
			t.Errorf("got  %+v\nwant %+v", got, e)
		}
	}
}

func TestDecodeEnvelopeRefusesEveryCut(t *testing.T) {
	whole := AppendEnvelope(nil, sampleEnvelope())
	for n := range whole {
		if _, err := DecodeEnvelope(whole[:n]); err == nil {
			t.Fatalf("a record cut to %d of %d bytes was accepted", n, len(whole))
		}
	}
	if _, err := DecodeEnvelope(append(whole, 0)); err == nil {
		t.Error("a record with a byte too many was accepted")
	}
	whole[0]++
	if _, err := DecodeEnvelope(whole); err == nil {
		t.Error("a record of an unknown version was accepted")
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	f.Add(AppendEnvelope(nil, sampleEnvelope()))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEnvelope(b)
		if err != nil {
			return
		}
		again, err := DecodeEnvelope(AppendEnvelope(nil, e))
		if err != nil || !reflect.DeepEqual(e, again) {
			t.Fatalf("%v: %+v became %+v", err, e, again)
		}
	})
}
