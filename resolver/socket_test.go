package resolver

import (
	"bufio"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meta1/maps"
	"meta1/mta/msg"
)

// serveSocketMap answers every question of a socket map by answer, which may block.
func serveSocketMap(t *testing.T, answer func(q string) string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					head, err := r.ReadString(':')
					if err != nil {
						return
					}
					var n int
					fmt.Sscanf(head, "%d:", &n)
					q := make([]byte, n+1)
					for i := range q {
						if q[i], err = r.ReadByte(); err != nil {
							return
						}
					}
					a := answer(string(q[:n]))
					fmt.Fprintf(c, "%d:%s,", len(a), a)
				}
			})
		}
	})
	return path
}

// All maps may be socket maps; a server that is slow holds up only its own
// questions, and one that fails is a temporary error, never an acceptance.
func TestSocketMaps(t *testing.T) {
	entries := map[string]string{
		"mt local.example": "lmtp:", "mt relay.example": "2525^[10.0.0.1]", "mt bad.example": "nonsense:x",
		"al alice": "local:", "al list": "<a@relay.example> <b@relay.example>",
		"ac to:drop@local.example": "reject", "us bob": "x",
	}
	release := make(chan struct{})
	sock := serveSocketMap(t, func(q string) string {
		switch {
		case strings.Contains(q, "slow"):
			<-release
			return "TIMEOUT too slow"
		case strings.Contains(q, "fails"):
			return "TEMP not now"
		case q == "al stop*":
			return "NOMORE "
		}
		if v, ok := entries[q]; ok {
			return "OK " + v
		}
		return "NOTFOUND "
	})
	s := serveZone(t)
	p, _ := start(t, "", func(c *Config, d *Deps) {
		withDNS(s)(c, d)
		for _, n := range []string{"mt", "al", "ac", "us"} {
			c.Maps = append(c.Maps, MapConfig{Name: n, Type: "socket", Path: sock, MapName: n, Timeout: time.Hour})
		}
		c.Mailertable.Name, c.Aliases.Name, c.Access.Name, c.LocalUser.Name = "mt", "al", "ac", "us"
	})
	for addr, want := range map[string]string{
		"alice@local.example": "lmtp:lmtpsock", "u@relay.example": "esmtp:[10.0.0.1]:2525", "list@local.example": "2 members",
		"u@bad.example": "451", "u@fails.example": "451", "fails@local.example": "451",
	} {
		a := route(t, p, addr)
		got := a.Dest
		if len(a.Expand) > 0 {
			got = fmt.Sprint(len(a.Expand[0].Rcpts), " members")
		}
		if !a.Reply.IsZero() {
			got = fmt.Sprint(a.Reply.Code)
		}
		if got != want {
			t.Errorf("route %s: %s, want %s; %+v", addr, got, want, a.Trace)
		}
	}
	for addr, code := range map[string]int{
		"alice@local.example": 0, "bob@local.example": 0, "eve@local.example": 550, "drop@local.example": 550,
		"fails@local.example": 451, "u@fails.example": 451, "u@relay.example": 550, "stop@local.example": 550,
	} {
		if v := askCheck(t, p, msg.CheckQ{Stage: msg.StageRcpt, Rcpt: msg.Rcpt{To: path(addr)}}); v.Reply.Code != code {
			t.Errorf("check %s: %v, want %d; %+v", addr, v.Reply, code, v.Trace)
		}
	}
	var slow sync.WaitGroup
	for range 20 {
		slow.Go(func() {
			if a := route(t, p, "u@slow.example"); a.Reply.Code != 451 {
				t.Errorf("route by a map that is slow: %v", a.Reply)
			}
		})
	}
	if a := route(t, p, "alice@local.example"); a.Dest != "lmtp:lmtpsock" {
		t.Errorf("%q while other maps are slow", a.Dest)
	}
	close(release) // only now do the slow ones end
	slow.Wait()
}

// README 3.11.1: smtpc_rcpt_conf.
func TestRcptConf(t *testing.T) {
	p := world{
		mt:   "static.example [10.0.0.1]\n",
		zone: []string{"dns.example. 60 IN A 10.0.0.2"},
		access: `smtpc_rcpt_conf:u@static.example tls_requirements { flags={verified}; hostnames={mx.static.example} }
smtpc_rcpt_conf:@dns.example tls_requirements { flags=encrypted; violation={tempfail, delay}; }
smtpc_rcpt_conf:bad@static.example relay
smtpc_rcpt_conf:worse@static.example tls_requirements { flags=no }
`,
		config: func(_ *Config, d *Deps) { d.RcptConf = maps.AllAddress },
	}.start(t)
	for range 2 {
		if a := route(t, p, "u@static.example"); a.RcptConf == nil || a.RcptConf.TLS == nil || !a.RcptConf.TLS.Verified || len(a.Trace) != 2 {
			t.Errorf("%+v", a)
		}
		if a := route(t, p, "x@dns.example"); a.RcptConf == nil || !a.RcptConf.TLS.Encrypted || !a.RcptConf.TLS.Delay || len(a.Hops) != 1 {
			t.Errorf("%+v", a)
		}
		if a := route(t, p, "x@static.example"); a.RcptConf != nil || len(a.Hops) != 1 {
			t.Errorf("%+v", a)
		}
		for _, bad := range []string{"bad@static.example", "worse@static.example"} {
			if a := route(t, p, bad); a.Reply.Code != 451 || len(a.Hops) != 0 {
				t.Errorf("%s: %+v", bad, a)
			}
		}
	}
}
