package server

import (
	"net"
	"strings"
	"testing"
	"testing/synctest"
)

// TestPrepare: sessions keep the configuration with which they began; one that cannot be used, or is
// not committed, changes nothing; listeners come and go with their sessions staying.
func TestPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, fake := newPipeListener(), newFakeMTA()
		b := startServer(t, Config{MessageSizeMax: 1000}, fake, l)
		old := l.talker(t)
		old.begin()
		synctest.Wait()
		former := b.server.current()
		next := former.cfg
		next.MessageSizeMax = 2
		if _, err := b.server.Prepare(next, former.deps, Filtering{}); err != nil {
			t.Fatal(err)
		}
		bad := next
		bad.Flags.SMTPS, bad.Greeting = true, "${nonsense"
		if _, err := b.server.Prepare(bad, former.deps, Filtering{}); err == nil || !strings.Contains(err.Error(), "smtps") {
			t.Errorf("a wrong configuration: %v", err)
		}
		if b.server.current() != former {
			t.Error("another configuration is in effect before Commit")
		}
		n, err := b.server.Prepare(next, former.deps, Filtering{})
		if err != nil {
			t.Fatal(err)
		}
		n.Commit()
		if b.server.current() == former || former.users != 1 || !former.retired {
			t.Errorf("%d sessions of the former configuration", former.users)
		}
		more := newPipeListener()
		b.server.Listen([]net.Listener{more}, nil)
		young := more.talker(t)
		young.begin()
		young.say("Subject: x\r\n\r\ntoo long\r\n.", "552")
		old.say("Subject: x\r\n\r\nold\r\n.", "250")
		old.say("QUIT", "221")
		synctest.Wait()
		if former.users != 0 {
			t.Errorf("%d sessions of the former configuration", former.users)
		}
		young.say("QUIT", "221")
		b.end(t)
		if n, err = b.server.Prepare(next, former.deps, Filtering{}); err != nil {
			t.Fatal(err)
		}
		n.Commit() // too late, and harmless
	})
}
