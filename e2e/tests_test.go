package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestTestsScript: what scripts/tests.sh makes of failures, with a go command that plays them.
func TestTestsScript(t *testing.T) {
	const (
		pass    = "ok  \tmeta1/a\t0.1s\n"
		fails   = "--- FAIL: TestA (0.1s)\n    a_test.go:1: no\n--- FAIL: TestB (0.1s)\nFAIL\nFAIL\tmeta1/a\t0.1s\n"
		crashes = "==1==ThreadSanitizer: CHECK failed: tsan.cpp:1\nFAIL\tmeta1/a\t0.1s\n"
		signal  = "SIGSEGV: segmentation violation\nPC=0x115f219 m=4 sigcode=128\nFAIL\tmeta1/a\t0.1s\n"
	)
	for _, c := range []struct {
		name   string
		tries  []string // what each try prints; with FAIL it ends with 1
		passes bool
		says   string
	}{
		{"passes", []string{pass}, true, ""},
		{"fails once", []string{fails, pass}, true, "UNSTEADY meta1/a TestA|TestB"},
		{"fails twice", []string{fails, fails}, false, ""},
		{"fails and crashes", []string{fails, crashes}, false, ""},
		{"race", []string{"WARNING: DATA RACE\n" + fails, pass}, false, ""},
		{"panic", []string{"panic: no\nFAIL\tmeta1/a\t0.1s\n", pass}, false, ""},
		{"does not compile", []string{"FAIL\tmeta1/a [build failed]\nFAIL\n", pass}, false, ""},
		{"asked for its stacks", []string{"SIGQUIT: quit\nPC=0x1\nFAIL\tmeta1/a\t0.1s\n", pass}, false, ""},
		{"no reason", []string{"exit status 1\nFAIL\tmeta1/a\t0.1s\n", pass}, false, ""},
		{"too many", []string{strings.Repeat("--- FAIL: TestA (0.1s)\n", 4) + fails, pass}, false, ""},
		{"detector", []string{crashes, pass}, true, "DETECTOR FAILED, then did not: meta1/a"},
		{"detector by a signal", []string{signal, signal, pass}, true, "DETECTOR FAILED, then did not: meta1/a"},
		{"detector thrice", []string{crashes, signal, crashes}, true, "NO RACE WAS LOOKED FOR: meta1/a"},
		{"detector, then a test", []string{crashes, fails}, false, ""},
		{"race after the detector", []string{crashes, "WARNING: DATA RACE\n" + fails}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for i, out := range c.tries {
				if err := os.WriteFile(filepath.Join(dir, string(rune('1'+i))), []byte(out), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			fake := filepath.Join(dir, "go")
			script := `#!/bin/sh
cd ` + dir + `; echo "$@" >>calls; n=$(wc -l <calls); cat $n; ! grep -q FAIL $n
`
			if err := os.WriteFile(fake, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "../scripts/tests.sh", "-count=1", "--", "meta1/a", "meta1/b")
			cmd.Env = append(os.Environ(), "TEST="+fake)
			out, err := cmd.CombinedOutput()
			if (err == nil) != c.passes {
				t.Errorf("status %v:\n%s", err, out)
			}
			if !strings.Contains(string(out), c.says) {
				t.Errorf("%q is missing:\n%s", c.says, out)
			}
			calls, err := os.ReadFile(filepath.Join(dir, "calls"))
			if err != nil {
				t.Fatal(err)
			}
			if lines := strings.Split(strings.TrimSpace(string(calls)), "\n"); c.passes && len(lines) != len(c.tries) {
				t.Errorf("%d tries, want %d: %q", len(lines), len(c.tries), lines)
			}
			if c.name == "fails once" && !strings.Contains(string(calls), "-run ^(TestA|TestB)$ meta1/a") {
				t.Errorf("called with %q", calls)
			}
		})
	}
}
