package client

import (
	"context"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/supervise"
)

// upTo is a host that takes so many connections at a time, and refuses any more in its
// own way.
func upTo(limit int32, refuse string, serve func(net.Conn)) func(net.Conn) {
	var open atomic.Int32
	return func(nc net.Conn) {
		defer open.Add(-1)
		if open.Add(1) > limit {
			_, _ = io.WriteString(nc, refuse)
			return
		}
		serve(nc)
	}
}

// TestHostBusy: a host that refuses one connection too many has not failed, and the
// answer says how many it had. Without any other connection it has.
func TestHostBusy(t *testing.T) {
	for _, c := range []struct {
		name, refuse string
		limit        int32
		reply        int
	}{
		{"421", "421 4.7.0 too many connections from you\r\n", 2, 421},
		{"554", "554 5.7.0 too many connections\r\n", 2, 450},
		{"closed", "", 2, 451},
		{"to all", "421 4.3.2 overloaded\r\n", 0, 421},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNetwork(upTo(c.limit, c.refuse, acceptAll(sleep(time.Second))))
				r := start(t, Config{}, Deps{ReuseConnections: true}, n)
				answers := make(chan msg.DeliverA, 6)
				g := supervise.NewGroup(context.Background())
				for range cap(answers) {
					g.Go(func(context.Context) error {
						a, err := r.ask(context.Background(), question())
						answers <- a
						return err
					})
				}
				if err := g.Wait(); err != nil {
					t.Error(err)
				}
				close(answers)
				delivered, busy, failed := int32(0), 0, 0
				for a := range answers {
					switch {
					case a.Rcpts[0].Accepted():
						delivered++
					case a.HostBusy > 0 && !a.HostFailed:
						busy++
					default:
						failed++
					}
					if !a.Rcpts[0].Accepted() && (a.Rcpts[0].Code != c.reply || a.Stage != msg.DeliverGreeting || a.HostBusy >= cap(answers)) {
						t.Errorf("answer %+v", a)
					}
				}
				// Of those refused together, each but the last has others beside it.
				if c.limit > 0 && failed > 0 || c.limit == 0 && failed == 0 || delivered != c.limit {
					t.Errorf("%d delivered, %d busy, %d failed", delivered, busy, failed)
				}
			})
		})
	}
}

// TestHostBusyWithIdle: idle connections of another kind to the host, which takes no
// more, make room.
func TestHostBusyWithIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{SessionFeatures: []SessionFeature{{Name: "other"}}, IdleTimeout: time.Hour}
		r := start(t, cfg, Deps{ReuseConnections: true}, newNetwork(upTo(1, "421 4.7.0 one at a time\r\n", acceptAll(sleep(0)))))
		if a := r.deliver(t, question()); !a.Rcpts[0].Accepted() {
			t.Fatalf("first %+v", a)
		}
		q := question()
		q.SessionConf = &msg.Conf{SessionFeature: "other"}
		if a := r.deliver(t, q); a.HostBusy != 1 || a.HostFailed {
			t.Errorf("second %+v", a)
		}
		synctest.Wait()
		if a := r.deliver(t, q); !a.Rcpts[0].Accepted() {
			t.Errorf("third %+v", a)
		}
	})
}

// TestHostBusyWhileClosing: a host that still counts a connection to which QUIT was just
// said has not failed.
func TestHostBusyWhileClosing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(nc net.Conn) {
			acceptAll(sleep(0))(nc)
			time.Sleep(time.Second) // it takes its time to notice the end
		}
		cfg := Config{ReadQuitReply: true}
		r := start(t, cfg, Deps{}, newNetwork(upTo(1, "421 4.7.0 one at a time\r\n", slow)))
		if a := r.deliver(t, question()); !a.Rcpts[0].Accepted() {
			t.Fatalf("first %+v", a)
		}
		if a := r.deliver(t, question()); a.HostBusy != 1 || a.HostFailed {
			t.Errorf("second %+v", a)
		}
		time.Sleep(10 * time.Second)
		if a := r.deliver(t, question()); !a.Rcpts[0].Accepted() {
			t.Errorf("third %+v", a)
		}
	})
}
