// Package greylist remembers clients that have shown that they try again (README
// 3.9.4).
//
// A client, or a client with sender and recipient, is in one of three states. It is
// unknown at first and then grey. If it comes back not before Wait and not after
// Expire it becomes white, and stays so as long as it comes again within
// WhiteTimeout. Entries are removed only when there are more than Limit, grey ones
// after Expire and white ones after WhiteExpire, a few at each insertion, so that no
// check ever waits for a long one.
//
// The entries are in one Pebble store (mta/store) with two key spaces, the entries by
// key and an index by the time at which they may be removed. What was written in the last
// moments before a crash may be lost: those clients wait once more.
//
// Greylisting must never stop mail. A store that fails is given up until the next start,
// and every check then fails at once; while the disk is full nothing is written, and
// every check fails; a disk that hangs makes each check fail after checkTime. Whoever asks
// accepts the mail then.
package greylist

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/prometheus/client_golang/prometheus"

	"meta1/maps"
	"meta1/mta/store"
	"meta1/mta/supervise"
	"meta1/mta/vfs"
)

// Config says how long states last.
type Config struct {
	Wait         time.Duration // before an entry can be confirmed
	Expire       time.Duration // within which it must be confirmed
	WhiteExpire  time.Duration // after which a white entry may be removed
	WhiteTimeout time.Duration // after which a white entry counts as unknown
	Limit        int           // entries beyond which expired ones are removed
	Netmask      uint32        // bits of an IPv4 address that count
	Prefix6      int           // leading bits of an IPv6 address that count
}

// State is what is known of a client.
type State uint8

// The states.
const (
	Unknown State = iota
	Grey
	White
)

// String is the state's name in traces.
func (s State) String() string { return [...]string{"unknown", "greylisted", "whitelisted"}[s] }

// Key is what is remembered. Sender and Rcpt are empty with simple greylisting.
type Key struct {
	Client       netip.Addr
	Sender, Rcpt string
}

// Deps are what a store needs from outside.
type Deps struct {
	FS      vfs.FS
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil: nobody gets the numbers
}

const (
	version      = 2
	prefixEntry  = 'e' // key of 17 or 32 bytes -> entry
	prefixIndex  = 't' // time, key -> nothing
	keyCount     = "n"
	expireAtOnce = 4 // entries removed at one insertion
	// updateStep: a white entry is written again only if it is older than this share
	// of WhiteExpire and WhiteTimeout, so that a busy client does not cost a write with
	// every mail.
	updateStep = 50
	entrySize  = 1 + 8 + 8

	cacheSize = 16 << 20
	logSize   = 4 << 20

	// checkTime is the longest time that a check takes, closeTime that Close does.
	checkTime = 2 * time.Second
	closeTime = 10 * time.Second
	// fullPause is the time between two looks whether a full disk has room again.
	fullPause = time.Minute
)

// errFull: the disk is full, nothing is written.
var errFull = errors.New("greylisting pauses: the disk is full")

// errSlow: the store did not answer in checkTime.
var errSlow = errors.New("the greylisting store does not answer")

// Store is an open store. It is safe for use by many goroutines. One goroutine of its own
// works with the database, because a call to a disk that fails or hangs may never return.
type Store struct {
	next     atomic.Pointer[Config] // in effect from the next check on
	log      *slog.Logger
	db       *store.Store
	group    *supervise.Group
	checks   chan question
	closed   chan error    // the goroutine has closed the database
	broken   chan struct{} // closed when the store is given up
	why      error         // set before broken is closed
	breaking sync.Once
	full     atomic.Bool  // the disk was found full
	count    atomic.Int64 // entries

	// Of the goroutine:
	cfg   Config
	floor []byte    // no index entry is below it: removed ones need not be skipped again
	look  time.Time // when it looks next whether a full disk has room
}

// question is one for the goroutine.
type question struct {
	key    Key
	now    time.Time
	answer chan<- answer // has room for it
	trial  bool          // nothing is written
}

type answer struct {
	state State
	err   error
}

// entry is a stored state: when the client was first seen, and for white ones when
// it came last.
type entry struct {
	state       State
	first, last time.Time
}

// Open opens or creates the store in dir.
func Open(dir string, cfg Config, deps Deps) (*Store, error) {
	if cfg.Prefix6 < 1 || cfg.Prefix6 > 128 {
		return nil, fmt.Errorf("greylisting: IPv6_prefix %d is not from 1 to 128", cfg.Prefix6)
	}
	s := &Store{
		log: deps.Log, floor: []byte{prefixIndex},
		checks: make(chan question), closed: make(chan error, 1), broken: make(chan struct{}),
	}
	s.next.Store(&cfg)
	var err error
	s.db, err = store.Open(deps.FS, dir, store.Options{
		Name: "greylist", Version: version, Cache: cacheSize, LogSize: logSize, Filter: true,
		Log: deps.Log, Fatal: s.giveUp, OnFull: s.pause, Metrics: deps.Metrics,
	})
	if err != nil {
		return nil, err
	}
	n, err := s.number(keyCount)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the greylisting store in %s: %w", dir, err), s.db.Close())
	}
	s.count.Store(int64(min(n, math.MaxInt64)))
	s.group = supervise.NewGroup(context.Background())
	s.group.Go(func(ctx context.Context) error {
		if err := supervise.Call(ctx, s.work); err != nil {
			s.giveUp(err)
		}
		return nil
	})
	return s, nil
}

// giveUp notes that the store cannot be used any more.
func (s *Store) giveUp(err error) {
	s.breaking.Do(func() {
		s.why = fmt.Errorf("greylisting is off until the next start: %w", err)
		close(s.broken)
		s.log.Error("greylisting is off until the next start and all mail passes", slog.String("stat", err.Error()))
	})
}

// pause is called when a write found the disk full. It went through by the reserve.
func (s *Store) pause() {
	if !s.full.Swap(true) {
		s.log.Error("greylisting pauses and all mail passes: the disk is full")
	}
}

// number reads a number, 0 if there is none.
func (s *Store) number(key string) (uint64, error) {
	v, ok, err := s.db.Reader().Get([]byte(key))
	if err != nil || !ok {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("record %q has %d bytes", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// Close writes everything and closes the store. It leaves one that was given up, or that
// does not answer, as it is.
func (s *Store) Close() error {
	s.group.Stop()
	select {
	case err := <-s.closed:
		return err
	case <-s.broken:
		return nil // it was logged
	case <-time.After(closeTime):
		return fmt.Errorf("closing: %w", errSlow)
	}
}

// work answers checks until it is told to stop, and then closes the database.
func (s *Store) work(ctx context.Context) error {
	for {
		select {
		case c := <-s.checks:
			s.cfg = *s.next.Load()
			state, err := s.check(c.key, c.now, c.trial)
			c.answer <- answer{state, err}
		case <-ctx.Done():
			err := errors.Join(s.db.Flush(), s.db.Close())
			if err != nil {
				err = fmt.Errorf("closing the greylisting store: %w", err)
			}
			s.closed <- err
			return nil
		}
	}
}

// Reconfigure takes another configuration, with which the next checks are made. What is stored stays: an entry is
// removed when the configuration of its last check says so, or later.
func (s *Store) Reconfigure(cfg Config) { s.next.Store(&cfg) }

// Check says in which state a client is that comes at the time now, and notes that
// it came. White means that its mail is accepted; so it should be after an error.
func (s *Store) Check(ctx context.Context, k Key, now time.Time) (State, error) {
	return s.ask(ctx, question{key: k, now: now})
}

// Would says what Check would, and notes nothing.
func (s *Store) Would(ctx context.Context, k Key, now time.Time) (State, error) {
	return s.ask(ctx, question{key: k, now: now, trial: true})
}

func (s *Store) ask(ctx context.Context, q question) (State, error) {
	select {
	case <-s.broken: // the worker may still answer from memory
		return Unknown, s.why
	default:
	}
	ctx, cancel := context.WithTimeoutCause(ctx, checkTime, errSlow)
	defer cancel()
	answered := make(chan answer, 1)
	q.answer = answered
	select {
	case s.checks <- q:
	case <-s.broken:
		return Unknown, s.why
	case <-ctx.Done():
		return Unknown, context.Cause(ctx)
	}
	select {
	case a := <-answered:
		return a.state, a.err
	case <-s.broken:
		return Unknown, s.why
	case <-ctx.Done():
		return Unknown, context.Cause(ctx)
	}
}

func (s *Store) check(k Key, now time.Time, trial bool) (State, error) {
	if s.full.Load() && !s.hasRoom() {
		return Unknown, errFull
	}
	key := s.encode(k)
	old, err := s.read(key)
	if err != nil {
		return Unknown, err
	}
	next := s.cfg.next(old, now)
	if next == old || trial {
		return next.state, nil
	}
	return next.state, s.write(key, old, next, now)
}

// hasRoom looks now and then whether a disk that was full has room again: so much that
// the whole reserve could be made.
func (s *Store) hasRoom() bool {
	now := time.Now()
	if now.Before(s.look) {
		return false
	}
	s.look = now.Add(fullPause)
	if !s.db.Refill() {
		return false
	}
	s.full.Store(false)
	s.log.Info("greylisting goes on: the disk has room")
	return true
}

// next is the entry after a client came. It is the same entry if nothing needs to
// be written.
func (c *Config) next(old entry, now time.Time) entry {
	fresh := entry{state: Grey, first: now, last: now}
	switch age := now.Sub(old.first); {
	case old.state == Unknown, now.Before(old.first): // the clock went back
		return fresh
	case old.state == Grey && age > c.Expire:
		return fresh
	case old.state == Grey && age < c.Wait:
		return old
	case old.state == Grey:
		return entry{state: White, first: old.first, last: now}
	case now.Sub(old.last) > c.WhiteTimeout:
		return fresh
	case now.Sub(old.last) < min(c.WhiteExpire, c.WhiteTimeout)/updateStep:
		return old
	}
	return entry{state: White, first: old.first, last: now}
}

// removal is when an entry may be removed.
func (c *Config) removal(e entry) time.Time {
	if e.state == White {
		return e.last.Add(c.WhiteExpire)
	}
	return e.first.Add(c.Expire)
}

// encode makes the stored key: simple greylisting has the masked address, full
// greylisting a hash, because addresses are up to 254 bytes long.
func (s *Store) encode(k Key) []byte {
	bits, ip := s.cfg.Prefix6, k.Client.WithZone("").Unmap()
	raw := ip.As16()
	if ip.Is4() {
		for i := range 4 {
			raw[12+i] &= byte(s.cfg.Netmask >> (24 - 8*i))
		}
	} else if p, err := ip.Prefix(bits); err == nil {
		raw = p.Addr().As16()
	}
	b := append(make([]byte, 0, 33), prefixEntry)
	if k.Sender == "" && k.Rcpt == "" {
		return append(b, raw[:]...)
	}
	h := sha256.New()
	h.Write(raw[:])
	fmt.Fprintf(h, "%d:%s%s", len(k.Sender), lowerDomain(k.Sender), lowerDomain(k.Rcpt))
	return h.Sum(b)
}

// lowerDomain writes an address so that its domain may be in any case of letters.
func lowerDomain(addr string) string {
	i := strings.LastIndexByte(addr, '@') + 1
	return addr[:i] + maps.Lower(addr[i:])
}

func (s *Store) read(key []byte) (entry, error) {
	v, ok, err := s.db.Reader().Get(key)
	if err != nil || !ok {
		return entry{}, err
	}
	if len(v) != entrySize || v[0] < byte(Grey) || v[0] > byte(White) {
		return entry{}, nil // not ours: written anew
	}
	return entry{
		state: State(v[0]),
		first: time.Unix(0, int64(binary.BigEndian.Uint64(v[1:]))),
		last:  time.Unix(0, int64(binary.BigEndian.Uint64(v[9:]))),
	}, nil
}

// indexKey orders entries by the time of their removal.
func (c *Config) indexKey(e entry, key []byte) []byte {
	b := append(make([]byte, 0, 9+len(key)), prefixIndex)
	b = binary.BigEndian.AppendUint64(b, uint64(max(c.removal(e).UnixNano(), 0)))
	return append(b, key...)
}

// write puts next in the place of old and removes a few expired entries.
func (s *Store) write(key []byte, old, next entry, now time.Time) error {
	b := s.db.NewBatch()
	v := append(make([]byte, 0, entrySize), byte(next.state))
	v = binary.BigEndian.AppendUint64(v, uint64(next.first.UnixNano()))
	v = binary.BigEndian.AppendUint64(v, uint64(next.last.UnixNano()))
	count := s.count.Load()
	var errs []error
	if old.state == Unknown {
		count++
	} else {
		errs = append(errs, b.Delete(s.cfg.indexKey(old, key), nil))
	}
	index := s.cfg.indexKey(next, key)
	errs = append(errs, b.Set(key, v, nil), b.Set(index, nil, nil))
	removed, floor, err := s.expire(b, key, count, now)
	errs = append(errs, err, b.Set([]byte(keyCount), binary.BigEndian.AppendUint64(nil, uint64(count-removed)), nil))
	if err := errors.Join(errs...); err != nil {
		return errors.Join(fmt.Errorf("writing the greylisting store: %w", err), b.Close())
	}
	// Without a sync: a crash of the machine may cost the last entries, which only
	// makes their clients wait again.
	if err := s.db.CommitSoon(b); err != nil {
		return err
	}
	s.count.Store(count - removed)
	s.floor = floor
	if string(index) < string(s.floor) {
		s.floor = index
	}
	return nil
}

// expire adds the removal of some expired entries to b if there are more than the
// limit. The entry keep, which is being written, stays.
func (s *Store) expire(b *pebble.Batch, keep []byte, count int64, now time.Time) (removed int64, floor []byte, err error) {
	floor = s.floor
	if count <= int64(s.cfg.Limit) {
		return 0, floor, nil
	}
	upper := append([]byte{prefixIndex}, binary.BigEndian.AppendUint64(nil, uint64(max(now.UnixNano(), 0)))...)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: floor, UpperBound: upper})
	if err != nil {
		return 0, floor, err
	}
	looked := 0
	var gone []string
	for ok := it.First(); ok && looked < expireAtOnce; ok = it.Next() {
		index := append([]byte(nil), it.Key()...)
		floor = index
		key := index[9:]
		if string(key) == string(keep) {
			continue
		}
		looked++
		e, readErr := s.read(key)
		err = errors.Join(err, readErr, b.Delete(index, nil))
		switch at := s.cfg.indexKey(e, key); {
		case readErr != nil, e.state == Unknown, slices.Contains(gone, string(key)): // another index had it removed
		case string(at) >= string(upper): // the index was made when the times were others
			err = errors.Join(err, b.Set(at, nil, nil))
		default:
			err = errors.Join(err, b.Delete(key, nil))
			if string(at) != string(index) {
				err = errors.Join(err, b.Delete(at, nil))
			}
			gone = append(gone, string(key))
			removed++
		}
	}
	return removed, floor, errors.Join(err, it.Error(), it.Close())
}
