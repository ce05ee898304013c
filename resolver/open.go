package resolver

import (
	"fmt"

	"meta1/maps"
)

// openMap opens the map that is declared under name.
func (r *Resolver) openMap(name string) (maps.Map, error) {
	c := r.cfg.declared(name)
	if c == nil {
		return nil, fmt.Errorf("map %q is not declared", name)
	}
	m, err := r.openDeclared(c)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", name, err)
	}
	return m, nil
}

func (r *Resolver) openDeclared(c *MapConfig) (maps.Map, error) {
	switch c.Type {
	case "text":
		return maps.OpenText(r.path(c.File), c.CaseSensitive)
	}
	return nil, fmt.Errorf("type %s is not supported yet", c.Type)
}

// openFile opens a map that is given by its file alone.
func (r *Resolver) openFile(name string) (maps.Map, error) {
	return maps.OpenText(r.path(name), false)
}
