package fsck

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meta1/mta/cdb"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/vfs"
	"meta1/queue/records"
)

// opened is a spool that a test damages.
type opened struct {
	*spool
	db *records.DB
	c  *cdb.Store
}

func (o *opened) batch(fill func(b *records.Batch) error) {
	o.t.Helper()
	b := o.db.NewBatch()
	o.must(fill(b))
	o.must(o.db.Commit(b))
}

func (o *opened) set(k, v []byte) { o.batch(func(b *records.Batch) error { return b.Set(k, v) }) }
func (o *opened) drop(k []byte)   { o.batch(func(b *records.Batch) error { return b.Delete(k) }) }

// putAside writes values that cannot be read and sets the records aside, as the queue does.
func (o *opened) putAside(keys ...[]byte) {
	o.t.Helper()
	for _, k := range keys {
		o.set(k, []byte("junk"))
		o.batch(func(b *records.Batch) error { return b.SetAside(records.Broken{Key: k, Value: []byte("junk")}) })
	}
}

// envelopeAside sets all records of a message aside because its envelope cannot be read.
func (o *opened) envelopeAside(n int) {
	o.t.Helper()
	o.set(envelopeKey(n), []byte("junk"))
	v := o.db.View()
	_, _, err := v.Envelope(ta(n))
	o.must(err)
	o.batch(func(b *records.Batch) error {
		for _, r := range v.Broken() {
			if err := b.SetAside(r); err != nil {
				return err
			}
		}
		return nil
	})
	o.must(v.Close())
}

func (o *opened) removeFile(n int) { o.must(o.c.Remove(ta(n))) }

func envelopeKey(n int) []byte { return messageKey(records.KindEnvelope, ta(n)) }
func freshKey(n int) []byte    { return messageKey(records.KindAccepted, ta(n)) }
func inlineKey(n int) []byte   { return messageKey(records.KindContent, ta(n)) }
func ref(n, k int) records.Ref { return records.Ref{TA: ta(n), Index: k} }
func stateKey(n, k int) []byte { return rcptKey(records.KindDeferred, ref(n, k)) }
func endedKey(n, k int) []byte { return rcptKey(records.KindEnded, ref(n, k)) }
func dueKey(n, k int) []byte {
	return records.Key{Kind: records.KindDue, Ref: ref(n, k), Time: time.Unix(1, 0)}.Bytes()
}

var idsKey = records.Key{Kind: records.KindIDs}.Bytes()

// TestFindings makes one thing wrong at a time, and expects that it is found, that a
// repair leaves the spool sound, and that no recipient is lost but those that are named.
func TestFindings(t *testing.T) {
	base := newSpool(t)
	base.fill()
	for i, c := range []struct {
		code     string
		severity Severity
		harm     func(o *opened)
		left     bool     // it cannot be repaired, or not as a whole
		lost     []string // beginnings of addresses
	}{
		{code: "record-key", severity: Repairable, harm: func(o *opened) { o.set([]byte("junk"), []byte("x")) }},
		{code: "record-key", severity: Repairable, harm: func(o *opened) { o.set([]byte("rx"), []byte("x")) }},
		{code: "record-key", severity: Repairable, harm: func(o *opened) { o.set([]byte("n"), nil) }},
		{code: "content-alone", severity: Loss, harm: func(o *opened) { o.drop(envelopeKey(1)) }, lost: []string{"r1."}},
		{code: "content-unused", severity: Note, harm: func(o *opened) { o.set(inlineKey(50), []byte("x")) }},
		{code: "content-unused", severity: Note, harm: func(o *opened) { o.content(o.c, envelope(1, 3)) }},
		{code: "ended-leftover", severity: Note, harm: func(o *opened) { o.set(endedKey(61, 1), nil); o.drop(stateKey(61, 1)) }, lost: []string{"r61.1"}},
		{code: "rcpt-index", severity: Repairable, harm: func(o *opened) { o.set(endedKey(1, 3), nil) }},
		{code: "rcpt-index", severity: Repairable, harm: func(o *opened) {
			st := state(50, 7)
			o.batch(func(b *records.Batch) error { return b.Put(st, nil) })
		}, left: true},
		{code: "envelope-damaged", severity: Loss, harm: func(o *opened) { o.set(envelopeKey(1), []byte("junk")) }, left: true, lost: []string{"r1."}},
		{code: "envelope-damaged", severity: Loss, harm: func(o *opened) { o.set(envelopeKey(61), []byte("junk")) }, left: true, lost: []string{"r61."}},
		{code: "envelope-damaged", severity: Repairable, harm: func(o *opened) { o.set(envelopeKey(2), []byte("junk")) }},
		{code: "envelope-damaged", severity: Repairable, harm: func(o *opened) {
			o.set(envelopeKey(2), records.AppendEnvelope(nil, &records.Envelope{Envelope: envelope(4, 3)}))
		}},
		{code: "envelope-missing", severity: Repairable, harm: func(o *opened) { o.drop(envelopeKey(2)) }},
		{code: "envelope-missing", severity: Repairable, harm: func(o *opened) { o.drop(envelopeKey(50)) }},
		{code: "envelope-missing", severity: Loss, harm: func(o *opened) { o.drop(envelopeKey(50)); o.removeFile(50) }, left: true, lost: []string{"r50."}},
		{code: "content-missing", severity: Loss, harm: func(o *opened) { o.removeFile(2) }, left: true, lost: []string{"r2."}},
		{code: "content-missing", severity: Loss, harm: func(o *opened) { o.removeFile(50) }, left: true, lost: []string{"r50."}},
		{code: "content-missing", severity: Loss, harm: func(o *opened) { o.drop(inlineKey(1)) }, left: true, lost: []string{"r1."}},
		{code: "content-damaged", severity: Loss, harm: func(o *opened) {
			o.change(o.c.Path(ta(50)), func(b []byte) []byte { return b[:len(b)-3] })
		}, left: true, lost: []string{"r50."}},
		{code: "content-checksum", severity: Loss, harm: func(o *opened) {
			o.change(o.c.Path(ta(50)), func(b []byte) []byte { b[3] ^= 1; return b })
		}, left: true, lost: []string{"r50."}},
		{code: "content-size", severity: Loss, harm: func(o *opened) {
			o.set(envelopeKey(50), records.AppendEnvelope(nil, &records.Envelope{Envelope: envelope(50, 2), Size: 1}))
		}, left: true},
		{code: "message-ended", severity: Note, harm: func(o *opened) {
			for k := range 2 {
				st := state(61, k)
				o.batch(func(b *records.Batch) error { return b.EndDeferred(st, false) })
			}
		}, lost: []string{"r61."}},
		{code: "message-settled", severity: Note, harm: func(o *opened) { o.set(freshKey(50), nil) }},
		{code: "due-missing", severity: Repairable, harm: func(o *opened) { o.drop(records.Indexes(state(50, 0))[0]) }},
		{code: "parked-missing", severity: Repairable, harm: func(o *opened) { o.drop(records.Indexes(state(50, 0))[1]) }},
		{code: "due-leftover", severity: Repairable, harm: func(o *opened) { o.set(dueKey(50, 0), nil) }},
		{code: "due-leftover", severity: Repairable, harm: func(o *opened) { o.set(dueKey(900, 0), nil) }},
		{code: "parked-leftover", severity: Repairable, harm: func(o *opened) {
			o.set(records.Key{Kind: records.KindParked, Ref: ref(50, 0), Dest: "elsewhere"}.Bytes(), nil)
		}},
		{code: "rcpt-damaged", severity: Repairable, harm: func(o *opened) { o.set(stateKey(50, 0), []byte("junk")) }},
		{code: "rcpt-ended", severity: Repairable, harm: func(o *opened) { o.set(endedKey(2, 1), nil) }, lost: []string{"r2.1"}},
		{code: "aside", severity: Repairable, harm: func(o *opened) { o.putAside(stateKey(50, 0)) }},
		{code: "aside", severity: Repairable, harm: func(o *opened) { o.putAside(freshKey(2)) }},
		{code: "aside", severity: Repairable, harm: func(o *opened) { o.envelopeAside(2) }},
		{code: "aside", severity: Repairable, harm: func(o *opened) { o.envelopeAside(50) }},
		{code: "aside", severity: Repairable, harm: func(o *opened) {
			o.envelopeAside(61) // the envelope turns out to be readable, by another version of the program perhaps
			o.set(asideKey(envelopeKey(61)), records.AppendEnvelope(nil, &records.Envelope{Envelope: envelope(61, 2), Size: int64(len(contentOf(61))), Inline: true}))
		}},
		{code: "aside", severity: Loss, harm: func(o *opened) { o.envelopeAside(1) }, left: true, lost: []string{"r1."}},
		{code: "aside", severity: Loss, harm: func(o *opened) { o.envelopeAside(61) }, left: true, lost: []string{"r61."}},
		{code: "aside", severity: Note, harm: func(o *opened) { o.set(asideKey([]byte("junk")), []byte("x")) }},
		{code: "aside", severity: Note, harm: func(o *opened) { o.set(asideKey(stateKey(50, 0)), []byte("x")) }},
		{code: "content-orphan", severity: Note, harm: func(o *opened) { o.content(o.c, envelope(900, 2)) }},
		{code: "content-incomplete", severity: Note, harm: func(o *opened) {
			o.content(o.c, envelope(900, 2))
			o.change(o.c.Path(ta(900)), func(b []byte) []byte { return b[:10] })
		}},
		{code: "content-incomplete", severity: Note, harm: func(o *opened) {
			o.content(o.c, envelope(900, 2))
			o.change(o.c.Path(ta(900)), func(b []byte) []byte { b[3] ^= 1; return b })
		}},
		{code: "foreign-file", severity: Note, harm: func(o *opened) { o.foreign("spool/3/junk") }},
		{code: "foreign-file", severity: Note, harm: func(o *opened) { o.foreign("spool/3/" + ta(50).String()) }},
		{code: "id-counter", severity: Repairable, harm: func(o *opened) { o.drop(idsKey) }},
		{code: "id-counter", severity: Repairable, harm: func(o *opened) { o.set(idsKey, records.EncodeIDs(70)) }},
		{code: "id-counter", severity: Repairable, harm: func(o *opened) { o.set(idsKey, []byte("x")) }},
	} {
		if i%findingStride != 0 {
			continue
		}
		t.Run(c.code, func(t *testing.T) {
			o := &opened{spool: base.clone(t)}
			o.db, o.c = o.open()
			c.harm(o)
			o.must(o.db.Close())
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
			if sum.Unrepaired > 0 && !c.left {
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

// foreign makes a file that belongs nowhere.
func (s *spool) foreign(name string) {
	s.t.Helper()
	s.must(s.disk.MkdirAll(filepath.Dir(name), 0o700))
	f, err := s.fs.Create(name)
	s.must(err)
	s.must(f.Close())
}

// TestNothingIsDestroyed: what a repair takes out of the store is set aside or in
// lost+found, with a line that says what it is.
func TestNothingIsDestroyed(t *testing.T) {
	s := newSpool(t)
	s.fill()
	o := &opened{spool: s}
	o.db, o.c = s.open()
	o.drop(envelopeKey(1)) // its content stays in the store
	o.set(stateKey(50, 0), []byte("junk"))
	o.set([]byte("junk"), []byte("x"))
	o.content(o.c, envelope(900, 2))
	o.must(o.db.Close())
	s.run(repair)
	dirs := s.list("spool/lost+found")
	if len(dirs) != 1 {
		t.Fatalf("lost+found has %v", dirs)
	}
	dir := "spool/lost+found/" + dirs[0]
	files := map[string]string{}
	for _, name := range s.list(dir) {
		s.change(dir+"/"+name, func(b []byte) []byte {
			files[name] = string(b)
			return b
		})
	}
	if got := files["record-"+hex.EncodeToString(inlineKey(1))]; got != string(contentOf(1)) {
		t.Errorf("the content is %q", got)
	}
	if got := files["record-"+hex.EncodeToString(stateKey(50, 0))]; got != "junk" {
		t.Errorf("the state is %q", got)
	}
	for _, want := range []string{ta(900).String(), "mail=<s900@x.test> rcpt=<r900.0@y.test>", "record with the key 63"} {
		if !strings.Contains(files["list.txt"], want) {
			t.Errorf("no %q in the list:\n%s", want, files["list.txt"])
		}
	}
	if _, ok := files[ta(900).String()]; !ok {
		t.Error("the content file is not there")
	}
	for range 2 { // a further repair leaves it there
		o.db, _ = s.open()
		if v, ok, err := o.db.Store().Reader().Get(asideKey([]byte("junk"))); string(v) != "x" || !ok || err != nil {
			t.Errorf("aside: %q, %v, %v", v, ok, err)
		}
		o.must(o.db.Close())
		s.run(repair)
	}
}

// TestLogsElsewhere: the store may have its logs in another directory.
func TestLogsElsewhere(t *testing.T) {
	for _, logs := range []string{"spool/log", "spool/defedb/log"} {
		s := newSpool(t)
		s.dirs.StoreLog = logs
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
		s.nothingLeft(all, true)
		s.judge(inline)
		all, _ = s.run(nil)
		s.nothingLeft(all, true)
	}
}

// TestInUse: a spool that is open, or that another version wrote, is left alone.
func TestInUse(t *testing.T) {
	s := newSpool(t)
	s.fill()
	db, _ := s.open()
	if _, _, err := s.try(rebuild); !errors.Is(err, store.ErrInUse) {
		t.Errorf("open: %v", err)
	}
	s.must(db.Store().Set([]byte("\x00version"), []byte{0, 0, 0, 99}, nil))
	s.must(db.Close())
	if _, _, err := s.try(rebuild); !errors.Is(err, store.ErrVersion) {
		t.Errorf("another version: %v", err)
	}
}

// TestRealFiles: owners, modes and links are looked at on a real file system.
func TestRealFiles(t *testing.T) {
	s := &spool{t: t, fs: vfs.Real()}
	dir := t.TempDir()
	s.dirs = Dirs{Spool: dir, CDB: dir, Store: dir + "/defedb"}
	db, c := s.open()
	_, err := db.ReserveIDs(1000)
	s.must(err)
	b := db.NewBatch()
	for n := 1; n < 4; n++ {
		s.content(c, envelope(n, 1))
		s.must(b.Accept(envelope(n, 1), int64(len(contentOf(n))), nil))
	}
	s.must(db.Commit(b))
	s.must(db.Close())
	s.must(os.Chmod(c.Path(ta(1)), 0o666))
	s.must(os.Symlink("/etc/passwd", dir+"/4/"+smtp.ID{Counter: 4}.String()))
	s.must(os.Mkdir(dir+"/5/"+smtp.ID{Counter: 5}.String(), 0o700))
	uid := func(o *Options) { o.UID = os.Getuid() }
	all, sum := s.run(uid)
	var got []string
	for _, f := range all {
		got = append(got, f.Code+" "+strings.TrimPrefix(f.Path, dir))
	}
	want := []string{"unsafe /1/S000000000000000103", "foreign-file /4/S000000000000000400", "foreign-file /5/S000000000000000500"}
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
