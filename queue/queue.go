package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/cdb"
	"meta1/mta/mailbox"
	"meta1/mta/msg"
	"meta1/mta/smtp"
	"meta1/mta/store"
	"meta1/mta/supervise"
	"meta1/mta/tracing"
	"meta1/mta/vfs"
	"meta1/queue/aq"
	"meta1/queue/budget"
	"meta1/queue/conf"
	"meta1/queue/content"
	"meta1/queue/ids"
	"meta1/queue/journal"
	"meta1/queue/metrics"
	"meta1/queue/records"
)

// drainMax is how long Run waits for deliveries that are in progress when it is to end.
const drainMax = 10 * time.Second

// Deps is what the queue needs from outside.
type Deps struct {
	Ports    *msg.Ports
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil: none
	Hostname string
	// Dir is the main queue directory, absolute.
	Dir string
	// SessionFeatures are the names of the sections session_features of smtpc, which the
	// configuration map may name.
	SessionFeatures []string
	// Memory is the budget for content in memory, which the servers share; nil: one of
	// content_memory_max for the queue alone.
	Memory *msg.Memory
	// FS is the disk; nil means the real one.
	FS vfs.FS
	// Now is the time of day; nil means time.Now. It may be set forward or back at any
	// time (see the package comment). Durations are measured by the runtime's clock.
	Now func() time.Time
	// Sign gives the header fields with signatures that go on top of a message of our own, nil
	// for none. Nil: nothing is signed.
	Sign func(content []byte) ([]byte, error)
	// Seal reads a message that an alias forwards, and makes the set of ARC that goes on top of it; made says
	// which it is. An error says why there is none: the message goes without. Nil: nothing is sealed.
	Seal func(message io.Reader) (head []byte, made string, err error)
	// Rewrite gives the sender by SRS for mail that an alias forwards; false: there is none. Nil: senders
	// stay.
	Rewrite func(from smtp.Path) (smtp.Path, bool)
	// Tracer is told of messages and of their waits for an attempt; nil: nothing is traced.
	Tracer *tracing.Tracer
	// Fatal is called when the store can no longer keep its promises. It must end the
	// process.
	Fatal func(error)
}

// Config is the configuration of QMGR: the qmgr section (README 3.8, 8.3).
type Config = conf.Config

// Queue is QMGR. Make it with New, run it once with Run. It is crash-only: to restart it,
// make a new one.
type Queue struct {
	deps Deps
	dirs conf.Dirs
	log  *slog.Logger

	clock    *clock
	ports    *msg.Ports
	cdb      *cdb.Store
	db       *records.DB
	contents *content.Store
	files    *content.Files
	ids      *ids.IDs
	space    *content.Space
	budget   *budget.Budget
	journal  *journal.Journal[*aq.Save]
	remover  *mailbox.Box[smtp.ID] // content files that nobody needs
	events   *mailbox.Box[event]
	// unlinking holds a token while content files are removed, and while a backup needs all of them.
	unlinking chan struct{}
	makers    chan struct{} // holds a token for each message that is being made
	spilling  chan struct{} // holds a token for each content that is being moved to a file
	metrics   *metrics.Metrics
	gauges    metrics.Gauges

	settings  atomic.Pointer[settings]
	reloading sync.Mutex // one Commit at a time

	group *supervise.Group // of the present Run
}

// New opens the store in the main queue directory, which must exist, and reads the
// configuration map. On an error nothing stays open. The error wraps store.ErrDamaged,
// store.ErrInUse or store.ErrVersion where that is the reason.
func New(cfg Config, deps Deps) (*Queue, error) {
	if deps.FS == nil {
		deps.FS = vfs.Real()
	}
	if deps.Memory == nil {
		deps.Memory = msg.NewMemory(cfg.ContentMemory)
	}
	q := &Queue{
		deps: deps, dirs: cfg.Dirs(deps.Dir), log: deps.Log, clock: newClock(deps.Now), ports: deps.Ports, budget: budget.New(cfg.AQEntriesMax),
		events: mailbox.New[event](), remover: mailbox.New[smtp.ID](), makers: make(chan struct{}, makersMax), unlinking: make(chan struct{}, 1),
		spilling: make(chan struct{}, spillers),
	}
	s, err := q.read(cfg, deps.SessionFeatures)
	if err != nil {
		return nil, err
	}
	q.settings.Store(s)
	deps.Memory.SetMax(cfg.ContentMemory) // it may be older than this configuration
	if err := q.open(); err != nil {
		_ = q.close() // the first error counts
		return nil, err
	}
	return q, nil
}

func (q *Queue) open() (err error) {
	dirs, cfg := q.dirs, q.conf()
	q.space = &content.Space{
		FS: q.deps.FS, Dirs: []string{dirs.CDB, dirs.Store}, Log: q.log,
		Limits: func() (low, enough int64) { s := q.conf(); return s.DiskMin, s.DiskOK },
		Refill: func() { q.db.Store().Refill() },
	}
	q.db, err = records.Open(q.deps.FS, dirs.Store, store.Options{
		Log: q.log, Metrics: q.deps.Metrics, Fatal: q.deps.Fatal, OnFull: q.space.Full, LogDir: dirs.StoreLog,
		Cache: cfg.DEFEDB.CacheSize, BlockSize: cfg.DEFEDB.PageSize, LogSize: max(cfg.IBDB.Size, cfg.DEFEDB.CheckpointKB),
	})
	if err != nil {
		return err
	}
	if q.cdb, err = cdb.Open(q.deps.FS, dirs.CDB); err != nil {
		return err
	}
	q.cdb.Fatal = q.deps.Fatal
	q.contents = content.New(q.db, q.cdb, q.deps.Memory)
	if err := q.noStrayMail(); err != nil { // before the store is one that was used
		return err
	}
	if q.ids, err = ids.New(q.db); err != nil {
		return err
	}
	q.journal = q.newJournal()
	q.files = &content.Files{CDB: q.cdb, Space: q.space, Granted: q.ids.Granted}
	if err := q.space.Look(); err != nil {
		return err
	}
	q.metrics, err = metrics.New(&q.gauges, metrics.Sources{
		Active: func() int {
			n, _, _, _ := q.budget.Used()
			return n
		},
		Memory: q.deps.Memory.Used, Room: q.space.Room, Accepting: q.Accepting,
	}, q.deps.Metrics)
	return err
}

func (q *Queue) close() error {
	if q.metrics != nil {
		q.metrics.Unregister()
	}
	if q.contents != nil {
		q.contents.Close()
	}
	if q.db == nil {
		return nil
	}
	return q.db.Close()
}

// Content is where the server puts content that is too large for memory. It may be used as
// long as Run runs.
func (q *Queue) Content() msg.ContentStore { return q.files }

// Accepting tells why no mail is accepted now, or nil.
func (q *Queue) Accepting() error { return q.space.Err() }

// inlineMax is how much content of a message of our own may be held in memory now.
func (q *Queue) inlineMax() int64 {
	if q.deps.Memory.Over() < 0 {
		return q.conf().IBDB.ContentMax
	}
	return 0
}

// Run serves until ctx ends: then it starts no further delivery, waits a while for those in
// progress, writes down what is left, and closes the store. An error means that the queue
// cannot go on; what was acknowledged is safe on disk.
func (q *Queue) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	q.group = supervise.NewGroup(life)
	writers := supervise.NewGroup(life)
	l := newLoop(q)
	if err := l.recover(); err != nil { // nothing can ask yet
		return errors.Join(err, q.close())
	}
	atStart := q.db.View() // before anything is written

	q.ports.Throttles.OnChange(func() { q.events.Put(event{ev: &aq.LimitsChanged{}}) })
	admission := newAdmission(q)
	admits, stopAdmit := q.ports.Admit.OpenDirect(admission.decide)
	commits, stopCommit := q.ports.Commit.Open()
	lists, stopList := q.ports.List.Open()
	states, stopStatus := q.ports.Status["qmgr"].Open()
	operates, stopOperate := q.ports.Operate.Open()
	hosts, stopHosts := q.ports.Hosts.Open()
	fscks, stopFsck := q.ports.Fsck.Open()
	backups, stopBackup := q.ports.Backup.Open()
	defer func() {
		for _, stop := range []func(){stopAdmit, stopCommit, stopList, stopStatus, stopOperate, stopHosts, stopFsck, stopBackup} {
			stop()
		}
	}()

	q.group.Go(func(ctx context.Context) error { return q.count(ctx, atStart) })
	q.group.Go(q.parkedBefore)
	writers.Go(func(ctx context.Context) error { return q.journal.Run(ctx, commits) })
	writers.Go(q.remove)
	q.group.Go(q.space.Watch)
	q.group.Go(func(ctx context.Context) error { return admission.run(ctx, admits) })
	q.group.Go(func(ctx context.Context) error { return q.fsck(ctx, fscks) })
	orphans := &content.Orphans{
		CDB: q.cdb, FS: q.deps.FS, Store: q.dirs.Store, Log: q.log, First: q.ids.First(), Knows: q.knows, Remove: q.remover.Put,
		Grace: func() time.Duration { return q.conf().OrphanGrace }, Now: q.clock.now, Day: q.clock.day,
	}
	q.group.Go(orphans.Run)
	q.group.Go(func(ctx context.Context) error { return q.backups(ctx, backups) })

	loopDone := make(chan struct{})
	q.group.Go(func(life context.Context) error {
		defer close(loopDone)
		return l.run(life, ctx.Done(), loopPorts{list: lists, status: states, operate: operates, hosts: hosts})
	})
	// A failed writer ends all; so does a failed member of the group.
	select {
	case <-loopDone:
	case <-writers.Context().Done():
	case <-q.group.Context().Done():
	}
	stopAdmit()
	q.group.Stop()
	err := q.group.Wait()
	writers.Stop()
	err = errors.Join(err, writers.Wait())
	if cerr := q.close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("closing the store: %w", cerr))
	}
	return err
}

// recover takes what a start has found into the active queue.
func (l *loop) recover() error {
	found, err := l.q.recover()
	if err != nil {
		return err
	}
	l.now = l.q.clock.now()
	for _, ev := range found {
		l.core.Step(l.now, ev)
	}
	l.q.log.Info("queue is open", "active", len(found))
	return nil
}
