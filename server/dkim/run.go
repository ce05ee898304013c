package dkim

import (
	"context"
	"log/slog"
	"time"

	"meta1/mta/tlsconf"
)

// The times of Run.
const (
	lookEvery  = time.Minute     // between two looks at the files
	settleTime = 5 * time.Second // for whoever replaces files one after the other
)

// Run takes renewed keys by itself, and tells when not_before brings another key into use,
// until ctx ends.
func (s *Signer) Run(ctx context.Context, log *slog.Logger) error {
	log = log.With(slog.String("section", s.deps.Name))
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last := s.deps.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.renewed() {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settleTime):
			}
			s.renew(ctx, log)
		}
		now := s.deps.Now()
		for _, k := range s.begun(last, now) {
			log.LogAttrs(ctx, slog.LevelInfo, "a DKIM key comes into use", slog.String("domain", k.Domain), slog.String("selector", k.Selector))
		}
		last = now
	}
}

// renewed reports that a file is no longer as it was when it was last read.
func (s *Signer) renewed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, known := range s.last.stamps {
		_, now, err := s.deps.Files.Read(path, known)
		if err != nil {
			now = ""
		}
		if now != known {
			return true
		}
	}
	return false
}

// renew takes renewed keys and tells it.
func (s *Signer) renew(ctx context.Context, log *slog.Logger) {
	s.mu.Lock()
	err := s.loadLocked(s.last.config)
	s.mu.Unlock()
	if err != nil {
		log.LogAttrs(ctx, slog.LevelError, "renewed DKIM keys cannot be used: the old ones stay in use", slog.Any("error", err))
		return
	}
	log.LogAttrs(ctx, slog.LevelInfo, "DKIM keys were renewed", slog.Int("keys", len(s.Config().Sign)))
}

// begun are the keys whose time came between two moments.
func (s *Signer) begun(after, until time.Time) []Section {
	var all []Section
	for _, keys := range s.now.Load().keys {
		for _, k := range keys {
			if k.notBefore.After(after) && !k.notBefore.After(until) {
				all = append(all, k.Section)
			}
		}
	}
	return all
}

// Fault is something that is wrong with a section.
type Fault struct {
	Option  string // "sign#2/keyfile", or "" for the section
	Warning bool
	Text    string
}

// Check reads the keys of a section. world reports whether everybody may read a file.
func Check(c Config, files tlsconf.Files, world func(path string) bool, now time.Time) []Fault {
	l, _, all := load(c, files)
	for i, sec := range c.Sign {
		option := keyOption(i)
		if world(sec.KeyFile) {
			all = append(all, Fault{option, true, "everybody may read the private key in " + sec.KeyFile})
		}
		text, _, err := files.Read(sec.KeyFile, "")
		if err != nil {
			continue // it could be read a moment ago
		}
		if key, err := ParsePrivate(text); err == nil && KindOf(key) == KindRSA && bitsOf(key) < RSAFit {
			all = append(all, Fault{option, true, "the RSA key in " + sec.KeyFile + " has " + itoa(bitsOf(key)) + " bits: RFC 8301 recommends 2048"})
		}
	}
	for from, keys := range l.keys {
		if !keys[0].notBefore.After(now) {
			continue
		}
		if from == "" {
			from = "the default"
		}
		all = append(all, Fault{"", true, "no key for " + from + " is in use before " + keys[0].NotBefore + ": mail is refused for now until then"})
	}
	return all
}
