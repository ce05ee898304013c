package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"meta1/queue/fsck"
)

// printed is what fsck prints of findings, and its exit status.
func printed(t *testing.T, all []fsck.Finding, asJSON, quiet bool) (string, int) {
	t.Helper()
	var b bytes.Buffer
	out := bufio.NewWriter(&b)
	p := &fsckPrinter{out: out, asJSON: asJSON, quiet: quiet}
	sum := fsck.Summary{Examined: 1000}
	for _, f := range all {
		sum.Count(&f)
		p.finding(f)
	}
	p.notes()
	status := 0
	var e *statusError
	if err := p.summary(&sum, false); errors.As(err, &e) {
		status = e.status
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.String(), status
}

// TestFsckOutput: equal notes are one line, everything else has a line of its own, and the
// last line is the verdict.
func TestFsckOutput(t *testing.T) {
	note := func(n int) fsck.Finding {
		return fsck.Finding{Severity: fsck.Note, Code: "content-orphan", Path: fmt.Sprintf("/spool/%d", n), Text: "content of nobody"}
	}
	loss := func(n int) fsck.Finding {
		return fsck.Finding{Severity: fsck.Loss, Code: "content-missing", Path: fmt.Sprintf("/spool/%d", n), Text: "gone"}
	}
	var notes, other []fsck.Finding
	for n := range 156 {
		notes = append(notes, note(n))
		f := note(n)
		f.Text = fmt.Sprint("another text ", n*n)
		other = append(other, f, f)
	}
	for _, c := range []struct {
		name    string
		all     []fsck.Finding
		quiet   bool
		lines   int
		status  int
		verdict string
		want    string
	}{
		{"nothing", nil, false, 1, 0, "clean: nothing is wrong; 1000 records and files examined", ""},
		{"notes", notes, false, 2, 0, "clean: nothing is wrong; 1000 records and files examined, 156 notes", "note: content-orphan: /spool/0: content of nobody (and 155 more like this)\n"},
		{"quiet", notes, true, 1, 0, "clean: nothing is wrong; 1000 records and files examined, 156 notes", ""},
		{"different notes", other, false, 157, 0, "clean: nothing is wrong; 1000 records and files examined, 312 notes", "another text 9 (and 1 more like this)\n"},
		{"losses", append([]fsck.Finding{loss(1), loss(2)}, notes...), false, 5, 4, "damaged: 2 findings; 1000 records and files examined, 156 notes", "loss: content-missing: /spool/2: gone\n"},
		{"repaired", []fsck.Finding{{Severity: fsck.Repairable, Done: "it is made"}}, false, 2, 1, "repaired: 1 finding, none is left; 1000 records and files examined", ""},
	} {
		got, status := printed(t, c.all, false, c.quiet)
		lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
		if len(lines) != c.lines || lines[len(lines)-1] != c.verdict || status != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s: status %d, %d lines:\n%s", c.name, status, len(lines), got)
		}
	}
	got, _ := printed(t, notes, true, false)
	for line := range strings.Lines(got) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	if n := strings.Count(got, "\n"); n != len(notes)+1 {
		t.Errorf("%d lines of JSON", n)
	}
}
