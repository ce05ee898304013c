//go:build linux

package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

// The scenario milter1 has both MTAs ask a filter that wants to see all of each message and goes on
// with everything. It is this program once more, in a process outside of the group that is measured.

// noopVariable has the program be the filter, on the socket that is descriptor 3.
const noopVariable = "META1_BENCH_MILTER"

// milterAddr is where the filter of a scenario listens; "" for none.
type milterAddr string

// section is the filter in meta1.conf.
func (a milterAddr) section() string {
	if a == "" {
		return ""
	}
	_, port, _ := net.SplitHostPort(string(a))
	return "milter noop { socket { type = inet; address = 127.0.0.1; port = " + port + "; } flags = { tempfail }; }"
}

// lines are the filter in main.cf.
func (a milterAddr) lines() string {
	if a == "" {
		return ""
	}
	return "smtpd_milters = inet:" + string(a) + "\nmilter_default_action = tempfail"
}

// startNoop starts the filter. end ends it.
func startNoop() (addr milterAddr, end func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	p, err := os.StartProcess(self, []string{self}, &os.ProcAttr{
		Env: append(os.Environ(), noopVariable+"=1"), Files: []*os.File{nil, nil, os.Stderr, f},
	})
	if err != nil {
		return "", nil, err
	}
	return milterAddr(l.Addr().String()), func() {
		_ = p.Kill()
		_, _ = p.Wait()
	}, nil
}

// serveNoop is the filter. It returns when its socket fails.
func serveNoop() error {
	l, err := net.FileListener(os.NewFile(3, "socket"))
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			_ = noop(c) // the MTA tells of what matters
		}()
	}
}

// noop is one connection of the protocol, version 6: as a filter with libmilter that looks at
// everything, it answers each step but the macros.
func noop(c net.Conn) error {
	r, w := bufio.NewReaderSize(c, 64<<10), bufio.NewWriter(c)
	for {
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(head[:])
		if n == 0 || n > 1<<20 {
			return errors.New("a length of " + strconv.Itoa(int(n)))
		}
		if _, err := r.Discard(int(n) - 1); err != nil {
			return err
		}
		switch head[4] {
		case 'D', 'A', 'K':
			continue
		case 'Q':
			return nil
		case 'O':
			_, _ = io.Copy(w, strings.NewReader("\x00\x00\x00\x0dO\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00\x00"))
		default:
			_, _ = w.WriteString("\x00\x00\x00\x01c")
		}
	}
}
