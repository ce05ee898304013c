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

// TestEnvelopeVersions: what earlier programs can read is written so that they do, and
// flags that they would pass over are in a version that they refuse.
func TestEnvelopeVersions(t *testing.T) {
	for _, tt := range []struct {
		mail    Mail
		version byte
	}{
		{Mail{UTF8: true, VERP: true, Body: "8BITMIME"}, 1},
		{Mail{RequireTLS: true}, 2},
		{Mail{TLSOptional: true, VERP: true}, 2},
		{Mail{Body: smtp.BodyBinary}, 2},
	} {
		e := &Envelope{Arrival: time.Unix(0, 0), Mail: tt.mail, Rcpts: []Rcpt{}}
		b := AppendEnvelope(nil, e)
		if b[0] != tt.version {
			t.Errorf("%+v has version %d, want %d", tt.mail, b[0], tt.version)
		}
		if got, err := DecodeEnvelope(b); err != nil || got.Mail != tt.mail {
			t.Errorf("%+v came back as %+v, %v", tt.mail, got, err)
		}
		b[0] = 1
		if _, err := DecodeEnvelope(b); (err != nil) != (tt.version > 1) {
			t.Errorf("%+v as version 1: %v", tt.mail, err)
		}
		b[0] = 3
		if _, err := DecodeEnvelope(b); err == nil {
			t.Error("version 3 was read")
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
	whole[0] = envelopeVersionFlags + 1
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
