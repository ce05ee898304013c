package records

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/queue/entry"
)

// sampleKeys has a key of each kind.
func sampleKeys() []Key {
	ref := Ref{TA: smtp.ID{Counter: 1<<63 + 7, Process: 255}, Index: 1 << 30}
	message := Ref{TA: ref.TA}
	return []Key{
		{Kind: KindAccepted, Ref: message},
		{Kind: KindContent, Ref: message},
		{Kind: KindEnvelope, Ref: message},
		{Kind: KindEnded, Ref: ref},
		{Kind: KindDeferred, Ref: ref},
		{Kind: KindDue, Ref: ref, Time: entry.Never()},
		{Kind: KindDue, Ref: ref, Time: at(0)},
		{Kind: KindParked, Ref: ref, Dest: strings.Repeat("x", entry.DestMax)},
		{Kind: KindParked, Ref: ref, Dest: "\x00"},
		{Kind: KindAside, Old: "anything"},
		{Kind: KindIDs},
	}
}

func TestKeys(t *testing.T) {
	for _, k := range sampleKeys() {
		b := k.Bytes()
		got, err := ParseKey(b)
		if err != nil || !reflect.DeepEqual(got, k) {
			t.Errorf("%+v\nwant %+v, %v", got, k, err)
		}
		if k.Kind == KindAside {
			continue
		}
		for n := range b {
			if KnownKey(b[:n]) {
				t.Errorf("%c: a key of %d bytes out of %d is known", k.Kind, n, len(b))
			}
		}
		if KnownKey(append(b, 0)) {
			t.Errorf("%c: a key with a byte too many is known", k.Kind)
		}
	}
	for _, k := range []string{
		"", "\x00", "b", "x", "m", "r\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"p\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "n\xff" + strings.Repeat("\x00", 20),
		"p\x04\x01" + strings.Repeat("x", entry.DestMax+1+refLen),
	} {
		if _, err := ParseKey([]byte(k)); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("%q: %v, want ErrDamaged", k, err)
		}
	}
}

func TestKeysSort(t *testing.T) {
	order := []State{state(1, 9, at(5)), state(2, 0, at(5)), state(1, 0, at(6)), state(1, 0, at(1<<33))}
	for i := range order[1:] {
		if bytes.Compare(Indexes(&order[i])[0], Indexes(&order[i+1])[0]) >= 0 {
			t.Errorf("%d does not sort before %d", i, i+1)
		}
	}
}

// roundTrips are states and what is read of them, where that differs.
func roundTrips() map[string][2]State {
	whole := state(1, 2, at(77))
	odd := State{
		NextTry: time.Time{}, Stored: time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC), Waited: -time.Second,
		Dest: "not parked \x00 " + strings.Repeat("x", 2*entry.DestMax), Reason: "\xff\x00",
	}
	read := odd
	read.NextTry, read.Stored, read.Waited = at(0), entry.Never(), 0
	held := State{NextTry: entry.Never(), Stored: at(1), Held: true, Waited: time.Millisecond - 1}
	heldRead := held
	heldRead.Waited = 0
	zero := State{NextTry: at(0), Stored: at(0)}
	return map[string][2]State{"whole": {whole, whole}, "odd": {odd, read}, "held": {held, heldRead}, "zero": {zero, zero}}
}

func TestStates(t *testing.T) {
	for name, c := range roundTrips() {
		b, err := AppendState([]byte("before"), &c[0])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		b = b[len("before"):]
		got, err := DecodeState(c[0].Ref, b)
		if err != nil || !reflect.DeepEqual(got, c[1]) {
			t.Errorf("%s: %#v\nwant %#v, %v", name, got, c[1], err)
		}
		for n := range b {
			if _, err := DecodeState(Ref{}, b[:n]); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("%s: %d bytes out of %d: %v, want ErrDamaged", name, n, len(b), err)
			}
		}
		if _, err := DecodeState(Ref{}, append(b, 0)); err == nil {
			t.Errorf("%s: a byte too many is not noticed", name)
		}
	}
}

// TestForeignStates: what a later program may write is not misread.
func TestForeignStates(t *testing.T) {
	st := state(1, 0, at(1))
	good, err := AppendState(nil, &st)
	if err != nil {
		t.Fatal(err)
	}
	for at, b := range map[int]byte{0: 2, 1: 1 << 3, 2: 0x80, 10: 0x80} { // version, flag, times
		bad := bytes.Clone(good)
		bad[at] |= b
		if got, err := DecodeState(st.Ref, bad); err == nil {
			t.Errorf("byte %d: read as %#v", at, got)
		}
	}
	held := bytes.Clone(good)
	held[1] |= flagHeld
	if _, err := DecodeState(st.Ref, held); err == nil {
		t.Error("held, but with a time to try it")
	}
}

func TestEnvelopes(t *testing.T) {
	for _, e := range []Envelope{{env(1, 2), 1 << 40, true}, {env(1, 0), 0, false}} {
		b := AppendEnvelope(nil, &e)
		got, err := DecodeEnvelope(id(1), b)
		if len(e.Rcpts) == 0 {
			got.Rcpts = nil // DecodeEnvelope makes an empty list
		}
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v\nwant %+v, %v", got, e, err)
		}
		for n := range b {
			if _, err := DecodeEnvelope(id(1), b[:n]); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("%d bytes out of %d: %v, want ErrDamaged", n, len(b), err)
			}
		}
		if _, err := DecodeEnvelope(id(2), b); err == nil {
			t.Error("the envelope of another message is taken")
		}
		for i, bit := range []byte{2, 2} {
			bad := bytes.Clone(b)
			bad[i] |= bit
			if _, err := DecodeEnvelope(id(1), bad); err == nil {
				t.Errorf("byte %d of another format is taken", i)
			}
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, k := range sampleKeys() {
		f.Add(k.Bytes())
	}
	f.Add([]byte("\x00version"))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := ParseKey(b)
		if err == nil && k.Kind != KindStore && !bytes.Equal(k.Bytes(), b) {
			t.Errorf("%x is read as %+v, which is %x", b, k, k.Bytes())
		}
	})
}

func FuzzState(f *testing.F) {
	for _, c := range roundTrips() {
		if b, err := AppendState(nil, &c[0]); err == nil {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := DecodeState(Ref{TA: id(1)}, b)
		if err != nil {
			return
		}
		again, err := AppendState(nil, &st)
		if err != nil {
			t.Fatalf("%#v cannot be stored: %v", st, err)
		}
		if got, err := DecodeState(st.Ref, again); err != nil || !reflect.DeepEqual(got, st) {
			t.Errorf("%#v, %v; want %#v", got, err, st)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	f.Add(AppendEnvelope(nil, &Envelope{env(1, 2), 5, true}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEnvelope(id(1), b)
		if err != nil {
			return
		}
		if again, err := DecodeEnvelope(id(1), AppendEnvelope(nil, &e)); err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("%+v, %v; want %+v", again, err, e)
		}
	})
}
