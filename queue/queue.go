package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/queue/cdb"
	"meta1/queue/defedb"
	"meta1/queue/fsck"
	"meta1/queue/ibdb"
	"meta1/queue/store"
	"meta1/queue/vfs"
)

// drainMax is how long Run waits for deliveries that are under way when it is to
// end.
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
	// FS is the disk; nil means the real one.
	FS vfs.FS
	// Now is the time of day; nil means time.Now. It may be set forward or back at any
	// time (see the package comment). Durations are measured by the runtime's clock.
	Now func() time.Time
	// Fatal is called when a store can no longer keep its promises. It must end the
	// process.
	Fatal func(error)
}

// Queue is QMGR. Make it with New, run it once with Run. It is crash-only: to
// restart it, make a new one.
type Queue struct {
	cfg  Config
	deps Deps
	log  *slog.Logger

	clock    *clock
	ports    *msg.Ports
	cdb      *cdb.Store
	ibdb     *ibdb.DB
	defedb   *defedb.DB
	ids      *ids
	firstID  uint64
	space    *space
	journal  *journal
	deferrer *deferrer
	metrics  *metrics
	gauges   gauges
	events   *mailbox[event]
	makers   chan struct{} // holds a token for each message that is being made
	recovery *recovery

	conf      atomic.Pointer[confTable]
	reloading sync.Mutex // one Reload at a time, so that the last one counts

	group   *supervise.Group // of the present Run
	entries atomic.Int64     // recipients in the active queue
	memory  atomic.Int64     // bytes of content in memory
}

// New opens the databases in the main queue directory, which must exist, and reads
// what is in them, and in the configuration map. On an error nothing stays open. The error wraps
// store.ErrDamaged, store.ErrInUse or store.ErrVersion where that is the reason.
func New(cfg Config, deps Deps) (*Queue, error) {
	if deps.FS == nil {
		deps.FS = vfs.Real()
	}
	q := &Queue{cfg: cfg, deps: deps, log: deps.Log, clock: newClock(deps.Now), ports: deps.Ports, events: newMailbox[event](), makers: make(chan struct{}, makersMax)}
	q.journal = &journal{q: q, ops: newMailbox[journalOp]()}
	q.deferrer = &deferrer{q: q, ops: newMailbox[deferOp]()}
	c, err := q.readConf()
	if err != nil {
		return nil, err
	}
	q.conf.Store(c)
	if err := q.open(); err != nil {
		q.close()
		return nil, err
	}
	return q, nil
}

func (q *Queue) open() (err error) {
	dirs := q.cfg.Dirs(q.deps.Dir)
	q.space = &space{
		fs: q.deps.FS, dirs: []string{dirs.CDB, dirs.IBDB, dirs.DEFEDB},
		min: q.cfg.DiskMin, ok: q.cfg.DiskOK, log: q.log, refill: q.refill,
	}
	opts := store.Options{Log: q.log, Fatal: q.deps.Fatal, OnFull: q.space.full, LogSize: q.cfg.IBDB.Size}
	if q.ibdb, err = ibdb.Open(q.deps.FS, dirs.IBDB, opts); err != nil {
		return err
	}
	opts.Cache, opts.LogDir = q.cfg.DEFEDB.CacheSize, dirs.DEFEDBLog
	opts.BlockSize, opts.LogSize = q.cfg.DEFEDB.PageSize, q.cfg.DEFEDB.CheckpointKB
	if q.defedb, err = defedb.Open(q.deps.FS, dirs.DEFEDB, opts); err != nil {
		return err
	}
	if q.cdb, err = cdb.Open(q.deps.FS, dirs.CDB); err != nil {
		return err
	}
	q.cdb.Fatal = q.deps.Fatal
	if q.ids, err = newIDs(q.ibdb); err != nil {
		return err
	}
	q.firstID = q.ids.next.Load()
	if err := q.space.look(); err != nil {
		return err
	}
	if q.recovery, err = q.recover(q.clock.now()); err != nil {
		return err
	}
	if err := q.join(); err != nil {
		return err
	}
	q.metrics, err = newMetrics(q, q.deps.Metrics)
	return err
}

// Dirs are the places of the databases below the main queue directory, which is
// absolute (README 2.4.1, 3.6).
func (c *Config) Dirs(spool string) fsck.Dirs {
	inDir := func(path string) string {
		if filepath.IsAbs(path) {
			return filepath.Clean(path)
		}
		return filepath.Join(spool, path)
	}
	d := fsck.Dirs{Spool: spool, CDB: inDir(c.CDBBase), IBDB: inDir("ibdb"), DEFEDB: inDir(c.DEFEDB.Base)}
	if c.DEFEDB.Log != "" {
		d.DEFEDBLog = inDir(c.DEFEDB.Log)
	}
	return d
}

// refill makes the reserves for a full disk again.
func (q *Queue) refill() {
	q.ibdb.Refill()
	q.defedb.Refill()
}

func (q *Queue) close() error {
	var errs []error
	if q.metrics != nil {
		q.metrics.unregister()
	}
	if q.defedb != nil {
		errs = append(errs, q.defedb.Close())
	}
	if q.ibdb != nil {
		errs = append(errs, q.ibdb.Close())
	}
	return errors.Join(errs...)
}

// Content is where the server puts content that is too large for memory. It may be
// used as long as Run runs.
func (q *Queue) Content() msg.ContentStore { return guardedStore{cdb: q.cdb, space: q.space} }

// Accepting tells why no mail is accepted now, or nil.
func (q *Queue) Accepting() error {
	if q.space.low.Load() {
		return errScarce
	}
	return nil
}

// fill is how full the active queue is, in percent.
func (q *Queue) fill() int {
	return int(q.entries.Load() * 100 / int64(q.cfg.AQEntriesMax))
}

// Run serves until ctx ends: then it starts no further delivery, waits a while for
// those under way, writes down what is left, and closes the databases. An error
// means that the queue cannot go on; what was acknowledged is safe on disk.
func (q *Queue) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	q.group = supervise.NewGroup(life)
	writers := supervise.NewGroup(life)
	admits, stopAdmit := q.ports.Admit.Open()
	commits, stopCommit := q.ports.Commit.Open()
	lists, stopList := q.ports.List.Open()
	states, stopStatus := q.ports.Status["qmgr"].Open()
	operates, stopOperate := q.ports.Operate.Open()
	hosts, stopHosts := q.ports.Hosts.Open()
	fscks, stopFsck := q.ports.Fsck.Open()
	defer func() {
		stopAdmit()
		stopCommit()
		stopList()
		stopStatus()
		stopOperate()
		stopHosts()
		stopFsck()
	}()

	counter, err := q.defedb.Counter() // before anything is written
	if err != nil {
		return errors.Join(err, q.close())
	}
	q.group.Go(func(ctx context.Context) error { return q.count(ctx, counter) })
	q.group.Go(q.restore)
	writers.Go(func(ctx context.Context) error { return q.journal.run(ctx, commits) })
	writers.Go(q.deferrer.run)
	q.group.Go(q.space.watch)
	q.group.Go(func(ctx context.Context) error { return newAdmission(q).run(ctx, admits) })
	q.group.Go(func(ctx context.Context) error { return q.fsck(ctx, fscks) })
	q.group.Go(func(ctx context.Context) error { return q.litter(ctx, q.recovery.known, q.firstID) })
	q.events.put(&recoveredEvent{ts: q.recovery.ts, late: q.recovery.late})
	q.log.Info("queue is open", "active", len(q.recovery.ts))

	l := newLoop(q)
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
	err = q.group.Wait()
	writers.Stop()
	err = errors.Join(err, writers.Wait())
	if cerr := q.close(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("closing the databases: %w", cerr))
	}
	return err
}
