package maps

import "context"

// Sequence is a map of type sequence (README 3.9.1): the maps are tried in their
// order until one has the key. NoMore and failures end the search (README 10.2).
type Sequence []Map

// Lookup implements Map.
func (s Sequence) Lookup(ctx context.Context, key string) (string, Result) {
	for _, m := range s {
		if value, r := m.Lookup(ctx, key); r != NotFound {
			return value, r
		}
	}
	return "", NotFound
}

// Blocking implements Map.
func (s Sequence) Blocking() bool {
	for _, m := range s {
		if m.Blocking() {
			return true
		}
	}
	return false
}
