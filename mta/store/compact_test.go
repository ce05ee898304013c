package store

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"

	"meta1/mta/vfs/crashfs"
)

// TestCompactions: no goroutine looks for compactions ten times a second, and yet none of those waits for
// good that come while another one runs.
func TestCompactions(t *testing.T) {
	s, err := Open(crashfs.FS(crashfs.New(), func() (int64, int64) { return 1 << 30, 64 << 20 }), "db", Options{
		Name: "test", Version: 1, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	all := make([]byte, 1<<20)
	if all = all[:runtime.Stack(all, true)]; strings.Contains(string(all), "periodicGranter") {
		t.Error("Pebble's scheduler wakes ten times a second")
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for range 10 {
				if err := s.Compact(context.Background(), []byte("a"), []byte("z"), false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 40 {
		if err := s.Set([]byte(fmt.Sprintf("k%06d", i%7)), bytes.Repeat([]byte("x"), 4000), nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait() // none hangs
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
