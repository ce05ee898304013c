package mta

import (
	"encoding/json"
	"fmt"
	"net/smtp"
	"slices"
	"strings"
	"testing"
	"time"
)

// logged is a line of a log in JSON.
type logged struct {
	Time               time.Time
	Sev, Module, Event string
}

// parseLog reads a log in JSON, without the lines of the store's library.
func parseLog(t *testing.T, text string) (all []logged) {
	t.Helper()
	for line := range strings.Lines(text) {
		var l struct {
			logged
			Store string
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if l.Store == "" {
			all = append(all, l.logged)
		}
	}
	return all
}

// TestLogLevels: at each log_level from 0 to 15 a reload takes effect, a message comes and goes, a service fails, and a reload fails.
// Each line has a severity that docs/logging.md names for the level, and no event of those severities is missing, so that a
// level has all that the one below has. At 0 there is nothing, since nothing ends meta1.
func TestLogLevels(t *testing.T) {
	bands := []struct {
		from, to int
		sev      string
		events   []string
	}{
		{0, 0, "FATAL", nil},
		{1, 2, "ERR", []string{"mta reload failed: nothing has changed"}},
		{3, 4, "WARN", []string{"smtps policy service failed"}},
		{5, 8, "NOTICE", []string{"mta reload"}},
		{9, 11, "INFO", []string{"smtps session", "smtps mail", "smtps rcpt", "smtps message", "smtpc delivered", "qmgr delivered"}},
		{12, 15, "DEBUG", []string{"smtps phase", "qmgr accepted"}},
	}
	box := deliveryAgent(t)
	dir := shortDir(t)
	configure := func(level int) {
		levels := fmt.Sprintf("{ log_level = %d;", level)
		text := strings.NewReplacer("qmgr {", "qmgr "+levels, "smar {", "smar "+levels, "smtps {", "smtps "+levels+`
			policy_service gone { socket { type = unix; path = "gone.sock"; }; on_failure = accept; relaying_clients = true; }`).Replace(config(dir, ""))
		write(t, dir+"/meta1.conf", text+fmt.Sprintf("log_format = json; smtpc %s LMTP_socket = %q; }\n", levels, box+"/lmtp"))
	}
	configure(0)
	write(t, dir+"/mt", ". lmtp:\n")
	write(t, dir+"/access", "cltaddr:127. relay\n")
	r := startIn(t, dir)
	reload := func(fails bool) {
		t.Helper()
		if report, err := r.control.Reload(t.Context()); err != nil || (len(report.Errors) > 0) != fails {
			t.Fatalf("%+v, %v", report, err)
		}
	}
	var begins []time.Time // of each level. The level rises, so that a line of the one before may come later.
	of := func(level int) (lines []logged) {
		for _, l := range parseLog(t, r.log.String()) {
			if !l.Time.Before(begins[level]) && (level+1 >= len(begins) || l.Time.Before(begins[level+1])) {
				lines = append(lines, l)
			}
		}
		return lines
	}
	for level := range 16 {
		begins = append(begins, time.Now().Truncate(time.Millisecond))
		configure(level)
		reload(false)
		if err := smtp.SendMail(r.address("smtps"), nil, "s@a.test", []string{"joe@b.test"}, []byte("Subject: x\r\n\r\nhello\r\n")); err != nil {
			t.Fatal(err)
		}
		write(t, dir+"/meta1.conf", "nonsense")
		reload(true)
		for _, b := range bands {
			if b.from > level {
				break
			}
			for _, e := range b.events {
				eventually(t, fmt.Sprintf("%s %s at log_level %d", b.sev, e, level), func() bool {
					return slices.ContainsFunc(of(level), func(l logged) bool { return l.Module+" "+l.Event == e && l.Sev == b.sev })
				})
			}
		}
	}
	r.stop()
	for level := range 16 {
		var may []string
		for _, b := range bands {
			if b.from <= level {
				may = append(may, b.sev)
			}
		}
		for _, l := range of(level) {
			if !slices.Contains(may, l.Sev) {
				t.Errorf("log_level %d has %+v", level, l)
			}
		}
	}
}
