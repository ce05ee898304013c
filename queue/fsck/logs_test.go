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

// end writes the line of the end of a recipient, as package queue does.
func end(l *slog.Logger, event string, ta smtp.ID, index int) {
	l.Info(event, slog.String("rcpt_id", smtp.RcptID(ta, index)), slog.Any("rcpt", smtp.Path{Local: `a, event=x {"`, Domain: "y.test"}),
		slog.String("reply", `250 ok, rcpt_id=S000000000000003403-000000`))
}

func replaced(l *slog.Logger, ta smtp.ID, index int, by smtp.ID, rcpts, parts int) {
	l.Info("replaced", slog.String("rcpt_id", smtp.RcptID(ta, index)), slog.Any("by", by), slog.Int("rcpts", rcpts), slog.Int("parts", parts))
}

// TestLogsTellWhoHasEnded loses both databases; the log says who has ended, in each form
// of a log.
func TestLogsTellWhoHasEnded(t *testing.T) {
	base := newSpool(t)
	base.fill()
	base.remove("spool/ibdb")
	base.remove("spool/defedb")
	write := func(l *slog.Logger) {
		end(l, "delivered", ta(41), 0)
		end(l, "dropped: nobody is to be told", ta(42), 0)
		end(l, "removed by an operator", ta(43), 0)
		end(l, "bounced", ta(44), 0)           // its notice was never durable
		replaced(l, ta(45), 0, ta(50), 2, 1)   // by mail that is still there
		replaced(l, ta(46), 0, ta(1001), 1, 1) // by mail that was lost
		replaced(l, ta(47), 0, ta(1002), 1, 1) // by mail that was delivered
		end(l, "delivered", ta(1002), 0)
		replaced(l, ta(48), 0, ta(1003), 1, 2) // by two, of which one is lost
		replaced(l, ta(48), 0, ta(1004), 1, 2)
		end(l, "delivered", ta(1003), 0)
		replaced(l, ta(49), 0, ta(1005), 1, 1) // by one that was replaced in its turn
		replaced(l, ta(1005), 0, ta(1006), 2, 1)
		end(l, "delivered", ta(1006), 0)
		end(l, "delivered", ta(1006), 1)
		replaced(l, ta(51), 0, ta(1007), 1, 2) // by two; the other line is missing
		end(l, "delivered", ta(1007), 0)
	}
	over := []string{"r41.0", "r42.0", "r43.0", "r45.0", "r47.0", "r49.0"}
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
					o.Logs = append(o.Logs, io.ReadSeeker(bytes.NewReader(b)))
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
			if sum.LogEnds == 0 {
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

// TestLogsNameTheLost: of content without an envelope the log knows sender and
// recipients (README 4.11.2).
func TestLogsNameTheLost(t *testing.T) {
	s := newSpool(t)
	s.fill()
	i, d, c := s.open()
	s.content(c, envelope(900, 1), nil)
	s.must(i.Close())
	s.must(d.Close())
	s.change(c.Path(ta(900)), func(b []byte) []byte { return b[:len(b)-1] })
	log := writeLog(false, func(l *slog.Logger) {
		l.Info("rcpt", slog.Any("ss_ta", ta(900)), slog.Any("rcpt", smtp.Path{Local: "refused", Domain: "y.test"}), slog.String("reply", "550 no"))
		for range 2 {
			l.Info("rcpt", slog.Any("ss_ta", ta(900)), slog.Any("rcpt", smtp.Path{Local: "a,b", Domain: "y.test"}), slog.Int("idx", 0), slog.Int("stat", 0))
		}
		l.Info("message", slog.Any("ss_ta", ta(900)), slog.Any("mail", smtp.Path{Local: "s", Domain: "x.test"}), slog.String("msgid", "<1@x>"))
	})
	s.run(func(o *Options) {
		o.Repair = true
		o.Logs = []io.ReadSeeker{bytes.NewReader(log)}
	})
	dir := "spool/lost+found/" + s.list("spool/lost+found")[0]
	s.change(dir+"/list.txt", func(b []byte) []byte {
		if !strings.Contains(string(b), ta(900).String()+"\tcontent file: mail=<s@x.test> rcpt=<a,b@y.test>\n") {
			t.Errorf("the list says %q", b)
		}
		return b
	})
}

// TestLogsAgainstDamage: what the IBDB lost of the ends of recipients the log brings back.
func TestLogsAgainstDamage(t *testing.T) {
	base := newSpool(t)
	base.fill()
	base.change(base.last("spool/ibdb", "MANIFEST"), func(b []byte) []byte { b[40] ^= 1; return b })
	base.change(base.last("spool/ibdb", ".log"), func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+700]); return b })
	log := writeLog(false, func(l *slog.Logger) {
		for n := 31; n <= 39; n += 2 {
			end(l, "delivered", ta(n), 0)
		}
	})
	s := base.clone(t)
	s.run(func(o *Options) {
		o.Rebuild = true
		o.Logs = []io.ReadSeeker{bytes.NewReader(log)}
	})
	got := s.waiting()
	for n := 31; n <= 39; n += 2 {
		if _, ok := got[envelope(n, 1).Rcpts[0].To.Addr()]; ok {
			t.Errorf("recipient 0 of %d is tried though it has ended", n)
		}
	}
}

func FuzzLogLine(f *testing.F) {
	f.Add(writeLog(false, func(l *slog.Logger) { end(l, "delivered", ta(1), 2) }))
	f.Add(writeLog(true, func(l *slog.Logger) { replaced(l, ta(1), 2, ta(3), 4, 5) }))
	f.Add([]byte("sev=INFO, event=rcpt, ss_ta=S000000000000000103, rcpt=<%4"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &memory{tas: map[smtp.ID]*history{ta(1): {}}, alive: func(smtp.ID) bool { return false }}
		if err := m.read(context.Background(), bytes.NewReader(b)); err == nil {
			m.ended(ta(1), 2)
			m.letter(ta(1))
		}
	})
}
