package server

import (
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meta1/server/auth"
)

// TestFormerServersGo: a Server that another has replaced does not stay in memory when its sessions have ended, although AUTH, the
// policy milter, filters and turns are those of before.
func TestFormerServersGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left atomic.Int64
		l, fake := newPipeListener(), newFakeMTA()
		deps := fake.deps(l)
		deps.Dial = pipeFilter()
		b := startDeps(t, Config{
			AuthPresent: true, Auth: auth.Config{PasswordMap: "accounts"}, Checks: []Check{{Stage: "mail", Action: actionAbort, Condition: "1 == 2"}},
			MilterPresent: true, PolicyMilter: PolicyMilter{Socket: Socket{Type: "inet", Port: 4}, AcceptButReconnect: true},
		}, fake, deps)
		f := Filtering{Milters: filterConfig(1).Milters, PolicyServices: []PolicyService{{Name: "p", Socket: Socket{Type: "inet", Port: 3}}}}
		for range 20 {
			former := b.server.current()
			if former != b.server { // which stands for all of them
				left.Add(1)
				runtime.AddCleanup(former, func(left *atomic.Int64) { left.Add(-1) }, &left)
			}
			c := l.talker(t)
			c.reply("220")
			c.say("EHLO client", "250")
			cfg := former.cfg
			cfg.Auth.Timeout, cfg.PolicyMilter.Timeout = time.Minute, time.Minute // once they are made anew
			next, err := b.server.Prepare(cfg, former.deps, f)
			if err != nil {
				t.Fatal(err)
			}
			next.Commit()
			c.say("QUIT", "221")
		}
		synctest.Wait()
		for range 200 {
			if left.Load() == 0 {
				break
			}
			runtime.GC()
			runtime.Gosched()
		}
		if n := left.Load(); n > 0 {
			t.Errorf("%d former Servers are in memory", n)
		}
		b.end(t)
	})
}
