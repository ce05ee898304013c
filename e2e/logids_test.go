package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// idsOf are the identifiers that a line of a module has to have.
func idsOf(l map[string]any) []string {
	switch l["module"] {
	case "smtps":
		switch {
		case l["event"] == "session", l["event"] == "connection ended", l["event"] == "phase" && l["to"] != "rcpt" && l["to"] != "data":
			return []string{"ss_se"} // no transaction is open
		}
		return []string{"ss_se", "ss_ta"}
	case "smtpc":
		if l["event"] == "connected" {
			return []string{"da_se"} // which serves more than one message
		}
		return []string{"ss_ta", "da_se", "da_ta"}
	case "qmgr":
		switch l["event"] {
		case "queue is open", "deferred recipients are counted":
			return nil
		case "accepted":
			return []string{"ss_ta"}
		case "delivered", "deferred", "bounced":
			return []string{"ss_ta", "rcpt_id", "da_ta"}
		}
		return []string{"ss_ta", "rcpt_id"}
	}
	return nil
}

// TestLogIDs: each line that is logged of a message has the ids of its session, its transaction and its delivery,
// from when it is accepted, through an alias, a deferral and a second attempt, to a bounce. The level is that of debugging.
func TestLogIDs(t *testing.T) {
	t.Parallel()
	s := newSink(t, "")
	tries := 0
	s.answer(func(verb, arg string) string {
		switch {
		case verb == "RCPT" && strings.Contains(arg, "<bad@"):
			return "550 5.1.1 no such user"
		case verb == "RCPT" && strings.Contains(arg, "<later@"):
			if tries++; tries == 1 {
				return "451 4.3.0 not now"
			}
		}
		return ""
	})
	const levels = "log_level = 15;"
	m := newMTA(t, settings{
		global: `log_file = "LOG"; log_format = json;`, mailertable: toPort(t, ".", s.addr),
		qmgr: levels, smtpc: levels, smtps: levels, smar: levels + ` aliases { file = "aliases"; flags = { all_domains }; }`,
	})
	log := filepath.Join(m.dir, "logs", "log")
	writeFile(t, m.conf, strings.Replace(readFile(t, m.conf), "LOG", log, 1))
	writeFile(t, m.dir+"/aliases", "team@a.test <good@b.test> <later@b.test> <bad@b.test>\n")
	if err := os.Mkdir(filepath.Dir(log), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Dir(log), 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	m.start()
	speak(t, m.smtp, testContent(1, 300), "MAIL FROM:<s@client.test>", "RCPT TO:<team@a.test>", "RCPT TO:<direct@c.test>")
	s.waitFor(4) // good, direct, later, the bounce
	m.queueEmpty()
	m.stop()
	seen := map[string]bool{}
	for line := range strings.Lines(readFile(t, log)) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if l["store"] != nil {
			continue // what Pebble says
		}
		seen[fmt.Sprint(l["module"], " ", l["event"])] = true
		for _, id := range idsOf(l) {
			if text, _ := l[id].(string); text == "" {
				t.Errorf("no %s in %s", id, line)
			}
		}
	}
	for _, want := range []string{
		"smtps session", "smtps mail", "smtps rcpt", "smtps message", "smtps phase", "qmgr accepted", "qmgr replaced", "qmgr delivered", "qmgr deferred",
		"qmgr bounced", "smtpc connected", "smtpc MAIL", "smtpc RCPT", "smtpc delivered", "smtpc delivery failed",
	} {
		if !seen[want] {
			t.Errorf("there is no line %s", want)
		}
	}
}
