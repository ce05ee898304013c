package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// hostList is what meta1 queue hosts --json prints.
type hostList struct {
	Hosts []struct {
		Host, State, Provider, TLS, Verify, Reason string
	}
	Providers []struct {
		Provider  string
		Max       int     `json:"connections_max"`
		Rate      float64 `json:"rate"`
		RateMax   int     `json:"rate_max"`
		SlowDowns int     `json:"slow_downs"`
		Until     time.Time
		Reason    string
	}
}

func (m *mta) hostList() (l hostList) {
	m.t.Helper()
	text, err := m.command("queue", "hosts", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &l)
	}
	if err != nil {
		m.t.Fatalf("%v\n%s", err, text)
	}
	return l
}

// TestProvider has three domains whose mail two hosts of one provider take, by one entry for their
// names. They share two connections, and one reply that asks for less mail lowers the rate for all of
// them, but not for a host of another name. Each outcome is looked for in the queue, the list of
// hosts, the log and the metrics.
func TestProvider(t *testing.T) {
	t.Parallel()
	smtpPort := port(t, freeAddr(t))
	dns := nameServer(t, map[string][]string{
		"one.test. MX": {"10 mx1.big.test."}, "two.test. MX": {"10 mx2.big.test."}, "three.test. MX": {"10 mx1.big.test."},
		"other.test. MX":   {"10 mx.other.test."},
		"mx1.big.test. A":  {"127.0.8.1"},
		"mx2.big.test. A":  {"127.0.8.2"},
		"mx.other.test. A": {"127.0.8.3"},
	})
	one, two, other := newSink(t, "127.0.8.1:"+smtpPort), newSink(t, "127.0.8.2:"+smtpPort), newSink(t, "127.0.8.3:"+smtpPort)
	cert := newTestCA(t).issue(t, "mx2.big.test")
	two.tls.Store(&tls.Config{Certificates: []tls.Certificate{cert}})
	var mu sync.Mutex
	now, most := 0, 0
	var slow atomic.Bool
	answer := func(verb, _ string) string {
		switch {
		case verb == "MAIL" && slow.Load():
			return "421 4.7.28 unusual rate of mail"
		case verb == "MAIL":
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
		case verb == ".":
			time.Sleep(20 * time.Millisecond) // others could begin meanwhile
			mu.Lock()
			now--
			mu.Unlock()
		}
		return ""
	}
	one.answer(answer)
	two.answer(answer)
	m := newMTA(t, settings{
		qmgr: `conf = "qmgr_conf"; smtpc { provider big { connections_max = 2; rate_max = 60000; slow_down_rate_min = 30000; } }`,
		smar: fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; }", dns), smtpc: "remote_port = " + smtpPort + ";",
	})
	writeFile(t, m.dir+"/qmgr_conf", "smtpc_session_conf:.big.test provider = big;\n")
	if text, err := m.command("config", "check"); err != nil || strings.Contains(text, "no effect") {
		t.Fatalf("%v\n%s", err, text)
	}
	m.start()

	const n = 24
	make := func(id int) message {
		msg := testMessage(id, 500, fmt.Sprintf("u%d@%s.test", id, []string{"one", "two", "three"}[id%3]))
		msg.from = "" // of no domain that DNS would have to know
		return msg
	}
	sendAll(t, m.smtp, 8, n, make)
	m.queueEmpty()
	if got := one.count() + two.count(); got != n || two.count() != n/3 {
		t.Errorf("%d messages arrived, %d of them at the second host", got, two.count())
	}
	if mu.Lock(); most > 2 {
		t.Errorf("%d deliveries to the provider at once", most)
	}
	mu.Unlock()

	slow.Store(true)
	for id, to := range []string{"x@one.test", "y@other.test"} {
		msg := testMessage(n+id, 500, to)
		msg.from = ""
		if err := sendOne(m.smtp, msg); err != nil {
			t.Fatal(err)
		}
	}
	other.waitFor(1)
	must(t, func() error { return m.queueShows(1, "421 4.7.28 unusual rate of mail") })
	l := m.hostList()
	if len(l.Providers) != 1 {
		t.Fatalf("%+v", l)
	}
	if p := l.Providers[0]; p.Provider != "big" || p.Max != 2 || p.RateMax != 60000 || p.Rate < 30000 || p.Rate > 40000 || p.SlowDowns < 1 ||
		time.Until(p.Until) < 10*time.Minute || p.Reason != "421 4.7.28 unusual rate of mail" {
		t.Errorf("%+v", p)
	}
	var hosts []string
	for _, h := range l.Hosts {
		hosts = append(hosts, fmt.Sprintf("%s %s %s %s %s", h.Host[:strings.Index(h.Host, "[")], h.State, h.Provider, h.TLS, h.Verify))
	}
	slices.Sort(hosts)
	if want := []string{"mx.other.test serves  none ", "mx1.big.test serves big none ", "mx2.big.test serves big TLSv1.3 encrypted"}; !slices.Equal(hosts, want) {
		t.Errorf("hosts %q, want %q", hosts, want)
	}
	must(t, func() error {
		log := readFile(t, m.log)
		for _, words := range [][]string{
			{"provider asks for less mail: its rate is halved", "provider=big", "mx1.big.test", "421 4.7.28"},
			{"delivery failed", "provider=big", "slow_down=true"},
			{"delivered", "provider=big", "relay=mx2.big.test"},
		} {
			if lineWith(log, words...) == "" {
				return fmt.Errorf("no line of the log has %q", words)
			}
		}
		return nil
	})
	must(t, func() error {
		samples := scrape(t, m.metrics)
		if a, b := samples[`meta1_qmgr_provider_slow_downs_total{provider="big"}`], samples[`meta1_qmgr_provider_slowed{provider="big"}`]; a == "" || a == "0" || b != "1" {
			return fmt.Errorf("metrics have %q and %q", a, b)
		}
		return nil
	})

	text, err := commandIn(t, m.dir, nil, "explain", "--socket", m.spool+"/control", "--client", "127.0.0.1", "--to", "x@one.test")
	for _, want := range []string{"entry smtpc_session_conf:.big.test", "connections_max of the provider = 2", "the provider big asked for less mail"} {
		if err != nil || !strings.Contains(text, want) {
			t.Errorf("explain does not tell %q: %v\n%s", want, err, text)
		}
	}

	slow.Store(false)
	m.queueEmpty()
	if got := one.count(); got != n*2/3+1 {
		t.Errorf("%d messages at the first host", got)
	}
}
