package postfix

import (
	_ "embed"
	"strings"
)

// defaultsText is what postconf -d of Postfix 3.7 prints, without values that depend on the host.
//
//go:embed defaults.txt
var defaultsText string

// defaults gives each parameter that Postfix 3.7 knows with its default.
func defaults() map[string]string {
	known := make(map[string]string, 900)
	for l := range strings.Lines(defaultsText) {
		name, value, _ := strings.Cut(l, "=")
		known[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return known
}
