package maildrop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"meta1/mta/msg"
	"meta1/mta/smtp"
)

// Access is who may leave mail.
type Access string

// The words of option access.
const (
	AccessAll   Access = "everybody"
	AccessGroup Access = "group" // root and the members of the group of the account that serves
	AccessNone  Access = "nobody"
)

// Mode is the mode of the directory, 0 for none.
func (a Access) Mode() fs.FileMode {
	switch a {
	case AccessAll:
		return fs.ModeSetgid | fs.ModeSticky | 0o733
	case AccessGroup:
		return fs.ModeSetgid | fs.ModeSticky | 0o730
	default:
		return 0
	}
}

// Bits is Mode as chmod has it.
func (a Access) Bits() uint32 {
	m := a.Mode()
	if m == 0 {
		return 0
	}
	return 0o3000 | uint32(m.Perm())
}

const (
	// staleTime is how old a file is that its writer has given up.
	staleTime = 24 * time.Hour
	// badTime is how long a file is kept that is not taken up.
	badTime = 7 * 24 * time.Hour
	// batch is how many names are read at once.
	batch = 1000
	// againMax is the longest pause before a message is tried again that the queue refused for now.
	againMax = 15 * time.Minute
	// questionTime bounds a question to QMGR.
	questionTime = time.Minute
)

// Config is what a Collector is to do. Each is required.
type Config struct {
	Dir      string // absolute
	Access   Access
	Interval time.Duration // between two looks into the directory
	SizeMax  int64         // of a content, in bytes
}

// Deps are what a Collector works with. Each is required but Sign.
type Deps struct {
	Config
	Hostname string
	Ports    *msg.Ports
	Content  msg.ContentStore
	Sign     func(content []byte) ([]byte, error) // puts signatures on top; nil: none
	Log      *slog.Logger
	Metrics  prometheus.Registerer
}

// What became of a file.
const (
	taken     = iota
	refused   // for good
	bad       // not a message
	postponed // refused for now
	ends
)

// Collector takes up what is in the directory. One goroutine runs it; Waiting may be called by any.
type Collector struct {
	d       Deps // its Config belongs to the goroutine of Run
	next    atomic.Pointer[Config]
	changed chan struct{} // tells of next; holds one
	counts  [ends]prometheus.Counter
	waiting atomic.Int64
	again   map[string]*again // by ID
	told    map[string]bool   // entries that could not be removed
}

// again is when a message is tried next.
type again struct {
	at    time.Time
	pause time.Duration
}

// New makes a Collector and registers its metrics.
func New(d Deps) *Collector {
	c := &Collector{d: d, changed: make(chan struct{}, 1), again: map[string]*again{}, told: map[string]bool{}}
	vec := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "meta1_maildrop_messages_total", Help: "Messages found in the maildrop, by what became of them.",
	}, []string{"result"})
	for i, name := range [...]string{"taken", "refused", "bad", "postponed"} {
		c.counts[i] = vec.WithLabelValues(name)
	}
	d.Metrics.MustRegister(vec, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "meta1_maildrop_waiting", Help: "Messages in the maildrop that wait to be taken up.",
	}, func() float64 { return float64(c.waiting.Load()) }))
	return c
}

// Make makes the directory, or gives it its mode if it is ours. It is called by the account that serves.
func Make(dir string, a Access) error {
	if a.Mode() == 0 {
		return nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the maildrop: %w", err)
	}
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no directory", dir)
	}
	if err == nil && info.Mode()&(fs.ModePerm|fs.ModeSetgid|fs.ModeSticky) != a.Mode() {
		err = os.Chmod(dir, a.Mode())
	}
	if err != nil {
		return fmt.Errorf("making the maildrop: %w", err)
	}
	return nil
}

// Prepare makes the directory of another configuration. commit has the Collector go over to it, whether it runs or not;
// discard undoes what Prepare has done. One of both must be called. Whoever calls it is the account that serves.
func (c *Collector) Prepare(next Config) (commit, discard func(), err error) {
	was, statErr := os.Lstat(next.Dir)
	if err := Make(next.Dir, next.Access); err != nil {
		return nil, nil, err
	}
	return func() {
			c.next.Store(&next)
			select {
			case c.changed <- struct{}{}:
			default: // it has not taken the last one yet, and will take this one
			}
		}, func() {
			switch {
			case next.Access.Mode() == 0:
			case statErr == nil:
				_ = os.Chmod(next.Dir, was.Mode()) // as it was
			default:
				_ = os.Remove(next.Dir) // unless somebody has left mail by now
			}
		}, nil
}

// Run takes up what is there and what comes, until ctx ends.
func (c *Collector) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if next := c.next.Load(); next != nil {
			c.d.Config = *next
		}
		if err := c.watch(ctx); err != nil {
			return err
		}
	}
	return nil
}

// watch takes up what is there and what comes, until ctx ends or the configuration changes. Then it looks once more: what was left
// before the change is taken up.
func (c *Collector) watch(ctx context.Context) error {
	if c.d.Access.Mode() == 0 {
		select {
		case <-ctx.Done():
		case <-c.changed:
		}
		return nil
	}
	if err := Make(c.d.Dir, c.d.Access); err != nil {
		return err
	}
	tick := time.NewTicker(c.d.Interval)
	defer tick.Stop()
	for changed := false; ; {
		if err := c.round(ctx, time.Now()); err != nil {
			c.d.Log.Error("cannot look into the maildrop", "error", err)
		}
		if changed {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
			changed = true
		case <-tick.C:
		}
	}
}

// round looks at each entry once.
func (c *Collector) round(ctx context.Context, now time.Time) error {
	left := int64(0)
	err := each(c.d.Dir, func(name string) bool {
		switch {
		case !strings.HasPrefix(name, prefixMail):
			c.tidy(name, now)
		case c.mail(ctx, name, now):
			left++
		}
		return ctx.Err() == nil
	})
	c.waiting.Store(left)
	return err
}

// each calls f for the names in a directory until it says no. However many there are, few are in memory.
func each(dir string, f func(name string) bool) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("reading the maildrop: %w", err)
	}
	defer d.Close()
	for {
		names, err := d.Readdirnames(batch)
		for _, name := range names {
			if !f(name) {
				return nil
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading the maildrop: %w", err)
		}
	}
}

// mail takes one message up. It reports whether the message stays.
func (c *Collector) mail(ctx context.Context, name string, now time.Time) (stays bool) {
	id := strings.TrimPrefix(name, prefixMail)
	if a := c.again[id]; a != nil && now.Before(a.at) {
		return true
	}
	m, err := load(filepath.Join(c.d.Dir, name), c.d.SizeMax)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false
	case errors.Is(err, errBad):
		c.counts[bad].Inc()
		c.d.Log.Warn("what is in the maildrop is no message", "file", name, "error", err)
		c.aside(name)
		return false
	case err != nil:
		c.d.Log.Error("cannot read what is in the maildrop", "file", name, "error", err)
		return true
	}
	ta, reply, err := c.commit(ctx, m, now)
	switch {
	case errors.Is(err, msg.ErrDown): // it begins, or ends
		return true
	case err != nil || !reply.IsZero() && !reply.Permanent():
		c.counts[postponed].Inc()
		c.postpone(id, now)
		if ctx.Err() == nil {
			c.d.Log.Warn("mail stays in the maildrop", "file", name, "reply", reply.String(), "error", err)
		}
		return true
	case !reply.IsZero():
		c.counts[refused].Inc()
		c.d.Log.Error("mail in the maildrop is refused", "file", name, "uid", m.Owner, "mail", "<"+m.Sender+">", "reply", reply.String())
		c.aside(name)
		return false
	}
	c.counts[taken].Inc()
	delete(c.again, id)
	c.d.Log.LogAttrs(ctx, slog.LevelInfo, "taken from the maildrop", slog.Any("ss_ta", ta), slog.String("file", name), slog.Uint64("uid", uint64(m.Owner)),
		slog.String("mail", "<"+m.Sender+">"), slog.Int("rcpts", len(m.Rcpts)), slog.Int("size", len(m.Content)))
	c.remove(name)
	return false
}

// postpone doubles the pause of a message.
func (c *Collector) postpone(id string, now time.Time) {
	a := c.again[id]
	if a == nil {
		if len(c.again) >= 2*EntriesMax { // of files that others have removed
			clear(c.again)
		}
		a = &again{pause: c.d.Interval}
		c.again[id] = a
	}
	a.at, a.pause = now.Add(a.pause), min(2*a.pause, againMax)
}

// commit puts a message into the queue. reply is why QMGR does not take it.
func (c *Collector) commit(ctx context.Context, m *Message, now time.Time) (ta smtp.ID, reply smtp.Reply, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), questionTime) // else a message that was taken might be sent twice
	defer cancel()
	e, err := m.envelope()
	if err != nil {
		return ta, smtp.NewReply(550, "5.1.3", err.Error()), nil
	}
	ports := c.d.Ports
	session, err := ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewSession})
	if err != nil || !session.Reply.IsZero() {
		return ta, session.Reply, err
	}
	defer func() {
		_, _ = ports.Admit.Ask(context.WithoutCancel(ctx), msg.AdmitQ{Kind: msg.EndSession, Session: session.ID})
	}() // it has no reply
	t, err := ports.Admit.Ask(ctx, msg.AdmitQ{Kind: msg.NewTransaction, Session: session.ID, Size: int64(len(m.Content)), Relay: true})
	if err != nil || !t.Reply.IsZero() {
		return ta, t.Reply, err
	}
	content := append([]byte(fmt.Sprintf("Received: by %s (meta1, from userid %d) id %s; %s\r\n", c.d.Hostname, m.Owner, t.ID, now.Format(time.RFC1123Z))), m.Content...)
	if c.d.Sign != nil {
		if content, err = c.d.Sign(content); err != nil {
			return ta, smtp.Reply{}, fmt.Errorf("signing it: %w", err)
		}
	}
	q := msg.CommitQ{Size: int64(len(content)), Envelope: &msg.Envelope{
		TA: t.ID, Session: session.ID, Arrival: now, Client: msg.Client{IP: netip.Addr{}, Protocol: "LOCAL"},
		Mail: msg.Mail{From: e.from, Size: int64(len(content)), Ret: m.Ret, EnvID: m.EnvID, UTF8: e.utf8, VERP: m.VERP && !e.from.IsNull(), Body: bodyOf(content)},
	}}
	for _, p := range e.rcpts {
		q.Envelope.Rcpts = append(q.Envelope.Rcpts, msg.Rcpt{To: p, Notify: m.Notify})
	}
	if t.InlineMax > 0 && int64(len(content)) > t.InlineMax {
		if err := c.store(q.Envelope, content); err != nil {
			return ta, smtp.Reply{}, err
		}
	} else {
		q.Inline = content
	}
	a, err := ports.Commit.Ask(ctx, q)
	return t.ID, a.Reply, err
}

// store makes a content file, which is QMGR's to remove if it does not take the message.
func (c *Collector) store(e *msg.Envelope, content []byte) error {
	w, err := c.d.Content.Create(e.TA)
	if err != nil {
		return fmt.Errorf("storing the content: %w", err)
	}
	if _, err = w.Write(content); err == nil {
		err = w.Commit(e)
	}
	if err != nil {
		w.Abort()
		return fmt.Errorf("storing the content: %w", err)
	}
	return nil
}

func bodyOf(content []byte) string {
	if isASCII(string(content)) {
		return ""
	}
	return smtp.Body8Bit
}

// aside keeps a file for the postmaster. What is no file is removed.
func (c *Collector) aside(name string) {
	info, err := os.Lstat(filepath.Join(c.d.Dir, name))
	if err == nil && !info.Mode().IsRegular() {
		c.remove(name)
		return
	}
	if err := os.Rename(filepath.Join(c.d.Dir, name), filepath.Join(c.d.Dir, prefixBad+strings.TrimPrefix(name, prefixMail))); err != nil {
		c.remove(name)
	}
}

// tidy removes what nobody will use any more: what its writer has left, what was kept for long enough, and what is no
// file of ours at all.
func (c *Collector) tidy(name string, now time.Time) {
	info, err := os.Lstat(filepath.Join(c.d.Dir, name))
	if err != nil {
		return
	}
	var keep time.Duration
	switch {
	case strings.HasPrefix(name, prefixNew):
		keep = staleTime
	case strings.HasPrefix(name, prefixBad):
		keep = badTime
	}
	if keep > 0 && info.Mode().IsRegular() && now.Sub(info.ModTime()) < keep && info.ModTime().Before(now.Add(staleTime)) {
		return
	}
	c.remove(name)
}

// remove removes an entry. One that cannot be removed, such as a directory that is not empty, is told of once.
func (c *Collector) remove(name string) {
	err := os.Remove(filepath.Join(c.d.Dir, name))
	if err == nil || errors.Is(err, fs.ErrNotExist) || c.told[name] {
		return
	}
	if len(c.told) < EntriesMax {
		c.told[name] = true
	}
	c.d.Log.Warn("something in the maildrop cannot be removed", "file", name, "error", err)
}

// Waiting lists the messages of a directory, EntriesMax at most, with sizes in place of their contents. It takes the
// right to list the directory.
func Waiting(dir string) (all []*Message, err error) {
	err = each(dir, func(name string) bool {
		if strings.HasPrefix(name, prefixMail) {
			if m, err := load(filepath.Join(dir, name), SizeMax); err == nil {
				m.Size, m.Content = len(m.Content), nil
				all = append(all, m)
			}
		}
		return len(all) < EntriesMax
	})
	return all, err
}
