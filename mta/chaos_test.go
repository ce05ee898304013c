package mta

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/supervise"
)

// moment is where in the life of a message a module ends.
type moment string

// The moments: in a client's dialogue, and in that with the next hop.
var moments = []moment{
	"client: MAIL", "client: content", "client: dot",
	"hop: connection", "hop: content", "hop: dot",
}

// plan ends a module at the next moment of a kind.
type plan struct {
	mu    sync.Mutex // guards all below
	at    moment
	end   func()
	ended chan struct{}
}

// set has end called when at comes next, and returns what is closed after that.
func (p *plan) set(at moment, end func()) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.end, p.ended = at, end, make(chan struct{})
	return p.ended
}

// now is called when a moment has come.
func (p *plan) now(at moment) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == at {
		p.at = ""
		p.end()
		close(p.ended)
	}
}

// nextHop takes mail, and notes what has arrived.
type nextHop struct {
	plan *plan

	mu      sync.Mutex // guards arrived
	arrived map[string]bool
}

// accept serves connections until the listener is closed.
func (h *nextHop) accept(l net.Listener, g *supervise.Group) error {
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		g.Go(func(ctx context.Context) error {
			defer nc.Close()
			defer context.AfterFunc(ctx, func() { _ = nc.Close() })()
			h.plan.now("hop: connection")
			h.session(nc)
			return nil
		})
	}
}

// session is one dialogue; it ends when the connection does.
func (h *nextHop) session(nc net.Conn) {
	fmt.Fprint(nc, "220 hop.test ESMTP\r\n")
	lines := bufio.NewScanner(nc)
	var content []string
	for in := false; lines.Scan(); {
		line := lines.Text()
		switch {
		case in && line == ".":
			in = false
			h.plan.now("hop: dot")
			h.take(content)
			fmt.Fprint(nc, "250 2.0.0 taken\r\n")
		case in:
			if content = append(content, line); len(content) == 20 {
				h.plan.now("hop: content")
			}
		case strings.HasPrefix(line, "EHLO"):
			fmt.Fprint(nc, "250-hop.test\r\n250 8BITMIME\r\n")
		case line == "DATA":
			in, content = true, nil
			fmt.Fprint(nc, "354 go on\r\n")
		case line == "QUIT":
			fmt.Fprint(nc, "221 2.0.0 bye\r\n")
			return
		default:
			fmt.Fprint(nc, "250 2.0.0 ok\r\n")
		}
	}
}

// take notes a message that is whole: it begins and ends with its id.
func (h *nextHop) take(content []string) {
	i := slices.IndexFunc(content, func(line string) bool { return strings.HasPrefix(line, "Subject: ") })
	id := strings.TrimPrefix(content[max(i, 0)], "Subject: ")
	if content[len(content)-1] == "end of "+id {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.arrived[id] = true
	}
}

// lacks counts those of the messages that have not arrived.
func (h *nextHop) lacks(ids []string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if !h.arrived[id] {
			n++
		}
	}
	return n
}

// sendSlowly sends a message, and says when its moments come.
func (p *plan) sendSlowly(addr, id string, lines int) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Mail("s@a.test"); err != nil {
		return err
	}
	p.now("client: MAIL")
	if err := c.Rcpt(id + "@b.test"); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	half := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz\r\n", lines/2)
	if _, err := fmt.Fprintf(w, "Subject: %s\r\n\r\n%s", id, half); err != nil {
		return err
	}
	p.now("client: content")
	if _, err := fmt.Fprintf(w, "%send of %s\r\n", half, id); err != nil {
		return err
	}
	p.now("client: dot")
	if err := w.Close(); err != nil {
		return err
	}
	_ = c.Quit() // it is acknowledged
	return nil
}

// TestMailWhileModulesRestart ends each module at several moments of the life of a message,
// while clients send mail, small and large, and a next hop takes it. Nothing that was
// acknowledged is lost, no recipient gets a retry time for it, which would be an hour, and
// afterwards no session, transaction or delivery is counted that is not there.
func TestMailWhileModulesRestart(t *testing.T) {
	const open = 8 // connections that a client may have open
	p := &plan{}
	hop := &nextHop{plan: p, arrived: map[string]bool{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := supervise.NewGroup(context.Background())
	host.Go(func(context.Context) error { return hop.accept(l, host) })
	defer func() {
		_ = l.Close()
		host.Stop()
		if err := host.Wait(); err != nil {
			t.Error(err)
		}
	}()

	dir := shortDir(t)
	conf := strings.Replace(config(dir, ""), "retry_delay_min = 1s; retry_delay_max = 1s;", `retry_delay_min = 1h; retry_delay_max = 1h; conf = "qmgr_conf";
		smtpc { transactions_per_session_max = 5; }`, 1) // there are always new connections
	write(t, dir+"/meta1.conf", conf)
	write(t, dir+"/qmgr_conf", fmt.Sprintf("icm:127.0.0.1 %d\n", open))
	_, port, _ := net.SplitHostPort(l.Addr().String())
	write(t, dir+"/mt", ". "+port+"^esmtp:[127.0.0.1]\n")
	write(t, dir+"/access", "cltaddr:127. quick:relay\n")
	m, broken, log, s := startBreakable(t, dir)
	at := slices.IndexFunc(s.Listen, func(l control.Socket) bool { return l.Section == "smtps" })
	addr := s.Listen[at].Address

	var acked [3][]string
	var clients sync.WaitGroup
	done := make(chan struct{})
	for i := range acked {
		clients.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				id, lines := fmt.Sprintf("m%d-%d", i, n), 30
				if n%10 == 9 {
					lines = 8000 // more than content_max
				}
				eventually(t, id+" is accepted", func() bool { return p.sendSlowly(addr, id, lines) == nil })
				acked[i] = append(acked[i], id)
			}
		})
	}
	for _, name := range []string{"qmgr", "smar", "smtpc", "smtps"} {
		for _, at := range moments {
			before := restarts(m, name)
			select {
			case <-p.set(at, func() { broken[name] <- struct{}{} }):
			case <-time.After(5 * time.Minute):
				t.Fatalf("%s: no moment %q\n%s", name, at, log)
			}
			eventually(t, name+" is up again", func() bool { return restarts(m, name) == before+1 && m.Health(t.Context()).OK })
		}
	}
	close(done)
	clients.Wait()
	all := slices.Concat(acked[:]...)
	eventually(t, "all that was acknowledged has arrived", func() bool {
		return hop.lacks(all) == 0 || strings.Contains(log.String(), "event=deferred,")
	})
	if n := strings.Count(log.String(), "event=deferred,"); n > 0 {
		t.Errorf("%d recipients were deferred", n)
	}
	for module, names := range map[string][]string{
		"qmgr":  {"AQ_entries", "open_transactions", "deferred", "in_flight"},
		"smtpc": {"connections_busy", "deliveries_running"},
		"smtps": {"sessions"},
	} {
		for _, name := range names {
			eventually(t, module+" counts no "+name, func() bool {
				a, err := m.ports.Status[module].Ask(t.Context(), msg.StatusQ{})
				return err == nil && slices.Contains(a.Values, msg.StatusValue{Name: name})
			})
		}
	}
	for i := range open + 1 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		want := "220"
		if i == open {
			want = "421"
		}
		if greeting, err := bufio.NewReader(nc).ReadString('\n'); err != nil || !strings.HasPrefix(greeting, want) {
			t.Errorf("connection %d: %q, %v, want %s", i+1, greeting, err, want)
		}
	}
	t.Logf("%d messages", len(all))
}
