package store

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/copies"
)

// Checkpoint makes a copy of the store, as it is at one moment and with all that was committed before the call, in a directory that
// does not exist yet, in one that does and has nothing else of the store. Tables are hard links where the file system is the same. A failure there, such as a full disk, is this call's alone, and
// not the end of the store. What it has made by then may be left. When c ends the call fails. One call may run at a time.
func (s *Store) Checkpoint(dir string, c *copies.Copy) (err error) {
	dir = filepath.Clean(dir)
	s.guarded.aside.Store(&aside{dir, c})
	defer s.guarded.aside.Store(nil)
	defer func() {
		// Pebble panics if the directory of the copy cannot be synced. It holds no lock then.
		if v := recover(); v != nil {
			err = fmt.Errorf("copying %s: %v", s.name, v)
		}
	}()
	if err := s.DB.Checkpoint(dir, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("copying %s: %w", s.name, err)
	}
	return nil
}

// aside is a copy that is being made.
type aside struct {
	dir  string
	copy *copies.Copy
}

// copying is the copy to which a file belongs, so that the store does not need it; nil for a file of the store.
func (g *guard) copying(name string) *copies.Copy {
	a := g.aside.Load()
	if a != nil && (name == a.dir || name == filepath.Dir(a.dir) || strings.HasPrefix(name, a.dir+"/")) {
		return a.copy
	}
	return nil
}
