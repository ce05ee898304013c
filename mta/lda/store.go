package lda

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// file is an open file of a message that is being written.
type file interface {
	io.WriteCloser
	Sync() error
}

// maildir is the Maildir of one user. Tests put one in its place that fails.
type maildir interface {
	// create makes a new file in tmp. It fails if the name exists.
	create(name string) (file, error)
	// publish renames a file from tmp to new.
	publish(name string) error
	// discard removes a file from tmp, withdraw one from new.
	discard(name string)
	withdraw(name string)
	// sync makes the names in new durable.
	sync() error
	close()
}

type opener func(root, user string, create bool) (maildir, error)

const (
	// cacheMax is how many Maildirs are kept open, two file descriptors each.
	cacheMax = 200
	// cacheAge is how long: a Maildir that was moved away is noticed after it.
	cacheAge = 30 * time.Second
	// userMax bounds the name of a user.
	userMax = 64
)

// errUnknownUser says that there is no such user.
var errUnknownUser = errors.New("unknown user")

// store keeps the Maildirs of users open between messages.
type store struct {
	root   string
	create bool
	open   opener
	unique string // the part of file names that is the same for one process
	number atomic.Uint64

	mu    sync.Mutex // guards users, and the counts of references
	users map[string]*mailbox
}

// mailbox is an open Maildir. It is closed when it has left the store and nobody
// uses it.
type mailbox struct {
	maildir
	user   string
	opened time.Time
	refs   int
	gone   bool // no longer in the store

	syncs dirSync
}

func newStore(o Options) (*store, error) {
	s := &store{
		root: o.MailDir, create: o.Create, open: o.open, users: map[string]*mailbox{},
		unique: "P" + strconv.Itoa(os.Getpid()) + "Q",
	}
	if s.open == nil {
		s.open = openBox
	}
	if o.Create {
		if err := os.MkdirAll(o.MailDir, 0o700); err != nil {
			return nil, fmt.Errorf("making the mail directory: %w", err)
		}
	}
	if fi, err := os.Stat(o.MailDir); err != nil {
		return nil, fmt.Errorf("looking at the mail directory: %w", err)
	} else if !fi.IsDir() {
		return nil, fmt.Errorf("mail directory %s is not a directory", o.MailDir)
	}
	return s, nil
}

// fileName makes a name that no other file of any Maildir on this host has.
func (s *store) fileName(now time.Time, host string) string {
	return strconv.FormatInt(now.Unix(), 10) + ".M" + strconv.Itoa(now.Nanosecond()/1000) + s.unique +
		strconv.FormatUint(s.number.Add(1), 10) + "." + host
}

// userOf is the user of a recipient's local part: without its detail, in lower
// case. ok is false for a name that could be anything but a plain directory name.
func userOf(local string) (user string, ok bool) {
	user, _, _ = strings.Cut(strings.ToLower(local), "+")
	if user == "" || len(user) > userMax || user[0] == '.' || user[0] == '-' || strings.Contains(user, "..") {
		return "", false
	}
	for i := 0; i < len(user); i++ {
		c := user[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return "", false
		}
	}
	return user, true
}

// mailbox opens the Maildir of a user. The caller gives it back by release.
func (s *store) mailbox(user string) (*mailbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.users[user]
	if m != nil && time.Since(m.opened) > cacheAge {
		s.dropLocked(m)
		m = nil
	}
	if m == nil {
		dir, err := s.open(s.root, user, s.create)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && !s.create {
				err = errUnknownUser
			}
			return nil, err
		}
		m = &mailbox{maildir: dir, user: user, opened: time.Now()}
		m.syncs.do = dir.sync
		s.makeRoomLocked()
		s.users[user] = m
	}
	m.refs++
	return m, nil
}

// makeRoomLocked takes any one Maildir out of a full store.
func (s *store) makeRoomLocked() {
	if len(s.users) < cacheMax {
		return
	}
	for _, m := range s.users {
		s.dropLocked(m)
		return
	}
}

func (s *store) dropLocked(m *mailbox) {
	if s.users[m.user] == m {
		delete(s.users, m.user)
	}
	if m.gone {
		return
	}
	if m.gone = true; m.refs == 0 {
		m.close()
	}
}

// forget has the next delivery open the Maildir anew.
func (s *store) forget(m *mailbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropLocked(m)
}

// release gives a Maildir back.
func (s *store) release(m *mailbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m.refs--; m.refs == 0 && m.gone {
		m.close()
	}
}

func (s *store) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.users {
		s.dropLocked(m)
	}
}

// dirSync shares one sync of a directory between all who ask before it begins: one
// that has begun may miss a name.
type dirSync struct {
	do   func() error
	mu   sync.Mutex // guards next
	next *round     // the sync that has not begun yet, nil if nobody asked
	run  sync.Mutex // held while a sync runs
}

// round is one sync.
type round struct {
	done chan struct{}
	err  error // valid when done is closed
}

// wait returns when a sync that began after the call has ended.
func (d *dirSync) wait() error {
	d.mu.Lock()
	r := d.next
	first := r == nil
	if first {
		r = &round{done: make(chan struct{})}
		d.next = r
	}
	d.mu.Unlock()
	if !first {
		<-r.done
		return r.err
	}
	d.run.Lock()
	d.mu.Lock()
	d.next = nil
	d.mu.Unlock()
	r.err = d.do()
	d.run.Unlock()
	close(r.done)
	return r.err
}
