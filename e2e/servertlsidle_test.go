package e2e

import (
	"crypto/tls"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"meta1/mta/tlsconf/tlstest"
)

// idleTLSSessions is how many sessions TestServerTLSIdle opens; META1_TEST_IDLE_TLS says otherwise.
const idleTLSSessions = 1000

// TestServerTLSIdle: what an idle session by TLS costs. Each has sent a message with large
// records before, because TLS keeps a buffer for the largest.
func TestServerTLSIdle(t *testing.T) {
	t.Parallel()
	n := idleTLSSessions
	if v, err := strconv.Atoi(os.Getenv("META1_TEST_IDLE_TLS")); err == nil {
		n = v
	}
	s := newSink(t, "")
	s.keep = func(arrival) {}
	dir := testDir(t)
	cert, key := tlstest.SelfSigned(t, tlstest.Spec{CN: "mta.test"}).Write(t, dir, "mta")
	m := newMTA(t, settings{
		mailertable: toPort(t, ".", s.addr),
		smtps:       fmt.Sprintf("threads_max = %d; address_share = 100; tls { cert_file = %q; key_file = %q; }", n+100, cert, key),
	})
	conf, err := os.ReadFile(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, m.conf, strings.NewReplacer("connections_max = 1000;", fmt.Sprintf("connections_max = %d;", n+100),
		"metrics {", "metrics { pprof = true; ").Replace(string(conf)))
	m.start()
	sendAll(t, m.smtp, 8, n, func(id int) message { return testMessage(id, 40_000, "a@sink.test") }) // what mail itself leaves
	m.queueEmpty()
	before := m.inUse()
	conns := make([]*smtpConn, n)
	errs := newErrorList()
	next := count(n)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				var err error
				if conns[i], err = idleTLS(m.smtp); err != nil {
					errs.add(err)
				}
			}
		})
	}
	wg.Wait()
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.close()
			}
		}
	}()
	errs.report(t)
	m.queueEmpty()
	each := (m.inUse() - before) / n
	t.Logf("%d sessions take %d bytes each, the process has %d MiB resident", n, each, m.resident()>>20)
	if each > 500<<20/10_000 { // 10,000 within 500 MiB
		t.Errorf("an idle session takes %d bytes, see heap.pprof", each)
		if heap, err := m.get("/debug/pprof/heap"); err == nil {
			writeFile(t, m.dir+"/heap.pprof", heap)
		}
	}
	if reply, err := conns[0].cmd("NOOP"); err != nil {
		t.Errorf("the first session: %s %v", reply, err)
	}
}

// idleTLS opens a session by STARTTLS and sends a message.
func idleTLS(addr string) (*smtpConn, error) {
	k, err := dial(addr)
	if err != nil {
		return nil, err
	}
	if _, err := k.cmd("STARTTLS"); err != nil {
		return k, err
	}
	secured := tls.Client(k.c, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	if err := secured.Handshake(); err != nil {
		return k, err
	}
	k.c = secured
	k.r.Reset(secured)
	k.w.Reset(secured)
	if _, err := k.cmd("EHLO client.test"); err != nil {
		return k, err
	}
	return k, k.send(testMessage(1, 40_000, "a@sink.test"))
}

// inUse is the memory of the process that is in use, in bytes.
func (m *mta) inUse() (n int) {
	m.t.Helper()
	if _, err := m.get("/debug/pprof/heap?gc=1"); err != nil {
		m.t.Fatal(err)
	}
	samples := scrape(m.t, m.metrics)
	for _, name := range []string{"go_memstats_heap_inuse_bytes", "go_memstats_stack_inuse_bytes"} {
		v, err := strconv.ParseFloat(samples[name], 64)
		if err != nil {
			m.t.Fatal(err)
		}
		n += int(v)
	}
	return n
}

// resident is the memory of the process in bytes.
func (m *mta) resident() int {
	m.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		m.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	n, err := strconv.Atoi(kb)
	if err != nil {
		m.t.Fatal(err)
	}
	return n << 10
}
