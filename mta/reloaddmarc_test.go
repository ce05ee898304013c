package mta

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"meta1/mta/logfmt"
)

// TestReloadFailsWithDMARCReports: nothing of dmarc_reports is left when the reload that brings the section fails elsewhere, so that
// the logger of the next one follows log_level.
func TestReloadFailsWithDMARCReports(t *testing.T) {
	dir := shortDir(t)
	write(t, dir+"/mt", "a.test lmtp:\n")
	write(t, dir+"/access", "")
	configure := func(smtps, extra string) {
		write(t, dir+"/meta1.conf", strings.Replace(config(dir, extra), "8bitmime };", "8bitmime }; "+smtps, 1))
	}
	configure("", "")
	m, _, _, _ := startBreakable(t, dir)
	level := func() (slog.Level, bool) {
		m.logs.mu.Lock()
		defer m.logs.mu.Unlock()
		i := slices.IndexFunc(m.logs.outlets, func(o *outlet) bool { return o.module == dmarcLog })
		if i < 0 {
			return 0, false
		}
		return m.logs.outlets[i].level.Level(), true
	}
	counted := func() bool {
		families, err := m.hub.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if strings.HasPrefix(f.GetName(), "meta1_dmarc_reports") {
				return true
			}
		}
		return false
	}
	const reports = "authentication { dmarc_reports { } } "
	configure(reports, `control { http { port = 0; token_file = "`+dir+`/nothing"; } }`)
	if r := m.Reload(t.Context(), false); len(r.Errors) == 0 || m.dmarcMade != nil || counted() {
		t.Errorf("after a reload that failed: %q, %v, %v", r.Errors, m.dmarcMade, counted())
	}
	for _, l := range []int{9, 12} {
		configure(reports+map[int]string{9: "log_level = 9;", 12: "log_level = 12;"}[l], "")
		if r := m.Reload(t.Context(), false); len(r.Errors) > 0 {
			t.Fatal(r.Errors)
		}
		made := m.dmarcMade
		if got, ok := level(); !ok || got != logfmt.Level(l) || made == nil || made != m.dmarcReports.Load() || !counted() {
			t.Errorf("log_level %d: level %v, %v", l, got, ok)
		}
	}
}
