// Command benchreport turns the tables of shared/bench into a section of
// docs/performance.md. scripts/bench.sh runs it.
package main

import (
	"bytes"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The report stands between these lines; what is outside of them is kept.
const (
	begin = "<!-- begin of the report of make bench -->\n"
	end   = "<!-- end of the report of make bench -->\n"
)

func main() {
	dir := flag.String("dir", ".", "folder with plain.tsv, syncs.tsv, slow.tsv, defer.tsv and disk.tsv")
	version := flag.String("version", "", "version of meta1")
	flag.Parse()
	if err := run(*dir, *version, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "benchreport:", err)
		os.Exit(1)
	}
}

func run(dir, version, out string) error {
	plain, err := readTable(filepath.Join(dir, "plain.tsv"))
	if err != nil {
		return err
	}
	syncs, err := readOptional(filepath.Join(dir, "syncs.tsv"))
	if err != nil {
		return err
	}
	slow, err := readOptional(filepath.Join(dir, "slow.tsv"))
	if err != nil {
		return err
	}
	deferred, err := readOptional(filepath.Join(dir, "defer.tsv"))
	if err != nil {
		return err
	}
	disk, err := os.ReadFile(filepath.Join(dir, "disk.tsv"))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString(begin)
	fmt.Fprintf(&b, "Measured on %s by `make bench`: %s, %d CPUs, %s; each figure is the median of %d runs,\n"+
		"both programs in turn in one run.\n\n", time.Now().UTC().Format("2006-01-02"), version, runtime.NumCPU(), kernel(), plain.repetitions())
	writeMain(&b, plain, syncs)
	if slow != nil {
		b.WriteString("\nThe same with 5 ms added to each sync, like a disk with real flushes (`FSYNC_DELAY_US=5000`):\n\n")
		writeRates(&b, slow)
	}
	if deferred != nil {
		b.WriteString("\nScenario `defer`: 20,000 messages of 1 KiB while the next hop answers 451, then the queue is listed, the next hop\n" +
			"recovers, and all is flushed (`meta1 mailq`, `meta1 queue flush --all`):\n\n")
		writeDeferred(&b, deferred)
	}
	fmt.Fprintf(&b, "\nWhat the disk can do (`peers.sh disk`):\n\n%s", markdown(disk))
	b.WriteString(end)
	return replaceSection(out, b.Bytes())
}

// A table has the rows of one run of peers.sh: values by scenario and peer, and by
// column name, one for each repetition.
type table map[key]map[string][]float64

type key struct{ scenario, peer string }

func readOptional(path string) (table, error) {
	t, err := readTable(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return t, err
}

func readTable(path string) (table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.Comma, r.LazyQuotes = '\t', true
	rows, err := r.ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(rows) < 2 {
		return nil, fmt.Errorf("%s: no results", path)
	}
	t := table{}
	for _, row := range rows[1:] {
		label := strings.Split(row[0], "/")
		if len(label) != 3 {
			return nil, fmt.Errorf("%s: label %q", path, row[0])
		}
		k := key{label[1], label[0]}
		if t[k] == nil {
			t[k] = map[string][]float64{}
		}
		for i, name := range rows[0] {
			t.add(k, name, row[i])
			if name != "extra" {
				continue
			}
			for _, field := range strings.Fields(row[i]) { // of the scenario defer
				name, value, _ := strings.Cut(field, "=")
				t.add(k, name, value)
			}
		}
	}
	return t, nil
}

// add keeps a value if it is a number.
func (t table) add(k key, name, value string) {
	if v, err := strconv.ParseFloat(value, 64); err == nil {
		t[k][name] = append(t[k][name], v)
	}
}

func (t table) repetitions() (n int) {
	for _, columns := range t {
		n = max(n, len(columns["n"]))
	}
	return n
}

// median of some columns added up, over the repetitions; ok is false without any.
func (t table) median(scenario, peer string, columns ...string) (v float64, ok bool) {
	row := t[key{scenario, peer}]
	sums := make([]float64, len(row[columns[0]]))
	for _, c := range columns {
		for i := range min(len(sums), len(row[c])) {
			sums[i] += row[c][i]
		}
	}
	if len(sums) == 0 {
		return 0, false
	}
	slices.Sort(sums)
	return sums[(len(sums)-1)/2], true
}

// scenarios in the order of the report, with what they are.
var scenarios = []struct{ name, what string }{
	{"c1", "1 session, 1 KiB"},
	{"c50", "50 sessions, 1 KiB"},
	{"c50nr", "50 sessions, 1 KiB, a connection for each message"},
	{"100k", "50 sessions, 100 KiB"},
	{"lat", "20 messages a second, 1 KiB"},
	{"good", "20 sessions, 4,000 messages"},
	{"hang", "the same, and 1,000 to a host that hangs"},
}

func writeMain(b *bytes.Buffer, plain, syncs table) {
	b.WriteString("| scenario | | messages/s end to end | CPU s per 1,000 | end to end ms, median | p99 | peak memory MiB | syncs per message | lost, twice, damaged |\n")
	b.WriteString("|---|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, s := range scenarios {
		if plain[key{s.name, "ours"}] == nil {
			continue
		}
		for _, peer := range []string{"postfix", "ours"} {
			fmt.Fprintf(b, "| %s | %s |", title(s.name, s.what, peer), name(peer))
			cell(b, plain, s.name, peer, "%.0f", "e2e_msg_s")
			cell(b, plain, s.name, peer, "%.3f", "cpu_user_per_k", "cpu_sys_per_k")
			cell(b, plain, s.name, peer, "%.1f", "e2e_p50_ms")
			cell(b, plain, s.name, peer, "%.1f", "e2e_p99_ms")
			cell(b, plain, s.name, peer, "%.0f", "pss_peak_mib")
			cell(b, syncs, s.name, peer, "%.2f", "fsync_per_msg")
			cell(b, plain, s.name, peer, "%.0f", "missing", "dup", "bad")
			b.WriteByte('\n')
		}
		b.WriteString("| | **ratio** |")
		for _, columns := range [][]string{{"e2e_msg_s"}, {"cpu_user_per_k", "cpu_sys_per_k"}, {"e2e_p50_ms"}, {"e2e_p99_ms"}, {"pss_peak_mib"}} {
			ratio(b, plain, s.name, columns...)
		}
		ratio(b, syncs, s.name, "fsync_per_msg")
		b.WriteString(" |\n")
	}
	b.WriteString("\nA ratio is meta1 divided by Postfix.\n")
}

func writeRates(b *bytes.Buffer, slow table) {
	b.WriteString("| scenario | Postfix messages/s | meta1 messages/s | ratio |\n|---|---:|---:|---:|\n| c50 |")
	cell(b, slow, "c50", "postfix", "%.0f", "e2e_msg_s")
	cell(b, slow, "c50", "ours", "%.0f", "e2e_msg_s")
	ratio(b, slow, "c50", "e2e_msg_s")
	b.WriteByte('\n')
}

// deferredColumns are the columns of scenario defer, with their heads.
var deferredColumns = []struct{ name, head, format string }{
	{"accept_msg_s", "accepted messages/s", "%.0f"},
	{"defer_s", "all tried after s", "%.1f"},
	{"pss_full_mib", "memory MiB with all deferred", "%.0f"},
	{"list_s", "listing s", "%.2f"},
	{"flush_msg_s", "delivered messages/s after the flush", "%.0f"},
	{"missing", "lost", "%.0f"},
}

func writeDeferred(b *bytes.Buffer, t table) {
	heads, line := "| |", "|---|"
	for _, c := range deferredColumns {
		heads, line = heads+" "+c.head+" |", line+"---:|"
	}
	b.WriteString(heads + "\n" + line + "\n")
	for _, peer := range []string{"postfix", "ours"} {
		b.WriteString("| " + name(peer) + " |")
		for _, c := range deferredColumns {
			cell(b, t, "defer", peer, c.format, c.name)
		}
		b.WriteByte('\n')
	}
	b.WriteString("| **ratio** |")
	for _, c := range deferredColumns {
		ratio(b, t, "defer", c.name)
	}
	b.WriteByte('\n')
}

func title(scenario, what, peer string) string {
	if peer == "postfix" {
		return "`" + scenario + "`: " + what
	}
	return ""
}

func name(peer string) string {
	if peer == "ours" {
		return "meta1"
	}
	return "Postfix"
}

func cell(b *bytes.Buffer, t table, scenario, peer, format string, columns ...string) {
	if v, ok := t.median(scenario, peer, columns...); ok {
		fmt.Fprintf(b, " "+format+" |", v)
	} else {
		b.WriteString(" – |")
	}
}

func ratio(b *bytes.Buffer, t table, scenario string, columns ...string) {
	ours, ok1 := t.median(scenario, "ours", columns...)
	theirs, ok2 := t.median(scenario, "postfix", columns...)
	if ok1 && ok2 && theirs > 0 {
		fmt.Fprintf(b, " **%.3g** |", ours/theirs)
	} else {
		b.WriteString(" – |")
	}
}

// markdown makes a table of tab-separated lines.
func markdown(tsv []byte) string {
	var b strings.Builder
	for i, line := range strings.Split(strings.TrimSpace(string(tsv)), "\n") {
		fields := strings.Split(line, "\t")
		fmt.Fprintf(&b, "| %s |\n", strings.Join(fields, " | "))
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(fields)) + "\n")
		}
	}
	return b.String()
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
