package e2e

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// attempts is how many clients bring one message each while others idle.
const attempts = 80

// dialVia makes a session as a client behind a proxy, by its PROXY header, and says EHLO;
// from "" as it is.
func dialVia(addr, from string) (*smtpConn, error) {
	c, err := net.DialTimeout("tcp", addr, hangs)
	if err != nil {
		return nil, err
	}
	k := &smtpConn{c: c, r: bufio.NewReader(c), w: bufio.NewWriter(c)}
	if err := c.SetDeadline(time.Now().Add(hangs)); err != nil {
		return nil, err
	}
	if from != "" {
		fmt.Fprintf(k.w, "PROXY TCP4 %s 198.51.100.1 4711 25\r\n", from)
		if err := k.w.Flush(); err != nil {
			return nil, err
		}
	}
	return k.greeted()
}

// TestStress: clients that take all sessions and say nothing keep nobody out, and a client that
// sends mail at the same time loses nothing.
func TestStress(t *testing.T) {
	for _, c := range []struct {
		name    string
		smtps   string
		senders int
		again   bool               // those who say nothing connect anew when their session ends
		idlers  func(i int) string // addresses of those who say nothing
		clients func(i int) string // and of those with a message
	}{
		{"this host", "", 0, false, func(int) string { return "" }, func(int) string { return "" }},
		{"this host with senders", "", 8, false, func(int) string { return "" }, func(int) string { return "" }},
		{
			"ten addresses", "proxy { address = 127.0.0.1; }", 0, true,
			func(i int) string { return fmt.Sprintf("203.0.113.%d", i%10) }, func(i int) string { return fmt.Sprintf("192.0.2.%d", i) },
		},
		{
			"one address", "proxy { address = 127.0.0.1; }", 0, true,
			func(int) string { return "203.0.113.1" }, func(i int) string { return fmt.Sprintf("192.0.2.%d", i) },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSink(t, "")
			m := newMTA(t, settings{mailertable: toPort(t, ".", s.addr), smtps: "threads_max = 50; " + c.smtps})
			writeFile(t, m.dir+"/access", "cltaddr:127. relay\ncltaddr:192.0.2. relay\n")
			if c.smtps == "" {
				m.start()
			} else { // it greets after a header alone
				m.launch()
				must(t, func() error {
					k, err := dialVia(m.smtp, "192.0.2.1")
					if err == nil {
						k.close()
					}
					return err
				})
			}
			sent := senders(t, m.smtp, c.senders)
			stop := idleClients(m.smtp, c.idlers, c.again)
			must(t, func() error { // they have what they can get
				if n := number(t, scrape(t, m.metrics), `meta1_smtps_stress{server="smtps"}`); n != 1 {
					return fmt.Errorf("stress is %v", n)
				}
				return nil
			})
			time.Sleep(1500 * time.Millisecond)
			refused := 0
			for i := range attempts {
				k, err := dialVia(m.smtp, c.clients(i))
				if err == nil {
					err = k.send(testMessage(i, 1000, "joe@sink.test"))
					k.close()
				}
				if err != nil {
					refused++
					t.Logf("client %d: %v", i, err)
				}
			}
			// Clients that connect anew when they are sent away win a place now and then, which is
			// theirs for a second.
			if refused > attempts/10 {
				t.Errorf("%d of %d clients could not bring their message", refused, attempts)
			}
			samples := scrape(t, m.metrics)
			stop()
			n := sent()
			s.waitFor(attempts - refused + n)
			room := number(t, samples, `meta1_smtps_sessions_dismissed_total{reason="room",server="smtps"}`)
			share := number(t, samples, `meta1_smtps_sessions_dismissed_total{reason="address_share",server="smtps"}`)
			late := number(t, samples, `meta1_smtps_sessions_dismissed_total{reason="stress_timeout",server="smtps"}`)
			t.Logf("%v made room, %v were beyond the share, %v idle for too long; %d messages of senders", room, share, late, n)
			if room+share+late == 0 {
				t.Error("nobody made room")
			}
			if c.senders > 0 && n < 10*c.senders {
				t.Errorf("the senders brought %d messages", n)
			}
			if out, err := m.command("ctl", "status"); err != nil || !strings.Contains(out, "stress ") || !strings.Contains(out, "idle_max") {
				t.Errorf("ctl status does not show stress: %v\n%s", err, out)
			}
			says(t, readFile(t, m.log), "event=stress begins")
			m.stop()
		})
	}
}

// idleClients takes all sessions that can be had, and if again is set connects anew when one
// ends. stop ends that.
func idleClients(addr string, from func(i int) string, again bool) (stop func()) {
	var stopped atomic.Bool
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			for first := true; !stopped.Load() && (first || again); first = false {
				k, err := dialVia(addr, from(i))
				for err == nil && !stopped.Load() {
					_ = k.c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
					if _, err = k.r.ReadByte(); isTimeout(err) {
						err = nil
					}
				}
				if k != nil {
					k.close()
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	return func() {
		stopped.Store(true)
		wg.Wait()
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// senders keep n connections and send a message every 100 ms over each. What they return ends
// them, and tells how many messages were taken; a session that ends before fails the test.
func senders(t *testing.T, addr string, n int) (end func() int) {
	t.Helper()
	var stopped atomic.Bool
	var taken atomic.Int64
	errs := newErrorList()
	var wg sync.WaitGroup
	for i := range n {
		k, err := dial(addr)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer k.close()
			for j := 0; !stopped.Load(); j++ {
				if err := k.send(testMessage(1000*(i+1)+j, 1000, "ann@sink.test")); err != nil {
					errs.add(fmt.Errorf("sender %d, message %d: %w", i, j, err))
					return
				}
				taken.Add(1)
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	return func() int {
		stopped.Store(true)
		wg.Wait()
		errs.report(t)
		return int(taken.Load())
	}
}
