package settings

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestQualify(t *testing.T) {
	slow := func(ctx context.Context, _ string) (string, error) { <-ctx.Done(); return "", ctx.Err() }
	says := func(name string) canonical {
		return func(context.Context, string) (string, error) { return name, nil }
	}
	tests := map[string]struct {
		name   string
		lookup canonical
		want   string
	}{
		"full":        {"mx.example.org", nil, "mx.example.org"},
		"dot":         {"mx.example.org.", nil, "mx.example.org"},
		"found":       {"mx", says("mx.example.org."), "mx.example.org"},
		"same":        {"mx", says("mx."), "mx"},
		"localhost":   {"mx", says("localhost.localdomain"), "mx"},
		"wrong":       {"mx", says("a b.c"), "mx"},
		"error":       {"mx", func(context.Context, string) (string, error) { return "", errors.New("no") }, "mx"},
		"slow":        {"mx", slow, "mx"},
		"empty":       {"", nil, "localhost"},
		"not a name":  {"my host", nil, "localhost"},
		"underscores": {"a_b", nil, "localhost"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			if got := qualify(ctx, tt.name, tt.lookup); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
	if name := OwnHostname(t.Context()); name == "" || strings.HasSuffix(name, ".") {
		t.Errorf("our own name is %q", name)
	}
}
