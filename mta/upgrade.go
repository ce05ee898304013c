package mta

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"meta1/mta/control"
	"meta1/mta/handover"
	"meta1/mta/msg"
	"meta1/mta/service"
	"meta1/mta/supervise"
	"meta1/mta/systemd"
)

// handing is what hands the work over to a new process, and what takes it over from an old one.
type handing struct {
	refusal string      // why there can be no upgrade; "": there can be one
	binary  binaryStamp // of our own program
	busy    sync.Mutex  // held during an upgrade

	active atomic.Bool // an upgrade goes on

	mu    sync.Mutex              // guards abort
	abort context.CancelCauseFunc // ends the upgrade; nil: there is none

	// In a process that takes over:
	link      *handover.Link // nil: it was started in another way
	from      handover.Message
	throttles []msg.Throttle
	isReady   chan struct{} // closed when all modules are up
	muted     atomic.Bool   // systemd listens to the other process yet
}

var (
	errStopping = errors.New("meta1 is stopping")
	errUpgrades = errors.New("an upgrade goes on already")
)

// stop ends an upgrade that goes on, because all ends.
func (h *handing) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.abort != nil {
		h.abort(errStopping)
	}
}

// wait waits until no upgrade goes on.
func (h *handing) wait() {
	h.busy.Lock()
	defer h.busy.Unlock()
}

// begin notes an upgrade, whose context it returns: it does not end with the asker's. end is to be called at its end.
func (h *handing) begin(ctx context.Context) (upgrade context.Context, end func(), err error) {
	if !h.busy.TryLock() {
		return nil, nil, errUpgrades
	}
	upgrade, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	set := func(f context.CancelCauseFunc) {
		h.mu.Lock()
		h.abort = f
		h.mu.Unlock()
	}
	set(cancel)
	h.active.Store(true)
	return upgrade, func() {
		h.active.Store(false)
		set(nil)
		cancel(nil)
		h.busy.Unlock()
	}, nil
}

const (
	// upgradeTime is how long a new process may take to prepare itself, and then to serve, by default, and
	// upgradeMax at most: asker and server of the control API wait no longer than that twice.
	upgradeTime = time.Minute
	upgradeMax  = 2 * time.Minute
	// lockTime is how long the lock of the spool is waited for, which an ended process has held.
	lockTime  = 10 * time.Second
	lockPause = 10 * time.Millisecond
)

// Upgrade replaces this process by a new one of the binary that stands at its path now. It returns when that serves, and this one
// is about to end, or when it is certain that this one goes on.
func (m *mta) Upgrade(ctx context.Context, q control.UpgradeQuestion) control.UpgradeReport {
	r := control.UpgradeReport{Old: control.Process{Version: m.setup.Version, PID: os.Getpid()}}
	if q.OrReload && !m.hand.binary.differs(m.setup.Successor.Program) {
		reload := m.Reload(ctx, false)
		r.Reload = &reload
		return r
	}
	ctx, end, err := m.hand.begin(ctx)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	defer end()
	m.reload.Lock() // one that goes on ends first, and none begins
	defer m.reload.Unlock()
	u := &upgrade{mta: m, limit: upgradeTime, report: &r}
	if q.Limit != 0 {
		u.limit = q.Limit
	}
	m.log.LogAttrs(ctx, levelNotice, "upgrade begins", slog.String("program", m.setup.Successor.Program))
	if err := u.run(ctx); err != nil {
		r.Error = err.Error()
		m.log.LogAttrs(ctx, slog.LevelError, "upgrade failed: this process goes on", slog.Any("error", err))
		return r
	}
	r.Done = true
	m.log.LogAttrs(ctx, levelNotice, "upgraded", slog.String("version", r.New.Version), slog.Int("pid", r.New.PID), slog.Duration("elapsed", time.Duration(r.PauseMS)*time.Millisecond))
	m.endHandedOver()
	return r
}

// upgrade is one upgrade.
type upgrade struct {
	mta     *mta
	limit   time.Duration
	report  *control.UpgradeReport
	process *service.Process
	link    *handover.Link
}

// run is the upgrade. After an error this process serves as before.
func (u *upgrade) run(ctx context.Context) (err error) {
	m := u.mta
	switch d := m.Draining(); {
	case u.limit < time.Second || u.limit > upgradeMax:
		return fmt.Errorf("the limit must be between 1s and %v", upgradeMax)
	case m.stopping.Load():
		return errStopping
	case !m.ready.Load():
		return errors.New("meta1 is starting")
	case d.Phase != control.NotDraining:
		return fmt.Errorf("there is a drain (%s): cancel it first", d.Phase)
	case m.hand.refusal != "":
		return errors.New(m.hand.refusal)
	}
	if u.report.New.Version, err = m.tryBinary(ctx, u.limit); err != nil {
		return err
	}
	if err := u.launch(ctx); err != nil {
		u.end()
		return u.explain(err)
	}
	if err := u.handOver(ctx); err != nil {
		u.end()
		return errors.Join(u.explain(err), u.takeBack(context.WithoutCancel(ctx)))
	}
	u.finish()
	return nil
}

// launch starts the new process, gives it the sockets, and waits until it is prepared.
func (u *upgrade) launch(ctx context.Context) error {
	m := u.mta
	link, theirs, err := handover.Pair()
	if err != nil {
		return err
	}
	u.link = link
	u.process, err = m.starter.Start(upgradeServe, 0, []*os.File{theirs})
	_ = theirs.Close()
	if err != nil {
		return err
	}
	u.report.New.PID = u.process.PID
	var listeners []net.Listener
	var about []handover.Socket
	for _, l := range m.sockets.list() {
		listeners, about = append(listeners, l.Listener), append(about, handover.Socket{Unlink: l.Unlink})
	}
	offer := handover.Message{Version: m.setup.Version, PID: os.Getpid(), Spool: m.dir}
	if err := link.SendOffer(offer, listeners, about); err != nil {
		return err
	}
	return u.await(ctx, handover.Prepared)
}

// await waits for a step of the new process.
func (u *upgrade) await(ctx context.Context, step handover.Step) error {
	ctx, cancel := context.WithTimeoutCause(ctx, u.limit, fmt.Errorf("the new process was not %s within %v", step, u.limit))
	defer cancel()
	got, _, err := u.link.Receive(ctx)
	switch {
	case err != nil:
		return err
	case got.Step == handover.Failed:
		return errors.New(got.Error)
	case got.Step != step:
		return fmt.Errorf("the new process says %.20q in place of %s", got.Step, step)
	}
	return nil
}

// handOver stops our modules, gives the spool to the new process, and waits until that serves. Deliveries end
// first, while mail is still taken, so that those of slow hosts keep no client waiting.
func (u *upgrade) handOver(ctx context.Context) error {
	m := u.mta
	if err := m.tree.Pause(ctx, false, unitClient); err != nil {
		return err
	}
	begun := time.Now()
	if err := m.tree.Pause(ctx, true, unitClient); err != nil {
		return err
	}
	m.beside.pause()
	m.spool.release()
	if err := u.link.Send(handover.Message{Step: handover.Yours, Throttles: m.ports.Throttles.List()}); err != nil {
		return err
	}
	if err := u.await(ctx, handover.Ready); err != nil {
		return err
	}
	u.report.PauseMS = time.Since(begun).Milliseconds()
	return nil
}

// end sees to it that the new process is gone.
func (u *upgrade) end() {
	if u.process != nil {
		u.process.Stop(0)
	}
	if u.link != nil {
		u.link.Close()
	}
}

// explain adds to an error how the new process has ended, which end has waited for.
func (u *upgrade) explain(err error) error {
	if u.process != nil && errors.Is(err, handover.ErrGone) {
		return fmt.Errorf("the new process ended with %s before it served; what it printed is in our log or on our standard error", service.StatusText(u.process.Status()))
	}
	return err
}

// takeBack has this process serve again: nobody else has the spool by now.
func (u *upgrade) takeBack(ctx context.Context) error {
	m := u.mta
	if m.stopping.Load() {
		return nil
	}
	if m.spool.lock == nil {
		if err := m.lockSpool(ctx); err != nil { // somebody else has it
			m.beginStop()
			return fmt.Errorf("this process ends, because it cannot take the spool back: %w", err)
		}
	}
	m.beside.resume()
	return m.tree.Resume(ctx)
}

// lockSpool takes the lock of the spool from a process that is about to end.
func (m *mta) lockSpool(ctx context.Context) error {
	late := time.Now().Add(lockTime)
	for {
		err := m.account.Do(m.spool.take)
		if err == nil || time.Now().After(late) {
			return err
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// finish tells systemd and the new process that it is alone.
func (u *upgrade) finish() {
	m := u.mta
	for _, l := range m.sockets.list() {
		l.KeepPath(true)
	}
	systemd.Notify(fmt.Sprintf("MAINPID=%d\nREADY=1", u.process.PID))
	_ = u.link.Send(handover.Message{Step: handover.Done}) // if it has ended by now it is started again as after any crash
	u.link.Close()
}

// endHandedOver begins the end of a process that has handed its work over.
func (m *mta) endHandedOver() {
	if m.stopping.Swap(true) {
		return
	}
	m.endUnits()
}

// besides are what runs beside the modules and writes into the spool.
type besides struct {
	mu    sync.Mutex // guards the fields below
	start func(*supervise.Group)
	group *supervise.Group // nil: paused, or ended
	ended bool
}

// run starts it; start is called again after a pause.
func (b *besides) run(start func(*supervise.Group)) {
	b.start = start
	b.resume()
}

// add starts something more, which start starts from now on, too.
func (b *besides) add(start func(*supervise.Group)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.group != nil {
		start(b.group)
	}
}

// pause ends it until resume.
func (b *besides) pause() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.group != nil {
		b.group.Stop()
		_ = b.group.Wait() // its errors have been logged
		b.group = nil
	}
}

func (b *besides) resume() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.group == nil && !b.ended {
		b.group = supervise.NewGroup(context.Background())
		b.start(b.group)
	}
}

// end ends it for good.
func (b *besides) end() {
	b.pause()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
}
