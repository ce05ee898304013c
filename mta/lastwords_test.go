package mta

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/exit"
	"meta1/mta/logfmt"
	"meta1/mta/settings"
	"meta1/mta/store"
)

// TestLastWords: why a store cannot go on is on standard error, wherever the log goes, and
// once.
func TestLastWords(t *testing.T) {
	for _, file := range []string{"", "log"} {
		dir := t.TempDir()
		var stderr logBuffer
		l, err := openLogs(&Config{LogFile: file, LogFormat: "text"}, dir, &stderr, nil)
		if err != nil {
			t.Fatal(err)
		}
		m := &mta{logs: l, conf: &Config{}}
		if m.log, err = l.logger("mta", &Common{Section: "mta", LogLevel: 9}); err != nil {
			t.Fatal(err)
		}
		m.setup.Exit = func(status int) {
			if status != exit.IOErr {
				t.Errorf("ended with %d", status)
			}
		}
		m.fatal(fmt.Errorf("ibdb: %w", store.ErrDamaged))
		l.stop()
		const want = "sev=FATAL, module=mta, event=a store cannot go on"
		if s := stderr.String(); strings.Count(s, want) != 1 || !strings.Contains(s, "meta1 fsck") {
			t.Errorf("log_file %q: standard error has %q", file, s)
		}
		if text, _ := os.ReadFile(dir + "/log"); file != "" && strings.Count(string(text), want) != 1 {
			t.Errorf("the log has %q", text)
		}
	}
}

// TestRemoved: that somebody has removed a database is said in so many words.
func TestRemoved(t *testing.T) {
	_, cause := os.Open(t.TempDir() + "/defedb/000004.log")
	if err := explainEnd(fmt.Errorf("ibdb: %w", cause)); !errors.Is(err, cause) || !strings.Contains(err.Error(), "were removed while meta1 used them") {
		t.Errorf("%v", err)
	}
	if err := explainEnd(store.ErrDamaged); !strings.Contains(err.Error(), "meta1 fsck") {
		t.Errorf("%v", err)
	}
}

// stuck is an output that nobody reads.
type stuck struct{ until chan struct{} }

func (s stuck) Write(b []byte) (int, error) {
	<-s.until
	return len(b), nil
}

// TestNobodyReads: the process ends although neither log nor standard error takes a line.
func TestNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := make(chan struct{})
		defer close(until)
		m := &mta{logs: &logs{stderr: logfmt.NewWriter(stuck{until}), now: &sinks{file: &logfmt.File{Writer: logfmt.NewWriter(io.Discard)}}}, conf: &Config{}}
		m.log = slog.New(logfmt.NewHandler(logfmt.NewWriter(stuck{until}), logfmt.Options{Level: slog.LevelInfo}))
		began, ended := time.Now(), time.Duration(-1)
		m.setup.Exit = func(int) { ended = time.Since(began) }
		m.fatal(errors.New("disk broke"))
		if ended != lastWordsTime {
			t.Errorf("it ended after %v", ended)
		}
	})
}

// TestReaderStops: somebody who stops to read standard error holds up neither what is
// logged nor the end.
func TestReaderStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		until := make(chan struct{})
		defer close(until)
		l, err := openLogs(&Config{LogFormat: "text"}, "", stuck{until}, nil)
		if err != nil {
			t.Fatal(err)
		}
		log, err := l.logger("mta", &Common{Section: settings.OwnSection, LogLevel: 9})
		if err != nil {
			t.Fatal(err)
		}
		l.start()
		synctest.Wait()
		began := time.Now()
		for range 20_000 {
			log.Warn("a line of some length, so that there are more than a megabyte of them")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("logging waited for %v", took)
		}
		if l.stderr.Dropped() == 0 {
			t.Error("nothing was dropped, so nothing was shown")
		}
		l.stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the end waited for %v", took)
		}
	})
}
