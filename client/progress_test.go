package client

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/msg"
	"meta1/mta/supervise"
)

// TestGivesWay: a delivery that hangs can be ended for other mail at once wherever it
// hangs, as long as its final dot has not been sent, which then is not sent any more.
func TestGivesWay(t *testing.T) {
	large := memBody(strings.Repeat("x\r\n", 200_000))
	for _, c := range []struct {
		name   string
		server func(net.Conn)
		stage  msg.DeliverStage
		gives  bool
	}{
		{"greeting", stall(), msg.DeliverGreeting, true},
		{"EHLO", stall("S: 220 mx", "EHLO"), msg.DeliverEhlo, true},
		{"MAIL", stall("S: 220 mx", "EHLO", "S: 250 mx", "MAIL"), msg.DeliverMail, true},
		{"RCPT", stall("S: 220 mx", "EHLO", "S: 250 mx", "MAIL", "S: 250 ok", "RCPT", "S: 250 ok"), msg.DeliverRcpt, true},
		{"content", deaf, msg.DeliverData, true},
		{"final dot", stall("S: 220 mx", "EHLO", "S: 250 mx", "MAIL", "S: 250 ok", "RCPT", "S: 250 ok", "DATA", "S: 354 go", ".\r\n"), msg.DeliverDot, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, Config{ThreadsMax: 1}, Deps{}, newNetwork(c.server, acceptAll(sleep(0))))
				q := question()
				q.Progress = msg.NewProgress()
				if c.stage == msg.DeliverData {
					q.Body = large
				}
				ctx, cancel := context.WithCancelCause(context.Background())
				defer cancel(nil)
				g := supervise.NewGroup(context.Background())
				g.Go(func(context.Context) error {
					_, err := r.ask(ctx, q)
					if c.gives != errors.Is(err, msg.ErrGaveWay) {
						t.Errorf("it ended with %v", err)
					}
					return nil
				})
				time.Sleep(time.Minute)
				if stage, idle := q.Progress.Idle(); stage != c.stage || idle < 59*time.Second {
					t.Errorf("idle at %v for %v", stage, idle)
				}
				if q.Progress.GiveWay() != c.gives {
					t.Errorf("gives way: %v", !c.gives)
				}
				if !c.gives {
					return
				}
				cancel(msg.ErrGaveWay)
				if err := g.Wait(); err != nil {
					t.Error(err)
				}
				begin := time.Now()
				q = question() // to another host; the only worker is free again
				q.Hop.Host = "other.example"
				if a := r.deliver(t, q); !a.Rcpts[0].Accepted() || time.Since(begin) > 2*sweepEvery {
					t.Errorf("after %v: %+v", time.Since(begin), a)
				}
				time.Sleep(2 * sweepEvery)
				if idle, busy, hops := r.pool.counts(); idle+busy+hops > 0 {
					t.Errorf("what hung is still open: %d idle, %d busy, %d hops", idle, busy, hops)
				}
			})
		})
	}
}

// deaf is a host that takes nothing of the content.
func deaf(nc net.Conn) {
	r := bufio.NewReader(nc)
	_, _ = io.WriteString(nc, "220 mx\r\n")
	for _, reply := range []string{"250 mx", "250 ok", "250 ok", "354 go on"} {
		if _, err := r.ReadString('\n'); err != nil {
			return
		}
		_, _ = io.WriteString(nc, reply+"\r\n")
	}
	time.Sleep(time.Hour)
}

// TestGaveWayInContent: a host that takes the content slowly gets no final dot for a
// delivery that has given way, even if nobody has ended it yet.
func TestGaveWayInContent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := question()
		q.Progress = msg.NewProgress()
		server := func(nc net.Conn) {
			r := bufio.NewReader(nc)
			_, _ = io.WriteString(nc, "220 mx\r\n")
			for _, reply := range []string{"250 mx", "250 ok", "250 ok", "354 go on"} {
				if _, err := r.ReadString('\n'); err != nil {
					return
				}
				_, _ = io.WriteString(nc, reply+"\r\n")
			}
			q.Progress.GiveWay()
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					t.Error("the final dot was sent")
				}
			}
		}
		q.Body = memBody(strings.Repeat("x\r\n", 200_000))
		a := start(t, Config{}, Deps{}, newNetwork(server)).deliver(t, q)
		if a.Rcpts[0].Code != 451 || a.Unknown || a.HostFailed {
			t.Errorf("answer %+v", a)
		}
	})
}
