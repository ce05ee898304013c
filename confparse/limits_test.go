package confparse

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"meta1/confparse/syntax"
)

// hostile are large inputs of about n bytes, each of another kind.
func hostile(n int) map[string]string {
	fill := func(s string) string { return strings.Repeat(s, n/len(s)+1) }
	numbered := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < n; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	return map[string]string{
		"open braces":        fill("{"),
		"close braces":       fill("}"),
		"nested":             fill("a{"),
		"nested and closed":  strings.Repeat("a{", n/3) + strings.Repeat("}", n/3),
		"nested 10,000":      strings.Repeat("qmgr {\n", 10_000) + strings.Repeat("}\n", 10_000),
		"nested named":       fill("a b {\n"),
		"sections":           numbered("s%d { }\n"),
		"sections one line":  numbered("s%d{}"),
		"servers":            numbered("smtps s%d{id=1;}\n"),
		"one section twice":  fill("qmgr{}\n"),
		"options":            fill("hostname=a;"),
		"unknown options":    numbered("hostnam%d=a;"),
		"unknown lines":      numbered("hostnam%d=a;\n"),
		"no semicolons":      fill("a=b\n"),
		"one word":           fill("a"),
		"words":              fill("a "),
		"words in a value":   "hostname = " + fill("a ") + ";",
		"time":               "smtps { IO_timeout = " + fill("1s ") + "; }",
		"size":               "smtps { tls { cache_size = " + fill("1B ") + "; } }",
		"digits":             "smtps { id = " + fill("1") + "; }",
		"quotes":             fill(`"`),
		"strings":            "hostname = " + fill(`"a" `) + ";",
		"string":             `hostname = "` + fill("a") + `";`,
		"escapes":            `hostname = "` + fill(`\n`) + `";`,
		"bad escapes":        `hostname = "` + fill(`\q`) + `";`,
		"open string":        `hostname = "` + fill("a"),
		"open strings":       fill("a=\"\n"),
		"list":               "qmgr { restart_dependencies = { " + fill("a,") + " }; }",
		"wrong list":         "qmgr { restart_dependencies = { " + fill("a b,") + " }; }",
		"flags":              "smtps { flags = { " + fill("access,") + " }; }",
		"unknown flags":      "smtps { flags = { " + fill("acces,") + " }; }",
		"contradicted flags": "smtps { flags = { " + fill("access,-access,") + " }; }",
		"commas":             fill(","),
		"semicolons":         fill(";"),
		"assigns":            fill("="),
		"comments":           fill("/**/"),
		"open comment":       "/*" + fill("*"),
		"hashes":             fill("#\n"),
		"comments, options":  fill("/**/hostname=a;#\n"),
		"expression":         "smtps { check mail { condition == " + fill("(") + "; } }",
		"expressions":        "smtps { " + fill("check mail { condition == a; action = abort; } ") + "}",
		"newlines":           fill("\n"),
		"NUL":                fill("\x00"),
		"high bytes":         fill("\xff"),
		"includes":           fill("include \"missing\";\n"),
		"self includes":      fill("include \"meta1.conf\";\n"),
		"globs":              fill("include \"*\";\n"),
		"random":             fill("a{b=\"c\";d={e,f};/*#*/}g==h;\x01"),
	}
}

const (
	// timeMax is processor time, which no other program takes away. It takes a second on
	// a usual machine; whatever grows with the square of the input needs many minutes.
	timeMax   = time.Minute
	memoryMax = 64 << 20
)

// TestHostile gives Load and Format inputs of 1 MB, which they must read or refuse
// in reasonable time and within 64 MB.
func TestHostile(t *testing.T) {
	size := 1 << 20
	if testing.Short() {
		size = 1 << 17
	}
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // so that the heap is what is in use
	for name, text := range hostile(size) {
		t.Run(name, func(t *testing.T) {
			root := specTable(t)
			cost(t, "Load", func() { _, _ = load(root, text) })
			cost(t, "Format", func() { _, _ = Format("f", []byte(text)) })
		})
	}
}

// cost fails if f takes too long, or its heap grows too much, three times: when the
// collector runs is chance.
func cost(t *testing.T, what string, f func()) {
	t.Helper()
	var took time.Duration
	var grown int64
	for range 3 {
		took, grown = measured(f)
		t.Logf("%s: %s, %d KB", what, took.Round(time.Millisecond), grown>>10)
		if took <= timeMax && grown <= memoryMax {
			return
		}
	}
	t.Errorf("%s took %s and %d KB", what, took, grown>>10)
}

// processorTime is what this process has used so far.
func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails only for another first argument
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measured runs f. Its heap is sampled meanwhile.
func measured(f func()) (took time.Duration, grown int64) {
	runtime.GC()
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		highest := uint64(0)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				peak <- highest
				return
			case <-tick.C:
				runtime.ReadMemStats(&now)
				highest = max(highest, now.HeapInuse)
			}
		}
	}()
	start := processorTime()
	f()
	took = processorTime() - start
	close(stop)
	highest := <-peak
	runtime.ReadMemStats(&now)
	return took, int64(max(highest, now.HeapInuse)) - int64(before.HeapInuse)
}

// TestRefused checks the limits that have no other test.
func TestRefused(t *testing.T) {
	diamond := Files{}
	for i := range 12 {
		diamond[fmt.Sprintf("/etc/meta1/%d", i)] = strings.Repeat(fmt.Sprintf("include \"%d\";\n", i+1), 4)
	}
	diamond["/etc/meta1/12"] = ""
	diamond["/etc/meta1/meta1.conf"] = `include "0";`
	chain := Files{"/etc/meta1/meta1.conf": `include "0";`}
	for i := range 40 {
		chain[fmt.Sprintf("/etc/meta1/%d", i)] = fmt.Sprintf("include \"%d\";", i+1)
	}
	many := ""
	for i := range 2000 {
		many += fmt.Sprintf("unknown%d = 1;\n", i)
	}
	cases := map[string]struct {
		files Files
		want  string
	}{
		"size":     {one(strings.Repeat("#", MaxBytes+1)), "larger than 4194304 bytes"},
		"sum":      {Files{"/etc/meta1/meta1.conf": strings.Repeat("include \"big\";", 5), "/etc/meta1/big": strings.Repeat("#", 1<<20)}, "larger than"},
		"files":    {diamond, "more than 1000 files"},
		"chain":    {chain, "include each other more than 16 deep"},
		"depth":    {one(strings.Repeat("a{", 10_000)), "nested more than 32 deep"},
		"nodes":    {one(strings.Repeat("a=b;", syntax.MaxNodes+1)), "more than 100000 entries"},
		"sections": {one(strings.Repeat("smtps{}", 5000)), "too many sections"},
		"errors":   {one(many), "too many errors"},
		"missing":  {Files{}, "does not exist"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := loadFiles(specTable(t), c.files)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %.500v, want %q", err, c.want)
			}
			if n := len(err.(Errors)); n > syntax.MaxDiagnostics+1 {
				t.Errorf("%d errors", n)
			}
		})
	}
}

func one(text string) Files { return Files{"/etc/meta1/meta1.conf": text} }
