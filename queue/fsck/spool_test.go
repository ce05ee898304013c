package fsck

import (
	"context"
	"errors"
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

	"meta1/mta/cdb"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/vfs"
	"meta1/mta/vfs/crashfs"
	"meta1/queue/entry"
	"meta1/queue/records"
)

func space() (int64, int64) { return 1 << 30, 64 << 20 }

func dirs() Dirs {
	return Dirs{Spool: "spool", CDB: "spool", Store: "spool/defedb"}
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

func (s *spool) use(disk *pvfs.MemFS) { s.disk, s.fs = disk, crashfs.FS(disk, space) }

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

// open opens the store and the content files.
func (s *spool) open() (*records.DB, *cdb.Store) {
	s.t.Helper()
	o := storeOptions(s.t)
	o.LogDir = s.dirs.StoreLog
	db, err := records.Open(s.fs, s.dirs.Store, o)
	s.must(err)
	c, err := cdb.Open(s.fs, s.dirs.CDB)
	s.must(err)
	return db, c
}

// fill puts mail into the spool as a queue would have it after a while, and ends as
// kill -9 does:
//
//	1 to 39, odd   three fresh recipients, content in the store; of every third message
//	               the second recipient has ended
//	2 to 40, even  three recipients: one has ended, one is deferred, one is fresh; content
//	               in a file
//	41 to 60       two deferred recipients, content in a file
//	61 to 70       two deferred recipients, content in the store, or of even ones in a
//	               file, to which it was moved
func (s *spool) fill() {
	s.t.Helper()
	db, c := s.open()
	_, err := db.ReserveIDs(1 << 32)
	s.must(err)
	for n := 1; n <= 70; n++ {
		b := db.NewBatch()
		e := envelope(n, rcptsOf(n))
		if inStore(n) {
			s.must(b.Accept(e, int64(len(contentOf(n))), contentOf(n)))
		} else {
			s.content(c, e)
			var inline []byte
			if n > 60 {
				inline = contentOf(n)
			}
			s.must(b.Accept(e, int64(len(contentOf(n))), inline))
		}
		switch {
		case n > 40:
			s.must(errors.Join(b.Put(state(n, 0), nil), b.Put(state(n, 1), nil), b.DropAccepted(e.TA, nil)))
		case n%2 == 0:
			s.must(errors.Join(b.EndFresh(records.Ref{TA: e.TA}), b.Put(state(n, 1), nil)))
		case n%3 == 0:
			s.must(b.EndFresh(records.Ref{TA: e.TA, Index: 1}))
		}
		s.must(db.Commit(b))
		if n > 60 && !inStore(n) {
			b := db.NewBatch()
			s.must(errors.Join(b.Spilled(e.TA), db.Commit(b)))
		}
		if n == 30 || n == 50 {
			s.must(db.Store().Flush())
		}
	}
	s.crash(nil)
	_ = db.Close()
}

func rcptsOf(n int) int {
	if n > 40 {
		return 2
	}
	return 3
}

// inStore reports whether the content of a message is in the store.
func inStore(n int) bool { return (n <= 40 || n > 60) && n%2 == 1 }

func state(n, k int) *records.State {
	return &records.State{
		Ref: records.Ref{TA: ta(n), Index: k}, NextTry: time.Unix(int64(5000+n), int64(k)), Stored: time.Unix(1000, 0), Attempts: 2,
		Dest: "[192.0.2.1]", Parked: n%2 == 0, Reason: "451 later",
	}
}

func (s *spool) content(c *cdb.Store, e *msg.Envelope) {
	s.t.Helper()
	w, err := c.Create(e.TA)
	s.must(err)
	_, err = w.Write(contentOf(int(e.TA.Counter)))
	s.must(err)
	s.must(w.Commit(e))
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
	db, c := s.open()
	v := db.View()
	all := map[string]string{}
	content := func(e records.Envelope) string {
		if e.Inline {
			b, ok, err := db.Content(e.TA)
			s.must(err)
			if ok {
				return string(b)
			}
		}
		r, err := c.Open(e.TA)
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
	s.must(v.Due(time.Unix(1<<33, 0), new(entry.Due), func(l *records.Loaded) bool {
		all[l.Envelope.Rcpts[l.Index].To.Addr()] = content(l.Envelope)
		return true
	}))
	s.must(v.Recover(func(r *records.Recovered) error {
		for k, rcpt := range r.Envelope.Rcpts {
			deferred := slices.ContainsFunc(r.Deferred, func(st records.State) bool { return st.Index == k })
			if !deferred && !slices.Contains(r.Ended, k) && !slices.Contains(r.Aside, k) {
				all[rcpt.To.Addr()] = content(r.Envelope)
			}
		}
		return nil
	}))
	s.must(errors.Join(v.Close(), db.Close()))
	return all
}

// expected are the recipients that must be tried after fill.
func expected() map[string]string {
	all := map[string]string{}
	for n := 1; n <= 70; n++ {
		for k := range rcptsOf(n) {
			if n <= 40 && (n%2 == 0 && k == 0 || n%2 == 1 && n%3 == 0 && k == 1) {
				continue // it has ended
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
