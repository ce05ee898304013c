package mta

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meta1/mta/control"
	"meta1/mta/msg"
	"meta1/mta/supervise"
	"meta1/mta/vfs"
)

// TestLongBackup: a copy lasts as long as it writes something, and ends, with nothing left of it, when nothing can be written or nobody
// waits for it any more. One that does not end is told of.
func TestLongBackup(t *testing.T) {
	endless := 1 << 30
	for name, c := range map[string]struct {
		writes     int           // a file each 4 minutes, so often
		interrupt  time.Duration // 0: nobody interrupts it
		deaf       bool          // the disk never answers
		err        string
		took       time.Duration
		left       bool // .unfinished
		checkTells bool
	}{
		"hours":     {writes: 60, took: 4 * time.Hour, checkTells: true},
		"stuck":     {writes: 60, err: "nothing could be written for 5m0s", took: 4*time.Hour + 5*time.Minute},
		"interrupt": {writes: endless, interrupt: 30 * time.Minute, err: "nobody waits for it any more", took: 30 * time.Minute},
		"deaf":      {writes: 1, interrupt: 5 * time.Minute, deaf: true, err: "the disk does not answer", took: 10 * time.Minute, left: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				m := &mta{ports: msg.NewPorts(), log: slog.New(slog.DiscardHandler)}
				requests, stop := m.ports.Backup.Open()
				defer stop()
				g := supervise.NewGroup(t.Context())
				defer func() { g.Stop(); _ = g.Wait() }()
				g.Go(func(ctx context.Context) error {
					r := <-requests
					files := vfs.Copying(vfs.Real().Pebble(), r.Q.Copy)
					var err error
					for range c.writes {
						time.Sleep(4 * time.Minute)
						f, made := files.Create(filepath.Join(r.Q.Dir, "f"), "")
						if err = made; err != nil {
							break
						}
						if err := f.Close(); err != nil {
							t.Error(err)
						}
					}
					switch {
					case c.deaf:
						<-ctx.Done()
					case name == "stuck":
						for err == nil {
							time.Sleep(time.Second)
							err = r.Q.Copy.Err()
						}
					}
					a := msg.BackupA{Contents: 3}
					if err != nil {
						a.Err = err.Error()
					}
					r.Answer(a)
					return nil
				})
				ctx, interrupt := context.WithCancel(t.Context())
				defer interrupt()
				if c.interrupt > 0 {
					time.AfterFunc(c.interrupt, interrupt)
				}
				began, tells := time.Now(), 0
				var last control.BackupProgress
				to := filepath.Join(dir, "copy")
				done, err := m.Backup(ctx, control.BackupQuestion{Directory: to}, func(p control.BackupProgress) { tells++; last = p })
				took := time.Since(began)
				if c.err == "" && (err != nil || done.Contents != 3) || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
					t.Errorf("%+v, %v", done, err)
				}
				if took < c.took || took > c.took+4*time.Minute+2*time.Second {
					t.Errorf("it took %v", took)
				}
				if c.checkTells && (tells < 4*3600-2 || last.Files < 59 || last.Seconds < 4*3600-2) {
					t.Errorf("it was told of %d times, last %+v", tells, last)
				}
				if _, err := os.Stat(to); (err == nil) != (c.err == "") {
					t.Errorf("the copy: %v", err)
				}
				if _, err := os.Stat(to + unfinished); errors.Is(err, os.ErrNotExist) == c.left {
					t.Errorf("the unfinished copy: %v", err)
				}
			})
		})
	}
}
