package policyd

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeService answers questions from a list, one after the other over all connections.
type fakeService struct {
	mu        sync.Mutex // guards the following
	questions []string
	conns     int
	answers   []string
	wg        sync.WaitGroup
}

// hangUp as an answer closes the connection.
const hangUp = "hang up"

func (f *fakeService) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	f.mu.Lock()
	f.conns++
	f.mu.Unlock()
	f.wg.Go(func() {
		defer theirs.Close()
		r := bufio.NewReader(theirs)
		for {
			var q strings.Builder
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == "\n" {
					break
				}
				q.WriteString(line)
			}
			f.mu.Lock()
			f.questions = append(f.questions, q.String())
			answer := f.answers[0]
			f.answers = f.answers[1:]
			f.mu.Unlock()
			if answer == hangUp {
				return
			}
			if _, err := theirs.Write([]byte(answer)); err != nil {
				return
			}
		}
	})
	return ours, nil
}

func TestAsk(t *testing.T) {
	f := &fakeService{answers: []string{"action=DUNNO\n\n", "x=y\r\naction= defer later \r\n\r\n", hangUp, "action=OK\n\n"}}
	s := New(Config{Timeout: time.Minute}, f.dial)
	question := []Attr{{"request", "smtpd_access_policy"}, {"sender", "a\nrecipient=b"}}
	for _, want := range []string{"DUNNO", "defer later", "OK"} { // the last one is asked twice
		got, err := s.Ask(t.Context(), question)
		if err != nil || got != want {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	s.Close()
	f.wg.Wait()
	if f.conns != 2 || len(f.questions) != 4 || f.questions[0] != "request=smtpd_access_policy\nsender=a?recipient=b\n" {
		t.Errorf("%d connections, %q", f.conns, f.questions)
	}
}

// TestFailures: wrong answers are errors, and none takes more than its time and its bounds.
func TestFailures(t *testing.T) {
	for name, answer := range map[string]string{
		"no action": "x=y\n\n", "empty": "\n", "hangs up": hangUp, "long line": "action=" + strings.Repeat("x", 2*lineMax) + "\n\n",
		"endless": strings.Repeat("x=y\n", 2*linesMax), "half": "action=DUNNO\n",
	} {
		f := &fakeService{answers: []string{answer}}
		s := New(Config{Timeout: 100 * time.Millisecond}, f.dial)
		if got, err := s.Ask(t.Context(), nil); err == nil {
			t.Errorf("%s: %q", name, got)
		}
		s.Close()
		f.wg.Wait()
	}
	refused := errors.New("refused")
	s := New(Config{Timeout: time.Minute}, func(context.Context, string, string) (net.Conn, error) { return nil, refused })
	if _, err := s.Ask(t.Context(), nil); !errors.Is(err, refused) {
		t.Error(err)
	}
}

func TestDecide(t *testing.T) {
	for action, want := range map[string]string{
		"DUNNO": "", "ok": "", "INFO x": "", "": "",
		"REJECT":             "550 5.7.1 Recipient address rejected by policy",
		"reject 5.7.23 SPF":  "550 5.7.23 SPF",
		"REJECT 4.7.1 x":     "550 5.7.1 4.7.1 x",
		"DEFER_IF_PERMIT Go": "450 4.7.1 Go",
		"451 4.7.0 a\x01b":   "451 4.7.0 a?b",
		"421":                "421 4.7.1 Recipient address deferred by policy, try again later",
		"DISCARD":            "discard", "HOLD odd": "hold odd",
		"PREPEND X-Grey: 1": "prepend X-Grey: 1",
		"PREPEND X y: 1":    "unknown", "PREPEND": "unknown", "350 x": "unknown", "FILTER x": "unknown", "<b>": "unknown",
	} {
		d := Decide(action)
		got := ""
		switch {
		case !d.Reply.IsZero():
			got = d.Reply.String()
		case d.Discard:
			got = "discard"
		case d.Hold != "":
			got = "hold " + d.Hold
		case d.Prepend != "":
			got = "prepend " + d.Prepend
		case d.Unknown:
			got = "unknown"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", action, got, want)
		}
	}
}

// FuzzAnswer: no answer gives a reply or a field that could be taken for more than one.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"action=REJECT x\n\n", "action=550 5.7.1 x\n\n", "action=PREPEND A: b\r\n\r\n", "x\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		action, err := readAnswer(bufio.NewReaderSize(strings.NewReader(s), 64))
		if err != nil {
			return
		}
		d := Decide(action)
		if strings.ContainsAny(d.Prepend+d.Hold+d.Reply.Text(), "\r\n\x00") || !d.Reply.IsZero() && (d.Reply.Code < 400 || d.Reply.Code > 599) {
			t.Errorf("%q: %+v", action, d)
		}
	})
}
