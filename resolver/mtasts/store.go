package mtasts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"meta1/mta/vfs"
)

// kept is a policy as it lies on disk: a file for each domain, whose name is made of the
// domain's digest. A file that cannot be read is removed: its policy is fetched anew.
type kept struct {
	Version int       `json:"version"`
	Domain  string    `json:"domain"`
	ID      string    `json:"id"`
	Fetched time.Time `json:"fetched"`
	Used    time.Time `json:"used"` // roughly
	Policy  Policy    `json:"policy"`
}

const (
	keptVersion = 1
	keptEnd     = ".json"
	newEnd      = ".new" // of a file that is being written
	fileMax     = 2 * textMax
)

// expires is when the policy must not be used any more.
func (k *kept) expires() time.Time { return k.Fetched.Add(k.Policy.MaxAge) }

func (k *kept) valid(now time.Time) bool { return now.Before(k.expires()) }

// store is a directory of kept policies.
type store struct {
	fs  vfs.FS
	dir string
}

func (s *store) path(domain string) string {
	sum := sha256.Sum256([]byte(domain))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:16])+keptEnd)
}

// load reads all policies, at most limit. What is of no use any more is removed, and so is
// what cannot be read, which damaged tells.
func (s *store) load(now time.Time, limit int) (list []*kept, damaged, err error) {
	if err := s.fs.MkdirAll(s.dir, 0o700); err != nil {
		return nil, nil, err
	}
	names, err := s.fs.List(s.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		path := filepath.Join(s.dir, name)
		if !strings.HasSuffix(name, keptEnd) && !strings.HasSuffix(name, newEnd) {
			continue // not ours
		}
		k, err := s.read(path)
		switch {
		case strings.HasSuffix(name, newEnd), err == nil && (!k.valid(now) || len(list) >= limit):
			_ = s.fs.Remove(path) // a later start finds it again
		case err != nil:
			damaged = fmt.Errorf("%s: %w", path, err)
			_ = s.fs.Remove(path) // as above
		default:
			list = append(list, k)
		}
	}
	return list, damaged, nil
}

func (s *store) read(path string) (*kept, error) {
	text, err := vfs.ReadFile(s.fs, path, fileMax+1)
	if err != nil {
		return nil, err
	}
	k := &kept{}
	switch err := json.Unmarshal(text, k); {
	case err != nil:
		return nil, err
	case k.Version != keptVersion, s.path(k.Domain) != path:
		return nil, errors.New("not a policy of this version and name")
	}
	return k, nil
}

// write puts a policy in place of the one before, durably or not at all.
func (s *store) write(k *kept) error {
	k.Version = keptVersion
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	path := s.path(k.Domain)
	temp := strings.TrimSuffix(path, keptEnd) + newEnd
	return vfs.Replace(s.fs, path, temp, text)
}

func (s *store) remove(domain string) error { return s.fs.Remove(s.path(domain)) }
