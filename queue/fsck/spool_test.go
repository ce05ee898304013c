package fsck

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/ibdb"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

func space() (int64, int64) { return 1 << 30, 64 << 20 }

func dirs() Dirs {
	return Dirs{Spool: "spool", CDB: "spool", IBDB: "spool/ibdb", DEFEDB: "spool/defedb"}
}

// spool is a spool on a disk in memory.
type spool struct {
	t    *testing.T
	disk *pvfs.MemFS
	fs   vfs.FS
	dirs Dirs
}

func newSpool(t *testing.T) *spool {
	s := &spool{t: t, dirs: dirs()}
	s.use(pvfs.NewCrashableMem())
	s.must(s.disk.MkdirAll("spool", 0o700))
	return s
}

func (s *spool) use(disk *pvfs.MemFS) { s.disk, s.fs = disk, vfs.FromPebble(disk, space) }

func (s *spool) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func storeOptions(t *testing.T) store.Options {
	return store.Options{Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error("fatal:", err) }}
}

func ta(n int) smtp.ID { return smtp.ID{Counter: uint64(n), Process: 3} }

func envelope(n, rcpts int) *msg.Envelope {
	e := &msg.Envelope{TA: ta(n), Arrival: time.Unix(1000, 0), Mail: msg.Mail{From: smtp.Path{Local: fmt.Sprintf("s%d", n), Domain: "x.test"}}}
	for i := range rcpts {
		e.Rcpts = append(e.Rcpts, msg.Rcpt{To: smtp.Path{Local: fmt.Sprintf("r%d.%d", n, i), Domain: "y.test"}})
	}
	return e
}

func contentOf(n int) []byte {
	return []byte(fmt.Sprintf("Subject: %d\r\n\r\n%s\r\n", n, strings.Repeat("text ", n%50)))
}

// open opens the three databases.
func (s *spool) open() (*ibdb.DB, *defedb.DB, *cdb.Store) {
	s.t.Helper()
	i, err := ibdb.Open(s.fs, s.dirs.IBDB, storeOptions(s.t))
	s.must(err)
	o := storeOptions(s.t)
	o.LogDir = s.dirs.DEFEDBLog
	d, err := defedb.Open(s.fs, s.dirs.DEFEDB, o)
	s.must(err)
	c, err := cdb.Open(s.fs, s.dirs.CDB)
	s.must(err)
	return i, d, c
}

// fill puts mail into the spool as a queue would have it after a while, and ends as
// kill -9 does:
//
//	1 to 39, odd   three recipients, content in the IBDB; in every third the second has ended
//	2 to 40, even  three recipients: one delivered, one in the DEFEDB, one in the IBDB
//	41 to 60       two recipients, both in the DEFEDB
func (s *spool) fill() {
	s.t.Helper()
	i, d, c := s.open()
	_, err := i.ReserveIDs(1 << 32)
	s.must(err)
	s.must(i.SetSpool([]byte("0123456789abcdef")))
	s.must(d.SetSpool([]byte("0123456789abcdef")))
	for n := 1; n <= 60; n++ {
		b, db := i.NewBatch(), d.NewBatch()
		switch {
		case n > 40:
			e := envelope(n, 2)
			s.content(c, e, nil)
			s.must(db.PutTA(e, int64(len(contentOf(n)))))
			for k := range 2 {
				s.must(db.Put(s.state(n, k), time.Time{}))
			}
		case n%2 == 0:
			e := envelope(n, 3)
			s.must(b.Accept(e, nil))
			s.must(b.End(e.TA, 0))
			s.must(b.End(e.TA, 1))
			s.content(c, e, []int{0})
			s.must(db.PutTA(e, int64(len(contentOf(n)))))
			s.must(db.Put(s.state(n, 1), time.Time{}))
		default:
			e := envelope(n, 3)
			s.must(b.Accept(e, contentOf(n)))
			if n%3 == 0 {
				s.must(b.End(e.TA, 1))
			}
		}
		s.must(i.Commit(b))
		s.must(d.Commit(db))
		if n == 30 {
			s.must(i.Store().Flush())
			s.must(d.Store().Flush())
		}
	}
	s.crash(nil)
	_ = i.Close()
	_ = d.Close()
}

func (s *spool) state(n, k int) *defedb.State {
	return &defedb.State{
		TA: ta(n), Index: k, NextTry: time.Unix(int64(5000+n), int64(k)), Stored: time.Unix(1000, 0), Attempts: 2,
		Dest: "[192.0.2.1]", Waits: n%2 == 0, Reason: "451 later",
	}
}

func (s *spool) content(c *cdb.Store, e *msg.Envelope, ended []int) {
	s.t.Helper()
	w, err := c.Create(e.TA)
	s.must(err)
	_, err = w.Write(contentOf(int(e.TA.Counter)))
	s.must(err)
	s.must(w.CommitRest(e, ended))
}

// crash goes on with the disk as kill -9 leaves it, or a power cut if rnd is given.
func (s *spool) crash(rnd *rand.Rand) {
	percent := 100
	if rnd != nil {
		percent = 50
	} else {
		rnd = rand.New(rand.NewPCG(1, 2))
	}
	s.use(s.disk.CrashClone(pvfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rnd}))
}

// clone is the same spool on a disk of its own.
func (s *spool) clone(t *testing.T) *spool {
	c := *s
	c.t = t
	c.crash(nil)
	return &c
}

// run runs fsck.
func (s *spool) run(change func(*Options)) ([]Finding, Summary) {
	s.t.Helper()
	all, sum, err := s.try(change)
	s.must(err)
	return all, sum
}

func (s *spool) try(change func(*Options)) (all []Finding, sum Summary, err error) {
	o := Options{
		FS: s.fs, Dirs: s.dirs, UID: -1, Now: time.Unix(9000, 0), Log: slog.New(slog.DiscardHandler),
		Report: func(f Finding) { all = append(all, f) },
	}
	if change != nil {
		change(&o)
	}
	sum, err = Run(context.Background(), o)
	return all, sum, err
}

func repair(o *Options)  { o.Repair = true }
func rebuild(o *Options) { o.Rebuild = true }

// codes lists the codes of findings that are no notes, each once.
func codes(all []Finding) (list []string) {
	for _, f := range all {
		if f.Severity != Note && !slices.Contains(list, f.Code) {
			list = append(list, f.Code)
		}
	}
	slices.Sort(list)
	return list
}

// waiting lists the recipients that a start of the queue would try, with their content.
func (s *spool) waiting() map[string]string {
	s.t.Helper()
	i, d, c := s.open()
	defer i.Close()
	defer d.Close()
	all := map[string]string{}
	file := func(ta smtp.ID) string {
		r, err := c.Open(ta)
		if err != nil {
			return "no content"
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	deferred := map[string]bool{}
	var from defedb.Cursor
	s.must(d.Due(time.Unix(1<<33, 0), &from, func(st defedb.State) bool { // by the order of retries, as the queue does
		e, _, ok, err := d.TA(st.TA)
		if err == nil && ok && st.Index < len(e.Rcpts) {
			id := smtp.RcptID(st.TA, st.Index)
			deferred[id] = true
			all[e.Rcpts[st.Index].To.Addr()] = file(st.TA)
		}
		return true
	}))
	s.must(i.Recover(func(r ibdb.Recovered) error {
		content, inline, err := i.Content(r.Envelope.TA)
		for k, rcpt := range r.Envelope.Rcpts {
			if slices.Contains(r.Ended, k) || deferred[smtp.RcptID(r.Envelope.TA, k)] {
				continue
			}
			if all[rcpt.To.Addr()] = string(content); !inline {
				all[rcpt.To.Addr()] = file(r.Envelope.TA)
			}
		}
		return err
	}))
	return all
}

// expected are the recipients that must be tried after fill.
func expected() map[string]string {
	all := map[string]string{}
	for n := 1; n <= 60; n++ {
		for k := range 3 {
			switch {
			case n > 40 && k == 2, n <= 40 && n%2 == 0 && k == 0, n <= 40 && n%2 == 1 && n%3 == 0 && k == 1:
				continue
			}
			all[fmt.Sprintf("r%d.%d@y.test", n, k)] = string(contentOf(n))
		}
	}
	return all
}

// judge expects that all recipients are tried that must be, with their content, but for
// those that the lost function excuses; more are duplicates, which it counts.
func (s *spool) judge(excused func(addr string) bool) (lost, duplicates int) {
	s.t.Helper()
	got, want := s.waiting(), expected()
	var bad []string
	for addr, content := range want {
		switch g, ok := got[addr]; {
		case ok && g == content:
		case excused != nil && excused(addr):
			lost++
		default:
			bad = append(bad, fmt.Sprintf("%s %v %.20q", addr, ok, g))
		}
	}
	if len(bad) > 0 {
		slices.Sort(bad)
		s.t.Errorf("%d recipients are lost, or have a wrong content, such as %v", len(bad), bad[:min(len(bad), 5)])
	}
	for addr := range got {
		if _, ok := want[addr]; !ok {
			duplicates++
		}
	}
	return lost, duplicates
}

func (s *spool) list(dir string) []string {
	names, err := s.disk.List(dir)
	s.must(err)
	slices.Sort(names)
	return names
}

// remove removes a directory durably.
func (s *spool) remove(dir string) {
	s.t.Helper()
	s.must(s.disk.RemoveAll(dir))
	s.must(s.fs.SyncDir(filepath.Dir(dir)))
}

// change changes a file.
func (s *spool) change(name string, how func([]byte) []byte) {
	s.t.Helper()
	f, err := s.disk.Open(name)
	s.must(err)
	b, err := io.ReadAll(f)
	s.must(err)
	f, err = s.disk.Create(name, pvfs.WriteCategoryUnspecified)
	s.must(err)
	_, err = f.Write(how(b))
	s.must(err)
	s.must(f.Sync())
	s.must(f.Close())
}

// last is the last file of a directory with the ending that is not empty.
func (s *spool) last(dir, ending string) string {
	s.t.Helper()
	for _, name := range slices.Backward(s.list(dir)) {
		path := filepath.Join(dir, name)
		if info, err := s.disk.Stat(path); err == nil && strings.Contains(name, ending) && !strings.HasPrefix(name, "marker") && info.Size() > 0 {
			return path
		}
	}
	s.t.Fatalf("no %s in %s", ending, dir)
	return ""
}
