package fsck

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/ibdb"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

// opened are the databases of a spool that a test damages.
type opened struct {
	*spool
	i *ibdb.DB
	d *defedb.DB
	c *cdb.Store
}

func (o *opened) setI(k ibdb.Key, v []byte)   { o.must(o.i.Store().Set(k.Bytes(), v, nil)) }
func (o *opened) dropI(k ibdb.Key)            { o.must(o.i.Store().Delete(k.Bytes(), nil)) }
func (o *opened) setD(k defedb.Key, v []byte) { o.must(o.d.Store().Set(k.Bytes(), v, nil)) }
func (o *opened) dropD(k []byte)              { o.must(o.d.Store().Delete(k, nil)) }
func (o *opened) removeFile(n int)            { o.must(o.c.Remove(ta(n))) }

func envelopeKey(n int) ibdb.Key { return ibdb.Key{Kind: ibdb.KindEnvelope, TA: ta(n)} }
func taKey(n int) defedb.Key     { return defedb.Key{Kind: defedb.KindTA, TA: ta(n)} }
func rcptKey(n, k int) defedb.Key {
	return defedb.Key{Kind: defedb.KindRcpt, TA: ta(n), Index: k}
}

// TestFindings makes one thing wrong at a time, and expects that it is found, that a
// repair leaves the spool sound, and that no recipient is lost but those that are named.
func TestFindings(t *testing.T) {
	base := newSpool(t)
	base.fill()
	for _, c := range []struct {
		code     string
		severity Severity
		harm     func(o *opened)
		left     bool     // it cannot be repaired
		lost     []string // beginnings of addresses
	}{
		{code: "ibdb-record", severity: Repairable, harm: func(o *opened) { o.must(o.i.Store().Set([]byte("junk"), []byte("x"), nil)) }},
		{code: "defedb-record", severity: Repairable, harm: func(o *opened) { o.must(o.d.Store().Set([]byte("rx"), []byte("x"), nil)) }},
		{code: "content-stray", severity: Loss, harm: func(o *opened) { o.dropI(envelopeKey(1)) }, lost: []string{"r1."}},
		{code: "ended-stray", severity: Repairable, harm: func(o *opened) { o.setI(ibdb.Key{Kind: ibdb.KindEnded, TA: ta(900)}, nil) }},
		{code: "ended-index", severity: Repairable, harm: func(o *opened) { o.setI(ibdb.Key{Kind: ibdb.KindEnded, TA: ta(1), Index: 3}, nil) }},
		{code: "envelope-damaged", severity: Loss, harm: func(o *opened) { o.setI(envelopeKey(1), []byte("junk")) }, lost: []string{"r1."}},
		{code: "envelope-damaged", severity: Repairable, harm: func(o *opened) { o.setI(envelopeKey(2), []byte("junk")) }},
		{code: "envelope-damaged", severity: Repairable, harm: func(o *opened) { o.setI(envelopeKey(2), msg.AppendEnvelope(nil, envelope(4, 3))) }},
		{code: "content-missing", severity: Loss, harm: func(o *opened) { o.removeFile(2) }, left: true, lost: []string{"r2."}},
		{code: "content-missing", severity: Loss, harm: func(o *opened) { o.removeFile(50) }, left: true, lost: []string{"r50."}},
		{code: "content-missing", severity: Loss, harm: func(o *opened) { o.dropI(ibdb.Key{Kind: ibdb.KindContent, TA: ta(1)}) }, left: true, lost: []string{"r1."}},
		{code: "content-damaged", severity: Loss, harm: func(o *opened) {
			o.change(o.c.Path(ta(50)), func(b []byte) []byte { return b[:len(b)-3] })
		}, left: true, lost: []string{"r50."}},
		{code: "content-checksum", severity: Loss, harm: func(o *opened) {
			o.change(o.c.Path(ta(50)), func(b []byte) []byte { b[3] ^= 1; return b })
		}, left: true, lost: []string{"r50."}},
		{code: "content-size", severity: Loss, harm: func(o *opened) {
			b := o.d.NewBatch()
			o.must(b.PutTA(envelope(50, 2), 1))
			o.must(o.d.Commit(b))
		}, left: true},
		{code: "due-missing", severity: Repairable, harm: func(o *opened) { o.dropD(o.state(50, 0).Indexes()[0]) }},
		{code: "wait-missing", severity: Repairable, harm: func(o *opened) { o.dropD(o.state(50, 0).Indexes()[1]) }},
		{code: "due-stray", severity: Repairable, harm: func(o *opened) {
			o.setD(defedb.Key{Kind: defedb.KindDue, TA: ta(50), Time: time.Unix(1, 0)}, nil)
		}},
		{code: "due-stray", severity: Repairable, harm: func(o *opened) {
			o.setD(defedb.Key{Kind: defedb.KindDue, TA: ta(900), Time: time.Unix(1, 0)}, nil)
		}},
		{code: "wait-stray", severity: Repairable, harm: func(o *opened) {
			o.setD(defedb.Key{Kind: defedb.KindWait, TA: ta(50), Dest: "elsewhere"}, nil)
		}},
		{code: "rcpt-damaged", severity: Repairable, harm: func(o *opened) { o.setD(rcptKey(50, 0), []byte("junk")) }},
		{code: "rcpt-index", severity: Repairable, harm: func(o *opened) {
			b := o.d.NewBatch()
			o.must(b.Put(o.state(50, 7), time.Time{}))
			o.must(o.d.Commit(b))
		}},
		{code: "transaction-missing", severity: Repairable, harm: func(o *opened) { o.dropD(taKey(50).Bytes()) }},
		{code: "transaction-missing", severity: Loss, harm: func(o *opened) {
			o.dropD(taKey(50).Bytes())
			o.removeFile(50)
		}, lost: []string{"r50."}},
		{code: "transaction-damaged", severity: Repairable, harm: func(o *opened) { o.setD(taKey(50), []byte("junk")) }},
		{code: "transaction-unused", severity: Note, harm: func(o *opened) {
			b := o.d.NewBatch()
			o.must(b.PutTA(envelope(900, 2), 1))
			o.must(o.d.Commit(b))
		}},
		{code: "rcpt-twice", severity: Note, harm: func(o *opened) { o.dropI(ibdb.Key{Kind: ibdb.KindEnded, TA: ta(2), Index: 1}) }},
		{code: "content-twice", severity: Note, harm: func(o *opened) { o.content(o.c, envelope(1, 3), nil) }},
		{code: "content-orphan", severity: Note, harm: func(o *opened) { o.content(o.c, envelope(900, 2), nil) }},
		{code: "content-ended", severity: Note, harm: func(o *opened) { o.content(o.c, envelope(900, 2), []int{0, 1}) }},
		{code: "content-litter", severity: Note, harm: func(o *opened) {
			o.content(o.c, envelope(900, 2), nil)
			o.change(o.c.Path(ta(900)), func(b []byte) []byte { return b[:10] })
		}},
		{code: "content-litter", severity: Note, harm: func(o *opened) {
			o.content(o.c, envelope(900, 2), nil)
			o.change(o.c.Path(ta(900)), func(b []byte) []byte { b[3] ^= 1; return b })
		}},
		{code: "stranger", severity: Note, harm: func(o *opened) { o.stray("spool/3/junk") }},
		{code: "stranger", severity: Note, harm: func(o *opened) { o.stray("spool/3/" + ta(50).String()) }},
		{code: "stranger", severity: Note, harm: func(o *opened) { o.stray("spool/ibdb/junk") }},
		{code: "id-counter", severity: Repairable, harm: func(o *opened) { o.dropI(ibdb.Key{Kind: ibdb.KindIDs}) }},
		{code: "id-counter", severity: Repairable, harm: func(o *opened) { o.setI(ibdb.Key{Kind: ibdb.KindIDs}, ibdb.EncodeIDs(60)) }},
		{code: "id-counter", severity: Repairable, harm: func(o *opened) { o.setI(ibdb.Key{Kind: ibdb.KindIDs}, []byte("x")) }},
	} {
		t.Run(c.code, func(t *testing.T) {
			o := &opened{spool: base.clone(t)}
			o.i, o.d, o.c = o.open()
			c.harm(o)
			o.must(errors.Join(o.i.Close(), o.d.Close()))
			all, _ := o.run(content)
			if !slices.ContainsFunc(all, func(f Finding) bool { return f.Code == c.code && f.Severity == c.severity && f.Text != "" }) {
				t.Errorf("found %v", all)
			}
			for _, f := range all {
				if f.Done != "" || strings.ContainsAny(f.String(), "\n\t") {
					t.Errorf("a check says %q", f.String())
				}
			}
			all, sum := o.run(func(o *Options) { repair(o); content(o) })
			if c.left != (sum.Unrepaired > 0) {
				t.Errorf("the repair leaves %+v: %v", sum, all)
			}
			again, sum := o.run(content)
			if c.left != (sum.Unrepaired > 0) || sum.Repaired > 0 {
				t.Errorf("the check after it finds %v", again)
			}
			_, twice := o.judge(func(addr string) bool {
				return slices.ContainsFunc(c.lost, func(p string) bool { return strings.HasPrefix(addr, p) })
			})
			if twice > 0 {
				t.Errorf("%d recipients would get the mail though they had ended", twice)
			}
		})
	}
}

func content(o *Options) { o.Content = true }

// stray makes a file that belongs nowhere.
func (s *spool) stray(name string) {
	s.t.Helper()
	s.must(s.disk.MkdirAll(filepath.Dir(name), 0o700))
	f, err := s.fs.Create(name)
	s.must(err)
	s.must(f.Close())
}

// TestNothingIsDestroyed: what a repair takes out of the databases is in lost+found, with
// a line that says what it is.
func TestNothingIsDestroyed(t *testing.T) {
	s := newSpool(t)
	s.fill()
	o := &opened{spool: s}
	o.i, o.d, o.c = s.open()
	o.dropI(envelopeKey(1)) // its content stays in the IBDB
	o.content(o.c, envelope(900, 2), nil)
	o.must(errors.Join(o.i.Close(), o.d.Close()))
	s.run(repair)
	dirs := s.list("spool/lost+found")
	if len(dirs) != 1 {
		t.Fatalf("lost+found has %v", dirs)
	}
	dir := "spool/lost+found/" + dirs[0]
	var list, record string
	for _, name := range s.list(dir) {
		s.change(dir+"/"+name, func(b []byte) []byte {
			switch {
			case name == "list.txt":
				list = string(b)
			case strings.HasPrefix(name, "ibdb-"):
				record = string(b)
			}
			return b
		})
	}
	if record != string(contentOf(1)) {
		t.Errorf("the content is %q", record)
	}
	for _, want := range []string{ta(900).String(), "mail=<s900@x.test> rcpt=<r900.0@y.test>", "record of the IBDB"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in the list:\n%s", want, list)
		}
	}
	if !slices.Contains(s.list(dir), ta(900).String()) {
		t.Error("the content file is not there")
	}
}

// TestLogsElsewhere: the DEFEDB may have its logs in another directory.
func TestLogsElsewhere(t *testing.T) {
	for _, logs := range []string{"spool/log", "spool/defedb/log"} {
		s := newSpool(t)
		s.dirs.DEFEDBLog = logs
		s.fill()
		s.must(s.disk.MkdirAll("spool/defedb", 0o700))
		if all, sum := s.run(nil); sum.Unrepaired > 0 {
			t.Errorf("%s: %v", logs, all)
		}
		s.change(s.last(logs, ".log"), func(b []byte) []byte { b[len(b)/3] ^= 1; return b })
		if _, sum := s.run(nil); sum.Unrepaired == 0 {
			t.Errorf("%s: damage is not found", logs)
		}
		all, _ := s.run(rebuild)
		s.nothingLeft(all, false)
		s.judge(nil)
		all, _ = s.run(nil)
		s.nothingLeft(all, false)
	}
}

// TestInUse: a spool that is open, or that another version wrote, is left alone.
func TestInUse(t *testing.T) {
	s := newSpool(t)
	s.fill()
	i, d, _ := s.open()
	_, _, err := s.try(rebuild)
	if !errors.Is(err, store.ErrInUse) {
		t.Errorf("both open: %v", err)
	}
	s.must(i.Close())
	if _, _, err = s.try(nil); !errors.Is(err, store.ErrInUse) {
		t.Errorf("the DEFEDB open: %v", err)
	}
	s.must(d.Store().Set([]byte("\x00version"), []byte{0, 0, 0, 99}, nil))
	s.must(d.Close())
	if _, _, err = s.try(rebuild); !errors.Is(err, store.ErrVersion) {
		t.Errorf("another version: %v", err)
	}
}

// TestRealFiles: owners, modes and links are looked at on a real file system.
func TestRealFiles(t *testing.T) {
	s := &spool{t: t, fs: vfs.Real()}
	dir := t.TempDir()
	s.dirs = Dirs{Spool: dir, CDB: dir, IBDB: dir + "/ibdb", DEFEDB: dir + "/defedb"}
	i, d, c := s.open()
	s.must(i.SetSpool([]byte("x")))
	s.must(d.SetSpool([]byte("x")))
	_, err := i.ReserveIDs(1000)
	s.must(err)
	b := i.NewBatch()
	for n := 1; n < 4; n++ {
		s.content(c, envelope(n, 1), nil)
		s.must(b.Accept(envelope(n, 1), nil))
	}
	s.must(i.Commit(b))
	s.must(errors.Join(i.Close(), d.Close()))
	s.must(os.Chmod(c.Path(ta(1)), 0o666))
	s.must(os.Symlink("/etc/passwd", dir+"/4/"+smtp.ID{Counter: 4}.String()))
	s.must(os.Mkdir(dir+"/5/"+smtp.ID{Counter: 5}.String(), 0o700))
	uid := func(o *Options) { o.UID = os.Getuid() }
	all, sum := s.run(uid)
	var got []string
	for _, f := range all {
		got = append(got, f.Code+" "+strings.TrimPrefix(f.Path, dir))
	}
	want := []string{"unsafe /1/S000000000000000103", "stranger /4/S000000000000000400", "stranger /5/S000000000000000500"}
	for _, w := range want {
		if !slices.Contains(got, w) {
			t.Errorf("no %q in %q", w, got)
		}
	}
	if sum.Unrepaired > 0 {
		t.Errorf("%v", all)
	}
	if all, _ := s.run(func(o *Options) { o.UID = os.Getuid() + 1 }); !slices.ContainsFunc(all, func(f Finding) bool {
		return f.Code == "unsafe" && f.Path == c.Path(ta(2))
	}) {
		t.Errorf("another owner is not found: %v", all)
	}
}
