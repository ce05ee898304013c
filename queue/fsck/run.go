package fsck

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/ibdb"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

// Options of a run on a spool that nobody uses.
type Options struct {
	FS   vfs.FS
	Dirs Dirs
	// UID must own the files; -1 for anybody.
	UID int
	// Repair repairs what can be; Rebuild makes lost envelopes anew, too.
	Repair, Rebuild bool
	// Content reads all content and compares its checksum.
	Content bool
	// Logs are meta1's log files, oldest first. They tell who has ended. Each is read
	// from its beginning, several times perhaps.
	Logs []io.ReadSeeker
	// Now is the time of the repair.
	Now time.Time
	// Report is called for each finding.
	Report func(Finding)
	// Log takes the messages of the stores.
	Log *slog.Logger
	// Fatal is called when a store can no longer be written. It must end the process;
	// what was done so far is safe.
	Fatal func(error)
}

// Summary counts what a run found and did.
type Summary struct {
	Examined   uint64 `json:"examined"`   // records and files
	Notes      int    `json:"notes"`      // harmless findings
	Repaired   int    `json:"repaired"`   // other findings, of which nothing is left
	Unrepaired int    `json:"unrepaired"` // those that are still there
	Rebuilt    int    `json:"rebuilt"`    // recipients that are due now
	LogEnds    int    `json:"log_ends"`   // recipients of lost envelopes that have ended as the logs say
}

// Count counts a finding that was just reported.
func (s *Summary) Count(f *Finding) {
	switch {
	case f.Severity == Note:
		s.Notes++
	case f.Done != "" && f.Failed == "":
		s.Repaired++
	default:
		s.Unrepaired++
	}
}

// run is one run.
type run struct {
	o            Options
	ibdb, defedb *database
	sum          Summary
	attic        *attic
}

// page bounds one step, after which changes are made durable.
func page() Limits { return Limits{Records: 2000, Findings: 2000, Time: time.Hour} }

// Run checks a spool that nobody uses, and repairs it if that is asked for. Both stores
// are locked meanwhile. The error wraps store.ErrInUse or store.ErrVersion where that is
// the reason.
func Run(ctx context.Context, o Options) (Summary, error) {
	o.Repair = o.Repair || o.Rebuild
	r := &run{
		o:      o,
		ibdb:   &database{name: "IBDB", version: ibdb.Version, dir: o.Dirs.IBDB, known: ibdb.KnownKey},
		defedb: &database{name: "DEFEDB", version: defedb.Version, dir: o.Dirs.DEFEDB, logDir: o.Dirs.DEFEDBLog, known: defedb.KnownKey},
		attic:  newAttic(o.FS, o.Dirs.Spool, o.Now),
	}
	err := r.do(ctx)
	for _, d := range []*database{r.ibdb, r.defedb} {
		err = errors.Join(err, d.close())
	}
	return r.sum, errors.Join(err, r.attic.close())
}

// report passes a finding on and counts it.
func (r *run) report(f Finding) {
	r.sum.Count(&f)
	r.o.Report(f)
}

func (r *run) do(ctx context.Context) error {
	for _, d := range []*database{r.ibdb, r.defedb} {
		if err := r.open(d); err != nil {
			return err
		}
	}
	if r.ibdb.missing && r.defedb.missing {
		empty, err := r.empty()
		if err != nil {
			return err
		}
		if empty {
			r.report(Finding{Severity: Note, Code: "new-spool", Path: r.o.Dirs.Spool, Text: "there are no databases and no content: nothing was ever in this spool, or everything is gone"})
			return nil
		}
	}
	if err := r.names(); err != nil {
		return err
	}
	mem := newMemory(r.ibdb, r.defedb)
	if len(r.o.Logs) > 0 {
		if err := r.readLogs(ctx, mem); err != nil {
			return err
		}
	}
	for _, d := range []*database{r.ibdb, r.defedb} {
		r.files(d)
		for _, f := range d.findings(r.o.Repair) {
			r.report(f)
		}
	}
	if !r.o.Repair {
		_, err := r.pass(ctx, r.view(), mem, nil, true)
		return err
	}
	return r.repair(ctx, mem)
}

func (r *run) view() View {
	return View{FS: r.o.FS, Dirs: r.o.Dirs, UID: r.o.UID, IBDB: r.ibdb.reader, DEFEDB: r.defedb.reader}
}

// open opens a database to read, or what is left of it.
func (r *run) open(d *database) error {
	if r.o.Repair {
		done, err := d.complete(r.o.FS, r.o.Now)
		if err != nil {
			return err
		}
		if done {
			r.report(Finding{
				Severity: Repairable, Code: "repair-interrupted", Path: d.dir,
				Text: "an earlier repair of the " + d.name + " was interrupted", Done: "it is completed",
			})
		}
	}
	return d.open(r.o.FS, store.Options{Log: r.o.Log, LogDir: d.logDir, Fatal: r.o.Fatal})
}

// names compares the names of the spool in both databases. If they differ, one of them
// is new, or was brought here, and anything may be missing in it (package queue, join).
func (r *run) names() error {
	i, err := store.SpoolName(r.ibdb.reader)
	if err != nil {
		return err
	}
	d, err := store.SpoolName(r.defedb.reader)
	if err != nil {
		return err
	}
	if i != "" && i == d {
		return nil
	}
	for _, one := range []struct {
		db   *database
		name string
	}{{r.ibdb, i}, {r.defedb, d}} {
		switch {
		case !one.db.whole():
		case one.name == "":
			one.db.isNew("it is new: it belongs to no spool yet")
		case i != "" && d != "":
			one.db.isNew("IBDB and DEFEDB are of different spools")
		}
	}
	return nil
}

// pass goes through the whole spool once. With a writer it makes changes and tells how
// many. all says that findings are reported that nothing is done about, too.
func (r *run) pass(ctx context.Context, v View, mem *memory, w *writer, all bool) (changes int, err error) {
	c := NewCheck(v, Cursor{}, r.o.Content && all)
	c.past, c.rebuild = mem, r.o.Rebuild
	for more := true; more; {
		var list []found
		if list, more, err = c.page(ctx, page()); err != nil {
			return changes, err
		}
		for i := range list {
			changes += apply(&list[i], w)
		}
		if w != nil {
			if err := w.commit(); err != nil {
				return changes, fmt.Errorf("repairing: %w", err)
			}
		}
		for i := range list {
			if f := &list[i].Finding; all || f.Done != "" {
				r.report(*f)
			}
		}
	}
	r.sum.Examined = max(r.sum.Examined, c.cur.Examined)
	return changes, nil
}

// apply makes a change.
func apply(f *found, w *writer) (changes int) {
	if w == nil || f.fix == nil {
		return 0
	}
	done, err := f.fix(w)
	if err != nil {
		f.Failed = err.Error()
		return 0
	}
	f.Done = done
	return 1
}

// passesMax bounds the passes of a repair: one repair may make another possible.
const passesMax = 6

// repair repairs, in the order of the package comment.
func (r *run) repair(ctx context.Context, mem *memory) error {
	i, d, err := r.work()
	if err != nil {
		return errors.Join(err, closeBoth(i, d))
	}
	w := newWriter(i, d, cdb.At(r.o.FS, r.o.Dirs.CDB), r.attic, r.o.Now)
	v := View{FS: r.o.FS, Dirs: r.o.Dirs, UID: r.o.UID, IBDB: i.Store().Reader(), DEFEDB: d.Store().Reader()}
	err = r.passes(ctx, v, mem, w)
	w.discard()
	r.sum.Rebuilt = w.rebuilt
	if err == nil {
		err = nameSpool(i, d)
	}
	if err = errors.Join(err, closeBoth(i, d)); err != nil {
		return err
	}
	for _, db := range []*database{r.defedb, r.ibdb} { // in this order, see the package comment
		if err := db.install(r.o.FS, r.o.Now); err != nil {
			return fmt.Errorf("putting the repaired %s in its place: %w", db.name, err)
		}
	}
	return nil
}

// passes goes through the spool until nothing is left to do.
func (r *run) passes(ctx context.Context, v View, mem *memory, w *writer) error {
	for n := range passesMax {
		changes, err := r.pass(ctx, v, mem, w, n == 0)
		if err != nil || changes == 0 {
			return err
		}
	}
	return nil
}

// empty tells whether a spool has no content at all.
func (r *run) empty() (bool, error) {
	c := NewCheck(r.view(), Cursor{}, false)
	for i := range digits {
		names, err := c.list(digits[i : i+1])
		if err != nil || len(names) > 0 {
			return false, err
		}
	}
	return true, nil
}

// work opens both databases to write, or the stores that will replace them.
func (r *run) work() (i *ibdb.DB, d *defedb.DB, err error) {
	o := store.Options{Log: r.o.Log, Fatal: r.o.Fatal}
	io, err := r.ibdb.prepare(r.o.FS, o)
	if err == nil {
		i, err = ibdb.Open(r.o.FS, r.ibdb.workDir(), io)
	}
	if err != nil {
		return nil, nil, err
	}
	do, err := r.defedb.prepare(r.o.FS, o)
	if err == nil {
		d, err = defedb.Open(r.o.FS, r.defedb.workDir(), do)
	}
	return i, d, err
}

func closeBoth(i *ibdb.DB, d *defedb.DB) (err error) {
	if i != nil {
		err = i.Store().Flush()
		err = errors.Join(err, i.Close())
	}
	if d != nil {
		err = errors.Join(err, d.Store().Flush(), d.Close())
	}
	return err
}

// nameSpool sees that both databases have the same name.
func nameSpool(i *ibdb.DB, d *defedb.DB) error {
	name, err := i.Spool()
	if err != nil {
		return err
	}
	other, err := d.Spool()
	if err != nil {
		return err
	}
	if name == nil {
		name = other
	}
	if name == nil {
		name = make([]byte, 16)
		_, _ = rand.Read(name) // it never fails
	}
	if string(other) != string(name) {
		if err := d.SetSpool(name); err != nil {
			return err
		}
	}
	return i.SetSpool(name)
}
