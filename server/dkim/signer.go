package dkim

import (
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"meta1/maps"
	"meta1/mta/tlsconf"
)

// Deps is what a Signer needs of the rest. All may be left out.
type Deps struct {
	Name  string           // of the section for logs: "smtps MSA"
	Files tlsconf.Files    // nil: tlsconf.OS
	Now   func() time.Time // nil: time.Now
}

// Signer has the keys of one section DKIM_signing. Any goroutine may use it.
type Signer struct {
	deps Deps
	now  atomic.Pointer[loaded]

	mu   sync.Mutex // held during a load; guards last
	last attempt
}

// attempt is the last try to load, whether it went well or not.
type attempt struct {
	config Config
	stamps map[string]tlsconf.Stamp
	err    error
}

// loaded is what a section and its files say at one time. It is not changed.
type loaded struct {
	Config
	names names
	keys  map[string][]key // by from in lower case; "" is the default
}

// key is one section sign.
type key struct {
	Section
	private   crypto.Signer
	kind      string
	notBefore time.Time
}

// New loads the keys of a section. The error has everything that keeps it from being used.
func New(c Config, d Deps) (*Signer, error) {
	if d.Files == nil {
		d.Files = tlsconf.OS{}
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	s := &Signer{deps: d}
	if err := s.Reconfigure(c); err != nil {
		return nil, err
	}
	return s, nil
}

// Reconfigure takes other options, and reads all keys anew. After an error everything is as
// it was, but a later look at the files tries the new options.
func (s *Signer) Reconfigure(c Config) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.loadLocked(c)
}

func (s *Signer) loadLocked(c Config) error {
	n, err := s.load(c)
	s.last = n.last
	if err == nil {
		s.now.Store(n.now)
	}
	return err
}

// Next is what a Signer has loaded and not yet taken.
type Next struct {
	s    *Signer
	now  *loaded
	last attempt
}

func (s *Signer) load(c Config) (*Next, error) {
	l, stamps, faults := load(c, s.deps.Files)
	var errs []error
	for _, f := range faults {
		errs = append(errs, errors.New(f.Text))
	}
	err := errors.Join(errs...)
	return &Next{s, l, attempt{c, stamps, err}}, err
}

// Prepare reads all keys of a section, for Commit to take them. Nothing changes; after an error
// there is nothing to commit.
func (s *Signer) Prepare(c Config) (*Next, error) {
	n, err := s.load(c)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// Commit has the messages that begin from now on be signed with what Prepare has read. It cannot
// fail.
func (n *Next) Commit() {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.s.last = n.last
	n.s.now.Store(n.now)
}

// Config is the section that is in effect.
func (s *Signer) Config() Config { return s.now.Load().Config }

// Files are the key files that a section names.
func (c *Config) Files() []string {
	files := make([]string, 0, len(c.Sign))
	for i := range c.Sign {
		files = append(files, c.Sign[i].KeyFile)
	}
	return files
}

// load reads the keys.
func load(c Config, files tlsconf.Files) (*loaded, map[string]tlsconf.Stamp, []Fault) {
	l := &loaded{Config: c, names: c.names(), keys: map[string][]key{}}
	stamps := map[string]tlsconf.Stamp{}
	var faults []Fault
	for i, sec := range c.Sign {
		k := key{Section: sec}
		text, stamp, err := files.Read(sec.KeyFile, "")
		stamps[sec.KeyFile] = stamp
		if err == nil {
			k.private, err = ParsePrivate(text)
		}
		if err == nil {
			k.notBefore, err = sec.InUseFrom()
		}
		if err != nil {
			faults = append(faults, Fault{keyOption(i), false, because(sec.KeyFile, err)})
			continue
		}
		k.kind = KindOf(k.private)
		from := strings.ToLower(sec.From)
		l.keys[from] = append(l.keys[from], k)
	}
	for _, keys := range l.keys {
		slices.SortStableFunc(keys, func(a, b key) int { return a.notBefore.Compare(b.notBefore) })
		if err := ambiguous(keys); err != nil {
			faults = append(faults, Fault{Text: err.Error()})
		}
	}
	return l, stamps, faults
}

func keyOption(i int) string { return fmt.Sprintf("sign#%d/keyfile", i+1) }

// because is a failure to read a file with its name first.
func because(path string, err error) string {
	var e *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return path + " does not exist"
	case errors.As(err, &e):
		return path + ": " + e.Err.Error()
	}
	return path + ": " + err.Error()
}

// ambiguous names two keys of which neither follows the other.
func ambiguous(keys []key) error {
	for i := range keys {
		for j := range keys[:i] {
			if a, b := &keys[j], &keys[i]; a.replaces(b) && a.notBefore.Equal(b.notBefore) {
				return fmt.Errorf("selectors %s and %s of %s have keys of one kind: not_before must say which follows the other", a.Selector, b.Selector, a.Domain)
			}
		}
	}
	return nil
}

// replaces reports whether two keys of one from take turns.
func (k *key) replaces(o *key) bool { return k.kind == o.kind && strings.EqualFold(k.Domain, o.Domain) }

// errNoKey is a temporary failure: the times of all keys are to come.
var errNoKey = errors.New("no key for the From: address is in use yet")

// choose gives the keys that sign mail of an address. It is none if the mail is not to be
// signed.
func (l *loaded) choose(from string, now time.Time) ([]key, error) {
	keys := l.find(from)
	chosen := inTurn(keys, now)
	if len(keys) > 0 && len(chosen) == 0 {
		return nil, errNoKey
	}
	return chosen, nil
}

// inTurn are those of the keys of one from, in the order of their times, whose turn it is.
func inTurn(keys []key, now time.Time) []key {
	var chosen []key
	for _, k := range keys {
		if k.notBefore.After(now) {
			continue
		}
		if i := slices.IndexFunc(chosen, func(c key) bool { return c.replaces(&k) }); i >= 0 {
			chosen[i] = k
		} else {
			chosen = append(chosen, k)
		}
	}
	return chosen
}

// find looks an address up in the order of README 3.12.1, as 3.10 item 3 h says: without
// details, and domains without @.
func (l *loaded) find(from string) []key {
	if i := strings.LastIndexByte(from, '@'); i >= 0 {
		a := maps.ParseAddress(strings.ToLower(from[:i]), from[i+1:], "")
		for k := range a.Keys(maps.FullAddress | maps.Domain | maps.BareDomain | maps.DotSubdomain) {
			if keys := l.keys[k]; keys != nil {
				return keys
			}
		}
	}
	return l.keys[""]
}

// Address is the first address of a From: field; "" if there is none that can be read.
func Address(f Field) string {
	value := strings.NewReplacer("\r\n", "").Replace(f.Value())
	if list, err := (&mail.AddressParser{WordDecoder: nil}).ParseList(value); err == nil && len(list) > 0 {
		return list[0].Address
	}
	// What the library refuses, for its words or its comments, has an address all the same.
	if i := strings.IndexByte(value, '<'); i >= 0 {
		value, _, _ = strings.Cut(value[i+1:], ">")
	}
	value = strings.TrimSpace(value)
	if strings.Count(value, "@") != 1 || strings.ContainsAny(value, " \t,;\"()<>") {
		return ""
	}
	return value
}

// Begin begins a message.
func (s *Signer) Begin() *Message {
	l := s.now.Load()
	return &Message{of: l, now: s.deps.Now()}
}

// Sign makes the signatures of a message that is whole in memory.
func (s *Signer) Sign(content []byte) ([]byte, error) {
	m := s.Begin()
	_, _ = m.Write(content)
	return m.Sign()
}

// Domains are those of which the section has keys, in order.
func (s *Signer) Domains() []string {
	var all []string
	for _, k := range s.now.Load().Sign {
		all = append(all, strings.ToLower(k.Domain))
	}
	slices.SortFunc(all, cmp.Compare[string])
	return slices.Compact(all)
}

// Key is one key of a section.
type Key struct {
	Section
	Private crypto.Signer
	InUse   bool // it signs at the moment that was asked for
}

// Keys are all keys of the section, in the order of the file.
func (s *Signer) Keys(now time.Time) []Key {
	l := s.now.Load()
	var all []Key
	for _, sec := range l.Sign {
		keys := l.keys[strings.ToLower(sec.From)]
		for _, k := range keys {
			if k.Section == sec {
				inUse := slices.ContainsFunc(inTurn(keys, now), func(c key) bool { return c.Section == sec })
				all = append(all, Key{sec, k.private, inUse})
			}
		}
	}
	return all
}
