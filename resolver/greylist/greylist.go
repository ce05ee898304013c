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
// The entries are in one Pebble store with two key spaces, the entries by key and an
// index by the time at which they may be removed. What was written in the last
// moments before a crash may be lost: those clients wait once more.
package greylist

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"meta1/maps"
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

const (
	version      = 1
	prefixEntry  = 'e' // key of 17 or 32 bytes -> entry
	prefixIndex  = 't' // time, key -> nothing
	keyVersion   = "v"
	keyCount     = "n"
	expireAtOnce = 4 // entries removed at one insertion
	// updateStep: a white entry is written again only if it is older than this share
	// of WhiteExpire, so that a busy client does not cost a write with every mail.
	updateStep = 50
	entrySize  = 1 + 8 + 8
)

// Store is an open store. It is safe for use by many goroutines.
type Store struct {
	cfg Config
	db  *pebble.DB

	mu    sync.Mutex // guards what follows, and orders the writes
	count int
	floor []byte // no index entry is below it: removed ones need not be skipped again
}

// entry is a stored state: when the client was first seen, and for white ones when
// it came last.
type entry struct {
	state       State
	first, last time.Time
}

// Open opens or creates the store in dir. fs nil means the disk.
func Open(dir string, fs vfs.FS, cfg Config, log *slog.Logger) (*Store, error) {
	if fs == nil {
		fs = vfs.Default
	}
	if cfg.Prefix6 < 1 || cfg.Prefix6 > 128 {
		return nil, fmt.Errorf("greylisting: IPv6_prefix %d is not from 1 to 128", cfg.Prefix6)
	}
	cache := pebble.NewCache(16 << 20)
	defer cache.Unref() // the store holds its own reference
	o := &pebble.Options{
		FS: fs, Cache: cache, MemTableSize: 4 << 20, MaxOpenFiles: 64,
		FormatMajorVersion: pebble.FormatNewest, Logger: &logger{log},
	}
	for i := range o.Levels {
		// Most clients that come are unknown: a filter answers for them.
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, o)
	if err != nil {
		return nil, fmt.Errorf("opening the greylisting store in %s: %w", dir, err)
	}
	s := &Store{cfg: cfg, db: db, floor: []byte{prefixIndex}}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the greylisting store in %s: %w", dir, err), db.Close())
	}
	return s, nil
}

// prepare checks the version and reads the number of entries.
func (s *Store) prepare() error {
	v, err := s.number(keyVersion)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return s.db.Set([]byte(keyVersion), binary.BigEndian.AppendUint64(nil, version), pebble.Sync)
	case err != nil:
		return err
	case v != version:
		return fmt.Errorf("it has format version %d, this program knows version %d: remove the directory, clients then wait once more", v, version)
	}
	n, err := s.number(keyCount)
	if err != nil && !errors.Is(err, pebble.ErrNotFound) {
		return err
	}
	s.count = int(min(n, math.MaxInt32))
	return nil
}

func (s *Store) number(key string) (uint64, error) {
	v, closer, err := s.db.Get([]byte(key))
	if err != nil {
		return 0, err
	}
	defer closer.Close()
	if len(v) != 8 {
		return 0, fmt.Errorf("record %q has %d bytes", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// Close writes everything and closes the store.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.db.Flush(), s.db.Close()); err != nil {
		return fmt.Errorf("closing the greylisting store: %w", err)
	}
	return nil
}

// Len is the number of entries.
func (s *Store) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Check says in which state a client is that comes at the time now, and notes that
// it came. White means that its mail is accepted.
func (s *Store) Check(k Key, now time.Time) (State, error) {
	key := s.encode(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, err := s.read(key)
	if err != nil {
		return Unknown, err
	}
	next := s.cfg.next(old, now)
	if next == old {
		return next.state, nil
	}
	return next.state, s.write(key, old, next, now)
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
	case now.Sub(old.last) < c.WhiteExpire/updateStep:
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
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return entry{}, nil
	}
	if err != nil {
		return entry{}, fmt.Errorf("reading the greylisting store: %w", err)
	}
	defer closer.Close()
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
	defer b.Close()
	v := append(make([]byte, 0, entrySize), byte(next.state))
	v = binary.BigEndian.AppendUint64(v, uint64(next.first.UnixNano()))
	v = binary.BigEndian.AppendUint64(v, uint64(next.last.UnixNano()))
	count := s.count
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
		return fmt.Errorf("writing the greylisting store: %w", err)
	}
	// Without a sync: a crash of the machine may cost the last entries, which only
	// makes their clients wait again.
	if err := b.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("writing the greylisting store: %w", err)
	}
	s.count, s.floor = count-removed, floor
	if string(index) < string(s.floor) {
		s.floor = index
	}
	return nil
}

// expire adds the removal of some expired entries to b if there are more than the
// limit. The entry keep, which is being written, stays.
func (s *Store) expire(b *pebble.Batch, keep []byte, count int, now time.Time) (removed int, floor []byte, err error) {
	floor = s.floor
	if count <= s.cfg.Limit {
		return 0, floor, nil
	}
	upper := append([]byte{prefixIndex}, binary.BigEndian.AppendUint64(nil, uint64(max(now.UnixNano(), 0)))...)
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: floor, UpperBound: upper})
	if err != nil {
		return 0, floor, err
	}
	for ok := it.First(); ok && removed < expireAtOnce; ok = it.Next() {
		index := append([]byte(nil), it.Key()...)
		if key := index[9:]; string(key) != string(keep) {
			err = errors.Join(err, b.Delete(key, nil), b.Delete(index, nil))
			removed++
		}
		floor = index
	}
	return removed, floor, errors.Join(err, it.Error(), it.Close())
}

// logger passes Pebble's words on. A store that cannot be written any more ends the
// process, like the queue's: the disk is full or broken.
type logger struct{ log *slog.Logger }

func (l *logger) Infof(format string, args ...any) {
	l.log.Debug("greylisting store", slog.String("stat", fmt.Sprintf(format, args...)))
}

func (l *logger) Errorf(format string, args ...any) {
	l.log.Error("greylisting store", slog.String("stat", fmt.Sprintf(format, args...)))
}

func (l *logger) Fatalf(format string, args ...any) {
	l.Errorf(format, args...)
	panic(fmt.Sprintf("greylisting store: "+format, args...))
}
