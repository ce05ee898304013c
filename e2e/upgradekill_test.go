package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// servers are the processes that serve a configuration.
func servers(conf string) (pids []int) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		b, _ := os.ReadFile(path)
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && strings.HasSuffix(string(b), "serve\x00-f\x00"+conf+"\x00") && lives(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestUpgradeKill9 ends the old or the new process with signal 9 at any moment of an upgrade, under load. One of
// them goes on, or none, as when systemd starts it again; never both. Every message that was answered 250 arrives.
func TestUpgradeKill9(t *testing.T) {
	t.Parallel()
	l := newLedger(t, mixed)
	s := newSink(t, "")
	s.keep = l.arrive
	m := newLineage(t, settings{mailertable: toPort(t, ".", s.addr), qmgr: "orphan_grace = 1s;"})
	t.Cleanup(func() {
		for _, pid := range servers(m.conf) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	m.begin()
	stop := make(chan struct{})
	wg := l.reload(m.smtp, 6, stop)
	rounds := upgradeRounds(4)
	killed := map[string]int{}
	takes := 200 * time.Millisecond // an upgrade
	for round := range rounds {
		l.more(5)
		var asked sync.WaitGroup
		begun := time.Now()
		asked.Go(func() { _, _ = m.command("ctl", "upgrade") })
		time.Sleep(rand.N(takes + takes/2))
		victim, old := m.pid, round%2 == 0
		if !old {
			for _, pid := range servers(m.conf) {
				if pid != m.pid {
					victim = pid
				}
			}
		}
		switch {
		case victim != m.pid:
			killed["new"]++
		default:
			killed["old"]++
		}
		_ = syscall.Kill(victim, syscall.SIGKILL)
		asked.Wait()
		if took := time.Since(begun); took < 10*takes {
			takes = (3*takes + took) / 4
		}
		must(t, func() error {
			alive := servers(m.conf)
			switch len(alive) {
			case 0:
				if !isFree(m.smtp) { // threads of a killed process still end
					return fmt.Errorf("nobody serves, and %s is in use", m.smtp)
				}
				killed["both ended"]++
				m.begin()
				return nil
			case 1:
				m.pid = alive[0]
			default:
				return fmt.Errorf("processes %v serve", alive)
			}
			k, err := dial(m.smtp)
			if err == nil {
				k.close()
			}
			return err
		})
		if lock := strings.TrimSpace(readFile(t, m.spool+"/lock")); lock != strconv.Itoa(m.pid) {
			t.Errorf("process %s has the lock of the spool, and %d serves", lock, m.pid)
		}
	}
	close(stop)
	wg.Wait()
	must(t, l.complete)
	m.queueEmpty()
	acked, _, _ := l.missing()
	t.Logf("%d upgrades, killed %v: %d messages acknowledged, lost 0, duplicates %d", rounds, killed, acked, l.duplicates())
	m.stopAll()
}
