package mta

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// lives notes what is in memory, by name. The collector frees what is forgotten some time later.
type lives struct {
	mu  sync.Mutex // guards all
	all map[string]bool
}

func note[T any](l *lives, name string, p *T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all == nil {
		l.all = map[string]bool{}
	}
	l.all[name] = true
	runtime.AddCleanup(p, func(name string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.all, name)
	}, name)
}

// left is what stays in memory.
func (l *lives) left(may int) []string {
	for range 200 {
		runtime.GC()
		l.mu.Lock()
		n := len(l.all)
		l.mu.Unlock()
		if n <= may {
			break
		}
		time.Sleep(time.Millisecond)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.all))
}

// TestReloadLetsGo: what a reload has replaced does not stay in memory because of a section smtps that stays, whether that is
// there since the start or came by a reload, and whatever changes of it.
func TestReloadLetsGo(t *testing.T) {
	dir := shortDir(t)
	changes := []string{
		"message_size_max = %d000;",
		"auth { saslauthd_socket = nothing; } stop_timeout = %ds;",
		"auth { password_map = accounts; } invalid_addresses_per_session_max = %d;",
		"auth { password_map = accounts; failure_expire = 1%dm; }",
		"milter f { socket { type = unix; path = nothing%d; }; }",
		"policy_milter { socket { type = unix; path = nothing; }; } invalid_addresses_per_session_max = %d;",
		"policy_service p { socket { type = unix; path = nothing; }; } IO_timeout = %dm;",
		`check mail { condition == mail =~ "x%d"; action = permfail; }`,
		"session_features x { flags = { -starttls }; } wait_for_SMAR = 1%dm;",
	}
	write(t, dir+"/mt", "a.test lmtp:\n")
	write(t, dir+"/access", "")
	write(t, dir+"/accounts", "")
	configure := func(more string, servers bool) {
		text := strings.Replace(config(dir, ""), "flags = { access, 8bitmime };", "flags = { access, 8bitmime }; "+more, 1)
		text = strings.Replace(text, "smar {", "smar { map accounts { type = text; file = accounts; }", 1)
		if servers {
			text += "smtps MSA { id = 2; listen_socket { address = 127.0.0.1; port = 0; } " + more + " }\n"
		}
		write(t, dir+"/meta1.conf", text)
	}
	configure("", false)
	m, _, _, _ := startBreakable(t, dir)
	var l lives
	for i := range 3 {
		for j, c := range changes {
			configure(fmt.Sprintf(c, i+1), true)
			if r := m.Reload(t.Context(), false); len(r.Errors) > 0 {
				t.Fatal(r.Errors)
			}
			name := fmt.Sprintf("%d.%d", i, j)
			now := m.current()
			note(&l, "configuration "+name, now.conf)
			note(&l, "tree "+name, now.result)
			for _, s := range now.conf.Servers {
				note(&l, "section "+s.Of.Section+" "+name, s)
			}
		}
	}
	last := fmt.Sprintf(" 2.%d", len(changes)-1)
	want := []string{"configuration" + last, "section smtps" + last, "section smtps MSA" + last, "tree" + last}
	if left := l.left(len(want)); !slices.Equal(left, want) {
		t.Errorf("in memory are %q, want %q", left, want)
	}
}

// TestGraceOf: how long a server may take to end is what the configuration says when it has to, and what it said first when the
// section has gone.
func TestGraceOf(t *testing.T) {
	section := func(stop time.Duration) *ServerSection {
		s := &ServerSection{}
		s.Of.Section, s.Server.StopTimeout = "smtps MSA", stop
		return s
	}
	m := &mta{conf: &Config{}}
	grace := m.graceOf(section(time.Minute))
	for _, c := range []struct {
		servers []*ServerSection
		want    time.Duration
	}{
		{nil, time.Minute},
		{[]*ServerSection{{}, section(time.Hour)}, time.Hour},
	} {
		m.effective.Store(&effective{conf: &Config{Servers: c.servers}})
		if got := grace(); got != c.want+10*time.Second {
			t.Errorf("%v, want %v and 10 s", got, c.want)
		}
	}
}
