package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"meta1/mta/vfs/crashfs"
)

func TestLogSize(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct{ total, wanted, want int64 }{
		{64 << 30, 0, 16 * mb},
		{64 << 30, 64 * mb, 64 * mb},
		{64 << 30, 5, mb},
		{128 * mb, 0, 4 * mb},
		{128 * mb, 64 * mb, 4 * mb},
		{mb, 64 * mb, mb},
	} {
		if got := memTableSize(c.total, c.wanted); got != uint64(c.want) {
			t.Errorf("%d of a file system of %d: %d, want %d", c.wanted, c.total, got, c.want)
		}
	}
}

// TestSizesTakeEffect writes the same records with small and with large blocks, and
// with a small log: then tables are there without a flush.
func TestSizesTakeEffect(t *testing.T) {
	blocks := map[int64]uint64{}
	for _, size := range []int64{512, 64 << 10} {
		mem := crashfs.New()
		s, err := Open(crashfs.FS(mem, func() (int64, int64) { return 1 << 30, 64 << 20 }), "db", Options{
			Name: "test", Version: 1, Log: slog.New(slog.DiscardHandler), BlockSize: size, LogSize: 1 << 20,
		})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5000 {
			b := s.NewBatch()
			if err := b.Set([]byte(fmt.Sprintf("k%06d", i)), bytes.Repeat([]byte{byte(i)}, 400), nil); err != nil {
				t.Fatal(err)
			}
			if err := s.Commit(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		tables, err := s.SSTables(pebble.WithProperties())
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, level := range tables {
			for _, table := range level {
				n++
				blocks[size] += table.Properties.NumDataBlocks
			}
		}
		if n < 2 {
			t.Errorf("%d tables of 2 MB of records and logs of 1 MB", n)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if blocks[512] < 5*blocks[64<<10] {
		t.Errorf("blocks by their size: %v", blocks)
	}
}
