package fsck

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/cdb"
	"meta1/mta/smtp"
	"meta1/queue/records"
)

func TestWholeSpool(t *testing.T) {
	s := newSpool(t)
	s.fill()
	before := strings.Join(s.list("spool/defedb"), " ")
	for _, change := range []func(*Options){nil, func(o *Options) { o.Content = true }, repair, rebuild} {
		all, sum := s.run(change)
		if c := codes(all); len(c) > 0 || sum.Repaired+sum.Unrepaired > 0 {
			t.Errorf("a spool that is whole has %v %v", c, all)
		}
		if sum.Examined < 200 {
			t.Errorf("%+v", sum)
		}
		if change == nil {
			if after := strings.Join(s.list("spool/defedb"), " "); after != before && !slices.Contains(s.list("spool/defedb"), "LOCK") {
				t.Errorf("a check changed %s to %s", before, after)
			}
		}
	}
	if lost, twice := s.judge(nil); lost+twice > 0 {
		t.Errorf("%d lost, %d twice", lost, twice)
	}
}

func TestEmptySpool(t *testing.T) {
	s := newSpool(t)
	for _, change := range []func(*Options){nil, rebuild} {
		all, sum := s.run(change)
		if len(all) != 1 || sum.Notes != 1 || len(s.list("spool")) > 0 {
			t.Errorf("%v %+v, and there is %v", all, sum, s.list("spool"))
		}
	}
}

// TestLostStore removes the store, or a part of it.
func TestLostStore(t *testing.T) {
	base := newSpool(t)
	base.fill()
	for name, lose := range map[string]func(s *spool){
		"store": func(s *spool) { s.remove("spool/defedb") },
		"table": func(s *spool) { s.must(s.disk.Remove(s.last("spool/defedb", ".sst"))) },
		"all but the directory": func(s *spool) {
			for _, name := range s.list("spool/defedb") {
				s.must(s.disk.RemoveAll("spool/defedb/" + name))
			}
		},
		"a new one": func(s *spool) {
			s.remove("spool/defedb")
			db, _ := s.open()
			s.must(db.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := base.clone(t)
			lose(s)
			if _, sum := s.run(nil); sum.Unrepaired == 0 {
				t.Error("nothing was found")
			}
			all, sum := s.run(rebuild)
			if sum.Unrepaired > 0 || sum.Repaired == 0 || sum.Rebuilt == 0 {
				t.Errorf("%+v %v", sum, all)
			}
			s.judge(inline)
			if again, sum := s.run(nil); sum.Repaired > 0 || sum.Unrepaired > 0 && name != "table" {
				t.Errorf("after the repair: %v", again)
			}
		})
	}
}

// TestRepairWithoutRebuild: content of a message that is lost as a whole is in lost+found,
// and comes back from there.
func TestRepairWithoutRebuild(t *testing.T) {
	s := newSpool(t)
	s.fill()
	s.remove("spool/defedb")
	all, sum := s.run(repair)
	if sum.Unrepaired > 0 {
		t.Errorf("%v", all)
	}
	if got := s.waiting(); len(got) > 0 {
		t.Errorf("%d recipients are there", len(got))
	}
	dir := "spool/lost+found/" + s.list("spool/lost+found")[0]
	for _, name := range s.list(dir) {
		if id, err := smtp.ParseID(name); err == nil {
			s.must(s.disk.Rename(dir+"/"+name, cdb.At(s.fs, "spool").Path(id)))
		}
	}
	s.run(rebuild)
	s.judge(inline)
}

// TestBringBack: the log is damaged in its middle, a start goes on without what stood
// behind that and keeps the files; mail that only they have comes back.
func TestBringBack(t *testing.T) {
	for _, logs := range []string{"", "spool/log"} {
		s := newSpool(t)
		s.dirs.StoreLog = logs
		s.fill()
		db, _ := s.open() // a start in between, for a reserve
		s.must(db.Close())
		dir := logs
		if dir == "" {
			dir = "spool/defedb"
		}
		db, _ = s.open()
		commit := func(n int) {
			b := db.NewBatch()
			e := envelope(n, 2)
			s.must(b.Accept(e, int64(len(contentOf(n))), contentOf(n)))
			s.must(db.Commit(b))
		}
		for n := 100; n < 200; n++ {
			commit(n)
		}
		s.crash(nil)
		_ = db.Close()
		s.change(s.last(dir, ".log"), func(b []byte) []byte { clear(b[len(b)/4 : len(b)/4+100]); return b })
		db, _ = s.open()
		b := db.NewBatch()
		s.must(b.EndFresh(records.Ref{TA: ta(100), Index: 1})) // what has changed since counts
		s.must(db.Commit(b))
		s.must(db.Close())
		if n := len(s.waiting()); n > 250 {
			t.Fatalf("%d recipients are there in spite of the damage", n)
		}
		var kept string
		for _, name := range s.list("spool") {
			if strings.HasPrefix(name, "defedb.damaged-") {
				kept = "spool/" + name
			}
		}
		before := s.waiting()
		log := writeLog(false, func(l *slog.Logger) { end(l, "delivered", 0, ref(199, 0)) })
		all, sum := s.run(func(o *Options) {
			o.Repair, o.From = true, kept
			o.Logs = []io.Reader{bytes.NewReader(log)}
		})
		if sum.Unrepaired > 0 || sum.Rebuilt == 0 {
			t.Errorf("%+v %v", sum, all)
		}
		got := s.waiting()
		missing := 0
		for n := 100; n < 200; n++ {
			for k := range 2 {
				addr := fmt.Sprintf("r%d.%d@y.test", n, k)
				content, ok := got[addr]
				switch {
				case n == 100 && k == 1 || n == 199 && k == 0:
					if ok {
						t.Errorf("%s has ended and is tried again", addr)
					}
				case !ok:
					missing++
				case content != string(contentOf(n)):
					t.Errorf("%s gets %.20q", addr, content)
				}
			}
		}
		if missing > 6 { // those of the damaged part itself
			t.Errorf("%d recipients are missing", missing)
		}
		for addr := range before {
			if _, ok := got[addr]; !ok {
				t.Errorf("%s is gone", addr)
			}
		}
		if all, sum := s.run(func(o *Options) { o.Repair, o.From = true, kept }); sum.Rebuilt > 0 {
			t.Errorf("a second time: %v", all)
		}
		if _, _, err := s.try(func(o *Options) { o.Repair, o.From = true, "spool/none" }); err == nil {
			t.Error("no error where there is no kept store")
		}
	}
}

// inline excuses the loss of mail whose content was in the store.
func inline(addr string) bool { return inStore(number(addr)) }

// number is the number of the message to an address.
func number(addr string) (n int) {
	for _, c := range strings.TrimPrefix(addr, "r") {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	return n
}

// TestPages: however small the pages are, each record and file is examined once.
func TestPages(t *testing.T) {
	s := newSpool(t)
	s.fill()
	_, whole := s.run(nil)
	db, _ := s.open()
	defer db.Close()
	for _, l := range []Limits{
		{Records: 1, Findings: 1, Time: time.Hour},
		{Records: 7, Findings: 7, Time: time.Hour},
		{Records: 1000, Findings: 1000, Time: time.Nanosecond},
		{Records: 1000000, Findings: 1000, Time: time.Hour},
	} {
		var at Cursor
		for more := true; more; {
			c := NewCheck(View{FS: s.fs, Dirs: s.dirs, UID: -1, Store: db.Store().Reader()}, at, false)
			var all []found
			var err error
			if all, more, err = c.page(context.Background(), l); err != nil || len(all) > 0 {
				t.Fatal(all, err)
			}
			if c.Cursor().Examined > at.Examined+uint64(l.Records) {
				t.Fatalf("a page of %d records has %d", l.Records, c.Cursor().Examined-at.Examined)
			}
			at = c.Cursor()
		}
		if at.Examined != whole.Examined {
			t.Errorf("%+v: %d examined of %d", l, at.Examined, whole.Examined)
		}
	}
}
