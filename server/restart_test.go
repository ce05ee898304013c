package server

import (
	"context"
	"testing"
	"testing/synctest"

	"meta1/mta/supervise"
)

// TestQueueRestarts: sessions live on while QMGR is started again. What it has not
// answered for gets 4yz, and the next message is accepted.
func TestQueueRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		fake := newFakeMTA()
		fake.inlineMax = 0 // content goes to files
		queue := supervise.NewGroup(context.Background())
		fake.serve(queue.Context(), queue, "check")
		ctx, stop := context.WithCancel(context.Background())
		b := &bench{fake: fake, stop: stop, done: make(chan error, 1), group: supervise.NewGroup(context.Background())}
		fake.serve(b.group.Context(), b.group, "admit", "commit")
		b.server = mustNew(t, Config{}, fake.deps(l))
		b.group.Go(func(context.Context) error {
			b.done <- b.server.Run(ctx)
			return nil
		})
		c, idle := l.talker(t), l.talker(t)
		idle.reply("220")
		c.begin()
		c.send("half a message\r\n")
		synctest.Wait()
		queue.Stop()
		if err := queue.Wait(); err != nil {
			t.Fatal(err)
		}
		c.send("the other half\r\n.\r\n")
		c.reply("451 4.3.0")
		idle.say("EHLO client", "250")
		idle.say("MAIL FROM:<a@b>", "451 4.3.0")
		late := l.talker(t)
		late.reply("421 4.3.0")
		late.eof()
		if n := fake.store.unfinished(); n != 0 || len(fake.committed) != 0 {
			t.Errorf("%d content files and %d messages", n, len(fake.committed))
		}
		fake.serve(b.group.Context(), b.group, "check") // it is back
		for _, c := range []*talker{c, idle} {
			c.say("MAIL FROM:<a@b>", "250")
			c.say("RCPT TO:<bob@example.org>", "250")
			c.say("DATA", "354")
			c.say("again\r\n.", "250")
			c.say("QUIT", "221")
		}
		b.end(t)
		if len(fake.committed) != 2 {
			t.Errorf("%d messages", len(fake.committed))
		}
	})
}
