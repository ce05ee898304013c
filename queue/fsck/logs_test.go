package fsck

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"meta1/mta/logfmt"
	"meta1/mta/smtp"
	"meta1/queue/records"
)

// lines is a log in memory.
type lines struct{ bytes.Buffer }

func (l *lines) Put(_ slog.Level, line []byte) { l.Write(line) }

// writeLog writes a log as meta1 does.
func writeLog(asJSON bool, write func(l *slog.Logger)) []byte {
	var out lines
	write(slog.New(logfmt.NewHandler(&out, logfmt.Options{Module: "qmgr", JSON: asJSON})))
	return out.Bytes()
}

func compressed(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// end writes the line of a recipient's attempt, as package queue does.
func end(l *slog.Logger, event string, stat int, r records.Ref) {
	l.Info(event, slog.String("rcpt_id", r.String()), slog.Any("rcpt", smtp.Path{Local: `a, stat=0 {"`, Domain: "y.test"}),
		slog.Int("stat", stat), slog.String("reply", `250 ok, rcpt_id=S000000000000003403-000000`))
}

func replaced(l *slog.Logger, r records.Ref, by smtp.ID, parts int) {
	l.Info("replaced", slog.String("rcpt_id", r.String()), slog.Any("by", by), slog.Int("parts", parts))
}

// TestLogsTellWhoHasEnded loses the store; the log says who has ended, in each form of a
// log.
func TestLogsTellWhoHasEnded(t *testing.T) {
	base := newSpool(t)
	base.fill()
	base.remove("spool/defedb")
	write := func(l *slog.Logger) {
		end(l, "delivered", 0, ref(41, 0))
		end(l, "in any words", 0, ref(42, 0))
		end(l, "delivered", 451, ref(43, 0))
		end(l, "bounced", 550, ref(44, 0))   // its notice was never durable
		replaced(l, ref(45, 0), ta(50), 1)   // by mail that is still there
		replaced(l, ref(46, 0), ta(1001), 1) // by mail that was lost
		replaced(l, ref(47, 0), ta(50), 2)   // by two, of which one is lost
		replaced(l, ref(47, 0), ta(1003), 2)
		replaced(l, ref(48, 0), ta(50), 2) // by two; the other line is missing
		replaced(l, ref(49, 0), ta(50), 2) // by two
		replaced(l, ref(49, 0), ta(51), 2)
		end(l, "delivered", 0, records.Ref{TA: ta(1001)})
	}
	over := []string{"r41.0", "r42.0", "r45.0", "r49.0"}
	text, js := writeLog(false, write), writeLog(true, write)
	syslog := bytes.ReplaceAll(text, []byte("\n2"), []byte("\nNov 20 12:00:00 mx meta1[7]: 2"))
	half := len(text) / 2
	half += bytes.IndexByte(text[half:], '\n') + 1
	for name, logs := range map[string][][]byte{
		"text": {text}, "JSON": {js}, "gzip": {compressed(t, text)}, "syslog": {syslog}, "two files": {text[:half], text[half:]},
		"wrong order": {text[half:], text[:half]}, "cut short": {append(bytes.Clone(text), text[:40]...)},
		"long line": {append(append([]byte(strings.Repeat("x", 3*lineMax)), '\n'), text...)},
	} {
		t.Run(name, func(t *testing.T) {
			s := base.clone(t)
			_, sum := s.run(func(o *Options) {
				o.Rebuild = true
				for _, b := range logs {
					o.Logs = append(o.Logs, bytes.NewReader(b))
				}
			})
			got := s.waiting()
			for addr := range expected() {
				if inline(addr) {
					continue
				}
				_, tried := got[addr]
				if ended := contains(over, addr); tried == ended {
					t.Errorf("%s: ended is %v, tried again is %v", addr, ended, tried)
				}
			}
			if sum.LogEnds != 2 {
				t.Errorf("%+v", sum)
			}
		})
	}
}

func contains(list []string, addr string) bool {
	for _, one := range list {
		if strings.HasPrefix(addr, one+"@") {
			return true
		}
	}
	return false
}

// TestLogsOfWholeStore: of content that the store does not know the log may say that all
// recipients have ended.
func TestLogsOfWholeStore(t *testing.T) {
	s := newSpool(t)
	s.fill()
	db, c := s.open()
	s.content(c, envelope(900, 2))
	s.must(db.Close())
	log := writeLog(false, func(l *slog.Logger) {
		end(l, "delivered", 0, ref(900, 0))
		end(l, "delivered", 0, ref(900, 1))
		end(l, "delivered", 0, ref(50, 0)) // the store is whole, and knows better
	})
	all, sum := s.run(func(o *Options) {
		o.Rebuild = true
		o.Logs = []io.Reader{bytes.NewReader(log)}
	})
	if len(all) != 1 || all[0].Code != "content-ended" || sum.Rebuilt != 0 {
		t.Errorf("%v, %+v", all, sum)
	}
	s.judge(nil)
}

// TestLogsAgainstDamage: what the store lost of the ends of recipients the log brings back.
func TestLogsAgainstDamage(t *testing.T) {
	base := newSpool(t)
	base.fill()
	base.change(base.last("spool/defedb", ".log"), func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+700]); return b })
	log := writeLog(false, func(l *slog.Logger) {
		for n := 31; n <= 70; n++ {
			end(l, "delivered", 0, ref(n, 0))
		}
	})
	s := base.clone(t)
	s.run(func(o *Options) {
		o.Rebuild = true
		o.Logs = []io.Reader{bytes.NewReader(log)}
	})
	got := s.waiting()
	for n := 31; n <= 70; n++ {
		if _, ok := got[envelope(n, 1).Rcpts[0].To.Addr()]; ok {
			t.Errorf("recipient 0 of %d is tried though it has ended", n)
		}
	}
}

func FuzzLogLine(f *testing.F) {
	f.Add(writeLog(false, func(l *slog.Logger) { end(l, "delivered", 0, ref(1, 2)) }))
	f.Add(writeLog(true, func(l *slog.Logger) { replaced(l, ref(1, 2), ta(3), 5) }))
	f.Add([]byte("sev=INFO, rcpt_id=S000000000000000103-000002, by=S%4"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := &past{
			messages: map[smtp.ID]bool{ta(1): true}, ended: map[records.Ref]bool{}, replaced: map[records.Ref]*replacements{},
			alive: func(smtp.ID) bool { return false },
		}
		if err := p.read(context.Background(), bytes.NewReader(b)); err == nil {
			p.hasEnded(ref(1, 2))
		}
	})
}
