package store

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
)

// Checkpoint makes a copy of the store, as it is at one moment and with all that was committed before the call, in a directory that
// does not exist yet, in one that does and has nothing else of the store. Tables are hard links where the file system is the same. A failure there, such as a full disk, is this call's alone, and
// not the end of the store. What it has made by then may be left. One call may run at a time.
func (s *Store) Checkpoint(dir string) (err error) {
	dir = filepath.Clean(dir)
	s.guarded.aside.Store(&dir)
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

// isAside reports whether a file belongs to a copy that is being made, which the store does not need.
func (g *guard) isAside(name string) bool {
	dir := g.aside.Load()
	return dir != nil && (name == *dir || name == filepath.Dir(*dir) || strings.HasPrefix(name, *dir+"/"))
}
