package resolver

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"

	"meta1/maps"
)

// loader opens the maps of one set.
type loader struct {
	*Resolver
	old  *set // nil at the start
	set  *set
	errs []error
}

// load opens all maps. With an error the set may only be closed.
func (r *Resolver) load(old *set) (*set, error) {
	l := &loader{Resolver: r, old: old, set: &set{maps: map[string]maps.Map{}, cfg: &r.cfg}}
	for i := range r.cfg.Maps {
		l.declared(r.cfg.Maps[i].Name, nil)
	}
	l.mailertable()
	l.access()
	l.aliases()
	l.localUsers()
	if l.set.mailertable != nil {
		l.set.home, l.set.bare = r.home(l.set.mailertable), r.bareDomain(l.set.mailertable)
	}
	return l.set, errors.Join(l.errs...)
}

func (l *loader) fail(err error) { l.errs = append(l.errs, err) }

// declared gives the map that is declared under name, nil if it cannot be opened.
// within are the sequences that are being opened, against loops.
func (l *loader) declared(name string, within []string) maps.Map {
	if m, ok := l.set.maps[name]; ok {
		return m
	}
	c := l.cfg.declared(name)
	if c == nil {
		l.fail(fmt.Errorf("map %q is not declared", name))
		return nil
	}
	m, err := l.open(c, within)
	if err != nil {
		l.fail(fmt.Errorf("map %s: %w", name, err))
	}
	l.set.maps[name] = m
	return m
}

func (l *loader) open(c *MapConfig, within []string) (maps.Map, error) {
	switch c.Type {
	case "passwd":
		path := c.File
		if path != "" {
			path = l.path(path)
		}
		return opened(maps.OpenPasswd(path, c.CaseSensitive))
	case "socket":
		return l.socket(c)
	case "sequence":
		return l.sequence(c, within)
	}
	if c.File == "" {
		return nil, fmt.Errorf("type %s needs a file", c.Type)
	}
	path := l.path(c.File)
	switch c.Type {
	case "hash", "cdb":
		m, err := maps.OpenCDB(path, c.CaseSensitive)
		if err == nil && m.CaseSensitive() != c.CaseSensitive {
			return nil, fmt.Errorf("%s was made for another setting of case_sensitive: make it again", path)
		}
		return opened(m, err)
	case "regex":
		return opened(maps.OpenRegex(path, c.CaseSensitive))
	case "text":
		return opened(maps.OpenText(path, c.CaseSensitive))
	}
	return nil, fmt.Errorf("unknown type %q", c.Type)
}

// opened keeps a nil pointer from becoming a Map that is not nil.
func opened[M maps.Map](m M, err error) (maps.Map, error) {
	if err != nil {
		return nil, err
	}
	return m, nil
}

// socket makes a socket map, or takes the one of before with its connections.
func (l *loader) socket(c *MapConfig) (maps.Map, error) {
	if l.old != nil && l.old.maps[c.Name] != nil && reflect.DeepEqual(l.old.cfg.declared(c.Name), c) {
		return l.old.maps[c.Name], nil
	}
	s := maps.SocketConfig{
		MapName: c.MapName, CaseSensitive: c.CaseSensitive, Timeout: cmp.Or(c.Timeout, defaultSocketTime), Dial: l.deps.Dial,
	}
	switch {
	case c.Path != "" && c.Port == 0 && !c.Address.IsValid():
		s.Network, s.Address = "unix", c.Path
		if !filepath.IsAbs(c.Path) { // README 3.6, case 2
			s.Address = filepath.Join(l.deps.SpoolDir, c.Path)
		}
	case c.Path == "" && c.Port != 0 && c.Address.IsValid():
		s.Network, s.Address = "tcp", addrPort(c.Address, c.Port)
	default:
		return nil, errors.New("type socket needs either path, or address and port")
	}
	return opened(maps.NewSocket(s))
}

func (l *loader) sequence(c *MapConfig, within []string) (maps.Map, error) {
	if len(c.Maps) == 0 {
		return nil, errors.New("type sequence needs maps")
	}
	within = append(within[:len(within):len(within)], c.Name)
	var seq maps.Sequence
	for _, name := range c.Maps {
		for _, w := range within {
			if w == name {
				return nil, fmt.Errorf("sequence contains itself: %s, %s", strings.Join(within, ", "), name)
			}
		}
		m := l.declared(name, within)
		if m == nil {
			return nil, fmt.Errorf("map %q of the sequence cannot be used", name)
		}
		seq = append(seq, m)
	}
	return seq, nil
}

// named gives the map of an option pair file and name, and its name for traces.
func (l *loader) named(option string, ref MapRef) (m maps.Map, name string) {
	if ref.Name != "" {
		return l.declared(ref.Name, nil), ref.Name
	}
	path := l.path(ref.File)
	key := "file " + path
	if m, ok := l.set.maps[key]; ok {
		return m, path
	}
	m, err := openByName(path)
	if err != nil {
		l.fail(fmt.Errorf("%s: %w", option, err))
	}
	l.set.maps[key] = m
	return m, path
}

// openByName opens a file whose type was not declared.
func openByName(path string) (maps.Map, error) {
	if maps.TypeOf(path) == "text" {
		return opened(maps.OpenText(path, false))
	}
	return opened(maps.OpenCDB(path, false))
}

// closeUnused closes what keeps connections in the set before and is not in s.
func (s *set) closeUnused(old *set) {
	for name, m := range old.maps {
		if c, ok := m.(*maps.Socket); ok && s.maps[name] != m {
			c.Close()
		}
	}
}

// closeMaps closes what keeps connections.
func (s *set) closeMaps() {
	for _, m := range s.maps {
		if c, ok := m.(*maps.Socket); ok {
			c.Close()
		}
	}
}

// mailertable reads the mailertable.
func (l *loader) mailertable() {
	t, err := l.loadMailertable()
	if err != nil {
		l.fail(err)
	}
	l.set.mailertable = t
}

// loadMailertable reads the mailertable (README 3.9.2 item 9).
func (l *loader) loadMailertable() (*table, error) {
	t := &table{steps: l.cfg.Mailertable.steps()}
	if name := l.cfg.Mailertable.Name; name != "" {
		if t.lookup = l.declared(name, nil); t.lookup == nil {
			return nil, fmt.Errorf("mailertable: map %q cannot be used", name)
		}
		t.name = name
		return t, nil
	}
	path := l.path(l.cfg.Mailertable.File)
	f, err := maps.OpenFile(path)
	if err != nil {
		return nil, fmt.Errorf("mailertable: %w; the file must exist, even if it is empty", err)
	}
	defer f.Close()
	t.rules = map[string]*target{}
	if err := maps.ReadSource(f, path, func(e maps.Entry) error { return l.addRule(t, path, e) }); err != nil {
		return nil, err
	}
	return t, nil
}

// access opens the access map (README 3.9.2 item 1).
func (l *loader) access() {
	if c := l.cfg.Access; c.Present || c.Name != "" {
		if m, name := l.named("access_map", c); m != nil {
			l.set.access = &accessMap{m: m, name: name}
		}
	}
}
