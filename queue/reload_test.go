package queue

import (
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/confparse"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/vfs/crashfs"
	"meta1/queue/admit"
	"meta1/queue/aq"
	"meta1/queue/sched"
)

// otherValues has for each option that is reloadable, and for its section, another value than the default.
var otherValues = map[string]string{
	"AQ_entries_max": "100", "conf": "other", "double_bounce_address": `"<d@b.test>"`, "disk_space_min": "5000", "disk_space_ok": "9000",
	"OCC_entries_max": "17", "retry_delay_max": "5000s", "retry_delay_min": "100s", "delivery_timeout": "10s", "scheduler_timeout": "11s",
	"SMAR_timeout": "12s", "content_memory_max": "1MB", "orphan_grace": "13s",
	"DEFEDB/hash_table_entries": "200", "IBDB/commit_delay_max": "7ms", "IBDB/open_TAs_max": "9", "IBDB/content_max": "3KB",
	"DSN_handling/merge_delay_max": "5s", "DSN_handling/header_only": "", "DSN_handling/MIME_Format": "", "DSN_handling/RFC_Format": "",
	"DSN_handling/no_LMTP_delay_DSN": "", "DSN_handling/errors_per_DSN_max": "3",
	"queue_return/default": "1d", "queue_return/DANE_no_match": "2d", "queue_delay/default": "3h", "queue_delay/DANE_no_match": "4h",
	"smtpc/initial_connections": "3", "smtpc/connections_max": "33", "smtpc/lmtp_rcpts_per_transaction_max": "5",
	"smtpc/smtp_rcpts_per_transaction_max": "6", "smtpc/lookup_session_conf": "", "smtpc/deliveries_max": "77", "smtpc/hosts_per_attempt_max": "2",
	"smtpc/lookup_rcpt_conf": "", "smtpc/rcpt_conf_lookup_flags": "{ domain }", "smtpc/transactions_per_session_max": "9",
	"reuse_connection":                                         "!",
	"smtpc/destination_share":                                  "50",
	"smtpc/connection_limits low/initial_connections":          "2",
	"smtpc/connection_limits low/connections_max":              "4",
	"smtpc/connection_limits low/transactions_per_session_max": "5",
	"smtpc/provider big/connections_max":                       "6",
	"smtpc/provider big/rate_max":                              "70",
	"smtpc/provider big/rate_interval":                         "2m",
	"smtpc/provider big/transactions_per_session_max":          "8",
	"smtpc/provider big/slow_down":                             `{ "^421 4[.]7[.]" }`,
	"smtpc/provider big/slow_down_recovery":                    "9m",
	"smtpc/provider big/slow_down_rate_min":                    "1",
	"smtpc/source net/ips":                                     "{ 192.0.2.1 }",
	"smtps/connection_rate_max":                                "10",
	"smtps/connections_max":                                    "11",
	"smtps/connection_control_cache_size":                      "20",
	"VERP/when":                                                "always", "VERP/delimiter1": `"-"`, "VERP/delimiter2": `"~"`,
}

// configured is the configuration with one option set, if any. A value of "" sets a flag, "!" clears it.
func configured(t *testing.T, option, value string) (c Config) {
	t.Helper()
	path := strings.Split(option, "/")
	text := path[len(path)-1]
	switch value {
	case "", "!":
		text = "flags = { " + value + text + " };"
	default:
		text += " = " + value + ";"
	}
	for i := len(path) - 2; i >= 0; i-- {
		text = path[i] + " { " + text + " }"
	}
	if option == "" {
		text = ""
	}
	files := confparse.LoadOptions{FS: confparse.Files{"/meta1.conf": text}}
	if _, err := confparse.Load(files, "/meta1.conf", c.Options()); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	c.ConfNamed = false // the map is missing
	return c
}

// inUse is what a queue and its loop go by.
type inUse struct {
	Queue, Loop     settings
	Core            aq.Config
	Clients         admit.Limits
	Entries         int
	Memory          int64
	DiskMin, Inline int64
}

func use(l *loop) inUse {
	q := l.q
	u := inUse{
		Queue: *q.conf(), Loop: *l.conf, Core: q.coreConfig(l.conf), Clients: q.clientLimits(), Entries: q.budget.Max(), Memory: q.deps.Memory.Max(),
		Inline: q.inlineMax(),
	}
	u.DiskMin, _ = q.space.Limits()
	u.Core.Sched = sched.Config{Slots: u.Core.Sched.Slots, HostsMax: u.Core.Sched.HostsMax, HostsPerAttempt: u.Core.Sched.HostsPerAttempt, Retry: u.Core.Sched.Retry, ReuseConnection: u.Core.Sched.ReuseConnection, Providers: u.Core.Sched.Providers}
	u.Core.Limits, u.Core.HandsOver = nil, nil // functions are not comparable
	return u
}

// TestReloadOfEachOption: each option of qmgr that a reload changes has the same effect as a start with it,
// on the queue and on its loop, and so has its default when it comes back. What needs a restart is little,
// and what is given to Commit for it changes nothing.
func TestReloadOfEachOption(t *testing.T) {
	var c Config
	known := map[string]bool{}
	for _, r := range confparse.Rows(c.Options()) {
		key := strings.TrimPrefix(r.Section+"/"+r.Name, "global/")
		if r.Kind == confparse.KindSection || r.Reload != confparse.AtOnce && r.Reload != confparse.NewSessions {
			continue
		}
		known[key] = true
	}
	for option := range otherValues {
		key := option
		for _, name := range []string{" low", " big", " net"} {
			key = strings.Replace(key, name, "", 1)
		}
		if !known[key] {
			t.Errorf("%s is not an option that a reload changes", option)
		}
		delete(known, key)
	}
	for key := range known {
		t.Errorf("a reload changes %s: this test needs a value for it", key)
	}
	if t.Failed() {
		return
	}
	open := func(c Config) *loop {
		w := newWorld(t)
		q, err := New(c, Deps{
			Ports: w.ports, Hostname: "mta.test", Dir: "spool", FS: crashfs.FS(w.disk, w.space), Log: slog.New(slog.DiscardHandler), Fatal: w.fatal,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = q.close() })
		return newLoop(q)
	}
	base := configured(t, "", "")
	l := open(base)
	was := use(l)
	change := func(c Config) inUse {
		if err := reload(l.q, c, nil); err != nil {
			t.Fatal(err)
		}
		for _, ev := range l.q.events.Take(nil) {
			l.apply(&ev)
		}
		return use(l)
	}
	for option, value := range otherValues {
		c := configured(t, option, value)
		got, want := change(c), use(open(c))
		if reflect.DeepEqual(want, was) {
			t.Errorf("%s = %s changes nothing", option, value)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s = %s: a reload gives\n%+v\na start\n%+v", option, value, got, want)
		}
		if back := change(base); !reflect.DeepEqual(back, was) {
			t.Errorf("%s: the default does not come back", option)
		}
	}
}

// setTo reloads what change makes of the configuration.
func (w *world) setTo(q *Queue, change func(c *Config)) {
	w.t.Helper()
	change(&w.cfg)
	if err := w.reconfigure(q); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

// TestReloadOfTimes: what waits for the next attempt by a longer retry_delay_max is tried now, the times after
// that are by the new options, and what is too old by the new queue_return bounces after an attempt.
func TestReloadOfTimes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.RetryMin, w.cfg.RetryMax, w.cfg.ReturnDefault = 8*time.Hour, 8*time.Hour, 5*24*time.Hour
		w.refuse("down.test", smtp.NewReply(451, "4.7.1", "later"))
		var tried attempts
		refuse := w.deliver
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			w.note(&tried, q.Rcpts[0].To.Domain)
			return refuse(q)
		}
		q := w.start()
		w.mustSend(q, "s@x.test", "m", "r@down.test")
		pause(time.Hour)
		if n := w.since(&tried, "down.test", time.Time{}); n != 1 {
			t.Fatalf("%d attempts", n)
		}
		w.setTo(q, func(c *Config) { c.RetryMin, c.RetryMax = time.Minute, time.Minute })
		pause(time.Second)
		if n := w.since(&tried, "down.test", time.Time{}); n != 2 {
			t.Fatalf("%d attempts right after the reload", n)
		}
		pause(time.Minute)
		if n := w.since(&tried, "down.test", time.Time{}); n != 3 {
			t.Fatalf("%d attempts a minute later", n)
		}
		w.setTo(q, func(c *Config) { c.ReturnDefault = 30 * time.Minute })
		if len(w.all("s@x.test")) != 0 {
			t.Error("the reload bounced a recipient")
		}
		pause(2 * time.Minute)
		if n := w.since(&tried, "down.test", time.Time{}); n != 4 || len(w.all("s@x.test")) != 1 {
			t.Errorf("%d attempts and %d bounces", n, len(w.all("s@x.test")))
		}
		w.checkEmpty()
	})
}

// TestReloadOfLimits: windows, the limits of clients and the size of the active queue hold at once, and no delivery,
// session or recipient that is over them is turned out.
func TestReloadOfLimits(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.SMTPC.Initial, w.cfg.SMTPC.Max, w.cfg.AQEntriesMax = 8, 8, 1000
		p := w.slow()
		q := w.start()
		w.sendMany(q, 16, "d.test")
		pause(500 * time.Millisecond)
		before := p.of(w, "d.test")
		w.setTo(q, func(c *Config) { c.SMTPC.Initial, c.SMTPC.Max = 2, 2 })
		w.mu.Lock()
		running := p.now["d.test"]
		clear(p.most)
		w.mu.Unlock()
		if before != 8 || running != 8 {
			t.Errorf("%d deliveries, %d after the reload", before, running)
		}
		pause(time.Minute)
		if n := p.of(w, "d.test"); n != 2 || w.served() != 16 {
			t.Errorf("%d deliveries at once, %d served", n, w.served())
		}

		v := &visitor{w: w, ip: netip.MustParseAddr("192.0.2.77")}
		var open []smtp.ID
		for range 3 {
			id, _, ok := v.connect()
			if !ok {
				t.Fatal("refused")
			}
			open = append(open, id)
		}
		w.setTo(q, func(c *Config) { c.SMTPS.ConnectionsMax = 2 })
		if _, _, ok := v.connect(); ok {
			t.Error("a fourth session is let in where two may be open")
		}
		v.end(open[0])
		v.end(open[1])
		if _, _, ok := v.connect(); !ok {
			t.Error("a second session is refused")
		}

		hang := make(chan struct{})
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			<-hang
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		for i := range 40 {
			w.mustSend(q, "s@x.test", "m", fmt.Sprintf("q%d@e.test", i))
		}
		pause(time.Second) // what has no route yet would be parked
		w.setTo(q, func(c *Config) { c.AQEntriesMax = 20 })
		if n := w.status("AQ_entries"); n != "40" {
			t.Errorf("%s recipients are in the active queue", n)
		}
		if r := w.send(q, "s@x.test", "m", "late@e.test"); r.Code != 452 {
			t.Errorf("mail beyond the bound: %v", r)
		}
		close(hang)
		pause(time.Minute)
		w.mustSend(q, "s@x.test", "m", "last@e.test")
		pause(time.Minute)
		if w.served() != 16+40+1 {
			t.Errorf("%d served", w.served())
		}
		w.checkEmpty()
	})
}

// TestReloadOfSizes: what a client may send in memory, what the queue may hold of it, and how much room a disk must have,
// are as the last reload says; and a queue that is started again on the same memory takes it by its own configuration.
func TestReloadOfSizes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.memory = msg.NewMemory(1 << 20)
		free := int64(1 << 30)
		w.space = func() (int64, int64) { return free, 1 << 30 }
		w.deliver = func(q msg.DeliverQ) msg.DeliverA {
			time.Sleep(time.Minute)
			return w.take(q, smtp.NewReply(250, "", "ok"))
		}
		q := w.start()
		if n := w.memory.Max(); n != w.cfg.ContentMemory {
			t.Errorf("the queue is started with %d bytes of memory", n)
		}
		inline := func() int64 {
			a, err := w.ports.Admit.Ask(t.Context(), msg.AdmitQ{Kind: msg.NewTransaction})
			if err != nil {
				t.Fatal(err)
			}
			return a.InlineMax
		}
		w.mustSend(q, "s@x.test", strings.Repeat("x", 50_000), "r@d.test")
		synctest.Wait()
		if w.memory.Used() == 0 {
			t.Fatal("nothing is in memory")
		}
		w.setTo(q, func(c *Config) { c.ContentMemory, c.IBDB.ContentMax = 1000, 777 })
		if n := w.memory.Used(); n != 0 || inline() != 777 {
			t.Errorf("%d bytes are held of 1000, and content may have %d", n, inline())
		}
		w.setTo(q, func(c *Config) { c.DiskMin = 2 << 30 })
		pause(time.Second)
		if r := w.send(q, "s@x.test", "m", "r@d.test"); r.Code != 452 {
			t.Errorf("with too little space: %v", r)
		}
		w.setTo(q, func(c *Config) { c.DiskMin = 0 })
		pause(time.Second)
		w.mustSend(q, "s@x.test", "m", "s@d.test")
		pause(2 * time.Minute)
		if w.served() != 2 {
			t.Errorf("%d served", w.served())
		}
		w.checkEmpty()
	})
}
