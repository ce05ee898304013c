package e2e

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the documentation anew that tests compare")

const metricsHead = `# Metrics

` + "`/metrics`" + ` of the port that the section ` + "`metrics`" + ` names, in Prometheus' format; ` + "`/healthz`" + ` answers 200
while all modules are up and mail is taken (for a liveness probe), ` + "`/readyz`" + ` as soon as the first start is
complete and while no service was given up, either. A module that was restarted begins at zero. Besides ours there are those of the Go runtime and of the process (` + "`go_*`, `process_*`" + `).

This list is compared with a running meta1 by ` + "`e2e/metrics_test.go`; `go test ./e2e -run Metrics -update`" + ` writes it.

| name | type | what |
|---|---|---|
`

// TestMetrics compares docs/metrics.md with what a running meta1 serves, and some
// values with what was done.
func TestMetrics(t *testing.T) {
	const n = 25
	s := newSink(t, "")
	m, mail := runLDA(t, settings{mailertable: toPort(t, "sink.test", s.addr), qmgr: "smtpc { provider big { } }", smtps: tlsOptions(t, testDir(t))})
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
	} {
		if samples[name] != want {
			t.Errorf("%s is %q, want %s", name, samples[name], want)
		}
	}

	page, err := m.get("/metrics")
	if err != nil {
		t.Fatal(err)
	}
	const path = "../docs/metrics.md"
	want := metricsHead + metricRows(page)
	if *update {
		writeFile(t, path, want)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/metrics.md is out of date: go test ./e2e -run Metrics -update")
	}
}

// metricRows is a row of Markdown for each metric of ours.
func metricRows(page string) string {
	types := map[string]string{}
	var rows []string
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, "# TYPE meta1_"); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(rest), " ")
			types[name] = kind
		}
	}
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, "# HELP meta1_"); ok {
			name, help, _ := strings.Cut(strings.TrimSpace(rest), " ")
			rows = append(rows, fmt.Sprintf("| `meta1_%s` | %s | %s |\n", name, types[name], help))
		}
	}
	slices.Sort(rows)
	return strings.Join(rows, "")
}
