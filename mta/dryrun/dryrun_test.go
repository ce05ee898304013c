package dryrun

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meta1/mta/explain"
	"meta1/mta/whatif"
)

// configure writes a configuration with an access map that rejects one sender, and returns the names of the configuration and of the map.
func configure(t *testing.T, dir, name, rejected string) (file, access string) {
	t.Helper()
	file, access = filepath.Join(dir, name+".conf"), filepath.Join(dir, name+".txt")
	for path, text := range map[string]string{
		access:                            "from:" + rejected + " error:550 5.7.1 go away\n",
		filepath.Join(dir, "mailertable"): "a.test lmtp:\nb.test lmtp:\n",
		file:                              "hostname = mx.test; working_directory = \"" + dir + "/spool\"; smar { access_map { file = \"" + access + "\"; } mailertable { file = \"" + dir + "/mailertable\"; } }\nsmtps { flags = { access }; listen_socket { address = 127.0.0.1; port = 25; } }\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file, access
}

func question(from string) explain.Question {
	return explain.Question{Client: netip.MustParseAddr("192.0.2.1"), Name: "c.test", Helo: "c.test", From: from, To: []string{"y@a.test"}}
}

// TestExplain: what a configuration file rejects is rejected, by the entry that says so, and the real spool is not touched.
func TestExplain(t *testing.T) {
	dir := t.TempDir()
	file, access := configure(t, dir, "meta1", "bad@b.test")
	r, err := Explain(t.Context(), file, "test", question("bad@b.test"))
	if err != nil {
		t.Fatal(err)
	}
	var where string
	for _, s := range r.Stages {
		for _, c := range s.Checks {
			where += c.Where + " "
		}
	}
	if r.Source != "file" || r.Server != "smtps" || r.Config != file || !strings.Contains(where, access+":1") {
		t.Errorf("%+v, decided at %q", r, where)
	}
	if _, err := os.Stat(filepath.Join(dir, "spool")); !os.IsNotExist(err) {
		t.Errorf("the main queue directory was made: %v", err)
	}
	q := question("")
	q.Server = "MSA"
	if _, err := Explain(t.Context(), file, "test", q); err == nil || !strings.Contains(err.Error(), `no section smtps is named "MSA"; there are: smtps`) {
		t.Errorf("a section that is not there: %v", err)
	}
}

// TestExplainReply: a reply of a map leads to its entry, one of the program to its options.
func TestExplainReply(t *testing.T) {
	file, access := configure(t, t.TempDir(), "meta1", "bad@b.test")
	r, err := ExplainReply(file, "550 5.7.1 go away")
	if err != nil || len(r.Entries) != 1 || r.Entries[0].Where != access+":1" || r.Entries[0].Key != "from:bad@b.test" {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = ExplainReply(file, "Greylisted")
	if err != nil || len(r.Entries) != 0 || len(r.Replies) == 0 || len(r.Replies[0].Options) == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestDiff: only the mail of which two configurations make something different is told, in its order.
func TestDiff(t *testing.T) {
	dir := t.TempDir()
	before, _ := configure(t, dir, "before", "one@b.test")
	after, _ := configure(t, dir, "after", "two@b.test")
	var all []*whatif.Envelope
	for _, from := range []string{"one@b.test", "none@b.test", "two@b.test"} {
		all = append(all, &whatif.Envelope{Question: question(from)})
	}
	var got []string
	err := Diff(t.Context(), before, after, "test", all, func(c *Changed) error {
		if c.Failed != "" || len(c.Changes) == 0 {
			t.Errorf("%+v", c)
		}
		got = append(got, c.Envelope.Question.From)
		return nil
	})
	if err != nil || strings.Join(got, " ") != "one@b.test two@b.test" {
		t.Errorf("different: %v, %v", got, err)
	}
}
