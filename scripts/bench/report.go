//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The report stands between these lines; what is outside of them is kept.
const (
	begin = "<!-- begin of the report of make bench -->\n"
	end   = "<!-- end of the report of make bench -->\n"
)

// results are those of all repetitions, by scenario and MTA.
type results map[key][]result

type key struct{ scenario, mta string }

func (r results) add(scenario, mta string, one result) {
	k := key{scenario, mta}
	r[k] = append(r[k], one)
}

// column is a column of a table.
type column struct {
	head, format string
	value        func(result) float64
}

// columns of the scenarios but defer, which has its own.
func columns() []column {
	return []column{
		{"messages/s", "%.0f", func(r result) float64 { return r.rate }},
		{"CPU s per 1,000", "%.3f", func(r result) float64 { return r.cpu }},
		{"of source and sink", "%.3f", func(r result) float64 { return r.load }},
		{"ms end to end, median", "%.1f", func(r result) float64 { return milliseconds(r.median) }},
		{"p99", "%.1f", func(r result) float64 { return milliseconds(r.p99) }},
		{"peak memory MiB", "%.0f", func(r result) float64 { return r.memory }},
		{"lost, twice, damaged", "%.0f", wrong},
	}
}

func deferColumns() []column {
	return []column{
		{"accepted messages/s", "%.0f", func(r result) float64 { return r.accepted }},
		{"all tried after s", "%.1f", func(r result) float64 { return r.tried.Seconds() }},
		{"listing s", "%.2f", func(r result) float64 { return r.listed.Seconds() }},
		{"delivered messages/s after the flush", "%.0f", func(r result) float64 { return r.rate }},
		{"peak memory MiB", "%.0f", func(r result) float64 { return r.memory }},
		{"lost, twice, damaged", "%.0f", wrong},
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func wrong(r result) float64               { return float64(r.lost + r.twice + r.damaged + r.failures + r.plain) }

// median of a column over the repetitions; ok is false without any.
func (r results) median(scenario, mta string, c column) (v float64, ok bool) {
	var all []float64
	for _, one := range r[key{scenario, mta}] {
		all = append(all, c.value(one))
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	return all[(len(all)-1)/2], true
}

// writeReport puts a report into the place of the old one, or prints it.
func writeReport(s settings, version string, all results) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%sMeasured on %s by `make bench`: %s, %d CPUs, %s; each figure is the median of %d,\n"+
		"both programs in turn in one run, with %d %% of the messages.\n\n", begin, time.Now().UTC().Format(time.DateOnly), version, runtime.NumCPU(), kernel(), s.reps, s.scale)
	var most, deferred []scenario
	for _, sc := range scenarios() {
		switch {
		case all[key{sc.name, "meta1"}] == nil:
		case sc.deferred:
			deferred = append(deferred, sc)
		default:
			most = append(most, sc)
		}
	}
	if len(most) > 0 {
		writeTable(&b, all, most, columns())
	}
	if len(deferred) > 0 {
		b.WriteString("\nIn `defer` the queue is listed when all were tried; then the next hop recovers and all is flushed (`meta1 mailq`,\n" +
			"`meta1 queue flush --all`):\n\n")
		writeTable(&b, all, deferred, deferColumns())
	}
	b.WriteString("\nA ratio is meta1 divided by Postfix.\n" + end)
	if s.report == "" {
		_, err := os.Stdout.Write(b.Bytes())
		return err
	}
	return replaceSection(s.report, b.Bytes())
}

func writeTable(b *bytes.Buffer, all results, list []scenario, columns []column) {
	b.WriteString("| scenario | |")
	for _, c := range columns {
		b.WriteString(" " + c.head + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---:|", len(columns)) + "\n")
	for _, sc := range list {
		fmt.Fprintf(b, "| `%s`: %s ", sc.name, sc.what)
		for _, mta := range []string{"Postfix", "meta1"} {
			fmt.Fprintf(b, "| %s |", mta)
			for _, c := range columns {
				if v, ok := all.median(sc.name, mta, c); ok {
					fmt.Fprintf(b, " "+c.format+" |", v)
				} else {
					b.WriteString(" – |")
				}
			}
			b.WriteString("\n| ")
		}
		b.WriteString("| **ratio** |")
		for _, c := range columns {
			ours, ok1 := all.median(sc.name, "meta1", c)
			theirs, ok2 := all.median(sc.name, "Postfix", c)
			if ok1 && ok2 && theirs > 0 {
				fmt.Fprintf(b, " **%.3g** |", ours/theirs)
			} else {
				b.WriteString(" |")
			}
		}
		b.WriteByte('\n')
	}
}

func kernel() string {
	out, err := exec.Command("uname", "-sr").Output()
	if err != nil {
		return runtime.GOOS
	}
	return strings.TrimSpace(string(out))
}

// replaceSection puts a new report in the place of the old one, or at the end.
func replaceSection(path string, report []byte) error {
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		old, err = []byte("# Performance\n\n"), nil
	}
	if err != nil {
		return err
	}
	before, rest, found := bytes.Cut(old, []byte(begin))
	_, after, _ := bytes.Cut(rest, []byte(end))
	if !found {
		before, after = append(old, '\n'), nil
	}
	return os.WriteFile(path, slices.Concat(before, report, after), 0o644)
}
