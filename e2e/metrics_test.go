package e2e

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/encoding/protodelim"
)

var update = flag.Bool("update", false, "write the documentation anew that tests compare")

const metricsHead = `# Metrics

` + "`/metrics`" + ` of the port that the section ` + "`metrics`" + ` names, in Prometheus' format; a scraper that asks for protobuf gets
native histograms beside the classic buckets. ` + "`docs/monitoring.md`" + ` tells how to scrape, and what the alerts mean.
A module that was restarted begins at zero. Besides ours there are those of the Go runtime and of the process (` + "`go_*`, `process_*`" + `).
Metrics of a section are there if the section is; when a reload takes it out they go with the last session or process that has to do with it.

This list is compared with a running meta1 by ` + "`e2e/metrics_test.go`; `go test ./e2e -run Metrics -update`" + ` writes it.

| name | type | labels | what |
|---|---|---|---|
`

// everyMetric are sections by which a meta1 has all metrics but those of a section pmult of its own.
const everyMetric = `
  milter gone { socket { type = unix; path = "gone.sock"; }; }
  policy_service gone { socket { type = unix; path = "gone.sock"; }; on_failure = accept; }
  check mail { action = permfail; condition == mail =~ "^never$"; }
  authentication { dmarc_reports { organization = "Test"; sender = "<dmarc@mta.test>"; } }
`

// TestMetrics compares docs/metrics.md with what a running meta1 serves, and some
// values with what was done.
func TestMetrics(t *testing.T) {
	const n = 25
	s := newSink(t, "")
	m, mail := runLDA(t, settings{
		mailertable: toPort(t, "sink.test", s.addr), qmgr: "smtpc { provider big { } }", smtps: tlsOptions(t, testDir(t)) + everyMetric,
		smtpc: `tls_reports { organization = "Test"; sender = "<tls@mta.test>"; }`, smar: "mta_sts { }",
		global: fmt.Sprintf(`traces { endpoint = "http://%s/"; one_in = 1000000000; }`, freeAddr(t)),
	})
	sendAll(t, m.smtp, 5, n, func(id int) message { return testMessage(id, 1000, "joe@sink.test") })
	if err := sendOne(m.smtp, testMessage(n, 1000, "joe@box.test")); err != nil {
		t.Fatal(err)
	}
	s.waitFor(n)
	must(t, func() error { _, err := files(mail + "/joe/new"); return err })
	m.queueEmpty()

	samples := scrape(t, m.metrics)
	for name, want := range map[string]string{
		"meta1_qmgr_accepted_total":          fmt.Sprint(n + 1),
		"meta1_qmgr_delivered_total":         fmt.Sprint(n + 1),
		"meta1_qmgr_bounced_total":           "0",
		"meta1_qmgr_active_recipients":       "0",
		`meta1_mta_module_up{module="qmgr"}`: "1",
		`meta1_mta_module_up{module="lda"}`:  "1",

		`meta1_smtps_messages_total{server="smtps"}`: fmt.Sprint(n + 1),

		`meta1_qmgr_delay_seconds_count{stage="before_queue"}`: fmt.Sprint(n + 1),
		`meta1_qmgr_delay_seconds_count{stage="queue"}`:        fmt.Sprint(n + 1),
		`meta1_qmgr_delay_seconds_count{stage="connect"}`:      fmt.Sprint(n + 1),
		`meta1_qmgr_delay_seconds_count{stage="transmit"}`:     fmt.Sprint(n + 1),
		`meta1_qmgr_delivery_delay_seconds_count`:              fmt.Sprint(n + 1),
	} {
		if samples[name] != want {
			t.Errorf("%s is %q, want %s", name, samples[name], want)
		}
	}

	page, err := m.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	checkPage(t, page)
	compareDocument(t, "../docs/metrics.md", metricsHead+metricRows(page), "Metrics")
	checkNative(t, m)
}

// compareDocument compares a page of the documentation with what a test has found, or writes it.
func compareDocument(t *testing.T, path, want, test string) {
	t.Helper()
	if *update {
		writeFile(t, path, want)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is out of date: go test ./e2e -run %s -update", strings.TrimPrefix(path, "../"), test)
	}
}

// checkPage has Prometheus' own tool look at the names, labels and types.
func checkPage(t *testing.T, page string) {
	t.Helper()
	ours := regexp.MustCompile(`(?m)^(# (HELP|TYPE) )?meta1_.*\n`).FindAllString(page, -1) // those of the Go runtime are not ours to mend
	cmd := peerCommand(t, "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(strings.Join(ours, ""))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// checkNative scrapes as a server does that wants native histograms, and compares both forms of them.
func checkNative(t *testing.T, m *mta) {
	t.Helper()
	const protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
	q, err := http.NewRequest(http.MethodGet, "http://"+m.metrics+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Accept", protobuf)
	r, err := (&http.Client{Timeout: hangs}).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	seen := map[string]bool{}
	for body := bufio.NewReader(r.Body); ; {
		f := &dto.MetricFamily{}
		if err := protodelim.UnmarshalFrom(body, f); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if f.GetType() != dto.MetricType_HISTOGRAM || !strings.HasPrefix(f.GetName(), "meta1_") {
			continue
		}
		for _, metric := range f.GetMetric() {
			h := metric.GetHistogram()
			native := h.GetZeroCount()
			count := int64(0)
			for _, delta := range h.GetPositiveDelta() {
				count += delta
				native += uint64(count)
			}
			if h.Schema == nil || len(h.GetBucket()) == 0 || native != h.GetSampleCount() {
				t.Errorf("%s %v: schema %v, %d classic buckets, %d of %d in native ones", f.GetName(), metric.GetLabel(), h.Schema, len(h.GetBucket()), native, h.GetSampleCount())
			}
			seen[f.GetName()] = seen[f.GetName()] || native > 0
		}
	}
	for _, name := range []string{"meta1_qmgr_delay_seconds", "meta1_qmgr_delivery_delay_seconds", "meta1_qmgr_commit_seconds", "meta1_smtpc_delivery_seconds"} {
		if !seen[name] {
			t.Errorf("%s has nothing", name)
		}
	}
}

// metricRows is a row of Markdown for each metric of ours.
func metricRows(page string) string {
	types, labels := map[string]string{}, map[string]string{}
	var rows []string
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, "# TYPE meta1_"); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(rest), " ")
			types[name] = kind
		}
		if name, set, ok := strings.Cut(line, "{"); ok {
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				if base := strings.TrimSuffix(name, part); types[strings.TrimPrefix(base, "meta1_")] == "histogram" {
					name = base
				}
			}
			labels[strings.TrimPrefix(name, "meta1_")] = labelNames(set)
		}
	}
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, "# HELP meta1_"); ok {
			name, help, _ := strings.Cut(strings.TrimSpace(rest), " ")
			rows = append(rows, fmt.Sprintf("| `meta1_%s` | %s | %s | %s |\n", name, types[name], labels[name], help))
		}
	}
	slices.Sort(rows)
	return strings.Join(rows, "")
}

// labelNames are the names of labels in braces, but for that of a bucket.
func labelNames(set string) string {
	var names []string
	for _, m := range regexp.MustCompile(`(?:^|,)([a-z_]+)="`).FindAllStringSubmatch(set, -1) {
		if m[1] != "le" {
			names = append(names, m[1])
		}
	}
	return strings.Join(names, ", ")
}
