package e2e

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	rulesFile     = "../contrib/prometheus/meta1.rules.yml"
	rulesTestFile = "../contrib/prometheus/meta1.rules.test.yml"
	dashboardFile = "../contrib/grafana/meta1.json"
)

var (
	metricName = regexp.MustCompile(`\bmeta1_[a-z0-9_]+`)
	alertName  = regexp.MustCompile(`(?m)^ *- alert: (\w+)$`)
)

// alerts are the names of all alerts.
func alerts(t *testing.T) (names []string) {
	t.Helper()
	for _, m := range alertName.FindAllStringSubmatch(readFile(t, rulesFile), -1) {
		names = append(names, m[1])
	}
	if len(names) < 20 {
		t.Fatalf("%d alerts in %s", len(names), rulesFile)
	}
	return names
}

// dashboard is what the tests read of a dashboard of Grafana.
type dashboard struct {
	Panels []struct {
		Title   string
		Targets []struct{ Expr string }
	}
	Annotations struct{ List []struct{ Expr string } }
}

// queries are all expressions of the dashboard, by the titles of their panels.
func (d *dashboard) queries() map[string][]string {
	all := map[string][]string{}
	for _, p := range d.Panels {
		for _, q := range p.Targets {
			all[p.Title] = append(all[p.Title], q.Expr)
		}
	}
	for _, a := range d.Annotations.List {
		all["annotations"] = append(all["annotations"], a.Expr)
	}
	return all
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	if err := json.Unmarshal([]byte(readFile(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestMonitoringNames: each metric that the dashboard or an alert names exists, each alert is explained in
// docs/monitoring.md and has a unit test, and no other is.
func TestMonitoringNames(t *testing.T) {
	t.Parallel()
	list, page := readFile(t, "../docs/metrics.md"), readFile(t, "../docs/monitoring.md")
	d := readDashboard(t)
	text := map[string]string{rulesFile: readFile(t, rulesFile), rulesTestFile: readFile(t, rulesTestFile), "docs/monitoring.md": page}
	for _, exprs := range d.queries() {
		text[dashboardFile] += strings.Join(exprs, "\n") + "\n"
	}
	for file, s := range text {
		names := metricName.FindAllString(s, -1)
		if len(names) == 0 {
			t.Errorf("%s names no metric", file)
		}
		for _, name := range names {
			base := name
			for _, part := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, part)
			}
			if !strings.Contains(list, "| `"+name+"` |") && !strings.Contains(list, "| `"+base+"` | histogram |") {
				t.Errorf("%s: docs/metrics.md has no %s", file, name)
			}
		}
	}
	var explained, tested []string
	for _, m := range regexp.MustCompile(`(?m)^### (Meta1\w+)$`).FindAllStringSubmatch(page, -1) {
		explained = append(explained, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^  - name: (Meta1\w+)$`).FindAllStringSubmatch(text[rulesTestFile], -1) {
		tested = append(tested, m[1])
	}
	want := alerts(t)
	if !slices.Equal(explained, want) {
		t.Errorf("docs/monitoring.md explains %v, want %v", explained, want)
	}
	if !slices.Equal(tested, want) {
		t.Errorf("%s tests %v, want %v", rulesTestFile, tested, want)
	}
	for _, name := range want {
		if !strings.Contains(text[rulesFile], "runbook: docs/monitoring.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("alert %s does not name its section", name)
		}
		section := page[strings.Index(page, "### "+name+"\n"):]
		section, _, _ = strings.Cut(section[4:], "\n#")
		for _, word := range []string{"**Means**", "**Look at**", "**Do**"} {
			if !strings.Contains(section, word) {
				t.Errorf("docs/monitoring.md: the section of %s has no %s", name, word)
			}
		}
	}
}

// TestRules has Prometheus' own tool check the alerts and run their unit tests.
func TestRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", rulesFile}, {"test", "rules", rulesTestFile}} {
		if out, err := output(peerCommand(t, "promtool", args...)); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
