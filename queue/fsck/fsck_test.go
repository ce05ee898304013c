package fsck

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/smtp"
	"meta1/queue/cdb"
)

func TestWholeSpool(t *testing.T) {
	s := newSpool(t)
	s.fill()
	before := strings.Join(s.list("spool/ibdb"), " ")
	for _, change := range []func(*Options){nil, func(o *Options) { o.Content = true }, repair, rebuild} {
		all, sum := s.run(change)
		if c := codes(all); len(c) > 0 || sum.Repaired+sum.Unrepaired > 0 {
			t.Errorf("a spool that is whole has %v %v", c, all)
		}
		if sum.Examined < 60 {
			t.Errorf("%+v", sum)
		}
		if change == nil {
			if after := strings.Join(s.list("spool/ibdb"), " "); after != before && !slices.Contains(s.list("spool/ibdb"), "LOCK") {
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

// TestLostDatabases removes one or both databases.
func TestLostDatabases(t *testing.T) {
	base := newSpool(t)
	base.fill()
	for name, c := range map[string]struct {
		lost    []string
		excused func(string) bool
	}{
		"defedb":         {[]string{"spool/defedb"}, nil},
		"ibdb":           {[]string{"spool/ibdb"}, inline},
		"both":           {[]string{"spool/ibdb", "spool/defedb"}, inline},
		"tables of both": {[]string{"spool/defedb/*.sst", "spool/ibdb/*.sst"}, inline},
	} {
		t.Run(name, func(t *testing.T) {
			s := base.clone(t)
			for _, path := range c.lost {
				if dir, ok := strings.CutSuffix(path, "/*.sst"); ok {
					s.must(s.disk.Remove(s.last(dir, ".sst")))
				} else {
					s.remove(path)
				}
			}
			if _, sum := s.run(nil); sum.Unrepaired == 0 {
				t.Error("nothing was found")
			}
			all, sum := s.run(rebuild)
			if sum.Unrepaired > 0 || sum.Repaired == 0 || sum.Rebuilt == 0 {
				t.Errorf("%+v %v", sum, all)
			}
			s.judge(c.excused)
			if again, sum := s.run(nil); sum.Unrepaired+sum.Repaired > 0 {
				t.Errorf("after the repair: %v", again)
			}
		})
	}
}

// TestRepairWithoutRebuild: recipients of a transaction that is still known are made anew
// by any repair; content of one that is lost as a whole is in lost+found, and comes back
// from there.
func TestRepairWithoutRebuild(t *testing.T) {
	s := newSpool(t)
	s.fill()
	s.remove("spool/defedb")
	all, sum := s.run(repair)
	if sum.Unrepaired > 0 {
		t.Errorf("%v", all)
	}
	deferred := func(addr string) bool { return number(addr) > 40 }
	if lost, _ := s.judge(deferred); lost == 0 {
		t.Error("nothing is in lost+found")
	}
	dir := "spool/lost+found/" + s.list("spool/lost+found")[0]
	for _, name := range s.list(dir) {
		if id, err := smtp.ParseID(name); err == nil {
			s.must(s.disk.Rename(dir+"/"+name, cdb.At(s.fs, "spool").Path(id)))
		}
	}
	s.run(rebuild)
	s.judge(nil)
}

// inline excuses the loss of mail whose content was in the IBDB.
func inline(addr string) bool {
	n := number(addr)
	return n <= 40 && n%2 == 1
}

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
	i, d, _ := s.open()
	defer i.Close()
	defer d.Close()
	for _, l := range []Limits{
		{Records: 1, Findings: 1, Time: time.Hour},
		{Records: 7, Findings: 7, Time: time.Hour},
		{Records: 1000, Findings: 1000, Time: time.Nanosecond},
		{Records: 1000000, Findings: 1000, Time: time.Hour},
	} {
		var at Cursor
		for more := true; more; {
			c := NewCheck(View{FS: s.fs, Dirs: s.dirs, UID: -1, IBDB: i.Store().Reader(), DEFEDB: d.Store().Reader()}, at, false)
			var all []Finding
			var err error
			if all, more, err = c.Page(context.Background(), l); err != nil || len(all) > 0 {
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
