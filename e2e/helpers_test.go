package e2e

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// hangs is how long a test waits for anything before it takes it to hang. It says
// nothing about speed: a slow or busy machine needs a small part of it.
const hangs = 5 * time.Minute

// within tries f until it returns nil, and gives up with its error when it hangs.
func within(f func() error) error {
	end := time.Now().Add(hangs)
	for {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("after %v: %w", hangs, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// must fails the test unless f returns nil before long.
func must(t *testing.T, f func() error) {
	t.Helper()
	if err := within(f); err != nil {
		t.Fatal(err)
	}
}

// nextPort counts the ports that freeAddr gave out. They lie below the range from
// which the system takes ports for outgoing connections.
var nextPort atomic.Uint32

// freeAddr is an address on 127.0.0.1 on which nobody listens.
func freeAddr(t *testing.T) string { return freeAddrOn(t, "127.0.0.1") }

// freeAddrOn is a free address of one IP address.
func freeAddrOn(t *testing.T, ip string) string {
	t.Helper()
	for range 2000 {
		port := 20000 + (uint32(os.Getpid())*37+nextPort.Add(1))%10000
		addr := fmt.Sprintf("%s:%d", ip, port)
		if isFree(addr) {
			return addr
		}
	}
	t.Fatal("no free port between 20000 and 30000")
	return ""
}

// isFree tells whether nobody listens on an address. No program may be started
// meanwhile: it would hold the socket of this attempt until it runs.
func isFree(addr string) bool {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	return l.Close() == nil
}

// port is the port of an address.
func port(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// errorList collects errors of many goroutines; it keeps the first few and counts all.
type errorList struct {
	mu    sync.Mutex // guards the rest
	first []error
	n     int
}

func newErrorList() *errorList { return &errorList{} }

func (l *errorList) add(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n++; len(l.first) < 10 {
		l.first = append(l.first, err)
	}
}

// report fails the test if there was an error.
func (l *errorList) report(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.first {
		t.Error(err)
	}
	if l.n > 0 {
		t.Fatalf("%d errors in all", l.n)
	}
}

// needRoot fails the test when it does not run as root.
func needRoot(t *testing.T, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatalf("this test must run as root: %s", why)
	}
}

// writeFile writes a file for the test.
func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}
