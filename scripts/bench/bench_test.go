//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSourceToSink sends straight to the sink: all arrives, and what is lost, comes twice
// or is damaged is noticed.
func TestSourceToSink(t *testing.T) {
	sc := scenario{n: 40, size: 2000, sessions: 3, hanging: 10}
	s, err := newSink(sc, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	src := newSource(sc, s.addr, s)
	src.send()
	s.waitArrived(50, time.Minute) // all come here, because no MTA tells the hosts apart
	var r result
	src.compare(&r)
	if src.acknowledged() != 40 || s.arrivals() != 50 || wrong(r) != 0 || r.median <= 0 || r.p99 < r.median {
		t.Fatalf("%d acknowledged, %d arrived, %v", src.acknowledged(), s.arrivals(), r)
	}
	s.arrive(content(3, sc.size), false)
	s.arrive(append(content(4, sc.size), 'x'), false)
	src.sent[1000] = time.Now()
	r = result{}
	src.compare(&r)
	if r.twice != 1 || r.damaged != 1 || r.lost != 1 {
		t.Errorf("%v, want one of each", r)
	}
}

// TestTLSToSink: source and sink use TLS, sessions are resumed only where that is wanted, and
// mail in plain text is noticed.
func TestTLSToSink(t *testing.T) {
	for _, use := range []tlsUse{useTLS, resumeTLS} {
		sc := scenario{n: 20, size: 2000, sessions: 2, reconnect: true, tls: use}
		k, err := makeKeys(use)
		if err != nil {
			t.Fatal(err)
		}
		s, err := newSink(sc, k)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		src := newSource(sc, s.addr, s)
		src.send()
		var r result
		src.compare(&r)
		if src.acknowledged() != 20 || wrong(r) != 0 || (use == resumeTLS) != (r.resumed > 10) {
			t.Errorf("%d acknowledged, %v", src.acknowledged(), r)
		}
	}
	k, err := makeKeys(useTLS)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSink(scenario{}, k)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	s.keys.source, s.plain = nil, 0
	s.arrive(content(1, 100), true)
	if s.plain != 1 {
		t.Error("mail in plain text was not noticed")
	}
}

// TestDeferringSink: while it refuses nothing arrives, and each recipient counts once.
func TestDeferringSink(t *testing.T) {
	sc := scenario{n: 5, size: 100, sessions: 1, deferred: true}
	s, err := newSink(sc, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	src := newSource(sc, s.addr, s)
	src.send()
	s.waitRefused(5)
	if src.acknowledged() != 0 || s.arrivals() != 0 || len(s.refused) != 5 {
		t.Errorf("%d acknowledged, %d arrived, %d refused", src.acknowledged(), s.arrivals(), len(s.refused))
	}
	s.recover()
	again := newSource(sc, s.addr, s)
	again.send()
	if again.acknowledged() != 5 || s.arrivals() != 5 {
		t.Errorf("%d acknowledged, %d arrived", again.acknowledged(), s.arrivals())
	}
}

func TestReport(t *testing.T) {
	all := results{}
	for _, ms := range []int{5, 1, 9} {
		all.add("c50", "Postfix", result{rate: 100, load: 0.25, median: 4 * time.Duration(ms) * time.Millisecond})
		all.add("c50", "meta1", result{rate: 1000, load: 0.5, median: time.Duration(ms) * time.Millisecond})
	}
	path := filepath.Join(t.TempDir(), "report.md")
	if err := os.WriteFile(path, []byte("before\n"+begin+"old\n"+end+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeReport(settings{reps: 3, scale: 100, report: path}, "meta1 x", all); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"before\n" + begin, end + "after\n", "median of 3",
		"| `c50`: 50 sessions, 1 KiB | Postfix | 100 | 0.000 | 0.250 | 20.0 |", "\n| | meta1 | 1000 | 0.000 | 0.500 | 5.0 |", "| | **ratio** | **10** | | **2** | **0.25** |",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the report has no %q:\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("the old report is still there")
	}
}
