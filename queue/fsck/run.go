package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"meta1/mta/cdb"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/store/salvage"
	"meta1/mta/vfs"
	"meta1/queue/records"
)

// Options of a run on a spool that nobody uses.
type Options struct {
	FS   vfs.FS
	Dirs Dirs
	// UID must own the files; -1 for anybody.
	UID int
	// Repair repairs what can be; Rebuild makes lost envelopes anew, too.
	Repair, Rebuild bool
	// From is a damaged store that was kept, DIR.damaged-TIME: with Repair, messages that
	// are in it and not in the store are made anew. "" for none.
	From string
	// Content reads all content and compares its checksum.
	Content bool
	// Logs are meta1's log files. They tell who has ended.
	Logs []io.Reader
	// Now is the time of the repair.
	Now time.Time
	// Report is called for each finding.
	Report func(Finding)
	// Log takes the messages of the store.
	Log *slog.Logger
	// Fatal is called when the store can no longer be written. It must end the process;
	// what was done so far is safe.
	Fatal func(error)
}

// run is one run.
type run struct {
	o    Options
	st   *storeFiles
	kept *salvage.Store // o.From
	past *past
	sum  Summary
	lost *lostFound
}

// page bounds one step, after which changes are made durable.
func page() Limits { return Limits{Records: 2000, Findings: 2000, Time: time.Hour} }

// Run checks a spool that nobody uses, and repairs it if that is asked for. The store is
// locked meanwhile. The error wraps store.ErrInUse or store.ErrVersion where that is the
// reason.
func Run(ctx context.Context, o Options) (Summary, error) {
	o.Repair = o.Repair || o.Rebuild
	r := &run{o: o, st: &storeFiles{dir: o.Dirs.Store, logDir: o.Dirs.StoreLog}, lost: newLostFound(o.FS, o.Dirs.Spool, o.Now)}
	err := r.do(ctx)
	if r.kept != nil {
		err = errors.Join(err, r.kept.Close())
	}
	return r.sum, errors.Join(err, r.st.close(), r.lost.close())
}

// report passes a finding on and counts it.
func (r *run) report(f Finding) {
	r.sum.Count(&f)
	r.o.Report(f)
}

func (r *run) do(ctx context.Context) error {
	if err := r.open(); err != nil {
		return err
	}
	files, mail := cdb.At(r.o.FS, r.o.Dirs.CDB), 0 // complete content files
	err := r.contentNames(func(ta smtp.ID) error {
		if _, err := files.Envelope(ta); err == nil {
			mail++
		}
		return nil
	})
	if err != nil {
		return err
	}
	if r.st.missing && mail == 0 {
		r.report(Finding{Severity: Note, Code: "new-spool", Path: r.o.Dirs.Spool, Text: "there is no store and no content: nothing was ever in this spool, or everything is gone"})
		return nil
	}
	if r.st.whole() && mail > 0 {
		_, used, err := r.st.reader.Get(records.Key{Kind: records.KindIDs}.Bytes())
		if err != nil {
			return err
		}
		r.st.isNew = !used && r.st.count <= 1 // the version alone
	}
	r.past = r.st.past()
	if r.o.From != "" {
		if r.kept, err = r.openKept(); err != nil {
			return err
		}
	}
	if len(r.o.Logs) > 0 {
		if r.past == nil {
			r.past = &past{}
		}
		if err := r.readLogs(ctx, r.past); err != nil {
			return err
		}
	}
	r.files()
	for _, f := range r.st.findings(r.o.Repair) {
		r.report(f)
	}
	if r.o.Repair {
		return r.repair(ctx)
	}
	_, err = r.pass(ctx, r.view(r.st.reader), nil)
	return err
}

func (r *run) view(s store.Reader) View {
	return View{FS: r.o.FS, Dirs: r.o.Dirs, UID: r.o.UID, Store: s}
}

// open opens the store to read, or what is left of it.
func (r *run) open() error {
	if r.o.Repair {
		done, err := r.st.complete(r.o.FS, r.o.Now)
		if err != nil {
			return err
		}
		if done {
			r.report(Finding{Severity: Repairable, Code: "repair-interrupted", Path: r.st.dir, Text: "an earlier repair was interrupted", Done: "it is completed"})
		}
	}
	return r.st.open(r.o.FS, store.Options{Log: r.o.Log, LogDir: r.st.logDir, Fatal: r.o.Fatal})
}

// contentNames calls f for each message that has a content file by its name.
func (r *run) contentNames(f func(ta smtp.ID) error) error {
	return cdb.At(r.o.FS, r.o.Dirs.CDB).List(func(c cdb.File) error { return f(c.TA) }, func(string) {})
}

// pass goes through the whole spool once. With a writer it makes changes, reports them,
// and returns how many there were; without one it reports what it finds.
func (r *run) pass(ctx context.Context, v View, w *writer) (changes int, err error) {
	c := NewCheck(v, Cursor{}, r.o.Content && w == nil)
	c.past, c.rebuild = r.past, r.o.Rebuild
	for more := true; more; {
		var list []found
		if list, more, err = c.page(ctx, page()); err != nil {
			return changes, err
		}
		if w != nil {
			if list, err = w.apply(list); err != nil {
				return changes, fmt.Errorf("repairing: %w", err)
			}
			changes += len(list)
		}
		for _, f := range list {
			r.report(f.Finding)
		}
	}
	r.sum.Examined = max(r.sum.Examined, c.cur.Examined)
	return changes, nil
}

// passesMax bounds the passes of a repair: one repair may make another possible.
const passesMax = 8

// repair repairs, in the order of the package comment.
func (r *run) repair(ctx context.Context) error {
	db, err := r.st.openToWrite(r.o.FS, store.Options{Log: r.o.Log, Fatal: r.o.Fatal})
	if err != nil {
		return err
	}
	w := newWriter(db, cdb.At(r.o.FS, r.o.Dirs.CDB), r.lost, r.o.Now)
	v := r.view(db.Store().Reader())
	if r.kept != nil {
		err = r.bringBack(ctx, NewCheck(v, Cursor{}, false), w)
	}
	changes := 1
	for n := 0; n < passesMax && changes > 0 && err == nil; n++ {
		changes, err = r.pass(ctx, v, w)
	}
	w.discard()
	r.sum.Rebuilt = w.rebuilt
	if err == nil {
		_, err = r.pass(ctx, v, nil) // what is left
	}
	if err == nil {
		err = db.Store().Flush()
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return err
	}
	if err := r.st.install(r.o.FS, r.o.Now); err != nil {
		return fmt.Errorf("putting the repaired store in its place: %w", err)
	}
	return nil
}
