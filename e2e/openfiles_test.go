package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestFewOpenFiles: a hard limit of 1024 open files, which the defaults do not fit into, and
// more clients than there is room for. Those that are too many are told so; the stores
// never find the limit reached, and everything that was acknowledged arrives.
func TestFewOpenFiles(t *testing.T) {
	s := newSink(t, "")
	l := newLedger(t, func(int) int { return 200_000 }) // each has a content file
	s.keep = l.arrive
	m := newMTA(t, settings{mailertable: toPort(t, ".", s.addr)})
	m.files = 1024
	if os.Geteuid() == 0 { // root would raise the limit
		m.as = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(m.dir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	m.start()
	if out, err := m.command("ctl", "status"); err != nil || !strings.Contains(out, "smtps threads_max is") || !strings.Contains(out, "deliveries_max is") {
		t.Errorf("ctl status does not tell what was lowered: %v\n%s", err, out)
	}
	stop := make(chan struct{})
	senders := l.reload(m.smtp, 6, stop)
	var idle []*smtpConn
	refused := 0
	for range 900 {
		k, err := dial(m.smtp)
		if err != nil {
			refused++
			continue
		}
		idle = append(idle, k)
	}
	// Some were refused, or were sent away to make room for others.
	if open := number(t, scrape(t, m.metrics), `meta1_smtps_sessions{server="smtps"}`); open >= 900 {
		t.Errorf("%v of 900 clients are still there, %d were refused", open, refused)
	}
	m.alive()
	for _, k := range idle {
		k.close()
	}
	must(t, func() error {
		if acked, _, _ := l.missing(); acked < 100 {
			return fmt.Errorf("%d messages are acknowledged", acked)
		}
		return nil
	})
	close(stop)
	senders.Wait()
	must(t, l.complete)
	m.alive()
	m.stop()
}
