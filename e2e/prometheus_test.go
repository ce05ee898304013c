package e2e

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/tlsconf/tlstest"
	"meta1/mta/vfs"
	"meta1/queue/records"
)

// TestPrometheus: a real Prometheus scrapes meta1, and alerts fire with the rules of contrib, whose durations
// are shortened. META1_TEST_ALERTS=all makes all that is wrong at once, and looks for every alert; it
// takes half a minute. The unit tests of the rules (TestRules) have each alert in any case.
func TestPrometheus(t *testing.T) {
	t.Parallel()
	all := os.Getenv("META1_TEST_ALERTS") == "all"
	want := []string{"Meta1Down", "Meta1NotAccepting", "Meta1DiskRoom", "Meta1LogLinesDropped", "Meta1CertificateExpires", "Meta1CertificateExpired", "Meta1CRLExpires"}
	full := newFullMTA(t, all)
	targets := []string{freeAddr(t), full.metrics}
	if all {
		want = alerts(t)
	}
	log := full.log
	full.log = "/dev/full" // which takes no line
	full.launch()
	full.log = log
	must(t, func() error { _, err := full.get("/metrics"); return err })
	var ill *illMTA
	if all {
		ill = newIllMTA(t)
		targets = append(targets, ill.metrics, ill.deaf.metrics)
	}
	p := startPrometheus(t, targets)
	if all {
		ill.suffer()
	}
	defer holdSessions(t, full.smtp, 7)()
	must(t, func() error {
		fires, err := p.firing()
		var missing []string
		for _, name := range want {
			if !slices.Contains(fires, name) {
				missing = append(missing, name)
			}
		}
		if err == nil && len(missing) > 0 {
			err = fmt.Errorf("%v do not fire, %v do", missing, fires)
		}
		return err
	})
	p.checkDashboard(all)
}

// prometheus is a running Prometheus.
type prometheus struct {
	t    *testing.T
	addr string
}

// shorten makes the durations of rules those of a test, and of limits on time, too.
func shorten(rules string) string {
	rules = regexp.MustCompile(`for: \d+[mh]`).ReplaceAllString(rules, "for: 1s")
	rules = regexp.MustCompile(`\[(15m|1h)\]`).ReplaceAllString(rules, "[1m]")
	return strings.NewReplacer(
		"[1m]))) > 0.5", "[1m]))) > 0", // Meta1DiskSlow
		"[1m]))) > 300", "[1m]))) > 0.5", // Meta1QueueSlow
		"> 0) > 86400", "> 0) > 1", // Meta1OldMail
	).Replace(rules)
}

// startPrometheus starts one that scrapes these addresses, and waits until it has scraped all that answer.
func startPrometheus(t *testing.T, targets []string) *prometheus {
	t.Helper()
	dir := testDir(t)
	p := &prometheus{t: t, addr: freeAddr(t)}
	writeFile(t, dir+"/rules.yml", shorten(readFile(t, rulesFile)))
	writeFile(t, dir+"/prometheus.yml", fmt.Sprintf(`global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }
rule_files: [ rules.yml ]
scrape_configs:
  - job_name: meta1
    static_configs: [ { targets: [ "%s" ] } ]
`, strings.Join(targets, `", "`)))
	cmd := peerCommand(t, "prometheus", "--config.file="+dir+"/prometheus.yml", "--storage.tsdb.path="+dir+"/data", "--web.listen-address="+p.addr, "--log.level=warn")
	log, err := os.Create(dir + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	startProcess(t, cmd)
	must(t, func() error {
		var found struct {
			Result []any `json:"result"`
		}
		err := p.ask("/api/v1/query", url.Values{"query": {`up{job="meta1"}`}}, &found)
		if err == nil && len(found.Result) != len(targets) {
			err = fmt.Errorf("it has scraped %d of %d targets", len(found.Result), len(targets))
		}
		return err
	})
	return p
}

// startProcess starts a program that ends with the test.
func startProcess(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

// ask asks the API of Prometheus.
func (p *prometheus) ask(path string, q url.Values, into any) error {
	client := http.Client{Timeout: hangs}
	r, err := client.Get("http://" + p.addr + path + "?" + q.Encode())
	if err != nil {
		return err
	}
	defer r.Body.Close()
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s %s: %s", path, q.Encode(), answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// firing are the alerts that fire.
func (p *prometheus) firing() (names []string, err error) {
	var found struct {
		Alerts []struct {
			Labels map[string]string `json:"labels"`
			State  string            `json:"state"`
		} `json:"alerts"`
	}
	err = p.ask("/api/v1/alerts", nil, &found)
	for _, a := range found.Alerts {
		if a.State == "firing" {
			names = append(names, a.Labels["alertname"])
		}
	}
	slices.Sort(names)
	return slices.Compact(names), err
}

// checkDashboard asks what the panels ask. With all each panel has something to show, but for those of
// sections that the run does not have.
func (p *prometheus) checkDashboard(all bool) {
	p.t.Helper()
	d := readDashboard(p.t)
	vars := strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*")
	for title, exprs := range d.queries() {
		shown := 0
		for _, expr := range exprs {
			var found struct {
				Result []any `json:"result"`
			}
			if err := p.ask("/api/v1/query", url.Values{"query": {vars.Replace(expr)}}, &found); err != nil {
				p.t.Errorf("panel %s: %v", title, err)
			}
			shown += len(found.Result)
		}
		if all && shown == 0 {
			p.t.Errorf("panel %s shows nothing", title)
		}
	}
}

// soonOver are options of a section tls whose certificate and CRL are about to end.
func soonOver(t *testing.T, dir string) string {
	t.Helper()
	ca, soon := tlstest.Root(t, "Root"), time.Now().Add(10*time.Hour)
	cert, key := ca.Issue(t, tlstest.Spec{CN: "mta.test", Names: []string{"mta.test"}, To: soon}).Write(t, dir, "mta")
	tlstest.WriteFile(t, dir+"/ca.pem", ca.PEM(), 0o644)
	tlstest.WriteFile(t, dir+"/crl.pem", ca.CRL(t, soon), 0o644)
	return fmt.Sprintf(`tls { cert_file = "%s"; key_file = "%s"; CAcert_file = "%s/ca.pem"; CRL_file = "%s/crl.pem"; }`, cert, key, dir, dir)
}

// newFullMTA is a meta1 without room on its disk, whose certificate and CRL end soon.
func newFullMTA(t *testing.T, few bool) *mta {
	t.Helper()
	threads := ""
	if few {
		threads = "threads_max = 8;"
	}
	return newMTA(t, settings{
		qmgr:  `disk_space_min = 100000000000KB;`,
		smtps: threads + soonOver(t, testDir(t)),
	})
}

// holdSessions has clients connect that say nothing, until the function is called.
func holdSessions(t *testing.T, addr string, n int) (release func()) {
	t.Helper()
	var open []interface{ close() }
	for range n {
		k, err := dial(addr)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, k)
	}
	return func() {
		for _, k := range open {
			k.close()
		}
	}
}

// spoilEnvelope stops a meta1 whose queue holds one message, and has nobody be able to read it.
func spoilEnvelope(t *testing.T, m *mta) {
	t.Helper()
	must(t, func() error { return m.queueShows(1, "") })
	queue, err := m.queue()
	if err != nil {
		t.Fatal(err)
	}
	ta, err := smtp.ParseID(queue[0].QueueID)
	if err != nil {
		t.Fatal(err)
	}
	m.stop()
	dir := filepath.Join(m.spool, "defedb")
	owner, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	db, err := records.Open(vfs.Real(), dir, store.Options{Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	b := db.NewBatch()
	if err := b.Set(records.Key{Kind: records.KindEnvelope, Ref: records.Ref{TA: ta}}.Bytes(), []byte{1}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Commit(b), db.Close()); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	of := owner.Sys().(*syscall.Stat_t)
	for _, e := range list {
		if err := os.Chown(filepath.Join(dir, e.Name()), int(of.Uid), int(of.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// illMTA is a meta1 to which all kinds of things happen, and one beside it whose name server does not answer.
type illMTA struct {
	*mta
	deaf *mta
	key  string // a file that it needs
}

// brokenHosts are hosts whose TLS does not work.
const brokenHosts = 15

func newIllMTA(t *testing.T) *illMTA {
	t.Helper()
	s := newSink(t, "")
	var tried sync.Map
	s.answer(func(verb, argument string) string {
		switch {
		case verb != "RCPT":
		case strings.Contains(argument, "later@"):
			return "451 later"
		case strings.Contains(argument, "never@"):
			return "550 never"
		case strings.Contains(argument, "second@"):
			if _, again := tried.LoadOrStore(argument, true); !again {
				return "451 later"
			}
		}
		return ""
	})
	routes := toPort(t, "sink.test", s.addr)
	for i := range brokenHosts {
		b := newSink(t, "")
		b.tls.Store(&tls.Config{})
		routes += toPort(t, fmt.Sprintf("broken%d.test", i), b.addr)
	}
	zone, smtpPort := newZone(), port(t, freeAddr(t))
	host := &daneHost{name: "nomatch", cert: tlstest.Root(t, "CA").Issue(t, tlstest.Spec{CN: "x.test"}), tlsa: "3 1 1 " + strings.Repeat("ab", 32)}
	host.serve(t, "127.0.8.1:"+smtpPort)
	host.addTo(zone, smtpPort)
	dir := testDir(t)
	options := tlsOptions(t, dir)
	ill := &illMTA{key: regexp.MustCompile(`key_file = "([^"]+)"`).FindStringSubmatch(options)[1]}
	refuses := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(refuses.Close)
	ill.mta = run(t, settings{
		global:      fmt.Sprintf(`traces { endpoint = "%s/v1/traces"; }`, refuses.URL),
		mailertable: routes + "box.test lmtp:\n", smtpc: fmt.Sprintf("remote_port = %s; tls { }", smtpPort),
		smar: fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; timeout = 10s; flags = { Use_DNSSEC }; }", zone.serve(t)),
		smtps: options + `
  milter gone { socket { type = unix; path = "gone.sock"; }; flags = { accept_but_reconnect }; }
  policy_service gone { socket { type = unix; path = "gone.sock"; }; on_failure = accept; relaying_clients = true; }
  authentication { }`,
		add: `lda {
  start_action = nostartaccept; failure_max = 0;
  listen_socket { type = unix; path = "lmtpsock"; }
  path = "/bin/false"; arguments = "false";
}
`,
	})
	ill.deaf = run(t, settings{smar: fmt.Sprintf("DNS { nameservers = 127.0.0.1; port = %s; timeout = 1s; }", port(t, freeAddr(t)))})
	ill.send(ill.deaf, 1, "joe@spoiled.test")
	spoilEnvelope(t, ill.deaf)
	ill.deaf.start()
	return ill
}

// send sends a message to one of them.
func (m *illMTA) send(to *mta, id int, rcpts ...string) {
	m.t.Helper()
	msg := testMessage(id, 100, rcpts[0])
	msg.from, msg.rcpts = "", rcpts
	if err := sendOne(to.smtp, msg); err != nil {
		m.t.Fatal(err)
	}
}

// suffer has everything happen to it.
func (m *illMTA) suffer() {
	t := m.t
	t.Helper()
	var later, never []string
	for i := range 30 {
		later, never = append(later, fmt.Sprintf("%dlater@sink.test", i)), append(never, fmt.Sprintf("%dnever@sink.test", i))
	}
	m.send(m.mta, 1, later...)
	m.send(m.mta, 2, never...)
	m.send(m.mta, 3, "1second@sink.test")
	m.send(m.mta, 4, "2second@sink.test")
	m.send(m.mta, 6, "3second@sink.test")
	m.send(m.mta, 5, "joe@box.test") // starts the service
	m.send(m.mta, 7, "joe@nomatch.dane.test")
	for i := range brokenHosts {
		m.send(m.mta, 10+i, fmt.Sprintf("joe@broken%d.test", i))
		m.send(m.deaf, 10+i, fmt.Sprintf("joe@nobody%d.test", i))
	}
	writeFile(t, m.key, "garbage")
	if err := m.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}
