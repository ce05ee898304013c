package settings

import (
	"slices"

	"meta1/maps"
	"meta1/resolver"
)

// ClientFeatures are the names of the session_features of smtpc.
func (c *Config) ClientFeatures() (names []string) {
	for _, f := range c.Client.SessionFeatures {
		names = append(names, f.Name)
	}
	return names
}

// MapFiles are the files of keys behind a map, those of a sequence too.
func (c *Config) MapFiles(ref resolver.MapRef) (files []resolver.MapConfig) {
	if ref.Name == "" {
		if ref.File == "" {
			return nil
		}
		return []resolver.MapConfig{{Type: maps.TypeOf(ref.File), File: ref.File}}
	}
	i := slices.IndexFunc(c.Resolver.Maps, func(m resolver.MapConfig) bool { return m.Name == ref.Name })
	if i < 0 {
		return nil
	}
	switch m := c.Resolver.Maps[i]; m.Type {
	case "sequence":
		for _, name := range m.Maps {
			files = append(files, c.MapFiles(resolver.MapRef{Name: name})...)
		}
	case "hash", "cdb", "text":
		files = []resolver.MapConfig{m}
	}
	return files
}

// MapFileMax bounds the map files that are searched entry by entry, in bytes: larger ones would make a start or a check slow.
const MapFileMax = 64 << 20
