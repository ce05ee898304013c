package milter

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// fake is a filter that answers as a test wants. It writes down what it was told.
type fake struct {
	// options are the numbers of the answer to the negotiation; nil: version 6, all actions,
	// no flags of the protocol.
	options []uint32
	symbols string // more of that answer
	// answer gives the replies to a command; nil or no reply: continue, where one is due.
	answer func(kind byte, data []byte) [][]byte
	refuse error // of Dial

	mu    sync.Mutex // guards the following
	told  []string
	conns int
	wg    sync.WaitGroup
}

func packetOf(kind byte, data string) []byte { return appendPacket(nil, kind, []byte(data)) }

func (f *fake) dial(context.Context, string, string) (net.Conn, error) {
	if f.refuse != nil {
		return nil, f.refuse
	}
	ours, theirs := net.Pipe()
	f.mu.Lock()
	f.conns++
	f.mu.Unlock()
	f.wg.Add(1)
	go func() {
		defer f.wg.Done()
		defer theirs.Close()
		f.serve(theirs)
	}()
	return ours, nil
}

func (f *fake) serve(c net.Conn) {
	r, buf := bufio.NewReader(c), bytes.Buffer{}
	for {
		p, err := readPacket(r, &buf)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.told = append(f.told, string(p.kind)+" "+strings.TrimRight(strings.ReplaceAll(string(p.data), "\x00", "|"), "|"))
		f.mu.Unlock()
		var replies [][]byte
		if f.answer != nil {
			replies = f.answer(p.kind, p.data)
		}
		switch {
		case replies != nil:
		case p.kind == cmdOptions:
			options := f.options
			if options == nil {
				options = []uint32{6, actionsV6, 0}
			}
			var b []byte
			for _, n := range options {
				b = binary.BigEndian.AppendUint32(b, n)
			}
			replies = [][]byte{packetOf(cmdOptions, string(b)+f.symbols)}
		case p.kind == cmdQuit:
			return
		case p.kind != cmdMacros && p.kind != cmdAbort && p.kind != cmdNextSMTP:
			replies = [][]byte{packetOf(repContinue, "")}
		}
		for _, reply := range replies {
			if _, err := c.Write(reply); err != nil {
				return
			}
		}
	}
}

// took are the commands so far, without macros and the negotiation.
func (f *fake) took() (list []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range f.told {
		if s[0] != cmdMacros && s[0] != cmdOptions {
			list = append(list, s)
		}
	}
	return list
}

// quick are short time limits, for what hangs.
var quick = Timeouts{Connect: 100 * time.Millisecond, Command: 100 * time.Millisecond, Content: 100 * time.Millisecond, Progress: 300 * time.Millisecond}

// patientTimes are long ones, for what must not fail on a busy machine.
var patientTimes = Timeouts{Connect: time.Minute, Command: time.Minute, Content: time.Minute, Progress: time.Minute}

func noMacros(string) string { return "" }

// begin starts a session with fakes.
func begin(t *testing.T, how Failure, times Timeouts, fakes ...*fake) *Session {
	t.Helper()
	var filters []*Filter
	for i, f := range fakes {
		t.Cleanup(f.wg.Wait)
		filters = append(filters, New(Config{Name: fmt.Sprintf("f%d", i), Failure: how, Timeouts: times}, Deps{Dial: f.dial}))
	}
	s := Begin(t.Context(), filters)
	t.Cleanup(s.Close)
	return s
}

// message sends a message with header and body to all filters, up to the first that decides.
func message(s *Session, content string) (list []Changes, body string, v Verdict, err error) {
	s.Connect(Client{}, noMacros)
	s.Helo("h.test", noMacros)
	if v := s.Mail("a@b.test", nil, noMacros); v.Action != Continue {
		return nil, "", v, nil
	}
	fields, empty, size, err := ReadHeader(bufio.NewReader(strings.NewReader(content)), 1<<20)
	if err != nil || !empty {
		return nil, "", v, errors.Join(err, errors.New("no header"))
	}
	var replaced strings.Builder
	for i := range s.Filters() {
		changes, v, err := s.Message(i, &Content{
			Header: fields, Macros: noMacros,
			Body:    func() io.Reader { return strings.NewReader(content[size:]) },
			Replace: func(p []byte) error { replaced.Write(p); return nil },
		})
		if list = append(list, changes); err != nil || v.Action > Accept {
			return list, "", v, err
		}
		fields, _ = Apply(fields, changes.List)
	}
	return list, string(AppendHeader(nil, fields)) + "|" + replaced.String(), Verdict{}, nil
}
