package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta1/mta/tlsconf/tlstest"
)

// manySessions is how many clients TestManyIdleSessions has.
const manySessions = 10_000

// filesForMany is the limit on open files with which meta1 takes that many without stress.
const filesForMany = 32_000

// TestManyIdleSessions: ten thousand clients that are connected and say nothing cost little
// memory, at most two goroutines each, and no time. Where the system allows fewer open files
// there are fewer clients, and as much less memory is allowed.
func TestManyIdleSessions(t *testing.T) {
	files := raiseOwnLimit(t, filesForMany)
	n := int(min(manySessions, manySessions*files/filesForMany))
	for _, c := range []struct {
		name string
		tls  bool
		most float64 // MiB
	}{
		{"plain", false, 250},
		{"TLS", true, 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := settings{smtps: "threads_max = 13500;"}
			if c.tls {
				cert, key := tlstest.SelfSigned(t, tlstest.Spec{Names: []string{"mta.test"}}).Write(t, testDir(t), "mta")
				s.smtps += fmt.Sprintf(` tls { cert_file = %q; key_file = %q; flags = { dont_request_cert }; }`, cert, key)
			}
			m := run(t, s)
			before := scrape(t, m.metrics)
			clients := openMany(t, m.smtp, n, c.tls)
			defer func() {
				for _, k := range clients {
					k.Close()
				}
			}()
			samples := scrape(t, m.metrics)
			if got := number(t, samples, `meta1_smtps_sessions{server="smtps"}`); got != float64(n) {
				t.Fatalf("%v sessions of %d", got, n)
			}
			goroutines := number(t, samples, "go_goroutines") - number(t, before, "go_goroutines")
			if goroutines > float64(2*n) {
				t.Errorf("%v goroutines more", goroutines)
			}
			memory := number(t, samples, "process_resident_memory_bytes") / (1 << 20)
			base := number(t, before, "process_resident_memory_bytes") / (1 << 20)
			if most := base + (c.most-base)*float64(n)/manySessions; memory > most {
				t.Errorf("%.0f MiB, at most %.0f are allowed", memory, most)
			}
			const wait = 5 * time.Second
			time.Sleep(wait)
			used := number(t, scrape(t, m.metrics), "process_cpu_seconds_total") - number(t, samples, "process_cpu_seconds_total")
			if used > wait.Seconds()/10 {
				t.Errorf("%.2f seconds of processor time in %v", used, wait)
			}
			t.Logf("%d sessions: %.0f MiB (%.0f MiB before, %.1f KiB each), %v goroutines more, %.2f s of processor time in %v",
				n, memory, base, (memory-base)*1024/float64(n), goroutines, used, wait)
			for _, i := range []int{0, n / 2, n - 1} { // they are served yet
				if _, err := fmt.Fprint(clients[i], "NOOP\r\n"); err != nil {
					t.Fatal(err)
				}
				if line, err := bufio.NewReader(clients[i]).ReadString('\n'); err != nil || !strings.HasPrefix(line, "250 ") {
					t.Errorf("client %d: %q, %v", i, line, err)
				}
			}
			m.alive()
		})
	}
}

// number is a metric.
func number(t *testing.T, samples map[string]string, name string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(samples[name], 64)
	if err != nil {
		t.Fatalf("metric %s is %q", name, samples[name])
	}
	return n
}

// raiseOwnLimit raises the limit on open files, which meta1 gets from the test, as far as it can
// be raised, and returns it.
func raiseOwnLimit(t *testing.T, files uint64) uint64 {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	cur, most := uint64(l.Cur), uint64(l.Max)
	if cur >= files {
		return cur
	}
	setLimit(&l.Cur, files)
	setLimit(&l.Max, max(most, files))
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l) == nil {
		return files
	}
	setLimit(&l.Cur, most)
	setLimit(&l.Max, most)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	return most
}

// setLimit sets a field of syscall.Rlimit, whose type is another one on some systems.
func setLimit[T int64 | uint64](field *T, n uint64) { *field = T(n) }

// openMany makes n sessions from several addresses, as far as EHLO, or STARTTLS and EHLO.
func openMany(t *testing.T, addr string, n int, secure bool) []net.Conn {
	t.Helper()
	clients := make([]net.Conn, n)
	next := make(chan int)
	errs := newErrorList()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				c, err := openIdle(fmt.Sprintf("127.0.0.%d", 2+i%8), addr, secure)
				if err != nil {
					errs.add(fmt.Errorf("client %d: %w", i, err))
				}
				clients[i] = c
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
	errs.report(t)
	return clients
}

// openIdle makes one session.
func openIdle(from, addr string, secure bool) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: hangs}
	conn, err := d.DialContext(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1024)
	say := func(c net.Conn, line, code string) error {
		if _, err := fmt.Fprint(c, line); err != nil {
			return err
		}
		got := ""
		for !strings.HasSuffix(got, "\r\n") || !lastLine(got) {
			n, err := c.Read(buf)
			if err != nil {
				return fmt.Errorf("after %q: %q: %w", line, got, err)
			}
			got += string(buf[:n])
		}
		if !strings.HasPrefix(got, code) {
			return fmt.Errorf("after %q: %q", line, got)
		}
		return nil
	}
	if err := say(conn, "", "220"); err != nil {
		return nil, err
	}
	if err := say(conn, "EHLO client.test\r\n", "250"); err != nil || !secure {
		return conn, err
	}
	if err := say(conn, "STARTTLS\r\n", "220"); err != nil {
		return nil, err
	}
	conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) // #nosec G402 - of a test
	return conn, say(conn, "EHLO client.test\r\n", "250")
}

// lastLine reports whether a reply ends with its last line.
func lastLine(reply string) bool {
	lines := strings.Split(strings.TrimSuffix(reply, "\r\n"), "\r\n")
	last := lines[len(lines)-1]
	return len(last) > 3 && last[3] == ' '
}
