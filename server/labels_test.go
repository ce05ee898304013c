package server

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"
)

// sectionCounts is what is counted of sections by name: values of metrics by name and label; 0 for one that is there.
func sectionCounts(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if n := l.GetName(); n == "milter" || n == "service" || n == "stage" {
					counts[n+" "+l.GetValue()] += m.GetCounter().GetValue()
				}
			}
		}
	}
	return counts
}

// TestForgetSections: metrics of sections that a reload takes out go when the last session ends that has begun with them, and
// count what it does until then. A reload that is given up leaves none.
func TestForgetSections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, fake := newPipeListener(), newFakeMTA()
		deps := fake.deps(l)
		reg := prometheus.NewRegistry()
		deps.Metrics = reg
		deps.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("nobody is there") }
		rich := Config{
			Milters:        []Milter{{Name: "f", Socket: Socket{Type: "inet", Port: 1}}, {Name: "stays", Socket: Socket{Type: "inet", Port: 2}}},
			PolicyServices: []PolicyService{{Name: "p", Failure: policyAccept, Socket: Socket{Type: "inet", Port: 3}}},
			Checks:         []Check{{Stage: "mail", Action: actionTempfail, Condition: `mail =~ "bad"`}},
			MilterPresent:  true, PolicyMilter: PolicyMilter{Socket: Socket{Type: "inet", Port: 4}, AcceptButReconnect: true},
		}
		b := startDeps(t, rich, fake, deps)
		want := func(when string, names ...string) map[string]float64 {
			t.Helper()
			synctest.Wait()
			counts := sectionCounts(t, reg)
			if got := slices.Sorted(maps.Keys(counts)); !slices.Equal(got, names) {
				t.Errorf("%s: metrics of %q, want %q", when, got, names)
			}
			return counts
		}
		all := []string{"milter f", "milter policy_milter", "milter stays", "service p", "stage mail"}
		prepare := func(change func(c *Config, f *Filtering)) *Next {
			t.Helper()
			was := b.server.current()
			cfg, f := was.cfg, Filtering{}
			cfg.Milters, cfg.PolicyServices, cfg.Checks, cfg.MilterPresent = nil, nil, nil, false
			change(&cfg, &f)
			next, err := b.server.Prepare(cfg, was.deps, f)
			if err != nil {
				t.Fatal(err)
			}
			return next
		}
		old := l.talker(t)
		old.reply("220")
		old.say("EHLO client", "250")
		want("at first", all...)

		prepare(func(c *Config, f *Filtering) {
			c.Checks = []Check{{Stage: "rcpt", Action: actionAbort, Condition: `1 == 2`}}
			f.Milters = []Milter{{Name: "never"}}
		}).Discard()
		want("after a reload that was given up", all...)

		prepare(func(_ *Config, f *Filtering) { f.Milters = rich.Milters[1:] }).Commit()
		before := want("while a session has begun before", all...)
		old.say("MAIL FROM:<bad@b>", "451")
		old.say("MAIL FROM:<good@b>", "250")
		old.say("RCPT TO:<bob@example.org>", "250")
		after := want("while it goes on", all...)
		for _, name := range []string{"service p", "stage mail"} {
			if after[name] != before[name]+1 {
				t.Errorf("%s: %v, before %v", name, after[name], before[name])
			}
		}
		old.say("QUIT", "221")
		want("after its end", "milter stays")

		prepare(func(_ *Config, f *Filtering) { f.Milters = rich.Milters }).Commit()
		if again := want("when one comes again", "milter f", "milter stays"); again["milter f"] != 0 {
			t.Errorf("%v", again)
		}
		prepare(func(*Config, *Filtering) {}).Commit()
		want("without sessions")
		b.end(t)
	})
}
