package store

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"
)

// spoolKey names the spool that a store belongs to.
var spoolKey = []byte("\x00spool")

// Spool is the name of the spool that the store belongs to, nil for none: it is new.
func (s *Store) Spool() ([]byte, error) {
	v, closer, err := s.Get(spoolKey)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the spool's name in %s: %w", s.name, err)
	}
	return bytes.Clone(v), closer.Close()
}

// SetSpool gives the store to a spool, durably.
func (s *Store) SetSpool(name []byte) error {
	if err := s.Set(spoolKey, name, pebble.Sync); err != nil {
		return fmt.Errorf("writing the spool's name to %s: %w", s.name, err)
	}
	return nil
}

// SpoolName is Spool for a store that is read record by record; "" for none.
func SpoolName(r Reader) (string, error) {
	v, _, err := r.Get(spoolKey)
	return string(v), err
}
