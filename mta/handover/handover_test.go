package handover

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meta1/mta/msg"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair makes both ends of a dialogue.
func pair(t *testing.T) (ours, theirs *Link) {
	t.Helper()
	ours, f, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if theirs, err = newLink(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ours.Close)
	t.Cleanup(theirs.Close)
	return ours, theirs
}

func receive(t *testing.T, l *Link) (Message, []net.Listener) {
	t.Helper()
	m, listeners, err := l.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m, listeners
}

// TestDialogue passes more sockets than one message takes, in their order, with what waits in their
// backlogs; the first process can go on to use its own.
func TestDialogue(t *testing.T) {
	ours, theirs := pair(t)
	var listeners []net.Listener
	var about []Socket
	for i := range socketsOnce + 1 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		listeners, about = append(listeners, l), append(about, Socket{Unlink: i%2 == 0})
	}
	last := listeners[socketsOnce]
	waits, err := net.Dial("tcp4", last.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Close()
	if err := ours.SendOffer(Message{Version: "1.0", PID: 4711, Spool: "/spool"}, listeners, about); err != nil {
		t.Fatal(err)
	}
	m, got := receive(t, theirs)
	if m.Step != Offer || m.Version != "1.0" || m.PID != 4711 || m.Spool != "/spool" || !m.More || len(got) != socketsOnce {
		t.Fatalf("%+v with %d sockets", m, len(got))
	}
	m, more := receive(t, theirs)
	if m.More || len(more) != 1 || !m.Sockets[0].Unlink {
		t.Fatalf("%+v with %d sockets", m, len(more))
	}
	for i, l := range append(got, more...) {
		if l.Addr().String() != listeners[i].Addr().String() {
			t.Errorf("socket %d is %v", i, l.Addr())
		}
		defer l.Close()
	}
	if c, err := more[0].Accept(); err != nil || c.RemoteAddr().String() != waits.LocalAddr().String() {
		t.Errorf("the waiting connection: %v", err)
	} else {
		_ = c.Close()
	}
	// A blocking socket would hang here for ever.
	if err := last.(*net.TCPListener).SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := last.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the first process accepts: %v", err)
	}
	limit := msg.Throttle{Kind: "in_open", Max: 3, Reason: "flood", Set: time.Unix(1, 0).UTC()}
	if err := theirs.Send(Message{Step: Yours, Throttles: []msg.Throttle{limit}}); err != nil {
		t.Fatal(err)
	}
	if m, _ = receive(t, ours); m.Step != Yours || len(m.Throttles) != 1 || m.Throttles[0] != limit {
		t.Errorf("%+v", m)
	}
	theirs.Fail(errors.New("no space"))
	theirs.Close()
	if m, _ = receive(t, ours); m.Step != Failed || m.Error != "no space" {
		t.Errorf("%+v", m)
	}
	if _, _, err := ours.Receive(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("after the end: %v", err)
	}
	if err := ours.Send(Message{Step: Done}); !errors.Is(err, ErrGone) {
		t.Errorf("sending after the end: %v", err)
	}
}

// TestReceiveBad: what is no message is an error, and nothing is waited for beyond the end of a context.
func TestReceiveBad(t *testing.T) {
	for text, want := range map[string]string{
		"\xff\xff\xff\xff":                                  "a message of 4294967295 bytes",
		"\x00\x00\x00\x02{]":                                "reading a message of the handover",
		"\x00\x00\x00\x0e{\"protocol\":9}":                  "protocol 9",
		"\x00\x00\x00\x20{\"protocol\":1":                   ErrGone.Error(),
		"\x00\x00":                                          ErrGone.Error(),
		"\x00\x00\x00\x1d{\"protocol\":1,\"sockets\":[{}]}": "1 sockets were announced, and 0 came",
	} {
		ours, theirs := pair(t)
		if _, err := io.WriteString(theirs.conn, text); err != nil {
			t.Fatal(err)
		}
		theirs.Close()
		if _, _, err := ours.Receive(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	ours, _ := pair(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, _, err := ours.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	// What is no socket is told.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := newLink(r); err == nil {
		t.Error("a pipe was taken")
	}
	if l, err := Started(func(string) string { return "" }); l != nil || err != nil {
		t.Errorf("not started so: %v, %v", l, err)
	}
}
